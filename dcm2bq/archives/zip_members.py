"""Read the members of a ZIP (PKWARE's APPNOTE.TXT) by ranges of its bytes.

The central directory, at the end of the archive, comes first. Then each member's local header and
first bytes are read in one range, several members at once.
"""

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import IO, cast

from dcm2bq.archives.bounds import Bounds
from dcm2bq.archives.inflated import RAW, Inflated
from dcm2bq.archives.sources import SAME_NAME, Member, Part
from dcm2bq.dicom.read.source import FIRST_READ, HOP_READ, Source, Window
from dcm2bq.errors import ArchiveTooLargeError, UnreadableArchiveError
from dcm2bq.parallel import in_parallel

_TAIL = 64 * 1024 + 22 + 76
"""Bytes of the first read: the longest comment, and the records that end a ZIP and a zip64."""
_DIRECTORY_ENTRY = b"PK\1\2"
_LOCAL_HEADER = b"PK\3\4"
_HEADER_BYTES = 30
"""Length of a local header, without the name and the extra fields."""
_MOST_ENTRY_BYTES = 1024
"""Longest entry of the directory, on average: 46 bytes, a path and extra fields take some 150."""
_ENTRY_MEMORY = 700
"""Memory of an entry as zipfile's object, without its name and extra fields (measured)."""
_COPIES = 2
"""Copies of the directory: as read, and as the names and extra fields of its entries."""
_FIRST_WINDOW = FIRST_READ + 2048
"""First bytes of a member: 64 KiB that cannot be compressed take a few more when deflated, and
the extra fields of the local header can be longer than those of the directory."""
_AT_ONCE = 8
"""Requests in flight: 1,000 members at 30 ms each take 4 seconds."""
_AHEAD = 2 * _AT_ONCE
"""Groups that are read before they are needed."""
_GROUP_BYTES = 256 * 1024
"""Bytes up to which neighbouring small members are read by one request.

It is also the first window where members turn out to be read beyond the usual one: those with
encapsulated pixel data are read whole. As long as they are, they come in one request, too.
"""

_ENCRYPTED = 0x1 | 0x40 | 0x2000  # traditional, strong, and of the directory (APPNOTE 4.4.4)
_PATCHED = 0x20
_UTF_8 = 0x800
_UNIX = 3
_APPLE_FOLDER = "__MACOSX/"

_MALFORMED = (
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    ValueError,  # among others a name that is not UTF-8, as its flag says
    NotImplementedError,
)
"""What zipfile raises for a directory that it cannot read."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member as the directory describes it; `end` is where the next one begins."""

    info: zipfile.ZipInfo
    name: str
    end: int
    reason: str | None
    """Why it cannot be read, if that is known already."""

    @property
    def start(self) -> int:
        return self.info.header_offset

    def window_end(self, n: int) -> int:
        """Return where the first `n` bytes of the content end, or a little later."""
        info = self.info
        most = _HEADER_BYTES + len(info.orig_filename.encode()) + len(info.extra) + n
        return min(self.start + most, self.end)


@dataclass(slots=True)
class _Group:
    """Members that one request reads: the bytes from `start` to `end`."""

    entries: list[_Entry]
    start: int
    end: int


def zip_members(content: Source, bounds: Bounds, chosen: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the members that `members` describes, and raise what it raises."""
    entries = [entry for entry in _entries(content, bounds) if chosen(entry.name)]
    bounds.charge(_AHEAD * _GROUP_BYTES)
    windows = _Windows()
    with ThreadPoolExecutor(_AT_ONCE, "archive") as pool:
        fetch, groups = partial(_fetch, content), windows.groups(entries)
        with closing(in_parallel(pool, fetch, groups, _AHEAD)) as fetched:
            for group, data in fetched:
                for entry in group.entries:
                    bounds.count_member()
                    start, end = entry.start - group.start, entry.end - group.start
                    member = _member(content, entry, data[start:end], bounds)
                    yield member
                    windows.learn(member.source)


class _Windows:
    """How many bytes of each member are read ahead; it depends on how far the last one was read."""

    def __init__(self) -> None:
        self._first = _FIRST_WINDOW

    def learn(self, source: Source) -> None:
        """Note how far a member was read."""
        if isinstance(source, Part | Inflated):
            self._first = _GROUP_BYTES if source.reached > _FIRST_WINDOW else _FIRST_WINDOW

    def groups(self, entries: Iterable[_Entry]) -> Iterator[_Group]:
        """Yield entries in their order, neighbours together that one request can read."""
        group: _Group | None = None
        for entry in entries:
            end = entry.window_end(self._first) if entry.reason is None else entry.start
            if (
                group
                and group.start < group.end
                and 0 <= entry.start - group.end < HOP_READ
                and end - group.start <= _GROUP_BYTES
            ):
                group.entries.append(entry)
                group.end = end
                continue
            if group:
                yield group
            group = _Group([entry], entry.start, end)
        if group:
            yield group


def _entries(content: Source, bounds: Bounds) -> list[_Entry]:
    """Read the directory; return its entries that can be DICOM objects."""
    file = _DirectoryFile(content, bounds)
    try:
        with zipfile.ZipFile(cast("IO[bytes]", file)) as archive:
            infos, directory = archive.infolist(), archive.start_dir
    except _MALFORMED:
        raise UnreadableArchiveError(
            "no readable directory of a ZIP at the end: the archive is cut, or is not a ZIP"
        ) from None
    starts = sorted({info.header_offset for info in infos})
    ends = {start: min(end, directory) for start, end in pairwise([*starts, directory])}
    entries, names, repeated, offsets = [], set[str](), set[str](), set[int]()
    for info in infos:
        if _can_be_dicom(info):
            name, reason = _name(info), _why_unreadable(info)
            if name in repeated:
                continue
            if name in names:
                repeated.add(name)
                reason = SAME_NAME
            elif info.header_offset in offsets:
                reason = "another member has the same bytes"
            names.add(name)
            offsets.add(info.header_offset)
            entries.append(_Entry(info, name, ends[info.header_offset], reason))
    return entries


def _can_be_dicom(info: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file with content, and not one that macOS adds."""
    is_link = info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16)
    is_file = not (info.is_dir() or is_link or info.filename.startswith(_APPLE_FOLDER))
    return is_file and info.file_size > 0


