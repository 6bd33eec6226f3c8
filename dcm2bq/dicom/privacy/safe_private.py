"""The private elements that identify nobody: `retainSafePrivate` (PS3.15 E.3.10)."""

from functools import cache, lru_cache
from importlib import resources

from dcm2bq.dicom.charset import Charset
from dcm2bq.dicom.dictionary import (
    CREATOR_FIRST,
    CREATOR_LAST,
    MOST_KEYS,
    creator_tag,
    most_private_values,
    normalized_creator,
)
from dcm2bq.dicom.elements import Element, Item, find, made
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.guard import guarded, is_short
from dcm2bq.dicom.values import DECODERS, NUMBER_VRS, TEXT_VRS, BadValueError
from dcm2bq.dicom.vr import BINARY_VRS

_FILE = "safe_private.tsv"


@lru_cache(maxsize=MOST_KEYS)
def safe_vr(tag: int, creator: str) -> str | None:
    """Return the VR of a private tag in a block of `creator`; None if Table E.3.10-1 lacks it.

    That of the creator's own element is LO. Some elements are listed without a VR: "". Creators are
    compared like those of the dictionary, without regard to case and blanks.

    >>> safe_vr(0x0019100C, "SIEMENS MR HEADER"), safe_vr(0x00191008, "SIEMENS MR HEADER")
    ('IS', None)
    """
    name, group, number = normalized_creator(creator), tag >> 16, tag & 0xFFFF
    if not CREATOR_FIRST <= creator_tag(tag) & 0xFFFF <= CREATOR_LAST:
        return None
    if number <= CREATOR_LAST:
        return "LO" if (name, group) in _blocks() else None
    return _elements().get((name, group, number & 0xFF))


def creator_of(element: Element, item: Item) -> str:
    """Return the private creator of an element of a sorted item; "" if there is none.

    That of a creator's own element is its value.
    """
    tag = creator_tag(element.tag)
    own = element if tag == element.tag else find(item, tag)
    if own is None or not isinstance(own.value, bytes) or not own.value.isascii():
        return ""
    return str(own.value, "ascii").strip(" \0")


def guarded_safe(
    element: Element, item: Item, charset: Charset, notes: Notes, vr: str
) -> Element | None:
    """Return a private element that is listed with `vr`; None if its value is of another kind.

    Text must obey the VR. There may be no more numbers than the dictionary allows, and only one if
    it has no bound. Bytes stay in the object, as those of all private elements.
    """
    value, kept = element.value, element
    if isinstance(value, list):
        is_sound = vr == "SQ"
    elif value is None or not value or element.vr in BINARY_VRS:
        return guarded(element, item, charset, notes)
    elif vr in TEXT_VRS and element.vr in TEXT_VRS:
        is_sound = _obeys(vr, value, charset)
        kept = made(element.tag, vr, value)
    elif vr in NUMBER_VRS and element.vr == vr:
        most = most_private_values(element.tag, creator_of(element, item))
        is_sound = is_short(vr, value, most or 1)
    else:
        is_sound = False
    if is_sound:
        return guarded(kept, item, charset, notes)
    notes.about(element, item, "left out: its value does not have the VR of PS3.15 E.3.10")
    return None


def _obeys(vr: str, value: bytes, charset: Charset) -> bool:
    try:
        DECODERS[vr](value, charset)
    except BadValueError:
        return False
    return True


@cache
def _elements() -> dict[tuple[str, int, int], str]:
    """Return the VRs of the table by creator, group and element number within the block."""
    text = resources.files(__package__).joinpath(_FILE).read_text()
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {
        (normalized_creator(creator), int(group, 16), int(element, 16)): "".join(vr)
        for creator, group, element, *vr in lines[1:]
    }


@cache
def _blocks() -> frozenset[tuple[str, int]]:
    """Return the creators that have listed elements, each with a group of these."""
    return frozenset((creator, group) for creator, group, _ in _elements())
