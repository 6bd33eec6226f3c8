"""Build what a release consists of: the package, the function's archive, and their checksums.

    scripts/build_dist.py dist

Equal files give equal bytes, whenever and wherever they are built; of the package, only with equal
versions of hatchling and zlib. `sha256sum --check SHA256SUMS` checks all of them.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from dcm2bq import __version__, version

ROOT = Path(__file__).parents[1]
SUMS = "SHA256SUMS"
BESIDE = (".python-version", "requirements.txt")
"""What is uploaded with the code, for Google's build."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's earliest time
_MODE = 0o644 << 16  # as zip keeps the permissions of Unix


def package(folder: Path) -> None:
    """Write the wheel and the source distribution into `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder.absolute())]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 - constant but for the path


def function_archive(folder: Path) -> Path:
    """Write an archive, uncompressed, of the files that `.gcloudignore` leaves; return its path."""
    path = folder / f"dcm2bq-{__version__}-function.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in function_files():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = _MODE
            archive.writestr(entry, (ROOT / name).read_bytes())
    return path


def function_files() -> list[str]:
    """Return the paths of the function's files, from the root, in order."""
    files = (file for file in (ROOT / "dcm2bq").rglob("*") if file.is_file())
    code = ["main.py", *(file.relative_to(ROOT).as_posix() for file in files)]
    return sorted([*BESIDE, *filter(version.is_deployed, code)])


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` for the other files in `folder`."""
    files = sorted(file for file in folder.iterdir() if file.name != SUMS)
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (folder / SUMS).write_text("".join(lines))


def main(target: str) -> None:
    """Build everything into an empty folder."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    package(folder)
    function_archive(folder)
    write_sums(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
