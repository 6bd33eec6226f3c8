"""Apply the options `privacy.*` to data sets: remove, empty, hash, shift and clean elements.

Rules select elements by tag and apply at every level. A pseudonym is a keyed HMAC-SHA-256 of a
value. Equal values have equal pseudonyms wherever they occur, so that rows can still be joined.
"""

import hashlib
import hmac
from functools import cached_property, lru_cache
from typing import NamedTuple

from pydicom._uid_dict import UID_dictionary

from dcm2bq.config import Privacy
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import public_vr
from dcm2bq.dicom.elements import (
    CHECK_EVERY,
    SPECIFIC_CHARACTER_SET,
    Element,
    Item,
    find,
    made,
    tag_of,
)
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.dates import capped, checked, days_back, modified, temporal_vr
from dcm2bq.dicom.privacy.descriptors import Descriptors
from dcm2bq.dicom.privacy.guard import guarded
from dcm2bq.dicom.privacy.profile import Action, Decision, basic_action, profile_decision
from dcm2bq.dicom.privacy.safe_private import creator_of, guarded_safe, safe_vr
from dcm2bq.dicom.privacy.selectors import selections
from dcm2bq.dicom.privacy.structured_content import clean_content
from dcm2bq.dicom.values import DECODERS, TEXT_VRS, BadValueError
from dcm2bq.hash_key import required_key

_UID_ROOT = "2.25."  # UIDs made from a 128-bit integer (PS3.5 B.2)
_UID_CHARACTERS = b"0123456789.\\ \0"
"""Those of UIDs, of what separates them, and of padding (PS3.5 9.1)."""
_IDENTIFYING_VRS = frozenset({"PN", "UI"})
_MOST_TAGS = 4096
"""Most tags whose actions are cached: more than real collections have."""
SOP_INSTANCE_UID = 0x00080018
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
"""The same UID under another tag (PS3.10 7.1)."""


class Rules:
    """The actions by tag, and the key of the pseudonyms and of the date shift.

    `remove` takes precedence over `hash`, and both over the profile. Raises `ConfigError`, which
    names the option, for a text that does not name an attribute and for one that cannot be hashed.
    """

    def __init__(self, options: Privacy, key: bytes) -> None:
        self.key = key
        self.has_profile = options.profile is not None
        self.shift_days = options.shift_days
        self.descriptors = Descriptors(options.kept_descriptors)
        self.shifts_dates = "retainLongitudinalModifiedDates" in options.options
        self.changes_dates = (
            self.has_profile and "retainLongitudinalFullDates" not in options.options
        )
        self.keeps_patient = "retainPatientCharacteristics" in options.options
        self.keeps_uids = "retainUids" in options.options
        self._selections = selections(options)
        self._options = frozenset(options.options)
        self._actions: dict[int, Action | None] = {}

    def action(self, tag: int) -> Action | None:
        """Return what happens to an element with this tag; None if it is kept."""
        if tag not in self._actions:
            if len(self._actions) >= _MOST_TAGS:
                self._actions.clear()
            self._actions[tag] = self.decision(tag).action
        return self._actions[tag]

    @property
    def selectors(self) -> list[str]:
        """The tags, masks and `private` that `remove` and `hash` name."""
        return [name for selection in self._selections for name in selection.selectors]

    def decision(self, tag: int) -> Decision:
        """Return what happens to an element with this tag, and what decides it."""
        alias = SOP_INSTANCE_UID if tag == MEDIA_STORAGE_SOP_INSTANCE_UID else tag
        for selection in self._selections:
            if tag in selection or alias in selection:
                return Decision(selection.action, selected_by=selection.option)
        if not self.has_profile:
            return Decision(None)
        return profile_decision(tag, self._options)

    def pseudonym(self, vr: str, value: str) -> str:
        """Return the pseudonym of a value: a UID for a UID, hex digits for other text.

        Well-known UIDs (PS3.6 Annex A), such as SOP classes, are kept: they do not identify anyone.
        """
        value = value.replace(" ", "") if vr == "UI" else value.strip()
        if vr == "UI" and value in UID_dictionary:
            return value
        digest = hmac.digest(self.key, value.encode(), hashlib.sha256)
        return f"{_UID_ROOT}{int.from_bytes(digest[:16])}" if vr == "UI" else digest.hex().upper()

    def apply(self, data_set: Item, notes: Notes, deadline: Deadline = NO_DEADLINE) -> None:
        """Remove, empty and replace elements of a data set in place, at every level.

        Sorts the elements by tag. Raises the errors of `deadline`.
        """
        _Treatment(self, data_set, notes, deadline).run()


