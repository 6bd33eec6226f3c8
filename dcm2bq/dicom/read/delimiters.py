"""Decide what a misplaced delimiter or item closes, by what follows it (PS3.5 7.5).

Writers forget delimiters, confuse the two kinds, or write one too many. A delimiter or an item that
does not fit can be understood in several ways: it is stray and closes nothing, or it closes the
innermost item or sequence, or that and the one around it, and so on. Each way is tried on the
headers that follow, and the one with the fewest faults is chosen. A fault is an element out of
order, another misplaced delimiter, or a sequence that never ends.
"""

from collections.abc import Iterator
from operator import itemgetter

from dcm2bq.dicom.elements import PIXEL_DATA
from dcm2bq.dicom.read.open_items import OpenItem, OpenSequence
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
    EXPLICIT_LITTLE,
    HEADER,
    ITEM,
    ITEM_END,
    LONG_HEADER,
    SEQUENCE_END,
    UNDEFINED,
    Syntax,
)
from dcm2bq.dicom.vr import LONG_VRS, SHORT_VRS

_MOST_BYTES = 64 * 1024
"""How far ahead headers are read: as far as the first read of an object goes."""
_MOST_HEADERS = 512
"""Headers that are read for one place: most objects have fewer between it and their pixels."""
_MOST_STEPS = 100_000
"""Headers times ways to understand them, for all places of a data set: 0.1 to 0.2 s of CPU time,
whatever the object. Further places are decided like the last one of their kind."""
_MOST_STATES = 4
"""Ways to understand the following headers that are pursued at a time: the likeliest ones."""
_UNENDED = 16
"""Faults counted for each level that is open at the object's end: such an object is refused."""

type _Levels = list[int | None]
"""What is open, outermost first: for an item its last tag (-1 if it has no element yet), for a
sequence None.

The first level has a known length or is the data set, so that no delimiter can close it.
"""
type _Header = tuple[int, int]
"""Tag and length. A value of known length has been skipped."""


