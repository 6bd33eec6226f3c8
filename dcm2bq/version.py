"""The version that rows and `dcm2bq --version` show, such as `1.0.0+3f2a9c1b7d20`.

The part before the plus is the release, the part after it a digest of the code that makes rows.
The digest distinguishes commits between two releases, and a changed copy from the release itself.
It is computed from the files because nothing else is the same everywhere: neither the source that
Google builds nor the package of Dataflow's workers has a Git history.

`scripts/find_commit.py` finds the commits with a given digest.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dcm2bq import __version__

_PACKAGE = Path(__file__).parent
_NOT_DEPLOYED = {"cli", "local", "schema", "tools", "_function"}
"""Folders of the package that are not uploaded with the function (`.gcloudignore`)."""
_DIGITS = 12  # hex digits, as in an abbreviated commit: enough to distinguish any two


def is_deployed(path: str) -> bool:
    """Return whether a file belongs to the function, given its path from the root of a checkout."""
    first, _, rest = path.partition("/")
    if first != "dcm2bq":
        return path == "main.py"
    return rest.partition("/")[0] not in _NOT_DEPLOYED and not path.endswith(".pyc")


def digest(blobs: Iterable[tuple[str, str]]) -> str:
    """Return the digest of files, given as pairs of a path and the file's Git object id."""
    lines = "".join(f"{blob} {path}\n" for path, blob in sorted(blobs))
    return hashlib.sha256(lines.encode()).hexdigest()[:_DIGITS]


def entry_point() -> Path:
    """Return the path of `main.py`: within an installed package, or at the root of a checkout."""
    installed = _PACKAGE / "_function" / "main.py"
    return installed if installed.exists() else _PACKAGE.parent / "main.py"


def _blobs() -> Iterable[tuple[str, str]]:
    yield "main.py", _blob(entry_point())
    for file in _PACKAGE.rglob("*"):
        path = f"dcm2bq/{file.relative_to(_PACKAGE).as_posix()}"
        if is_deployed(path) and file.is_file():
            yield path, _blob(file)


def _blob(file: Path) -> str:
    """Return the id that Git gives the file's content, so that a commit need not be checked out."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


VERSION = f"{__version__}+{digest(_blobs())}"
