"""Decide what a misplaced delimiter or item closes, by what follows it (PS3.5 7.5).

Writers forget delimiters, write one kind for the other, or one too many. Each way to
understand the place is tried on the headers that follow, and the way that leaves the fewest
faults is taken.
"""

from dcm2bq.dicom.frames import OpenItem, OpenSequence
from dcm2bq.dicom.source import Window
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
    EXPLICIT_LITTLE,
    HEADER,
    ITEM,
    ITEM_END,
    LONG_HEADER,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Syntax,
)
from dcm2bq.dicom.tree import PIXEL_DATA

_MOST_BYTES = 64 * 1024
"""How far ahead headers are looked at: as far as the first read of an object reaches."""
_MOST_HEADERS = 512
"""Headers looked at for one place: most objects have fewer between it and their pixel data."""
_MOST_STEPS = 200_000
"""Headers times ways for all places of a data set: about 0.2 s, whatever the object."""
_UNENDED = 16
"""Faults for each level that is open at the object's end, which is then refused."""

type _Levels = list[int | None]
"""What is open, outermost first: the last tag for an item (-1: none yet), None for a sequence.

The first level has a known length, or is the data set: no delimiter can close it.
"""
type _Header = tuple[int, int]
"""Tag and length. What has a known length has been skipped."""


class Delimiters:
    """Judges the misplaced delimiters and items of one data set."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._steps_left = _MOST_STEPS

    def levels_closed(
        self,
        tag: int,
        position: int,
        item: OpenItem | None,
        sequence: OpenSequence | None,
        *,
        likely_stray: bool,
    ) -> int:
        """Return how many open levels the header `tag` at `position` closes; 0: it is stray.

        It stands in `item`, or between the items of `sequence` if `item` is None. Between
        ways of equally many faults `likely_stray` decides.
        """
        levels, in_data_set = _open_levels(item, sequence)
        innermost = item or sequence
        if innermost is None or len(levels) == 1 or self._steps_left <= 0:
            return 0
        either = sequence is not None and sequence.either
        syntax = EXPLICIT_LITTLE if either else innermost.syntax
        headers, ended = _headers_from(self._window, position, innermost.limit, syntax)
        unended = 0 if not ended else _UNENDED if in_data_set else 1
        own = 0 if tag == ITEM else 1
        """What a header of this kind closes where it is not misplaced."""
        ways = [0, *range(1, own + 1), *range(own + 1, len(levels), 2)]
        if not likely_stray:
            ways.sort(key=lambda closed: abs(closed - own - 1))
        if item and sequence and item.elements and item.elements[-1][0] > sequence.tag:
            # Its last elements might be those of an outer item: only it itself may be closed.
            ways = [closed for closed in ways if closed <= own + 1]
        best, fewest = 0, _MOST_STEPS
        for closed in ways:
            self._steps_left -= len(headers)
            kept = levels[: len(levels) - closed]
            faults = max(1, closed - own) + _faults(kept, headers)
            faults += unended * (len(kept) - 1)
            if faults < fewest:
                best, fewest = closed, faults
        return best


def _open_levels(item: OpenItem | None, sequence: OpenSequence | None) -> tuple[_Levels, bool]:
    """Return the levels that are open, and whether the outermost of them is the data set."""
    levels: _Levels = []
    if item:
        levels.append(item.elements[-1][0] if item.elements else -1)
    while sequence and not (item and (item.defined or sequence.stray)):
        levels.append(None)
        if sequence.defined:
            break
        levels.append(sequence.tag)
        item, sequence = sequence.parent, sequence.outer
    return levels[::-1], sequence is None


def _headers_from(
    window: Window, position: int, limit: int, syntax: Syntax
) -> tuple[list[_Header], bool]:
    """Return the headers from `position` on, and whether they reach as far as `limit`."""
    most = min(_MOST_BYTES, limit - position)
    seen = window.fill(position, most)
    data, start = window.data, position - window.base
    end = start + (limit - position if seen == most else seen)
    headers: list[_Header] = []
    at = start
    while at + HEADER <= start + seen and len(headers) < _MOST_HEADERS:
        tag, length, value = _header_at(data, at, syntax)
        if not tag and not length:  # padding
            return headers, True
        headers.append((tag, length))
        delimits = tag in {ITEM_END, SEQUENCE_END}
        at = value if delimits or length == UNDEFINED else value + length
        if at > end:  # no header of a sound object: nothing is known of what follows
            return headers[:-1] or headers, False
    return _without_last_pixels(headers) if at > start + seen else (headers, at == end)


def _without_last_pixels(headers: list[_Header]) -> tuple[list[_Header], bool]:
    """Return the headers before encapsulated pixel data, and whether those are all there is.

    Fragments that go on beyond the last header are no icon's: the data set ends with them.
    """
    before = len(headers)
    while before and headers[before - 1][0] == ITEM:
        before -= 1
    if before and headers[before - 1] == (PIXEL_DATA, UNDEFINED):
        return headers[: before - 1], True
    return headers, False


def _header_at(data: bytes, at: int, syntax: Syntax) -> tuple[int, int, int]:
    """Return tag, length and the place of the value; implicit without a VR, as within UN."""
    group, number, length = syntax.tag_and_length.unpack_from(data, at)
    code = data[at + 4 : at + 6]
    if not syntax.implicit and group != DELIMITER_GROUP:
        if code in SHORT_VRS:
            length = syntax.explicit.unpack_from(data, at)[3]
        elif code in LONG_VRS and at + LONG_HEADER <= len(data):
            at += LONG_HEADER - HEADER
            length = syntax.long.unpack_from(data, at + 4)[0]
    return group << 16 | number, length, at + HEADER


def _faults(levels: _Levels, headers: list[_Header]) -> int:
    """Change `levels` as the headers demand; return how often one stands where none may.

    What the first header closes has been taken off already.
    """
    first, length = headers[0] if headers else (ITEM_END, 0)
    if first == ITEM and length == UNDEFINED:
        levels.append(-1)
    faults = 0
    for tag, length in headers[1:]:
        if tag == ITEM:
            faults += _begin_item(levels, length)
        elif tag == ITEM_END:
            faults += _end_item(levels)
        elif tag == SEQUENCE_END:
            faults += _end_sequence(levels)
        else:
            faults += _add_element(levels, tag)
            if length == UNDEFINED:
                levels.append(None)
    return faults


def _begin_item(levels: _Levels, length: int) -> int:
    """Open an item, after closing the one before if that is open; return the faults."""
    faults = 0
    if levels[-1] is not None:
        faults += 1
        if len(levels) > 1:
            levels.pop()
    if length == UNDEFINED:
        levels.append(-1)
    return faults


def _end_item(levels: _Levels) -> int:
    """Close the innermost item, if it can be closed; return the faults."""
    if levels[-1] is not None and len(levels) > 1:
        levels.pop()
        return 0
    return 1


def _end_sequence(levels: _Levels) -> int:
    """Close the innermost sequence, if it can be closed; return the faults."""
    if levels[-1] is None and len(levels) > 1:
        levels.pop()
        return 0
    if len(levels) > 2 and levels[-2] is None:  # noqa: PLR2004 - an item, a sequence, their parent
        del levels[-2:]
    return 1


def _add_element(levels: _Levels, tag: int) -> int:
    """Add an element to the innermost item; return the faults."""
    faults = 0
    if levels[-1] is None:
        faults += 1
        if len(levels) > 1:
            levels.pop()
    last = levels[-1]
    if last is not None:
        faults += tag <= last
        levels[-1] = tag
    return faults
