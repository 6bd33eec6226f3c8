"""Read the headers of elements (PS3.5 7.1): the ordinary ones fast, any other with care.

A header is a tag, perhaps a VR, and the length of the value field that follows:

    explicit VR, short form (7.1.2)   group 2, number 2, VR 2, length 2
    explicit VR, long form (7.1.2)    group 2, number 2, VR 2, reserved 2, length 4
    implicit VR (7.1.3)               group 2, number 2, length 4

With explicit VR the VR decides between the two forms; with implicit VR it is looked up in the
dictionary. Items and delimiters always have the implicit form (7.5).

Most elements of most objects are *ordinary*: little endian, with a VR of the short form, a short
value, and held by the window as a whole. `run_of` returns a loop that reads as many of them as
follow each other. It only saves time: wherever it stops, `read_header` reads the next header, in
every encoding, and it would read ordinary ones the same way.

`read_header` also reads headers that break the rules. Writers invent VRs, omit them or put the
length in the wrong place, and such a header does not show which. What follows its value does: the
right way to read it leads to the end of the item or to another sound header. So each way is tried
(`_LookAhead`).
"""

from collections.abc import Callable
from itertools import permutations

from dcm2bq.dicom.dictionary import PUBLIC_VR
from dcm2bq.dicom.elements import Element
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.open_items import BrokenStructureError, OpenItem, Run, RunEnd
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
    DELIMITERS,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    LONG_HEADER,
    SEQUENCE_END,
    UNDEFINED,
    Syntax,
)
from dcm2bq.dicom.vr import BINARY_VRS, LONG_VRS, SHORT_VRS, is_vr, is_vr_like

type Header = tuple[int, str, int, int]
"""Tag; VR as written, or the dictionary's; offset and length of the value."""

RUN = 32 * 1024
"""Bytes that one run may read: a window of megabytes holds more elements than may be read between
two checks of the limits."""

_LONGEST_CHAIN = 16
"""Headers without a known VR that are followed to decide how to read them. Longer runs of them are
read in parts of this size, so that they take linear time."""

_SHORT, _LONG, _IMPLICIT = range(3)
"""The ways to read a header, in the order of the table above."""
_SIZES = (HEADER, LONG_HEADER, HEADER)

_SQ = "SQ"
_SQ_CODE = b"SQ"
_IMPLICIT_VRS = {tag: vr for tag, vr in PUBLIC_VR.items() if tag and vr not in BINARY_VRS}
_explicit_header = EXPLICIT_LITTLE.explicit.unpack_from
_implicit_header = IMPLICIT_LITTLE.tag_and_length.unpack_from
_long_length = EXPLICIT_LITTLE.long.unpack_from


# The fast way


def run_of(syntax: Syntax) -> Run | None:
    """Return the loop that reads ordinary elements of an encoding; None for big endian."""
    if not syntax.little:
        return None
    return _implicit_run if syntax.implicit else _explicit_run


def _explicit_run(item: OpenItem, window: Window, position: int, most: int) -> RunEnd:
    # Local names and no calls: this loop and the next take most of the time of reading.
    data, base = window.data, window.base
    append, vr_of = item.elements.append, SHORT_VRS.get
    first_group, last_group = item.first_group, item.last_group
    at = position - base
    horizon = min(item.limit, window.end, position + RUN) - base
    last = horizon - HEADER
    while 0 <= at <= last:
        group, number, code, length = _explicit_header(data, at)
        vr = vr_of(code)
        start = at + HEADER
        end = start + length
        if vr is None or end > horizon or length > most or not first_group <= group <= last_group:
            tag = group << 16 | number
            in_groups = first_group <= group <= last_group
            if code == _SQ_CODE and at + LONG_HEADER <= horizon and in_groups:
                return at + base, tag, at + base + LONG_HEADER, _long_length(data, at + 8)[0]
            return at + base, tag if tag == ITEM_END and not item.top_level else 0, 0, 0
        append(Element(group << 16 | number, vr, start + base, length, data[start:end], vr))
        at = end
    return at + base, 0, 0, 0


