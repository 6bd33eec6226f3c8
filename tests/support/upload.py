"""What is uploaded to be built: the files that .gcloudignore leaves.

As a program it compares an archive with them, file for file.
"""

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pathspec

ROOT = Path(__file__).parents[2]


def left_by_gcloudignore() -> list[str]:
    """Return the paths of the files that gcloud would upload, in order."""
    lines = (ROOT / ".gcloudignore").read_text().splitlines()
    ignored = pathspec.PathSpec.from_lines("gitignore", lines)
    return sorted(_walk(ignored))


def _walk(ignored: pathspec.PathSpec[pathspec.Pattern]) -> Iterator[str]:
    """Yield files as git does: what is in an ignored folder is ignored, whatever lets it in."""
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [
            folder for folder in folders if not ignored.match_file(f"{(here / folder).as_posix()}/")
        ]
        for file in files:
            path = (here / file).as_posix()
            if not ignored.match_file(path):
                yield path


def differences(archive: Path) -> list[str]:
    """Return a line for each file that is missing, too many or of other content."""
    expected = {name: (ROOT / name).read_bytes() for name in left_by_gcloudignore()}
    with zipfile.ZipFile(archive) as opened:
        found = {name: opened.read(name) for name in opened.namelist()}
    return [
        f"{name}: {_verdict(found.get(name), expected.get(name))}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]


def _verdict(found: bytes | None, expected: bytes | None) -> str:
    if found is None:
        return "not in the archive"
    return "ignored by .gcloudignore" if expected is None else "of another content"


if __name__ == "__main__":
    lines = differences(Path(sys.argv[1]))
    sys.exit("\n".join(lines) or None)