class Delimiters:
    """Decides about the misplaced delimiters and items of one data set."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._steps_left = _MOST_STEPS
        self._decided: dict[tuple[int, bool, bool], int] = {}

    def levels_closed(
        self,
        tag: int,
        position: int,
        item: OpenItem | None,
        sequence: OpenSequence | None,
        *,
        likely_stray: bool,
    ) -> int:
        """Return how many open levels the header `tag` at `position` closes; 0 if it is stray.

        It is inside `item`, or between the items of `sequence` if `item` is None. `likely_stray`
        decides between ways with equally many faults.
        """
        levels, most, in_data_set = _open_levels(item, sequence)
        innermost = item or sequence
        if innermost is None or len(levels) == 1:
            return 0
        # A writer repeats its mistakes: without steps left, the last decision serves again.
        kind = (tag, item is None, likely_stray)
        if self._steps_left <= 0 and kind in self._decided:
            return min(self._decided[kind], most)
        either = sequence is not None and sequence.either
        syntax = EXPLICIT_LITTLE if either else innermost.syntax
        headers, ended = _headers_from(self._window, position, innermost.limit, syntax)
        unended = 0 if not ended else _UNENDED if in_data_set else 1
        own = 0 if tag == ITEM else 1  # the levels that such a header closes where it belongs
        ways = [0, *range(1, own + 1), *range(own + 1, most + 1, 2)]
        if not likely_stray:
            ways.sort(key=lambda closed: abs(closed - own - 1))
        if item and sequence and item.elements and item.elements[-1].tag > sequence.tag:
            # Its last elements could belong to an outer item, so that only it may be closed.
            ways = [closed for closed in ways if closed <= own + 1]
        best, fewest = 0, _MOST_STEPS
        for closed in ways:
            kept = levels[: len(levels) - closed]
            faults = max(1, closed - own)
            faults += self._fewest_faults(kept, headers, unended, fewest - faults)
            if faults < fewest:
                best, fewest = closed, faults
        self._decided[kind] = best
        return best

    def _fewest_faults(
        self, levels: _Levels, headers: list[_Header], unended: int, most: int
    ) -> int:
        """Return how few of the headers can be misplaced; `most` if it is not fewer than that.

        Each misplaced one may in turn close something or be stray. The first header is the place
        in question: what it closes has been taken off `levels`, and it can only open an item.
        """
        first, length = headers[0] if headers else (ITEM_END, 0)
        opened = first == ITEM and length == UNDEFINED
        states = {(*levels, -1) if opened else tuple(levels): 0}
        for tag, length in headers[1:]:
            self._steps_left -= len(states)
            reached: dict[tuple[int | None, ...], int] = {}
            for state, faults in states.items():
                for after, more in _states_after(state, tag, length):
                    if faults + more < min(most, reached.get(after, most)):
                        reached[after] = faults + more
            if not reached:
                return most
            if len(reached) > _MOST_STATES:
                reached = dict(sorted(reached.items(), key=itemgetter(1))[:_MOST_STATES])
            states = reached
        return min(faults + unended * (len(state) - 1) for state, faults in states.items())


def _open_levels(item: OpenItem | None, sequence: OpenSequence | None) -> tuple[_Levels, int, bool]:
    """Return the open levels, how many may be closed, and whether the first is the data set.

    A stray item counts as a level of its parent, without a sequence; it alone can be closed.
    """
    levels: _Levels = []
    if item:
        levels.append(_last_tag(item))
    most = 0
    while sequence and not (item and item.defined):
        if sequence.stray:
            most = most or max(1, len(levels) - 1)
            levels.append(_last_tag(sequence.parent))
        else:
            levels.append(None)
            if sequence.defined:
                break
            levels.append(sequence.tag)
        item, sequence = sequence.parent, sequence.outer
    return levels[::-1], most or len(levels) - 1, sequence is None


def _last_tag(item: OpenItem) -> int:
    return item.elements[-1].tag if item.elements else -1


def _headers_from(
    window: Window, position: int, limit: int, syntax: Syntax
) -> tuple[list[_Header], bool]:
    """Return the headers from `position` on, and whether they reach `limit`."""
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
        if at > end:  # no sound object has this header, so nothing is known of what follows
            return headers[:-1] or headers, False
    return _without_last_pixels(headers) if at > start + seen else (headers, at == end)


def _without_last_pixels(headers: list[_Header]) -> tuple[list[_Header], bool]:
    """Return the headers before encapsulated pixel data, and whether those are all there are.

    If its fragments continue beyond the last header, it is not the pixel data of an icon but that
    of the object, which ends with it.
    """
    before = len(headers)
    while before and headers[before - 1][0] == ITEM:
        before -= 1
    if before and headers[before - 1] == (PIXEL_DATA, UNDEFINED):
        return headers[: before - 1], True
    return headers, False


def _header_at(data: bytes, at: int, syntax: Syntax) -> tuple[int, int, int]:
    """Return tag, length and the place of the value.

    A header without a VR is read as an implicit one: within UN both kinds occur.
    """
    group, number, length = syntax.tag_and_length.unpack_from(data, at)
    code = data[at + 4 : at + 6]
    if not syntax.implicit and group != DELIMITER_GROUP:
        if code in SHORT_VRS:
            length = syntax.explicit.unpack_from(data, at)[3]
        elif code in LONG_VRS and at + LONG_HEADER <= len(data):
            at += LONG_HEADER - HEADER
            length = syntax.long.unpack_from(data, at + 4)[0]
    return group << 16 | number, length, at + HEADER


def _states_after(
    levels: tuple[int | None, ...], tag: int, length: int
) -> Iterator[tuple[tuple[int | None, ...], int]]:
    """Yield each set of levels that may be open after a header, with the faults it assumes."""
    last, opened = levels[-1], length == UNDEFINED
    if tag == ITEM:
        item = (-1,) if opened else ()
        if last is None:
            yield levels + item, 0
        else:
            yield levels + item, 1  # it is stray
            if len(levels) > 1:
                yield levels[:-1] + item, 1
    elif tag in {ITEM_END, SEQUENCE_END}:
        if len(levels) > 1 and (last is None) == (tag == SEQUENCE_END):
            yield levels[:-1], 0
            return
        yield levels, 1  # it is stray
        if len(levels) > 2:  # noqa: PLR2004 - an item, a sequence, their parent
            yield levels[:-1], 1
            yield levels[:-2], 1
    else:
        faults = 0
        if last is None and len(levels) > 1:
            levels, faults = levels[:-1], 1
            last = levels[-1]
        if last is None:
            yield levels, 1
            return
        levels = (*levels[:-1], tag)
        yield ((*levels, None) if opened else levels), faults + (tag <= last)