def _implicit_run(item: OpenItem, window: Window, position: int, most: int) -> RunEnd:
    # Only tags of the dictionary have a VR here: delimiters and private tags end the run.
    data, base = window.data, window.base
    append, vr_of = item.elements.append, _IMPLICIT_VRS.get
    at = position - base
    horizon = min(item.limit, window.end, position + RUN) - base
    last = horizon - HEADER
    while 0 <= at <= last:
        group, number, length = _implicit_header(data, at)
        tag = group << 16 | number
        vr = vr_of(tag)
        start = at + HEADER
        end = start + length
        if vr is None or end > horizon or length > most or vr == _SQ:
            if vr == _SQ:
                return at + base, tag, start + base, length
            return at + base, tag if tag == ITEM_END and not item.top_level else 0, 0, 0
        append(Element(tag, vr, start + base, length, data[start:end], vr))
        at = end
    return at + base, 0, 0, 0


# The careful way


def read_header(window: Window, position: int, item: OpenItem, notes: Notes) -> Header:
    """Return the header at `position`, which the window must hold.

    If the first element of an item of an explicit data set has no VR, the item is read as an
    implicit one from here on. Raises `BrokenStructureError` if no way to read the header leads
    anywhere.
    """
    syntax, data, at = item.syntax, window.data, position - window.base
    group, number, code, length = syntax.explicit.unpack_from(data, at)
    tag = group << 16 | number
    if group == DELIMITER_GROUP:
        return tag, "", position + HEADER, 0
    if not syntax.implicit:
        if code in SHORT_VRS:
            return tag, SHORT_VRS[code], position + HEADER, length
        if code in LONG_VRS:
            start = position + LONG_HEADER
            if not length and start <= window.end:  # the reserved bytes are zero, as they must be
                length = syntax.long.unpack_from(data, at + HEADER)[0]
                if length == UNDEFINED or start + length <= item.limit:
                    return tag, LONG_VRS[code], start, length
            return tag, LONG_VRS[code], *_long_form(window, position, item, notes)
        is_explicit = item.top_level or item.elements or is_vr_like(code) or not syntax.little
        if is_explicit or _is_odd_explicit(window, position, item):
            # A value written as UN would be little endian (PS3.5 6.2.2); this one has the byte
            # order of its data set, so that a big endian one gets the dictionary's VR at once.
            vr = "UN" if syntax.little else item.known_vr(tag)
            return tag, vr, *_odd_header(window, position, item, tag, notes)
        item.syntax, item.run = IMPLICIT_LITTLE, run_of(IMPLICIT_LITTLE)
    length = item.syntax.long.unpack_from(data, at + 4)[0]
    return tag, item.known_vr(tag), position + HEADER, length


def hidden_item_syntax(window: Window, position: int, syntax: Syntax) -> Syntax:
    """Return the encoding of an item within UN, whose first element is at `position`.

    It should be implicit (PS3.5 6.2.2), but some writers keep the explicit encoding: a VR after
    the tag shows it.
    """
    if _tag_at(window, position, syntax) >> 16 == DELIMITER_GROUP:
        return syntax
    return EXPLICIT_LITTLE if is_vr(window.peek(position + 4, 2)) else IMPLICIT_LITTLE


def begins_with_odd_vr(window: Window, position: int, syntax: Syntax) -> bool:
    """Return whether an explicit data set begins at `position` with an element of unknown VR."""
    item = OpenItem([], window.size, defined=True, syntax=syntax, run=None, top_level=True)
    return _is_odd_explicit(window, position, item)


def begins_element(window: Window, position: int, item: OpenItem) -> bool:
    """Return whether an element of `item` may begin at `position`: it and the next are sound."""
    if item.syntax.implicit:
        reading, is_sound = _IMPLICIT, _is_known
    else:
        reading = _LONG if window.peek(position + 4, 2) in LONG_VRS else _SHORT
        is_sound = _has_vr_within
    look = _LookAhead(window, item, position)
    return is_sound(window, position, item) and bool(
        look.follow(reading, None, is_sound, any_order=False)
    )


# Headers that break the rules


