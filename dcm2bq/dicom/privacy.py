"""What leaves no trace, or a pseudonym, in the output: `privacy.*` (PS3.15 Annex E).

Rules go by tag and hold at every level. A pseudonym is a keyed HMAC-SHA-256 of a value, the
same for the same value wherever it stands, so that rows can still be joined.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from importlib import resources
from typing import Any

from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dcm2bq.config import Privacy
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.tree import SPECIFIC_CHARACTER_SET, UNKNOWN, Element, Item, find, tag_of
from dcm2bq.dicom.values import DECODERS, BadValueError
from dcm2bq.errors import ConfigError

_PRIVATE = "private"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_MASK = re.compile(r"[0-9A-Fa-fx]{8}")
_ANY_PRIVATE = re.compile("[0-9A-F]{3}[13579BDF][0-9A-F]{4}")
_UID_ROOT = "2.25."  # UIDs made from a 128-bit integer (PS3.5 B.2)
_HASHABLE = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
_LEAST_KEY_BYTES = 16
_MOST_TAGS = 65536

SOP_INSTANCE_UID = 0x00080018
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
"""The same UID by another tag (PS3.10 7.1)."""


class Action(Enum):
    """What happens to an element."""

    REMOVE = auto()
    EMPTY = auto()
    HASH = auto()


_ACTIONS = {
    "X": Action.REMOVE,
    "X/Z": Action.REMOVE,
    "X/D": Action.REMOVE,
    "X/Z/D": Action.REMOVE,
    "Z": Action.EMPTY,
    "Z/D": Action.EMPTY,
    "D": Action.EMPTY,  # no dummies: nothing holds a row against an IOD
    "U": Action.HASH,
    "X/Z/U*": None,  # sequences of references: kept, with the UIDs inside replaced
}
"""The actions of Table E.1-1; of several the strictest."""


class Rules:
    """Tag to action, and the key of the pseudonyms.

    `remove` wins over `hash`, and both over the profile. Raises `ConfigError`, with the
    option's path, for what is no attribute and for what can not be hashed.
    """

    def __init__(self, options: Privacy, key: bytes) -> None:
        self._key = key
        removed = [(_selector(each, "privacy.remove"), Action.REMOVE) for each in options.remove]
        hashed = [(_hashable(each), Action.HASH) for each in options.hash]
        self._layers = [_Layer(removed), _Layer(hashed), _Layer(_profile(options.profile))]
        self._actions: dict[int, Action | None] = {}

    def action(self, tag: int) -> Action | None:
        """Return what happens to an element; None if it stays as it is."""
        if tag not in self._actions:
            if len(self._actions) >= _MOST_TAGS:
                self._actions.clear()
            self._actions[tag] = self._find(tag)
        return self._actions[tag]

    def _find(self, tag: int) -> Action | None:
        same = SOP_INSTANCE_UID if tag == MEDIA_STORAGE_SOP_INSTANCE_UID else tag
        for layer in self._layers:
            for each in (tag, same):
                if each in layer:
                    return layer.action(each)
        return None

    def pseudonym(self, vr: str, value: str) -> str:
        """Return what stands for a value: a UID for a UID, hex digits for other text."""
        digest = hmac.digest(self._key, value.encode(), hashlib.sha256)
        return f"{_UID_ROOT}{int.from_bytes(digest[:16])}" if vr == "UI" else digest.hex().upper()

    def apply(self, data_set: Item, notes: Notes) -> None:
        """Remove, empty and replace elements of a data set, in its items too."""
        todo = [(data_set, DEFAULT_CHARSET)]
        for elements, outer in todo:
            elements.sort(key=tag_of)
            declared = find(elements, SPECIFIC_CHARACTER_SET)
            charset = outer
            if declared and isinstance(declared[4], bytes):
                charset, _ = parse_charset(declared[4])
            kept = (self._treated(element, charset, notes) for element in elements)
            elements[:] = [element for element in kept if element is not None]
            for element in elements:
                if isinstance(element[4], list):
                    todo += [(item, charset) for item in element[4]]

    def _treated(self, element: Element, charset: Charset, notes: Notes) -> Element | None:
        """Return what is left of an element."""
        action = self.action(element[0])
        if action is None:
            return element
        if action is Action.REMOVE:
            return None
        tag, vr, offset, length, value = element
        if action is Action.EMPTY or value == b"":
            return tag, vr, offset, length, [] if isinstance(value, list) else b""
        hashed = self._hashed(vr.removeprefix(UNKNOWN), value, charset)
        if hashed is None:
            notes.add("emptied: what is no text can not be hashed", tag=tag, vr=vr, offset=offset)
        return tag, vr, offset, length, hashed or b""

    def _hashed(self, vr: str, value: Any, charset: Charset) -> bytes | None:
        """Return a value field that holds a pseudonym for each value; None if it is no text."""
        if not isinstance(value, bytes) or vr not in _HASHABLE:
            return None
        try:
            values = DECODERS[vr](value, charset)
        except BadValueError as bad:
            values = bad.values or []
        texts = [self.pseudonym(vr, each) if each else "" for each in values]
        return "\\".join(texts).encode()


class _Layer:
    """The actions that one option gives, by exact tags, masks and `private`."""

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
        """Return what happens to a tag that is named: an exact tag counts before a mask."""
        if tag in self._tags:
            return self._tags[tag]
        return next(action for mask, action in self._masks if mask.fullmatch(f"{tag:08X}"))


@lru_cache(maxsize=16)
def privacy_rules(options: Privacy) -> Rules | None:
    """Return the rules in force, or None when there are none.

    The key is read from the environment once. Raises `ConfigError`.
    """
    if not options.is_on:
        return None
    needs_key = bool(options.hash) or options.profile is not None
    return Rules(options, _key(options.hash_key_variable) if needs_key else b"")


def _key(variable: str) -> bytes:
    key = os.environ.get(variable, "").encode()
    if len(key) < _LEAST_KEY_BYTES:
        raise ConfigError(
            f"privacy.hashKeyVariable: {variable} must hold {_LEAST_KEY_BYTES} bytes or more"
        )
    return key


def _profile(name: str | None) -> list[tuple[str, Action | None]]:
    if name is None:
        return []
    table = resources.files(__package__).joinpath(f"{name}_profile.tsv").read_text()
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return [(selector, _ACTIONS[action]) for selector, action in rows]


def _selector(text: str, option: str) -> str:
    """Return `private`, eight hex digits, or such with `x` for any digit."""
    if text == _PRIVATE or _MASK.fullmatch(text):
        return text
    tag = tag_for_keyword(text)
    if tag is not None:
        return f"{tag:08X}"
    for mask, entry in RepeatersDictionary.items():
        if entry[4] == text:
            return mask
    raise ConfigError(f"{option}: {text} is neither a keyword, nor eight hex digits, nor private")


def _hashable(text: str) -> str:
    selector = _selector(text, "privacy.hash")
    if not _TAG.fullmatch(selector):
        raise ConfigError(f"privacy.hash: {text} is not one attribute")
    try:
        vr = dictionary_VR(int(selector, 16))
    except KeyError:
        raise ConfigError(f"privacy.hash: {text} is not in the data dictionary") from None
    if vr not in _HASHABLE:
        raise ConfigError(f"privacy.hash: {text} is {vr}, which can only be removed")
    return selector
