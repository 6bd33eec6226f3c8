"""Explain what the options `privacy.*` do: to the rows of PS3.15 Table E.1-1, and to an object.

Nothing is decided here. Of an object, the rules are applied to its elements as for a row, and what
was there before is compared with what is left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

from dcm2bq.config import Config, Privacy
from dcm2bq.deadline import Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import KEYWORDS, is_named, is_private, public_vr
from dcm2bq.dicom.elements import SPECIFIC_CHARACTER_SET, Element, Item, find, tag_of
from dcm2bq.dicom.memory import Claim, budget_of
from dcm2bq.dicom.notes import Notes, is_named_in
from dcm2bq.dicom.privacy.dates import DATES_IN_TEXT, temporal_vr
from dcm2bq.dicom.privacy.profile import Action, Decision, rows
from dcm2bq.dicom.privacy.rules import Rules, privacy_rules
from dcm2bq.dicom.read.part10 import read_file
from dcm2bq.dicom.read.source import Source, as_source
from dcm2bq.dicom.values import DECODERS, BadValueError


class Fate(StrEnum):
    """What happens to an element."""

    KEPT = "kept"
    REMOVED = "removed"
    EMPTIED = "emptied"
    HASHED = "hashed"
    SHIFTED = "shifted"
    CLEANED = "cleaned"
    REFERRED = "left in the object"
    """The row has a BulkDataURI in place of the value."""


_FATES: dict[Action | None, Fate] = {
    None: Fate.KEPT,
    Action.REMOVE: Fate.REMOVED,
    Action.EMPTY: Fate.EMPTIED,
    Action.HASH: Fate.HASHED,
    Action.SHIFT: Fate.SHIFTED,
    Action.CHECK_TIME: Fate.KEPT,
    Action.CHECK_UID: Fate.KEPT,
    Action.CAP_AGE: Fate.KEPT,
    Action.CLEAN_DESCRIPTION: Fate.CLEANED,
    Action.CLEAN_CONTENT: Fate.CLEANED,
    Action.CHECK_SAFE: Fate.CLEANED,
}
"""What an action is meant to do."""
_CONDITIONS: dict[Action | None, str] = {
    Action.CHECK_TIME: "emptied unless it is a date or time",
    Action.CHECK_UID: "hashed unless it is a UID",
    Action.CAP_AGE: "ages above 89 years become 90 years",
    Action.CLEAN_DESCRIPTION: "kept if privacy.keptDescriptors lists it",
    Action.CLEAN_CONTENT: "content items keep what nobody typed",
    Action.CHECK_SAFE: "kept if Table E.3.10-1 lists the element",
    Action.SHIFT: "emptied if it cannot be shifted or the patient is unknown",
}
"""What the value decides, in words."""
_GUARD = "its tag or value is not what the standard calls for"
_REFERENCE = "bulk data, or a value that could contain what the rules remove"
_UNCHANGED = "it is empty, or a well-known UID"
_DATE_VRS = frozenset({"DA", "DT"})
_PADDING = b" \0"
_MOST_DEPTH = 160  # of nested sequences, each of which takes a call or two here


@dataclass(frozen=True, slots=True)
class RowExplanation:
    """What happens to the attributes of a row of Table E.1-1, or named by an option.

    `selector` is a tag, a mask or `private`. `basic` is the action of the Basic Profile, or
    None if the table has no such row.
    """

    selector: str
    keyword: str
    basic: str | None
    fate: Fate
    decided_by: str
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class ElementExplanation:
    """What happens to an element: its `path` from the top of the header, the reason, its values.

    The path of an element whose tag may be part of a value has the offset instead.
    """

    path: str
    vr: str
    fate: Fate
    reason: str
    before: str | None = None
    after: str | None = None


def explain_rows(options: Privacy) -> Iterator[RowExplanation]:
    """Yield what happens to each row of Table E.1-1, and to what `remove` and `hash` add to them.

    Without a profile, only the latter. Needs no key. Raises `ConfigError` for a wrong attribute.
    """
    rules = Rules(options, b"")
    named = {row.selector: row for row in (rows() if options.profile else ())}
    others = [name for name in rules.selectors if name not in named]
    for selector in [*sorted(named), *sorted(others)]:
        decision = rules.decision(_example(selector))
        listed = named.get(selector)
        yield RowExplanation(
            selector=selector,
            keyword=_keyword(selector),
            basic=listed.basic if listed else None,
            fate=_meant(decision.action, _example(selector)),
            decided_by=_because(decision, selector),
            condition=_condition(decision.action, _example(selector)),
        )


def explain_object(
    source: BinaryIO | Source, config: Config, *, timeout: float
) -> Iterator[ElementExplanation]:
    """Yield what happens to each element of an object, from the top down.

    `timeout` is in seconds. Raises what `convert` raises.
    """
    deadline = Deadline.after(timeout)
    with budget_of(config.limits).claim(deadline) as memory:
        yield from _explained(as_source(source), config, memory)


def _explained(source: Source, config: Config, memory: Claim) -> Iterator[ElementExplanation]:
    rules = privacy_rules(config.privacy) or Rules(config.privacy, b"")
    notes = Notes()
    depth = min(config.limits.depth, _MOST_DEPTH)
    file = read_file(source, config, notes, depth=depth, deadline=memory.deadline, memory=memory)
    for data_set in (file.meta, file.data_set):
        before = _copied(data_set)
        rules.apply(data_set, notes, memory.deadline)
        yield from _compared(rules, before, data_set, _ItemPlace())


def _meant(action: Action | None, tag: int) -> Fate:
    """Return what an action is meant to do to a tag: where dates are shifted, times are kept."""
    if action is Action.SHIFT and not (public_vr(tag) in _DATE_VRS or tag in DATES_IN_TEXT):
        return Fate.KEPT
    return _FATES[action]


def _condition(action: Action | None, tag: int) -> str | None:
    """Return what the value of an element with a tag decides."""
    if action is Action.SHIFT and public_vr(tag) == "TM":
        action = Action.CHECK_TIME
    return _CONDITIONS.get(action)


class _ItemPlace(NamedTuple):
    """Where an item is: the path to it, its character set, and how its sequence was treated."""

    path: str = ""
    charset: Charset = DEFAULT_CHARSET
    is_content: bool = False


def _copied(item: Item) -> Item:
    """Return a copy whose lists of elements are its own, since rules change lists in place."""
    copy = []
    for element in item:
        value = element.value
        if isinstance(value, list):
            items = [_copied(inner) for inner in value]
            element = Element(  # noqa: PLW2901
                element.tag, element.vr, element.offset, element.length, items, element.written
            )
        copy.append(element)
    return sorted(copy, key=tag_of)


def _compared(
    rules: Rules, before: Item, after: Item, scope: _ItemPlace
) -> Iterator[ElementExplanation]:
    declared = find(before, SPECIFIC_CHARACTER_SET)
    if declared and isinstance(declared.value, bytes):
        scope = scope._replace(charset=parse_charset(declared.value)[0])
    left = {element.tag: element for element in after}
    for element in before:
        now = left.get(element.tag)
        path = scope.path + _name(element, before)
        decision = rules.decision(element.tag)
        fate = _fate(rules, element, now, decision)
        yield ElementExplanation(
            path=path,
            vr=element.vr,
            fate=fate,
            reason=_date_reason(rules, element, fate, decision)
            or _unknown_reason(element, fate, decision)
            or _reason(decision, fate, element.tag, is_content=scope.is_content),
            before=_text(element, scope.charset),
            after=None if now is None else _text(now, scope.charset),
        )
        if now is None or not isinstance(element.value, list) or not isinstance(now.value, list):
            continue
        is_content = scope.is_content or decision.action is Action.CLEAN_CONTENT
        for number, (inner, treated) in enumerate(zip(element.value, now.value, strict=False)):
            within = _ItemPlace(f"{path}[{number}].", scope.charset, is_content)
            yield from _compared(rules, inner, treated, within)


def _fate(rules: Rules, element: Element, now: Element | None, decision: Decision) -> Fate:
    """Return what the rules made of an element."""
    if now is None:
        return Fate.REMOVED
    if now.value is None:
        return Fate.REFERRED
    if not now.value:
        return Fate.EMPTIED if element.value else Fate.KEPT
    if isinstance(now.value, list):
        return Fate.CLEANED if decision.action is Action.CLEAN_CONTENT else Fate.KEPT
    assert isinstance(element.value, bytes), "rules make no values of nothing"
    if now.value.rstrip(_PADDING) == element.value.rstrip(_PADDING):
        return Fate.KEPT
    return _change(rules, element, decision)


def _change(rules: Rules, element: Element, decision: Decision) -> Fate:
    """Return what replaced a value by another."""
    if decision.action in {Action.HASH, Action.CHECK_UID} or element.vr == "UI":
        return Fate.HASHED
    is_date = rules.shifts_dates and temporal_vr(element.tag, element.vr)
    return Fate.SHIFTED if is_date else Fate.CLEANED


def _date_reason(rules: Rules, element: Element, fate: Fate, decision: Decision) -> str | None:
    """Return why a date was changed under a tag whose elements are otherwise kept; or None."""
    is_kept = _FATES[decision.action] in {Fate.KEPT, Fate.CLEANED}
    is_date = temporal_vr(element.tag, element.vr) in _DATE_VRS
    if not (rules.changes_dates and is_kept and is_date):
        return None
    if fate is Fate.SHIFTED:
        return "retainLongitudinalModifiedDates: dates are shifted under any tag"
    if fate is Fate.EMPTIED and decision.action is None:
        return "basic: dates are emptied under any tag"
    return None


def _unknown_reason(element: Element, fate: Fate, decision: Decision) -> str | None:
    """Return why a name or UID was changed under a tag that the dictionary lacks; or None."""
    if decision.action is not None or is_private(element.tag) or public_vr(element.tag) != "UN":
        return None
    if element.vr == "PN" and fate is Fate.EMPTIED:
        return "basic: names are emptied under any unknown tag"
    if element.vr == "UI" and fate is Fate.HASHED:
        return "basic: UIDs are hashed under any unknown tag"
    return None


def _reason(decision: Decision, fate: Fate, tag: int, *, is_content: bool) -> str:
    """Return why an element ends as it does; the value has a say if the rule alone does not."""
    if is_content and (decision.action is None or fate is not _FATES[decision.action]):
        return f"cleanStructuredContent: {_CONDITIONS[Action.CLEAN_CONTENT]}"
    because, detail = _because(decision), _condition(decision.action, tag)
    if fate is Fate.REFERRED:
        detail = _REFERENCE
    elif detail is None and fate is not _FATES[decision.action]:
        detail = _UNCHANGED if fate is Fate.KEPT else _GUARD
    return f"{because}: {detail}" if detail else because


def _because(decision: Decision, selector: str = "") -> str:
    """Return what decides: an option of the configuration, or a row and a column of the table."""
    if decision.selected_by:
        return decision.selected_by
    if decision.row is None:
        if decision.unlisted:
            return (
                f"{decision.option or 'basic'}: {decision.unlisted} that Table E.1-1 does not list"
            )
        if decision.action is Action.REMOVE:
            return "PS3.15 E.1.1: only the encoding is kept of groups 0000 and 0002"
        return "no rule names it"
    place = "" if selector == decision.row.selector else f" {decision.row.selector}"
    cell = decision.row.cell(decision.option) if decision.option else decision.row.basic
    column = decision.option or "basic"
    return f"Table E.1-1{place}, {column}: {cell}" if cell else f"Table E.1-1{place}, {column}"


def _example(selector: str) -> int:
    """Return a tag that a selector names."""
    return 0x00091001 if selector == "private" else int(selector.lower().replace("x", "0"), 16)


def _keyword(selector: str) -> str:
    tag = _example(selector)
    return KEYWORDS[tag] if selector != "private" and is_named(tag) and not is_private(tag) else ""


def _name(element: Element, item: Item) -> str:
    """Return the keyword or the digits of a tag; its offset, if it may be part of a value."""
    is_group_length = not element.tag & 0xFFFF
    if is_group_length or is_named_in(item, element.tag):
        return KEYWORDS[element.tag]
    return f"(unknown element at offset {element.offset})"


def _text(element: Element, charset: Charset) -> str | None:
    """Return the value as text; None for a sequence, and for what is not in the header's text."""
    value: Any = element.value
    if not isinstance(value, bytes) or element.vr not in DECODERS:
        return None
    try:
        values = DECODERS[element.vr](value, charset)
    except BadValueError as bad:
        values = bad.values or []
    return "\\".join("" if each is None else str(each) for each in values)
