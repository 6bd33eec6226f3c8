"""Remove attributes or replace them with pseudonyms: the options `privacy.*` (PS3.15 Annex E).

Rules select elements by tag and apply at every level. A pseudonym is a keyed HMAC-SHA-256 of a
value. Equal values have equal pseudonyms wherever they occur, so that rows can still be joined.

Because rules select by tag, no value may contain other elements. While any rule is in force, a
value that is not the text, the numbers or the bytes that its tag calls for stays in the object.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydicom._dicom_dict import RepeatersDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dcm2bq.config import Privacy
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import is_private, most_values, public_vr
from dcm2bq.dicom.elements import (
    CHECK_EVERY,
    MADE,
    SPECIFIC_CHARACTER_SET,
    Element,
    Item,
    find,
    tag_of,
)
from dcm2bq.dicom.notes import Notes, is_named_in
from dcm2bq.dicom.privacy.profile import Action, basic_action, profile_action
from dcm2bq.dicom.values import (
    DECODERS,
    NUMBER_TEXT_VRS,
    NUMBER_VRS,
    TEXT_VRS,
    BadValueError,
    is_text,
)
from dcm2bq.dicom.vr import BINARY_VRS
from dcm2bq.errors import ConfigError
from dcm2bq.hash_key import required_key

_PRIVATE = "private"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_MASK = re.compile(r"[0-9A-Fa-fx]{8}")
_ANY_PRIVATE = re.compile("[0-9A-F]{3}[13579BDF][0-9A-F]{4}")
_UID_ROOT = "2.25."  # UIDs made from a 128-bit integer (PS3.5 B.2)
_HASHABLE = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
_MOST_TAGS = 4096
"""Most tags whose actions are cached: more than real collections have."""
SOP_INSTANCE_UID = 0x00080018
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
"""The same UID under another tag (PS3.10 7.1)."""


_SIZES = {"SS": 2, "US": 2, "US or SS": 2, "FD": 8, "SV": 8, "UV": 8}
"""Bytes of a number, if not 4."""
_FIRST_CHARACTER = ord(" ")
"""A tag whose four bytes are all at least this could be four characters of text."""
_ITEM = b"\xfe\xff\0\xe0"
"""The tag of an item, which starts a sequence; little endian, as values are."""


class Rules:
    """The actions by tag, and the key of the pseudonyms.

    `remove` takes precedence over `hash`, and both over the profile. Raises `ConfigError`, which
    names the option, for a text that does not name an attribute and for one that cannot be hashed.
    """

    def __init__(self, options: Privacy, key: bytes) -> None:
        self._key = key
        removed = [(_selector(name, "privacy.remove"), Action.REMOVE) for name in options.remove]
        hashed = [(_hashable(name), Action.HASH) for name in options.hash]
        self._layers = [_Layer(removed), _Layer(hashed)]
        self._profile = options.profile
        self._options = frozenset(options.options)
        self._actions: dict[int, Action | None] = {}

    def action(self, tag: int) -> Action | None:
        """Return what happens to an element with this tag; None if it is kept."""
        if tag not in self._actions:
            if len(self._actions) >= _MOST_TAGS:
                self._actions.clear()
            self._actions[tag] = self._find(tag)
        return self._actions[tag]

    def _find(self, tag: int) -> Action | None:
        alias = SOP_INSTANCE_UID if tag == MEDIA_STORAGE_SOP_INSTANCE_UID else tag
        for layer in self._layers:
            for name in (tag, alias):
                if name in layer:
                    return layer.action(name)
        return None if self._profile is None else profile_action(tag, self._options)

    def pseudonym(self, vr: str, value: str) -> str:
        """Return the pseudonym of a value: a UID for a UID, hex digits for other text.

        Well-known UIDs (PS3.6 Annex A), such as SOP classes, are kept: they do not identify anyone.
        """
        value = value.replace(" ", "") if vr == "UI" else value.strip()
        if vr == "UI" and value in UID_dictionary:
            return value
        digest = hmac.digest(self._key, value.encode(), hashlib.sha256)
        return f"{_UID_ROOT}{int.from_bytes(digest[:16])}" if vr == "UI" else digest.hex().upper()

    def apply(self, data_set: Item, notes: Notes, deadline: Deadline = NO_DEADLINE) -> None:
        """Remove, empty and replace elements of a data set in place, at every level.

        Sorts the elements by tag. Raises the errors of `deadline`.
        """
        todo = [(data_set, DEFAULT_CHARSET)]
        count = 0
        for elements, outer in todo:
            count += len(elements)
            if count >= CHECK_EVERY:
                deadline.check()
                count = 0
            elements.sort(key=tag_of)
            declared = find(elements, SPECIFIC_CHARACTER_SET)
            charset = outer
            if declared and isinstance(declared.value, bytes):
                charset, _ = parse_charset(declared.value)
            kept = (self._treated(element, elements, charset, notes) for element in elements)
            elements[:] = [element for element in kept if element is not None]
            for element in elements:
                if isinstance(element.value, list):
                    todo += [(item, charset) for item in element.value]

    def _treated(
        self, element: Element, item: Item, charset: Charset, notes: Notes
    ) -> Element | None:
        """Return what replaces an element of an item; None if it is removed."""
        action = self.action(element.tag)
        if action not in {None, Action.REMOVE, Action.EMPTY, Action.HASH}:
            action = basic_action(element.tag)
        if action is None:
            return _guarded(element, item, charset, notes)
        if action is Action.REMOVE:
            return None
        tag, vr, value = element.tag, element.vr, element.value
        if isinstance(value, list) and action is Action.EMPTY:
            return _made(tag, "SQ", [])
        if action is Action.EMPTY or value == b"":
            return _made(tag, vr, b"")
        hashed = self._hashed(tag, vr, value, charset)
        if hashed is None:
            notes.about(element, item, "emptied: only text can be hashed", vr=vr)
            return _made(tag, vr if vr in DECODERS else public_vr(tag), b"")
        return _made(tag, public_vr(tag), hashed)

    def _hashed(self, tag: int, vr: str, value: Any, charset: Charset) -> bytes | None:
        """Return a value field with a pseudonym for each value; None if the value is not text.

        The value is decoded by the dictionary's VR, so that pseudonyms do not depend on the VR
        that is written.
        """
        if not isinstance(value, bytes) or vr not in TEXT_VRS:
            return None
        vr = public_vr(tag)
        try:
            values = DECODERS[vr](value, charset)
        except BadValueError as bad:
            values = bad.values or []
        texts = [self.pseudonym(vr, text) if text else "" for text in values]
        return "\\".join(texts).encode()


def _made(tag: int, vr: str, value: bytes | list[Item]) -> Element:
    """Return an element that replaces the one in the object."""
    return Element(tag, vr, MADE, len(value), value, vr)


def _guarded(element: Element, item: Item, charset: Charset, notes: Notes) -> Element | None:
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
    is_short = most is None or len(value) <= most * _SIZES.get(vr, 4)
    return is_short and _ITEM not in value


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


class _Layer:
    """The actions of one option, by exact tag, by mask and for `private`."""

    def __init__(self, actions: Iterable[tuple[str, Action | None]]) -> None:
        self._tags: dict[int, Action | None] = {}
        self._masks: list[tuple[re.Pattern[str], Action | None]] = []
        for selector, action in actions:
            if _TAG.fullmatch(selector):
                self._tags[int(selector, 16)] = action
            elif selector == _PRIVATE:
                self._masks.append((_ANY_PRIVATE, action))
            else:
                mask = re.compile(selector.upper().replace("X", "[0-9A-F]"))
                self._masks.append((mask, action))

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags or any(mask.fullmatch(f"{tag:08X}") for mask, _ in self._masks)

    def action(self, tag: int) -> Action | None:
        """Return the action for a tag in the layer: that of the exact tag, else of the mask."""
        if tag in self._tags:
            return self._tags[tag]
        return next(action for mask, action in self._masks if mask.fullmatch(f"{tag:08X}"))


@lru_cache(maxsize=16)
def privacy_rules(options: Privacy) -> Rules | None:
    """Return the rules for headers that the options specify; None if they specify none.

    The key is looked up once for each set of options; a secret must have been read before, by
    `secret_manager`. Raises `ConfigError`.
    """
    if not options.is_on:
        return None
    key = required_key(options) if options.needs_key else b""
    return Rules(options, key) if options.changes_headers else None


def check_attributes(options: Privacy) -> None:
    """Raise `ConfigError` for attributes that cannot be removed or hashed, without the key."""
    Rules(options, b"")


def _selector(text: str, option: str) -> str:
    """Return `private`, or eight hex digits, of which `x` stands for any digit."""
    if text == _PRIVATE or _MASK.fullmatch(text):
        return text
    tag = tag_for_keyword(text)
    if tag is not None:
        return f"{tag:08X}"
    for mask, entry in RepeatersDictionary.items():
        if entry[4] == text:
            return mask
    raise ConfigError(f"{option}: {text} is not a keyword, eight hex digits or private")


def _hashable(text: str) -> str:
    selector = _selector(text, "privacy.hash")
    if not _TAG.fullmatch(selector):
        raise ConfigError(
            f"privacy.hash: {text} names several attributes: only single ones can be hashed"
        )
    try:
        vr = dictionary_VR(int(selector, 16))
    except KeyError:
        raise ConfigError(f"privacy.hash: {text} is not in the data dictionary") from None
    if vr not in _HASHABLE:
        raise ConfigError(
            f"privacy.hash: {text} has VR {vr}, which can only be removed, not hashed"
        )
    return selector
