"""Read the members of a TAR (POSIX.1-2017 pax, GNU tar, V7), one after the other."""

import io
import tarfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, cast

from dcm2bq.archives.bounds import Bounds
from dcm2bq.archives.inflated import Inflated
from dcm2bq.archives.sources import SAME_NAME, Member, Part
from dcm2bq.archives.strides import Strides
from dcm2bq.dicom.read.source import FIRST_READ, SMALL, Source
from dcm2bq.errors import UnreadableArchiveError

_BLOCK = tarfile.BLOCKSIZE
_HEADER_BYTES = 6 * _BLOCK
"""Bytes that hold the header of a member, with a long name and pax attributes."""
FIRST_WINDOW = _HEADER_BYTES + FIRST_READ
_MOST_HEADER_BYTES = 1024 * 1024
"""Longest header of a member, with its long name, attributes and map of a sparse file."""
_APPLE_FOLDER = "__MACOSX/"

_MALFORMED = (
    tarfile.TarError,
    ArithmeticError,
    LookupError,
    RecursionError,  # of headers that announce headers
    ValueError,
)
"""What tarfile raises for a header that it cannot read."""


def tar_members(
    source: Source, bounds: Bounds, chosen: Callable[[str], bool], head: bytes = b""
) -> Iterator[Member]:
    """Yield the members that `members` describes, and raise what it raises.

    `head` is the first bytes of the source, as far as they have been read.
    """
    if isinstance(source, Inflated) or hasattr(source, "advance"):
        yield from _tar_members(source, bounds, chosen, _HeaderFile(source, source, head))
    else:
        with Strides(source) as ahead:
            yield from _tar_members(source, bounds, chosen, _HeaderFile(source, ahead, head))


def _tar_members(
    source: Source, bounds: Bounds, chosen: Callable[[str], bool], file: "_HeaderFile"
) -> Iterator[Member]:
    names, repeated = set[str](), set[str]()
    for info in _headers(source, file):
        bounds.count_member()
        name = info.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        is_file = info.isreg() and info.size > 0 and not name.startswith(_APPLE_FOLDER)
        if not is_file or name in repeated or not chosen(name):
            continue
        if name in names:
            repeated.add(name)
            yield Member.broken(name, info.size, SAME_NAME)
        else:
            names.add(name)
            yield from _member(source, file, info, name)


def _headers(source: Source, file: "_HeaderFile") -> Iterator[tarfile.TarInfo]:
    """Yield the header of each member; raise `UnreadableArchiveError` where one is broken."""
    tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(_BLOCK)), encoding="utf-8")
    tar.fileobj = cast("IO[bytes]", file)  # only now: the constructor hides errors
    data_end = 0
    while file.begin(tar.offset):
        start = tar.offset
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
            data_end = info.offset_data + _stored_bytes(info)
        except _MALFORMED:
            info = None
        if info is None or not start < info.offset_data <= tar.offset:
            raise UnreadableArchiveError(f"the header of a TAR's member is broken (offset {start})")
        if data_end <= source.size:
            yield info
        if data_end > source.size:  # it is not known until the end of a gzipped TAR
            break
        tar.pax_headers = {}  # global ones are about times and owners, and would accumulate
    if data_end > source.size:
        raise UnreadableArchiveError("the TAR ends within a member")


def _member(
    source: Source, file: "_HeaderFile", info: tarfile.TarInfo, name: str
) -> Iterator[Member]:
    """Yield the member that a header describes, and note how far it was read."""
    size = _stored_bytes(info)
    head = file.hold(info.offset_data, min(size, file.first))
    part = Part(source, info.offset_data, size, head)
    if _map(info) is None:
        yield Member.of(name, part)
        file.first = SMALL if part.reached > FIRST_READ else FIRST_READ
    elif (runs := _runs(info)) is not None:
        yield Member.of(name, _SparseFile(part, runs, info.size))
    else:
        yield Member.broken(name, info.size, "the map of the sparse member is broken")


