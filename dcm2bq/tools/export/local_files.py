"""Local files in the place of objects in Cloud Storage, for the function's handler."""

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from dcm2bq.deadline import Deadline
from dcm2bq.errors import ReadFailedError, SupersededError
from dcm2bq.files import open_regular
from dcm2bq.stored_object import SCHEME, StoredObject

_NANOSECONDS = 1000
"""Of a microsecond: generations are microseconds, as in Cloud Storage in practice."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
"""The range of a timestamp in BigQuery as well; a file can have any 64-bit number of seconds."""
_LIKE_AN_ESCAPE = re.compile(rb"\\(?=x[0-9a-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalObject(StoredObject):
    """A file as an object: `bucket` is the folder, and `generation` its time of modification.

    The rules of Cloud Storage for names do not apply. `file` is the path on disk: `name` differs
    from it where that is not UTF-8.
    """

    file: Path

    def __post_init__(self) -> None:
        """Accept every name."""

    @property
    def path(self) -> str:
        """The absolute path."""
        return path_of(self.bucket, self.name)

    @property
    def place(self) -> str:
        """Where the object is stored: the column `info.input.type`."""
        return "FILE"

    @property
    def bulk_data_root(self) -> str:
        """Nothing: as with `dcm2bq dump`, BulkDataURIs of a file consist of the offset alone."""
        return ""

    def renamed(self, path: str) -> Self:
        """Return the file under a hash, which replaces its folder too."""
        return replace(self, bucket="", name=path.rpartition("/")[2])


def path_of(bucket: str, name: str) -> str:
    """Return the path of an object, or of a `LocalObject`, in the rows.

    >>> path_of("scans", "a.dcm"), path_of("/home/me/scans", "a.dcm"), path_of("", "hmac")
    ('gs://scans/a.dcm', '/home/me/scans/a.dcm', 'hmac')
    """
    if not bucket:
        return name
    return f"{bucket.rstrip('/')}/{name}" if bucket.startswith("/") else f"{SCHEME}{bucket}/{name}"


def local_object(folder: Path, file: Path) -> LocalObject:
    """Return a file of an absolute folder; without its size if that cannot be read."""
    stored = LocalObject(
        bucket=text_of(folder), name=text_of(file.relative_to(folder)), generation=0, file=file
    )
    try:
        return _stamped(stored, file.stat())
    except OSError:  # such as a link that leads nowhere: reading it says why
        return replace(stored, created=_EPOCH)


class LocalStore:
    """Opens files for the handler.

    Raises `ReadFailedError` for a file that cannot be read, and `SupersededError` for one that has
    changed or was deleted since it was listed.
    """

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:  # noqa: ARG002
        """Return the file with its size."""
        assert isinstance(stored, LocalObject)
        try:
            return _stamped(stored, stored.file.stat())
        except OSError as error:
            raise _unreadable(error) from None

    def open(self, stored: StoredObject, deadline: Deadline) -> "LocalContent":  # noqa: ARG002
        """Return the content of the file."""
        assert isinstance(stored, LocalObject)
        return LocalContent(stored)


class LocalContent:
    """The content of a file that any thread may read; nothing stays open between two reads."""

    def __init__(self, stored: LocalObject) -> None:
        assert stored.size is not None, "described first"
        self.size = stored.size
        self.bytes_read = 0
        self._stored = stored

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`; fewer only at the end of the file."""
        stored = self._stored
        try:
            with open_regular(stored.file) as stream:
                status = os.fstat(stream.fileno())
                data = os.pread(stream.fileno(), n, offset)
        except FileNotFoundError:
            raise SupersededError("the file was deleted after it was listed") from None
        except OSError as error:
            raise _unreadable(error) from None
        if (status.st_size, _generation(status)) != (stored.size, stored.generation):
            raise SupersededError("the file has changed since it was listed")
        self.bytes_read += len(data)
        return data


def _stamped(stored: LocalObject, status: os.stat_result) -> LocalObject:
    generation = _generation(status)
    return replace(stored, size=status.st_size, generation=generation, created=_time(generation))


def _generation(status: os.stat_result) -> int:
    return status.st_mtime_ns // _NANOSECONDS


def _time(microseconds: int) -> datetime:
    """Return a time since 1970, or the first or last that a timestamp can have."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _FIRST if microseconds < 0 else _LAST


def text_of(path: Path) -> str:
    r"""Return a path as text; bytes that are not UTF-8 are escaped, and what looks like an escape.

    Paths that differ have texts that differ.

    >>> [text_of(Path(os.fsdecode(name))) for name in (b"\xff.dcm", rb"\xff.dcm", rb"A\x.dcm")]
    ['\\xff.dcm', '\\x5cxff.dcm', 'A\\x.dcm']
    """
    escaped = _LIKE_AN_ESCAPE.sub(rb"\\x5c", os.fsencode(path))
    return escaped.decode(errors="backslashreplace")


def _unreadable(error: OSError) -> ReadFailedError:
    return ReadFailedError(f"the file cannot be read: {error.strerror or type(error).__name__}")