def _is_odd_explicit(window: Window, position: int, item: OpenItem) -> bool:
    """Return whether the first element of an item is explicit, but without a known VR.

    It is not if the item can be read as an implicit one.
    """
    look = _LookAhead(window, item, position)
    if item.syntax.little and look.follow(
        _IMPLICIT, _IMPLICIT, _is_never_sound, any_order=False, enough=True
    ):
        return False
    readings = (_SHORT, _LONG, _IMPLICIT)
    return any(look.follow(way, way, _is_certain, any_order=False) for way in readings) or any(
        look.follow(way, way, _is_certain, any_order=True, enough=True) for way in (_SHORT, _LONG)
    )


def _long_form(window: Window, position: int, item: OpenItem, notes: Notes) -> tuple[int, int]:
    """Return offset and length of the value of an element whose VR has the long form.

    The two reserved bytes must be zero and must not be decoded (PS3.5 7.1.2). Some writers put
    the length there, in a header of 8 bytes; others leave garbage. The right reading is the one
    that a sound element follows; if that holds for both or neither, it is the standard's,
    because a length cannot be told from garbage otherwise.
    """
    start = position + LONG_HEADER
    length = _length(window, position, item.syntax, _LONG)
    short = _length(window, position, item.syntax, _SHORT)
    if not short and (start + length <= item.limit or length == UNDEFINED):
        return start, length
    if start > item.limit and item.top_level and not short:  # a cut object looks like this
        raise BrokenStructureError("cut inside an element's header", position)
    look = _LookAhead(window, item, position)
    for following, any_order in ((None, False), (None, True), (_SHORT, False), (_LONG, False)):
        if look.follow(_LONG, following, _has_vr, any_order=any_order):
            break
        if look.follow(_SHORT, following, _has_vr_within, any_order=any_order):
            tag = _tag_at(window, position, item.syntax)
            known_tag = tag if item.knows(tag) else None
            notes.add("a 2-byte length where the VR has 4 bytes", tag=known_tag, offset=position)
            return position + HEADER, short
    if start > item.limit:
        raise BrokenStructureError("cut inside an element's header", position)
    return start, length


def _odd_header(
    window: Window, position: int, item: OpenItem, tag: int, notes: Notes
) -> tuple[int, int]:
    """Return offset and length of the value of an explicit element without a known VR."""
    reading = item.odd_reading
    if reading is None or position >= item.odd_until:
        reading = _find_reading(window, position, item)
    notes.add("no known VR", tag=tag if item.knows(tag) else None, offset=position)
    return position + _SIZES[reading], _length(window, position, item.syntax, reading)


def _find_reading(window: Window, position: int, item: OpenItem) -> int:
    """Return how to read the header of an element without a known VR.

    The right reading is followed by the end of the item or by another element: preferably one of
    known VR and of a higher tag (`_STRICT_FIRST`). What worked for the last such element is tried
    first. The item records how far the elements after this one have been followed, so that
    `_odd_header` need not try again before.
    """
    look = _LookAhead(window, item, position)
    readings = {_SHORT: None, _LONG: None, _IMPLICIT: None}  # a set that keeps its order
    if item.odd_reading is not None:
        readings = {item.odd_reading: None, **readings}
        if position == item.odd_until:  # the next part of a long run
            until = look.follow(
                item.odd_reading, item.odd_reading, _has_vr_within, any_order=True, enough=True
            )
            if until:
                item.odd_until = until
                return item.odd_reading
    for is_sound, any_order in _STRICT_FIRST:
        for reading in readings:
            # The elements after it are like it, or implicit: a known defect of some devices.
            for following in {reading: None, _IMPLICIT: None}:
                until = look.follow(
                    reading, following, is_sound, any_order=any_order, enough=any_order
                )
                if until:
                    item.odd_reading, item.odd_until = following, until
                    return reading
    for reading, following in permutations(readings, 2):
        until = look.follow(reading, following, _is_certain, any_order=False)
        if until:
            item.odd_reading, item.odd_until = following, until
            return reading
    raise BrokenStructureError("expected an element's header", position)


