"""Value fields: which are read, which stay in the object, and where encapsulated ones end.

A value field usually has a known length (PS3.5 7.1). Short values are cut out of the window, long
ones stay in the object and are skipped.

Encapsulated pixel data has the undefined length (PS3.5 A.4): an item with the Basic Offset Table,
which may be empty; the fragments, one item each; and a Sequence Delimitation Item:

    (FFFE,E000) length  offset of each frame, counted from the first fragment
    (FFFE,E000) length  fragment ... (one or more for each frame)
    (FFFE,E0DD) 0

The header ends after that delimiter, and reading gigabytes of fragments to find it is out of the
question. `find_end` tries these, in this order:

1. a walk over the fragments of the last frame, which the last entry of the Extended or the Basic
   Offset Table points to;
2. a walk over all fragments, from header to header;
3. for a value at the top level, a search of the object's last bytes.

The walks have a budget of reads, and find what reading all fragments would find. The search is a
sound guess, which a warning reports. If little of the object is left, it is read at once, which
counts as one read. A fragment of odd length may be followed by a padding byte, against the
standard.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from dcm2bq.config import Config
from dcm2bq.dicom.elements import EXTENDED_OFFSET_TABLE, LEAST_HELD, PIXEL_DATA, Element
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.open_items import OpenItem
from dcm2bq.dicom.read.source import HOP_READ, SMALL, Window
from dcm2bq.dicom.syntax import HEADER, ITEM, SEQUENCE_END
from dcm2bq.dicom.vr import BINARY_VRS

_HEADER = Struct("<HHL")
_TABLE_ENTRY = 4
"""Bytes of an entry of the Basic Offset Table."""
_EXTENDED_ENTRY = 8
"""Bytes of an entry of the Extended Offset Table (PS3.3 C.7.6.3.1.8)."""
_TAIL_READS = (64 * 1024, 128 * 1024, 256 * 1024, 512 * 1024)
"""How much of the object's end is searched, one size after the other: what follows pixel data
(digital signatures, padding) mostly fits into the first."""
_MOST_CANDIDATES = 64
"""Places in the object's end that are tried: more look like a delimiter only in hostile objects."""
_MOST_FRAGMENTS = 2_000_000
"""Fragments that are walked over: some seconds of work, for a value that is in the window."""
_FRAGMENTS_PER_CHECK = 4096
"""Fragments between two checks of the clock: a fragment is less work than an element."""
_MOST_EXCESS = 1024
"""Bytes by which an encapsulated value may exceed its item: 128 headers of fragments, which some
writers do not count in the item's length."""
_ITEM_TAG = re.compile(rb"(?=\xfe\xff\x00\xe0)")
_DELIMITER = re.compile(rb"(?=\xfe\xff\xdd\xe0\x00{4})")


class CutValueError(Exception):
    """The object ends before a value does."""


class ValueFields:
    """Cuts values out of the window or leaves them in the object."""

    def __init__(self, window: Window, config: Config, notes: Notes) -> None:
        self._window = window
        self._notes = notes
        self._hops = config.limits.hops
        self._has_rules = config.privacy.changes_headers
        self._last_frame: int | None = None
        self.most_text = max(config.bulk_data.text_max_bytes, LEAST_HELD)
        self.most_binary = config.bulk_data.inline_max_bytes
        self.left = 0
        """Bytes of values that stay in the object."""

    def value(self, tag: int, vr: str, start: int, length: int) -> bytes | None:
        """Return a value of known length, None if it stays in the object.

        Raises `CutValueError` if the object ends before the value does.
        """
        window = self._window
        if length <= (self.most_binary if vr in BINARY_VRS else self.most_text):
            value = self._held(start, length)
            if len(value) < length:
                raise CutValueError
            return value
        if not window.reaches(start + length):
            raise CutValueError
        if tag == EXTENDED_OFFSET_TABLE and window.random_access:
            last_entry = self._held(start + length - _EXTENDED_ENTRY, _EXTENDED_ENTRY)
            self._last_frame = int.from_bytes(last_entry, "little")
        self.left += length
        return None

    def fragments(
        self, element: Element, item: OpenItem, may_follow: Callable[[bytes], bool]
    ) -> int | None:
        """Complete an encapsulated element; return the offset after it, None if it has no end.

        Its length is set, and its value if that is short. It may exceed its item by
        `_MOST_EXCESS` bytes. `may_follow` decides whether an object's last bytes may follow
        pixel data.
        """
        window, tag, start = self._window, element.tag, element.offset
        if item.top_level and tag == PIXEL_DATA and window.random_access:
            end = find_end(
                window,
                start,
                item.limit,
                hops=self._hops,
                last_frame=self._last_frame,
                may_follow=may_follow,
            )
        else:
            end = find_end(window, start, item.limit)
            if end is None and window.random_access and not item.top_level:
                end = find_end(window, start, min(item.limit + _MOST_EXCESS, window.size))
        if end is None:
            return None
        if end.problem:
            known_tag = tag if item.knows(tag) else None
            reason = f"encapsulated value: {end.problem}"
            self._notes.add(reason, tag=known_tag, vr=element.written, offset=start)
        element.length = length = end.offset - start
        within_reach = window.random_access or window.base <= start
        # Before an end that was guessed there could be elements, to which privacy rules apply.
        is_sound = end.walked or not self._has_rules
        if length <= self.most_binary and within_reach and is_sound:
            element.value = window.peek(start, length)
        self.left += length
        return end.offset + HEADER * end.delimited

    def _held(self, start: int, length: int) -> bytes:
        window = self._window
        window.fill(start, length)
        return window.data[start - window.base : start - window.base + length]


