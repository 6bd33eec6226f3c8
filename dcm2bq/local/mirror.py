"""A bucket whose objects are files, read in place.

Nothing is copied and no content is kept in memory: an object is a name, a generation and the
stamp of its file. Once the file has changed or is deleted, that generation no longer exists.
"""

import base64
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import google_crc32c

from dcm2bq.files import open_regular
from dcm2bq.local.file_stamp import FileStamp

Resource = Mapping[str, Any]
"""An object as the JSON API describes it."""

CONTENT_TYPE = "application/dicom"

# Larger files are not read for their hashes: the function reads no more than the header, and a
# folder of slides holds terabytes. Composite objects have no MD5 in Cloud Storage either.
_HASHED_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class _Version(NamedTuple):
    """A generation of an object: a file, as long as it has this stamp."""

    root: Path
    stamp: FileStamp
    generation: int
    md5: bytes
    crc32c: bytes


class Mirror:
    """The objects of the bucket `name`. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._versions: dict[str, _Version] = {}
        self._latest = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, name: object) -> bool:
        return name in self._versions

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the order of a Cloud Storage listing."""
        return iter(sorted(self._versions))

    def put(self, name: str, root: Path) -> Resource:
        """Make the file `name` under `root` the object's next generation; return the object.

        Raises `OSError` if the file cannot be opened or is not a regular file.
        """
        with open_regular(root / name) as file:
            stamp = _stamp_of(file)
            md5, crc32c = _hashes(file) if stamp.size <= _HASHED_BYTES else (b"", b"")
        with self._lock:
            # Microseconds, as in Cloud Storage; always growing, even if the clock is set back.
            self._latest = max(time.time_ns() // 1000, self._latest + 1)
            version = _Version(root, stamp, self._latest, md5, crc32c)
            self._versions[name] = version
        return self._resource(name, version)

    def remove(self, name: str) -> None:
        """Delete the object, if there is one."""
        with self._lock:
            self._versions.pop(name, None)

    def get(self, name: str, generation: int | None = None) -> Resource | None:
        """Return the live object; None if there is none, or if it has another generation."""
        version = self._version(name, generation)
        return version and self._resource(name, version)

    def open(self, name: str, generation: int | None = None) -> BinaryIO | None:
        """Open the live object's file; return None if that generation no longer exists."""
        version = self._version(name, generation)
        if version is None:
            return None
        try:
            file = open_regular(version.root / name)
        except OSError:
            return None
        if _stamp_of(file) != version.stamp:
            file.close()
            return None
        return file

    def _version(self, name: str, generation: int | None) -> _Version | None:
        version = self._versions.get(name)
        return version if version and generation in {None, version.generation} else None

    def _resource(self, name: str, version: _Version) -> Resource:
        # Google's client parses only times that end in Z.
        created = datetime.fromtimestamp(version.generation / 1e6, UTC)
        written = created.isoformat(timespec="microseconds").replace("+00:00", "Z")
        hashes = {"md5Hash": version.md5, "crc32c": version.crc32c}
        return {
            "kind": "storage#object",
            "id": f"{self.name}/{name}/{version.generation}",
            "bucket": self.name,
            "name": name,
            "generation": str(version.generation),
            "metageneration": "1",
            "contentType": CONTENT_TYPE,
            "storageClass": "STANDARD",
            "size": str(version.stamp.size),
            "timeCreated": written,
            "updated": written,
            **{key: base64.b64encode(value).decode() for key, value in hashes.items() if value},
        }


def _stamp_of(file: BinaryIO) -> FileStamp:
    return FileStamp.of(os.fstat(file.fileno()))


def _hashes(file: BinaryIO) -> tuple[bytes, bytes]:
    md5 = hashlib.md5(usedforsecurity=False)
    crc32c: Any = google_crc32c
    crc32c = crc32c.Checksum()
    while chunk := file.read(_CHUNK_BYTES):
        md5.update(chunk)
        crc32c.update(chunk)
    return md5.digest(), crc32c.digest()
