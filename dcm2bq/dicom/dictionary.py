"""Look up tags in the data dictionary: keyword, VR, multiplicity (PS3.6)."""

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._private_dict import private_dictionaries
from pydicom.datadict import get_entry, get_private_entry

CREATOR_FIRST, CREATOR_LAST = 0x10, 0xFF
"""Element numbers of private creators (PS3.5 7.8.1)."""

_PLAIN = {
    "OB or OW": "OW",
    "OB_OW": "OW",
    "US or OW": "OW",
    "US or SS or OW": "OW",
}
"""The VR in implicit data sets, if the dictionary leaves a choice (PS3.5 A.1)."""

_RETIRED = {0x5000200C: "OB", 0x50003000: "OB"}
"""Audio Sample Data and Curve Data of any group 50xx are bytes (PS3.5-2004 A.1)."""
_ANY_GROUP = 0xFF00FFFF

MOST_KEYS = 4096
"""Most tags that a cache holds: more than real collections have.

A hostile object could add millions. Its strings would be scattered over the heap, and keep the
memory of the whole object from being returned to the system.
"""


class Keywords(dict[int, str]):
    """Tag to keyword, or to eight hex digits if the dictionary has no keyword for exactly this tag.

    Tags of repeating groups (50xx, 60xx) are hex digits, because they share their keywords.
    """

    def __init__(self) -> None:
        super().__init__({tag: entry[4] for tag, entry in DicomDictionary.items() if entry[4]})

    def __missing__(self, tag: int) -> str:
        key = f"{tag:08X}"
        if len(self) < MOST_KEYS:
            self[tag] = key
        return key


KEYWORDS = Keywords()

PUBLIC_VR = {
    tag: _PLAIN.get(entry[0], entry[0])
    for tag, entry in DicomDictionary.items()
    if entry[0] != "NONE"
}


def is_private(tag: int) -> bool:
    """Return whether a tag has an odd group (PS3.5 7.8)."""
    return bool(tag & 0x10000)


def creator_tag(tag: int) -> int:
    """Return the tag of the creator of a private tag's block; a creator's own tag (PS3.5 7.8.1).

    >>> f"{creator_tag(0x00191009):08X}"
    '00190010'
    """
    number = tag & 0xFFFF
    return tag if number <= CREATOR_LAST else tag & 0xFFFF0000 | number >> 8


def is_named(tag: int, creator: object = None) -> bool:
    """Return whether messages may name a tag. An unknown one might be bytes of a value.

    The dictionary must have it, or `creator`, the value of its private creator, must be text.
    """
    if not is_private(tag):
        return bool(tag & 0xFFFF) and public_vr(tag) != "UN"
    if not CREATOR_FIRST <= creator_tag(tag) & 0xFFFF <= CREATOR_LAST:
        return False
    text = creator.strip(b" \0") if isinstance(creator, bytes) else b""
    return bool(text) and text.isascii() and str(text, "ascii").isprintable()


def public_vr(tag: int) -> str:
    """Return the VR of a public tag, also in repeating groups; UN if it is unknown."""
    return PUBLIC_VR.get(tag) or _rare_vr(tag)


@lru_cache(maxsize=4096)
def _rare_vr(tag: int) -> str:
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        vr = get_entry(tag)[0]
    except KeyError:
        return "UN"
    return _RETIRED.get(tag & _ANY_GROUP) or _PLAIN.get(vr, vr)


@lru_cache(maxsize=4096)
def most_values(tag: int) -> int | None:
    """Return how many values a public tag may have; None if it is unknown or has no bound."""
    try:
        return _most(get_entry(tag)[1])
    except KeyError:
        return None


@lru_cache(maxsize=4096)
def most_private_values(tag: int, creator: str) -> int | None:
    """Return how many values a private tag may have; None if it is unknown or has no bound."""
    try:
        return _most(get_private_entry(tag, known_creator(creator))[1])
    except KeyError:
        return None


def _most(multiplicity: str) -> int | None:
    """Return the most values of a multiplicity, such as 3 of `1-3`; None if it has no bound."""
    last = multiplicity.partition("-")[2] or multiplicity
    return int(last) if last.isdecimal() else None


@lru_cache(maxsize=4096)
def private_vr(tag: int, creator: str | None) -> str:
    """Return the VR of a private tag in the block of `creator`; UN if it is unknown.

    An unknown creator is looked up again without regard to case and blanks: scanners write
    `PHILIPS IMAGING DD 001` where the dictionary has `Philips Imaging DD 001`.
    """
    if tag & 0xFFFF == 0:
        return "UL"
    if CREATOR_FIRST <= tag & 0xFFFF <= CREATOR_LAST:
        return "LO"
    try:
        vr = get_private_entry(tag, known_creator(creator or ""))[0]
    except KeyError:
        return "UN"
    return _PLAIN.get(vr, vr)


class DictionaryEntry(NamedTuple):
    """An attribute, as the columns of the table `dicom_dictionary` describe it."""

    tag: str
    keyword: str | None
    name: str | None
    vr: str
    vm: str
    retired: bool
    private_creator: str | None = None


def entries() -> Iterator[DictionaryEntry]:
    """Yield every attribute of the standard, then those of private creators.

    Digits of a tag that may vary are `x`: of repeating groups, and of the block of a private
    element.

    >>> next(entry for entry in entries() if entry.keyword == "PatientID")[:5]
    ('00100020', 'PatientID', 'Patient ID', 'LO', '1')
    """
    standard = {f"{tag:08X}": entry for tag, entry in DicomDictionary.items()}
    for tag, (vr, vm, name, retired, keyword) in (standard | RepeatersDictionary).items():
        yield DictionaryEntry(_digits(tag), keyword or None, name or None, vr, vm, bool(retired))
    for creator, elements in private_dictionaries.items():
        for tag, (vr, vm, name, retired) in elements.items():
            yield DictionaryEntry(_digits(tag), None, name, vr, vm, bool(retired), creator)


def _digits(tag: str) -> str:
    return tag.upper().replace("X", "x")


def known_creator(creator: str) -> str:
    """Return a private creator as the dictionary spells it; "" if it is not there.

    >>> known_creator("PHILIPS IMAGING DD 001")
    'Philips Imaging DD 001'
    """
    if creator in private_dictionaries:
        return creator
    return _spellings().get(normalized_creator(creator), "")


def normalized_creator(creator: str) -> str:
    """Return a private creator without case and blanks, to compare it with others."""
    return "".join(creator.split()).casefold()


@cache
def tags_by_keyword() -> dict[str, int]:
    """Return the tag of every keyword but those of repeating groups, which have several tags."""
    return {entry[4]: tag for tag, entry in DicomDictionary.items() if entry[4]}


def attribute_name(tag: int) -> str:
    """Return the name of a public attribute (PS3.6); "" if it is unknown."""
    entry = DicomDictionary.get(tag)
    return entry[2] if entry else ""


def private_name(tag: int, creator: str) -> str:
    """Return the dictionary's name of a private element in the block of `creator`; "" if none."""
    try:
        return get_private_entry(tag, known_creator(creator))[2]
    except KeyError:
        return ""


@cache
def _spellings() -> dict[str, str]:
    """Return the dictionary's creators by their names without case and blanks."""
    return {normalized_creator(creator): creator for creator in private_dictionaries}
