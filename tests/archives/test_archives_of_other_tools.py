"""Archives that other tools write, as far as the machine has them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.archives.reading import contents

FILES = {
    "study/a#b?c&d.dcm": b"one" * 1000,
    "study/line\nbreak": bytes(range(256)) * 1000,
    "study/é ü/IM0001": b"two",
    "study/other/IM0001": b"three",
    "study/" + "long name " * 20: b"four" * 50_000,
    "/".join(["study", *["folder" * 10] * 6, "IM0001"]): b"deep",
}
HOLES = b"begin" + bytes(5_000_000) + b"middle" * 3000 + bytes(3_000_000) + b"end" + bytes(99)
SPARSE = "study/holes"

STREAMED = ["sh", "-c", "zip -qr - study | cat >x.zip"]
PLAIN = {
    "Info-ZIP": ["zip", "-qr", "x.zip", "study"],
    "Info-ZIP, stored": ["zip", "-qr0", "x.zip", "study"],
    "Info-ZIP, zip64": ["zip", "-qr", "-fz", "x.zip", "study"],
    "Info-ZIP, data descriptors": ["zip", "-qr", "-fd", "x.zip", "study"],
    "Info-ZIP, from a pipe": STREAMED,
    "7-Zip": ["7z", "a", "-tzip", "x.zip", "study"],
    "jar": ["jar", "cMf", "x.zip", "study"],
    "bsdtar, ZIP": ["bsdtar", "--format=zip", "-cf", "x.zip", "study"],
    "bsdtar, pax": ["bsdtar", "--format=pax", "-cf", "x.tar", "study"],
    "bsdtar, TAR.GZ": ["bsdtar", "-czf", "x.tgz", "study"],
    "CMake, ZIP": ["cmake", "-E", "tar", "cf", "x.zip", "--format=zip", "study"],
    "CMake, pax": ["cmake", "-E", "tar", "cf", "x.tar", "--format=pax", "study"],
    "7-Zip, TAR": ["7z", "a", "-ttar", "x.tar", "study"],
    "GNU tar": ["tar", "--format=gnu", "-cf", "x.tar", "study"],
    "GNU tar, old": ["tar", "--format=oldgnu", "-cf", "x.tar", "study"],
    "GNU tar, pax": ["tar", "--format=pax", "-cf", "x.tar", "study"],
    "GNU tar, gzip": ["tar", "-czf", "x.tar.gz", "study"],
    "GNU tar, sparse, old": ["tar", "--format=oldgnu", "-cSf", "x.tar", "study"],
    "GNU tar, sparse, gzip": ["tar", "--format=gnu", "-czSf", "x.tgz", "study"],
    **{
        f"GNU tar, sparse {version}": [
            *("tar", "--format=pax", f"--sparse-version={version}", "-cSf", "x.tar", "study"),
        ]
        for version in ("0.0", "0.1", "1.0")
    },
}
REFUSED = {
    "Info-ZIP": (["zip", "-qr", "-P", "secret", "x.zip", "study"], "encrypted"),
    "7-Zip": (["7z", "a", "-tzip", "-psecret", "x.zip", "study"], "encrypted"),
    "7-Zip, AES": (["7z", "a", "-tzip", "-psecret", "-mem=AES256", "x.zip", "study"], "encrypted"),
    "7-Zip, Deflate64": (["7z", "a", "-tzip", "-mm=Deflate64", "x.zip", "study"], "method 9 is"),
    "7-Zip, BZip2": (["7z", "a", "-tzip", "-mm=BZip2", "x.zip", "study"], "method 12 is"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `study` with odd names, a sparse file, an empty one, and a link."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with (tmp_path / SPARSE).open("wb") as file:
        for offset in 0, HOLES.index(b"middle"), HOLES.index(b"end"):
            file.seek(offset)
            file.write(HOLES[offset:].split(b"\0", 1)[0])
        file.truncate(len(HOLES))
    (tmp_path / "study/empty").touch()
    (tmp_path / "study/link").symlink_to("empty")
    return tmp_path


def pack(command: list[str], folder: Path) -> tuple[bytes, str]:
    """Run a tool; return the archive and its name."""
    if not shutil.which(command[0]) or (command is STREAMED and not shutil.which("zip")):
        pytest.skip(f"{command[0]} is not installed")
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (archive,) = folder.glob("x.*")
    return archive.read_bytes(), archive.name


@pytest.mark.parametrize("tool", PLAIN)
def test_members_are_the_files_that_were_packed(tool: str, folder: Path) -> None:
    assert contents(*pack(PLAIN[tool], folder)) == FILES | {SPARSE: HOLES}


@pytest.mark.parametrize("tool", REFUSED)
def test_members_that_cannot_be_read_say_why(tool: str, folder: Path) -> None:
    command, reason = REFUSED[tool]
    read = contents(*pack(command, folder))
    assert read.keys() == FILES.keys() | {SPARSE}
    # 7-Zip stores what a method does not make shorter.
    refused = [content for content in read.values() if isinstance(content, str)]
    assert len(refused) >= 3
    assert all(reason in content for content in refused)