@dataclass(frozen=True, slots=True)
class End:
    """The end of an encapsulated value."""

    offset: int
    """The offset of the delimiter, or of the object's end if the value is not `delimited`."""
    delimited: bool = True
    walked: bool = True
    """Whether fragment led to fragment up to here; otherwise anything may come before."""
    problem: str = ""
    """What is wrong, for a warning."""


def find_end(
    window: Window,
    start: int,
    limit: int,
    *,
    hops: int | None = None,
    last_frame: int | None = None,
    may_follow: Callable[[bytes], bool] | None = None,
) -> End | None:
    """Return the end of the encapsulated value whose Basic Offset Table begins at `start`.

    At most `hops` reads are spent on tables and fragments; None means no bound. `last_frame` is
    the last entry of the Extended Offset Table. `may_follow` decides whether an object's last
    bytes may follow pixel data; without it the object's end is not searched, and the result is
    None if the walks find no end.
    """
    fragments = _Fragments(window, start, limit, hops)
    tag, length = fragments.header(start)
    first = start + HEADER + length if tag == ITEM else start
    end = None
    if tag == ITEM and window.random_access:
        if last_frame is not None:
            end = fragments.walk(first + last_frame)
        if end is None and length >= _TABLE_ENTRY:
            entry = fragments.read(first - _TABLE_ENTRY, _TABLE_ENTRY)
            end = fragments.walk(first + int.from_bytes(entry, "little"))
    if end is None:
        end = fragments.walk(first)
    if end is not None:
        return End(end, problem=fragments.problem)
    if may_follow is None:
        return None
    fragments.hold_small_rest()
    return _search_tail(window, start, may_follow)


class _Fragments:
    """The fragments of one value, walked over with a budget of reads.

    A read counts as if it brought `HOP_READ` bytes, or, if little of the object is left from
    `start` on, all of that: the result must not depend on what the window happens to hold.
    """

    def __init__(self, window: Window, start: int, limit: int, budget: int | None) -> None:
        self._window = window
        self._start = start
        self._limit = limit
        self._budget = budget
        self._covered = range(0)
        """The offsets that the last read counts for."""
        self._rest_is_small = window.random_access and window.size - start <= SMALL
        self.problem = ""

    def read(self, offset: int, n: int) -> bytes:
        """Return the `n` bytes from `offset` on; nothing beyond the limit or the budget."""
        if offset + n > self._limit:
            return b""
        window = self._window
        if offset not in self._covered or offset + n > self._covered.stop:
            if self._budget == 0:
                return b""
            if self._budget is not None:
                self._budget -= 1
            is_small = self._rest_is_small
            self._covered = (
                range(self._start, window.size) if is_small else range(offset, offset + HOP_READ)
            )
        if offset < window.base or offset + n > window.end:
            self.hold_small_rest()
        if offset < window.base or offset + n > window.end:
            if window.random_access:
                window.jump(offset, n)
            else:
                window.fill(offset, n)
        return window.data[offset - window.base : offset - window.base + n]

    def hold_small_rest(self) -> None:
        """Hold the rest of the object if it is small."""
        if self._rest_is_small:
            self._window.fill(self._start, self._window.size - self._start)

    def header(self, offset: int) -> tuple[int, int]:
        """Return tag and length of the item or delimiter at `offset`; zeros if there is none."""
        header = self.read(offset, HEADER)
        if len(header) < HEADER:
            return 0, 0
        group, number, length = _HEADER.unpack(header)
        return group << 16 | number, length

    def walk(self, offset: int) -> int | None:
        """Return the offset of the delimiter that the fragments from `offset` on lead to."""
        self.problem, odd = "", False
        for count in range(_MOST_FRAGMENTS):
            if count % _FRAGMENTS_PER_CHECK == 0:
                self._window.deadline.check()
            tag, length = self.header(offset)
            if odd and tag not in {ITEM, SEQUENCE_END}:
                offset += 1
                tag, length = self.header(offset)
                self.problem = "the odd length of a fragment excludes its padding"
            odd = length % 2 == 1
            if tag != ITEM:
                return offset if tag == SEQUENCE_END else None
            offset += HEADER + length
        return None


def _search_tail(window: Window, start: int, may_follow: Callable[[bytes], bool]) -> End:
    """Search the object's last bytes for the delimiter."""
    begin, tail = window.size, b""
    for size in _TAIL_READS:
        further = max(start, window.size - size)
        tail = window.peek(further, begin - further) + tail
        begin = further
        end = _delimiter_in(tail, (begin - start) % 2, may_follow)
        if end is not None:
            if begin < window.base or window.end < window.size:
                window.hold(begin, tail)
            problem = "the end is inferred from the object's last bytes"
            return End(begin + end, walked=False, problem=problem)
        if begin == start:
            break
    return End(window.size, delimited=False, walked=False, problem="no end was found")


def _delimiter_in(tail: bytes, odd: int, may_follow: Callable[[bytes], bool]) -> int | None:
    """Return the place of the first delimiter in `tail` with nothing but elements after it.

    If a fragment before it ends exactly at a later one, it is part of that fragment, and the
    later one is the delimiter. Fragments have even lengths, so that it is at an even distance
    from the value's start; `odd` is 1 if `tail` begins at an odd one.
    """
    places = [match.start() for match in _DELIMITER.finditer(tail) if match.start() % 2 == odd]
    ends = [place for place in places[:_MOST_CANDIDATES] if may_follow(tail[place + HEADER :])]
    if not ends:
        return None
    for match in _ITEM_TAG.finditer(tail, 0, ends[0]):
        place = match.start()
        length = _HEADER.unpack_from(tail, place)[2]
        if place + HEADER + length in ends:
            return int(place + HEADER + length)
    return ends[0]
