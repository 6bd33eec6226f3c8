"""Headers of elements (PS3.5 7.1), also of those that are not as they should be."""

from collections.abc import Callable

from dcm2bq.dicom.frames import BrokenFramingError, OpenItem
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.ordinary import run_of
from dcm2bq.dicom.source import Window
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    ITEM,
    LONG_HEADER,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Syntax,
    is_vr,
    is_vr_like,
)

_LONGEST_CHAIN = 16

type Header = tuple[int, str, int, int]
"""Tag, VR as written (the dictionary's if there is none), offset and length of the value."""


def read_header(window: Window, position: int, item: OpenItem, notes: Notes) -> Header:
    """Return the header at `position`, which the window holds.

    An item of an explicit data set whose first element has no VR goes on as an implicit
    one. Raises `BrokenFramingError` where no reading of the header makes sense.
    """
    syntax, data, at = item.syntax, window.data, position - window.base
    group, number, code, length = syntax.explicit.unpack_from(data, at)
    tag = group << 16 | number
    if group == DELIMITER_GROUP:
        return tag, "", position + HEADER, 0
    if not syntax.implicit:
        if code in SHORT_VRS:
            return tag, SHORT_VRS[code], position + HEADER, length
        start = position + LONG_HEADER
        if code in LONG_VRS:
            if start > min(window.end, item.limit):
                raise BrokenFramingError("cut inside an element's header", position, tag)
            return tag, LONG_VRS[code], start, syntax.long.unpack_from(data, at + 8)[0]
        if item.top_level or item.elements or is_vr_like(code):
            return _odd_header(window, position, item, tag, notes)
        item.syntax, item.run = IMPLICIT_LITTLE, run_of(IMPLICIT_LITTLE)
    length = item.syntax.long.unpack_from(data, at + 4)[0]
    return tag, item.known_vr(tag), position + HEADER, length


def hidden_item_syntax(window: Window, position: int, syntax: Syntax) -> Syntax:
    """Return how an item within UN is encoded, whose first element stands at `position`.

    Implicit is the rule (PS3.5 6.2.2), but a VR where one would stand tells otherwise.
    """
    if _tag_at(window, position, syntax) >> 16 == DELIMITER_GROUP:
        return syntax
    return EXPLICIT_LITTLE if is_vr(window.peek(position + 4, 2)) else IMPLICIT_LITTLE


def _odd_header(window: Window, position: int, item: OpenItem, tag: int, notes: Notes) -> Header:
    """Return the header of an explicit element without a known VR.

    The length may have two or four bytes, or the header may be an implicit one: that
    reading is right whose value is followed by the item's end or by another element, by
    one of known VR rather than of unknown.
    """
    syntax = item.syntax
    head = window.peek(position, min(LONG_HEADER, item.limit - position))
    readings = [(position + HEADER, syntax.explicit.unpack_from(head)[3])]
    if len(head) == LONG_HEADER:
        readings.append((position + LONG_HEADER, syntax.long.unpack_from(head, 8)[0]))
    readings.append((position + HEADER, syntax.long.unpack_from(head, 4)[0]))
    for is_expected in (is_vr, is_vr_like):
        for reading in readings:
            if _makes_sense(window, item, tag, reading, is_expected):
                notes.add("no known VR where one must stand", tag=tag, offset=position)
                return tag, "UN", *reading
    raise BrokenFramingError("no element header", position, tag)


def _makes_sense(
    window: Window,
    item: OpenItem,
    tag: int,
    reading: tuple[int, int],
    is_expected: Callable[[bytes], bool],
) -> bool:
    """Return whether what is behind a value, by its offset and length, may be there.

    Some further elements may have no VR either, as implicit ones do.
    """
    start, length = reading
    for _ in range(_LONGEST_CHAIN):
        if length == UNDEFINED:
            return _tag_at(window, start, item.syntax) in {ITEM, SEQUENCE_END}
        end = start + length
        if end >= item.limit:
            return end == item.limit and item.defined
        following = _tag_at(window, end, item.syntax)
        if following >> 16 == DELIMITER_GROUP:
            return not item.defined
        head = window.peek(end, HEADER)
        if following <= tag or is_expected(head[4:6]):
            return following > tag
        tag, start, length = following, end + HEADER, item.syntax.long.unpack_from(head, 4)[0]
    return False


def _tag_at(window: Window, position: int, syntax: Syntax) -> int:
    head = window.peek(position, HEADER)
    if len(head) < HEADER:
        return 0
    group, number, _ = syntax.tag_and_length.unpack(head)
    return int(group << 16 | number)
