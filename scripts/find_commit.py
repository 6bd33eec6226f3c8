"""Print the commits whose code has the version that a row or `dcm2bq --version` shows.

    scripts/find_commit.py 1.0.0+3f2a9c1b7d20

Several commits have the same version if they differ only in files that are not deployed.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dcm2bq import version

ROOT = Path(__file__).parents[1]


def commits(digest: str, repository: Path = ROOT) -> Iterator[str]:
    """Yield a line for each commit, of any branch, whose files have the digest; newest first."""
    log = _git(repository, "log", "--all", "--format=%H %h %as %s")
    for line in log.splitlines():
        commit, _, summary = line.partition(" ")
        if digest_of(commit, repository) == digest:
            yield summary


def digest_of(commit: str, repository: Path = ROOT) -> str:
    """Return the digest of a commit's deployed files."""
    blobs = []
    for entry in _git(repository, "ls-tree", "-r", "-z", commit).split("\0")[:-1]:
        attributes, _, path = entry.partition("\t")
        if version.is_deployed(path):
            blobs.append((path, attributes.split()[2]))
    return version.digest(blobs)


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


if __name__ == "__main__":
    if len(sys.argv) != 2 or "+" not in sys.argv[1]:  # noqa: PLR2004
        sys.exit("usage: scripts/find_commit.py VERSION+DIGEST")
    found = False
    for summary in commits(sys.argv[1].partition("+")[2]):
        found = True
        print(summary)  # noqa: T201
    if not found:
        sys.exit(
            "no commit in this repository has this code: fetch, or it was changed after checkout"
        )
