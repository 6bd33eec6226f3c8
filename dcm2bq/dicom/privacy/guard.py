"""Keep elements only if they are what their tags say.

Rules select elements by tag, so no value may contain other elements. While any rule is in force, a
value that is not the text, the numbers or the bytes that its tag calls for stays in the object.
"""

from dcm2bq.dicom.charset import Charset
from dcm2bq.dicom.dictionary import is_private, most_values, public_vr
from dcm2bq.dicom.elements import Element, Item
from dcm2bq.dicom.notes import Notes, is_named_in
from dcm2bq.dicom.values import NUMBER_TEXT_VRS, NUMBER_VRS, TEXT_VRS, is_text
from dcm2bq.dicom.vr import BINARY_VRS

_SIZES = {"SS": 2, "US": 2, "US or SS": 2, "FD": 8, "SV": 8, "UV": 8}
"""Bytes of a number, if not 4."""
_FIRST_CHARACTER = ord(" ")
"""A tag whose four bytes are all at least this could be four characters of text."""
_ITEM = b"\xfe\xff\0\xe0"
"""The tag of an item, which starts a sequence; little endian, as values are."""


def guarded(element: Element, item: Item, charset: Charset, notes: Notes) -> Element | None:
    """Return an element that no rule names, without its value if this could contain elements.

    None if its tag could be four characters of a value that was mistaken for a header.
    """
    tag, vr, value = element.tag, element.vr, element.value
    if min(tag.to_bytes(4)) >= _FIRST_CHARACTER and not is_named_in(item, tag):
        notes.about(element, item, "left out: its tag is unknown and could be text")
        return None
    if not value or not isinstance(value, bytes):
        return element
    is_sound = is_text(vr, value, charset) if vr in TEXT_VRS else _are_numbers(tag, vr, value)
    if is_sound and _fits_tag(tag, vr) and not (element.was_unknown and vr in BINARY_VRS):
        return element
    left = "UN" if element.was_unknown else vr
    if vr not in BINARY_VRS:
        reason = "left in the object: it could contain what the rules remove"
        notes.about(element, item, reason, vr=left)
    return Element(tag, left, element.offset, element.length, None, left)


def _are_numbers(tag: int, vr: str, value: bytes) -> bool:
    """Return whether a value that is not text has no items, nor more numbers than allowed."""
    if vr in BINARY_VRS:
        return not value.startswith(_ITEM)
    if not tag & 0xFFFF:  # a group length, of any group (PS3.5 7.2)
        most: int | None = 1
    else:
        most = None if is_private(tag) else most_values(tag)
    return (most is None or is_short(vr, value, most)) and _ITEM not in value


def is_short(vr: str, value: bytes, most: int) -> bool:
    """Return whether a value of binary numbers has at most `most` of them."""
    return len(value) <= most * _SIZES.get(vr, 4)


def _fits_tag(tag: int, vr: str) -> bool:
    """Return whether a tag may have a value of a VR.

    Private and unknown tags may have any VR but a binary one: nobody knows what it would contain.
    """
    known = "UN" if is_private(tag) else public_vr(tag)
    if vr in BINARY_VRS:
        return known in BINARY_VRS and known != "UN"
    if known == "SQ":
        return False
    return vr not in NUMBER_VRS or known not in TEXT_VRS - NUMBER_TEXT_VRS
