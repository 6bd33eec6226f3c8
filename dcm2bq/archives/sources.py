"""Members, and the sources that their bytes are read from."""

from dataclasses import dataclass
from typing import Self

from dcm2bq.dicom.read.source import Source
from dcm2bq.errors import RejectedEventError, UnreadableArchiveError

_LONGEST_NAME = 4096
"""The longest path that Linux can create: a longer name was never a file's."""

SAME_NAME = "another member has the same name"
"""Why the second member of a name cannot be read; it stands for any others of that name."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    `name` is the whole name in the archive, as text that UTF-8 can encode. `size` is that of the
    content, in bytes, as the archive declares it. `source` reads the content from offset 0 on. A
    member that cannot be read has an `error`, which its source raises as well.
    """

    name: str
    size: int
    source: Source
    error: RejectedEventError | None = None

    @classmethod
    def of(cls, name: str, source: Source) -> Self:
        """Return a member that can be read, unless its name is too long."""
        if len(name) > _LONGEST_NAME:
            reason = f"the member's name has {len(name)} characters, more than {_LONGEST_NAME}"
            return cls.broken(name[:_LONGEST_NAME], source.size, reason)
        return cls(name, source.size, source)

    @classmethod
    def broken(cls, name: str, size: int, reason: str) -> Self:
        """Return a member that cannot be read."""
        error = UnreadableArchiveError(reason)
        return cls(name[:_LONGEST_NAME], size, BrokenSource(size, error), error)


class Part:
    """The `size` bytes of a source from `start` on, the first of them already read as `head`."""

    def __init__(self, source: Source, start: int, size: int, head: bytes = b"") -> None:
        self.size = size
        self.reached = 0
        """The offset after the last byte that was read."""
        self._source = source
        self._start = start
        self._head = head[:size]

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on; fewer only at the end.

        Raises `UnreadableArchiveError` if the archive ends before.
        """
        end = min(offset + n, self.size)
        self.reached = max(self.reached, end)
        held = self._head[offset:end]
        offset += len(held)
        if offset >= end:
            return held
        rest = self._source.read_at(self._start + offset, end - offset)
        if len(rest) < end - offset:
            raise UnreadableArchiveError("the archive ends within this member")
        return held + rest


class BrokenSource:
    """A source of bytes that cannot be read."""

    def __init__(self, size: int, error: RejectedEventError) -> None:
        self.size = size
        self._error = error

    def read_at(self, _offset: int, _n: int, /) -> bytes:
        """Raise the error."""
        raise self._error