class _LookAhead:
    """A look ahead at the elements from `position` on."""

    def __init__(self, window: Window, item: OpenItem, position: int) -> None:
        self._window = window
        self._item = item
        self._position = position

    def follow(
        self,
        reading: int,
        following: int | None,
        is_sound: Callable[[Window, int, OpenItem], bool],
        *,
        any_order: bool,
        enough: bool = False,
    ) -> int:
        """Return the offset up to which elements can be read; 0 if they cannot.

        The first one is read by `reading`. It must be followed by the end of the item or by a
        header that `is_sound`. Other elements without a VR may come in between; they are read by
        `following`, unless that is None. With `any_order` their tags need not ascend, but must be
        likely. With `enough` it suffices that `_LONGEST_CHAIN` elements can be read.
        """
        window, item, position = self._window, self._item, self._position
        tag = _tag_at(window, position, item.syntax)
        code = window.peek(position + 4, 2)
        for _ in range(_LONGEST_CHAIN):
            start = position + _SIZES[reading]
            length = _length(window, position, item.syntax, reading)
            if length == UNDEFINED:
                first = _tag_at(window, start, item.syntax)
                return start if first in {ITEM, SEQUENCE_END} else 0
            end = start + length
            next_tag = _tag_at(window, end, item.syntax)
            if end >= item.limit or next_tag >> 16 == DELIMITER_GROUP:
                return end if self._is_end(end, next_tag, any_order=any_order) else 0
            same_group = next_tag >> 16 == tag >> 16
            in_order = next_tag > tag or (any_order and (same_group or item.knows(tag)))
            if in_order and is_sound(window, end, item):
                return end
            # NULs look like a chain of empty elements, and noise like one of arbitrary tags.
            is_likely = (
                not any_order
                or same_group
                or (next_tag > tag and next_tag >> 24 == tag >> 24)
                or item.knows(next_tag)
                or window.peek(end + 4, 2) == code
            )
            if following is None or not (in_order and is_likely and next_tag >> 16):
                return 0
            tag, position, reading = next_tag, end, following
        return position if enough else 0

    def _is_end(self, position: int, tag: int, *, any_order: bool) -> bool:
        """Return whether the item may end at `position`, or have a stray delimiter there."""
        item = self._item
        if position >= item.limit:
            return position == item.limit and (item.defined or any_order)
        return not item.defined or (any_order and tag in DELIMITERS)


def _has_vr(window: Window, position: int, _: OpenItem) -> bool:
    return is_vr(window.peek(position + 4, 2))


def _is_known(window: Window, position: int, item: OpenItem) -> bool:
    return item.known_vr(_tag_at(window, position, item.syntax)) != "UN"


def _has_vr_like(window: Window, position: int, _: OpenItem) -> bool:
    return is_vr_like(window.peek(position + 4, 2))


def _has_vr_within(window: Window, position: int, item: OpenItem) -> bool:
    """Return whether an element of known VR fits into the item, its length 2 or 4 bytes."""
    code = window.peek(position + 4, 2)
    if not is_vr(code):
        return False
    for reading in (_LONG, _SHORT) if code in LONG_VRS else (_SHORT,):
        length = _length(window, position, item.syntax, reading)
        start = position + _SIZES[reading]
        if start <= item.limit and (length == UNDEFINED or start + length <= item.limit):
            return True
    return False


def _is_certain(window: Window, position: int, item: OpenItem) -> bool:
    """Return whether an element of known VR and known tag fits into the item."""
    return item.knows(_tag_at(window, position, item.syntax)) and _has_vr_within(
        window, position, item
    )


def _is_never_sound(_window: Window, _position: int, _item: OpenItem) -> bool:
    return False


_STRICT_FIRST = (
    (_is_certain, False),
    (_has_vr, False),
    (_has_vr_like, False),
    (_has_vr_within, True),
)
"""What may follow an element without a known VR, the most convincing first, and whether its tag
may be lower. Text can spell a VR, as "ISO_IR 100" does, but hardly a tag before it."""


def _length(window: Window, position: int, syntax: Syntax, reading: int) -> int:
    """Return the length in the header at `position`; 0 if the object ends before it."""
    size = _SIZES[reading]
    head = window.peek(position, size)
    if len(head) < size:
        return 0
    if reading == _SHORT:
        return int(syntax.explicit.unpack(head)[3])
    return int(syntax.long.unpack_from(head, size - 4)[0])


def _tag_at(window: Window, position: int, syntax: Syntax) -> int:
    """Return the tag at `position`; 0 if the object ends within its header."""
    head = window.peek(position, HEADER)
    if len(head) < HEADER:
        return 0
    group, number, _ = syntax.tag_and_length.unpack(head)
    return int(group << 16 | number)