def _stored_bytes(info: tarfile.TarInfo) -> int:
    """Return the length of a member's content in the archive: of a sparse one, without holes."""
    runs = _map(info)
    return info.size if runs is None else sum(length for _, length in runs)


def _map(info: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return the offset and length of each run of a sparse file; None for any other."""
    return cast("list[tuple[int, int]] | None", info.sparse)


class _Run(NamedTuple):
    """`length` bytes of a sparse file from `start` on, stored at `at` among all runs."""

    start: int
    length: int
    at: int


def _runs(info: tarfile.TarInfo) -> list[_Run] | None:
    """Return the runs of a sparse file; None if they overlap or exceed the file."""
    runs, end, at = [], 0, 0
    for start, length in _map(info) or ():
        if length > 0 and start >= end:
            runs.append(_Run(start, length, at))
            end, at = start + length, at + length
        elif length:  # entries without a length fill the header
            return None
    return runs if end <= info.size else None


class _SparseFile:
    """A sparse file: its runs are stored one after the other, and all else is zeros."""

    def __init__(self, stored: Source, runs: list[_Run], size: int) -> None:
        self.size = size
        self._stored = stored
        self._runs = runs

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on; fewer only at the end."""
        end = min(offset + n, self.size)
        first = bisect_right(self._runs, offset, key=lambda run: run.start + run.length)
        last = bisect_left(self._runs, end, first, key=lambda run: run.start)
        runs = self._runs[first:last]
        if not runs:
            return bytes(end - offset)
        begin = runs[0].at + max(offset - runs[0].start, 0)
        stop = runs[-1].at + min(end - runs[-1].start, runs[-1].length)
        stored = self._stored.read_at(begin, stop - begin)
        content = bytearray(end - offset)
        for start, length, at in runs:
            left, right = max(start, offset), min(start + length, end)
            piece = stored[at + left - start - begin : at + right - start - begin]
            content[left - offset : right - offset] = piece
        return bytes(content)


class _HeaderFile:
    """What tarfile needs of a file to read one header; a window of the archive is kept."""

    def __init__(self, source: Source, ahead: Source | Strides, head: bytes) -> None:
        self._source = source
        self._ahead = ahead
        self._held = head
        self._base = 0
        """The offset of the first byte that is held."""
        self._position = 0
        self._left = 0
        """Bytes that the header may still have."""
        self.first = FIRST_READ
        """Bytes of a member that are read with its header.

        They are more after a member that was read further, as those with encapsulated pixel data
        are: several such members come in one request.
        """

    def begin(self, offset: int) -> bool:
        """Go to the header at `offset`; return False if the archive ends there."""
        self._position, self._left = offset, _MOST_HEADER_BYTES
        # A block of NULs ends a TAR; some have none.
        return bool(self.hold(offset, _BLOCK).strip(b"\0"))

    def tell(self) -> int:
        """Return the offset."""
        return self._position

    def read(self, n: int) -> bytes:
        """Return the next `n` bytes of a header; refuse one that is too long."""
        self._left -= n
        if n < 0 or self._left < 0:
            raise tarfile.HeaderError("a header is too long")
        data = self.hold(self._position, n)
        self._position += len(data)
        return data

    def hold(self, offset: int, n: int) -> bytes:
        """Return `n` bytes from `offset` on, or those up to the end; keep some that follow."""
        end = self._base + len(self._held)
        if not self._base <= offset <= end:
            self._held, self._base, end = b"", offset, offset
        if offset + n > end:
            if isinstance(self._source, Inflated):
                self._source.mark()
            more = min(offset + max(n, _HEADER_BYTES + self.first), self._source.size) - end
            reader = self._ahead if end == offset else self._source
            data = reader.read_at(end, more) if more > 0 else b""
            self._held, self._base = self._held[offset - self._base :] + data, offset
        return self._held[offset - self._base :][:n]