class _ItemScope(NamedTuple):
    """An item whose elements are treated, sorted by tag, and its character sets."""

    item: Item
    charset: Charset
    is_clean: bool
    """Whether the item is one of structured content that has been cleaned."""


class _Treatment:
    """The rules, applied to one data set."""

    def __init__(self, rules: Rules, data_set: Item, notes: Notes, deadline: Deadline) -> None:
        self._rules = rules
        self._data_set = data_set
        self._notes = notes
        self._deadline = deadline
        self._identity: Item = []
        """The elements of the data set before any was changed, if dates are to be shifted."""

    def run(self) -> None:
        """Treat every element, level by level."""
        if self._rules.shifts_dates:
            self._identity = sorted(self._data_set, key=tag_of)
        todo = [_ItemScope(self._data_set, DEFAULT_CHARSET, is_clean=False)]
        count = 0
        for item, outer, is_clean in todo:
            count += len(item)
            if count >= CHECK_EVERY:
                self._deadline.check()
                count = 0
            item.sort(key=tag_of)
            declared = find(item, SPECIFIC_CHARACTER_SET)
            charset = outer
            if declared and isinstance(declared.value, bytes):
                charset, _ = parse_charset(declared.value)
            scope = _ItemScope(item, charset, is_clean)
            kept = [self._treated(element, scope) for element in item]
            item[:] = [element for element in kept if element is not None]
            for element in item:
                if isinstance(element.value, list):
                    cleaned = is_clean or self._rules.action(element.tag) is Action.CLEAN_CONTENT
                    todo += [_ItemScope(inner, charset, cleaned) for inner in element.value]

    @cached_property
    def _days(self) -> int | None:
        """The days by which dates are shifted; None if the patient is unknown."""
        rules = self._rules
        return days_back(self._identity, rules.key, rules.shift_days, self._notes)

    def _treated(self, element: Element, scope: _ItemScope) -> Element | None:
        """Return what replaces an element of an item; None if it is removed."""
        action = self._rules.action(element.tag)
        if action is None:
            return self._kept(element, scope)
        if action is Action.REMOVE:
            return None
        if action is Action.EMPTY:
            return _emptied(element)
        if action is Action.HASH:
            return self._hashed(element, scope, public_vr(element.tag))
        return self._modified(element, scope, action)

    def _modified(self, element: Element, scope: _ItemScope, action: Action) -> Element | None:
        """Return what an option of the profile makes of an element; None if it is removed."""
        if action is Action.SHIFT:
            return modified(element, scope.item, self._days, self._notes)
        if action is Action.CHECK_TIME:
            return checked(element, scope.item, self._notes, public_vr(element.tag))
        if action is Action.CAP_AGE:
            return capped(element, scope.item, self._notes)
        if action is Action.CHECK_UID:
            return self._uid(element, scope)
        if action is Action.CHECK_SAFE:
            return self._safe(element, scope)
        return self._cleaned(element, scope, action)

    def _cleaned(self, element: Element, scope: _ItemScope, action: Action) -> Element | None:
        """Return an element that is clean; otherwise what the Basic Profile makes of it."""
        if action is Action.CLEAN_CONTENT:
            is_clean = self._has_clean_content(element, scope)
        else:
            is_clean = self._rules.descriptors.keeps(element, scope.charset)
        if is_clean:
            return self._kept(element, scope)
        return None if basic_action(element.tag) is Action.REMOVE else _emptied(element)

    def _kept(self, element: Element, scope: _ItemScope) -> Element | None:
        """Return an element that is kept, without its value if this could contain others."""
        kept = guarded(element, scope.item, scope.charset, self._notes)
        if kept and kept.vr in _IDENTIFYING_VRS and public_vr(kept.tag) == "UN":
            return self._of_unknown_tag(kept, scope)
        return self._dated(kept, scope)

    def _of_unknown_tag(self, kept: Element, scope: _ItemScope) -> Element | None:
        """Return a name or UID under a tag of a newer standard: emptied or hashed, as listed ones.

        Private ones are kept without a profile; with it, other rules decide about these.
        """
        if not self._rules.has_profile or kept.value is None:
            return kept
        if kept.vr == "PN":
            return _emptied(kept)
        return kept if self._rules.keeps_uids else self._hashed(kept, scope, kept.vr)

    def _dated(self, kept: Element | None, scope: _ItemScope) -> Element | None:
        """Return an element that is kept, with its dates shifted or emptied, whatever its tag."""
        if kept is None or not self._rules.changes_dates:
            return kept
        vr = temporal_vr(kept.tag, kept.vr)
        if vr and self._rules.shifts_dates:
            return modified(kept, scope.item, self._days, self._notes)
        return kept if vr in {None, "TM"} else _emptied(kept)

    def _has_clean_content(self, element: Element, scope: _ItemScope) -> bool:
        """Clean the items of structured content; return False if there are none."""
        if not isinstance(element.value, list):
            return False
        if not scope.is_clean:  # otherwise they were cleaned with the items around them
            clean_content(
                element.value,
                scope.charset,
                self._notes,
                keeps_patient=self._rules.keeps_patient,
                deadline=self._deadline,
            )
        return True

    def _uid(self, element: Element, scope: _ItemScope) -> Element | None:
        """Return an element as it is if its values are UIDs, otherwise with pseudonyms."""
        value = element.value
        if isinstance(value, bytes) and not value.translate(None, _UID_CHARACTERS):
            return self._kept(element, scope)
        return self._hashed(element, scope, public_vr(element.tag))

    def _safe(self, element: Element, scope: _ItemScope) -> Element | None:
        """Return a private element if it is listed as safe, with UIDs replaced; otherwise None."""
        vr = safe_vr(element.tag, creator_of(element, scope.item))
        if vr is None:
            return None
        if vr == "UI" and not self._rules.keeps_uids:
            return self._hashed(element, scope, vr)
        safe = guarded_safe(element, scope.item, scope.charset, self._notes, vr)
        return self._dated(safe, scope)

    def _hashed(self, element: Element, scope: _ItemScope, vr: str) -> Element:
        """Return an element with a pseudonym for each value; emptied if the value is not text.

        The value is decoded by `vr`, the dictionary's, so that pseudonyms do not depend on the VR
        that is written.
        """
        tag, written, value = element.tag, element.vr, element.value
        if value == b"":
            return made(tag, written, b"")
        if not isinstance(value, bytes) or written not in TEXT_VRS:
            self._notes.about(element, scope.item, "emptied: only text can be hashed", vr=written)
            return made(tag, written if written in DECODERS else vr, b"")
        try:
            values = DECODERS[vr](value, scope.charset)
        except BadValueError as bad:
            values = bad.values or []
        texts = [self._rules.pseudonym(vr, text) if text else "" for text in values]
        return made(tag, vr, "\\".join(texts).encode())


def _emptied(element: Element) -> Element:
    if isinstance(element.value, list):
        return made(element.tag, "SQ", [])
    return made(element.tag, element.vr, b"")


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