def _name(info: zipfile.ZipInfo) -> str:
    """Return a member's name: in UTF-8 if it can be, otherwise in code page 437.

    Info-ZIP and macOS write UTF-8 without the flag that says so (APPNOTE 4.4.4, bit 11).
    """
    if info.flag_bits & _UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _why_unreadable(info: zipfile.ZipInfo) -> str | None:
    """Return why a member cannot be read, as far as the directory shows."""
    if info.flag_bits & _ENCRYPTED:
        return "the member is encrypted: pack it without a password"
    if info.flag_bits & _PATCHED:
        return "the member is a patch"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"compression method {info.compress_type} is not supported: store or deflate"
    if info.header_offset < 0:
        return "the member is outside the archive"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "the member is stored, but its two sizes differ"
    return None


def _fetch(content: Source, group: _Group) -> tuple[_Group, bytes]:
    """Return a group and its bytes."""
    n = group.end - group.start
    return group, content.read_at(group.start, n) if n > 0 else b""


def _member(content: Source, entry: _Entry, data: bytes, bounds: Bounds) -> Member:
    """Return the member whose local header and first bytes are `data`."""
    info = entry.info
    if entry.reason:
        return Member.broken(entry.name, info.file_size, entry.reason)
    if len(data) < _HEADER_BYTES or not data.startswith(_LOCAL_HEADER):
        reason = "no local header where the directory says"
        return Member.broken(entry.name, info.file_size, reason)
    lengths = struct.unpack_from("<HH", data, 26)  # of the name and of the extra fields
    begin = _HEADER_BYTES + sum(lengths)
    start = entry.start + begin
    if start + info.compress_size > entry.end:
        reason = "the member is longer than the archive's structure allows"
        return Member.broken(entry.name, info.file_size, reason)
    head = data[begin : begin + info.compress_size]
    part = Part(content, start, info.compress_size, head)
    if info.compress_type == zipfile.ZIP_STORED:
        return Member.of(entry.name, part)
    window = Window(part)
    window.hold(0, head)
    return Member.of(entry.name, Inflated(window, RAW, bounds, info.file_size))


class _DirectoryFile:
    """What zipfile needs of a file to read the directory; the end of the archive is kept."""

    def __init__(self, content: Source, bounds: Bounds) -> None:
        self._content = content
        self._bounds = bounds
        self._position = 0
        self._tail_start = max(content.size - _TAIL, 0)
        n = content.size - self._tail_start
        self._tail = content.read_at(self._tail_start, n) if n else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset; raise an `OSError`, as files do, if it is negative."""
        position = offset + {0: 0, 1: self._position, 2: self._content.size}[whence]
        if position < 0:
            raise io.UnsupportedOperation("negative offset")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the offset."""
        return self._position

    def read(self, n: int = -1) -> bytes:
        """Return `n` bytes, or all up to the end; refuse a directory that is too large."""
        start, is_record = self._position, n >= 0
        end = min(start + n, self._content.size) if is_record else self._content.size
        if end - start > self._bounds.most_members * _MOST_ENTRY_BYTES + _TAIL:
            raise ArchiveTooLargeError(
                f"the directory of the ZIP has {end - start} bytes, too many for limits.members, "
                f"{self._bounds.most_members}: check the archive, then raise the limit"
            )
        data = b""
        if start < min(end, self._tail_start):
            data = self._content.read_at(start, min(end, self._tail_start) - start)
        if end > self._tail_start:
            at = max(start - self._tail_start, 0)
            data += self._tail[at : end - self._tail_start]
        if is_record:
            # Before zipfile makes an object of each: there may be more than the ZIP declares.
            count = data.count(_DIRECTORY_ENTRY)
            self._bounds.refuse_more_members(count)
            self._bounds.charge(_ENTRY_MEMORY * count + _COPIES * len(data))
        self._position = max(end, start)
        return data

    def close(self) -> None:
        """Do nothing: the content is the caller's."""
