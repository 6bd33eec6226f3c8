"""The Basic Profile of PS3.15 Annex E and its options: what happens to the elements with a tag.

A row of Table E.1-1 has an action of the Basic Profile, and one for each option that changes it:
K (keep) or C (clean). Where an option has none, the action of the Basic Profile holds.
"""

import re
from collections.abc import Collection, Mapping
from enum import Enum, auto
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

from dcm2bq.config import Privacy, ProfileOption
from dcm2bq.dicom.dictionary import is_private, public_vr
from dcm2bq.dicom.privacy.dates import DATES_IN_TEXT, can_be_modified

_FILE = "confidentiality_profile.tsv"
_TAG_COLUMN = "Tag"
_BASIC_COLUMN = "Basic Prof."
COLUMNS: dict[ProfileOption, str] = {
    "retainSafePrivate": "Rtn. Safe Priv. Opt.",
    "retainUids": "Rtn. UIDs Opt.",
    "retainDeviceIdentity": "Rtn. Dev. Id. Opt.",
    "retainInstitutionIdentity": "Rtn. Inst. Id. Opt.",
    "retainPatientCharacteristics": "Rtn. Pat. Chars. Opt.",
    "retainLongitudinalFullDates": "Rtn. Long. Full Dates Opt.",
    "retainLongitudinalModifiedDates": "Rtn. Long. Modif. Dates Opt.",
    "cleanDescriptors": "Clean Desc. Opt.",
    "cleanStructuredContent": "Clean Struct. Cont. Opt.",
}
"""The columns of Table E.1-1 by option. There is no option for the column Clean Graph.: nothing can
tell the graphics that identify a patient from the others."""
_CODES: dict[ProfileOption, str] = {
    "cleanStructuredContent": "113104",
    "cleanDescriptors": "113105",
    "retainLongitudinalFullDates": "113106",
    "retainLongitudinalModifiedDates": "113107",
    "retainPatientCharacteristics": "113108",
    "retainDeviceIdentity": "113109",
    "retainUids": "113110",
    "retainSafePrivate": "113111",
    "retainInstitutionIdentity": "113112",
}
_BASIC_CODE = "113100"


class Action(Enum):
    """What happens to an element. An element without an action is kept."""

    REMOVE = auto()
    EMPTY = auto()
    HASH = auto()
    SHIFT = auto()
    """Dates are shifted and times kept; a value that is neither is emptied."""
    CHECK_TIME = auto()
    """Dates and times are kept; a value that is neither is emptied."""
    CHECK_UID = auto()
    """UIDs are kept; other text is hashed."""
    CAP_AGE = auto()
    """Ages above 89 years are replaced (45 CFR 164.514(b)(2)(i)(C))."""
    CLEAN_DESCRIPTION = auto()
    """Kept if it is listed in `privacy.keptDescriptors`; otherwise as the Basic Profile says."""
    CLEAN_CONTENT = auto()
    """Of the items of structured content, those without free text are kept (PS3.15 E.3.4)."""
    CHECK_SAFE = auto()
    """A private element: kept if Table E.3.10-1 lists it (PS3.15 E.3.10)."""


_BASIC = {
    "X": Action.REMOVE,
    "X/Z": Action.REMOVE,
    "X/D": Action.REMOVE,
    "X/Z/D": Action.REMOVE,
    "Z": Action.EMPTY,
    "Z/D": Action.EMPTY,
    "D": Action.EMPTY,  # no dummy value: a row need not conform to an IOD
    "U": Action.HASH,
    "X/Z/U*": None,  # sequences of references are kept, with the UIDs in them replaced
}
"""The actions of the Basic Profile; where it offers several, the strictest."""

_SHIFTING: ProfileOption = "retainLongitudinalModifiedDates"
_KEEPING_DATES: ProfileOption = "retainLongitudinalFullDates"
_KEEPING_UIDS: ProfileOption = "retainUids"
_DATE_VRS = frozenset({"DA", "DT"})
_KEEPING = {
    "AS": Action.CAP_AGE,
    "DA": Action.CHECK_TIME,
    "DT": Action.CHECK_TIME,
    "TM": Action.CHECK_TIME,
    "UI": Action.CHECK_UID,
}
"""What K means for some VRs: a text under their tags could be anything."""
_PRIVATE = "private"
_MASK = re.compile(r"[0-9A-Fx]{8}")
_REMOVED_GROUPS = frozenset({0x0000, 0x0002})
"""A command set has AE titles, and does not belong in an object (PS3.10 7.1); of the File Meta
Information only what describes the encoding stays (PS3.15 E.1.1)."""
_ENCODING = frozenset({0x00020001, 0x00020002, 0x00020003, 0x00020010})
"""Version, SOP class, SOP instance (which has a row in the table) and transfer syntax."""

_PUBLISHED_UIDS = frozenset(
    {
        0x00041432,  # Private Record UID
        0x00041510,  # Referenced SOP Class UID in File
        0x00041512,  # Referenced Transfer Syntax UID in File
        0x0004151A,  # Referenced Related General SOP Class UID in File
        0x00080016,  # SOP Class UID
        0x0008001A,  # Related General SOP Class UID
        0x0008001B,  # Original Specialized SOP Class UID
        0x00080062,  # SOP Classes in Study
        0x0008010C,  # Coding Scheme UID
        0x00080117,  # Context UID
        0x00080118,  # Mapping Resource UID
        0x0008040E,  # Stored Instance Transfer Syntax UID
        0x00081150,  # Referenced SOP Class UID
        0x0008115A,  # SOP Classes Supported
        0x00083002,  # Available Transfer Syntax UID
        0x00089123,  # Creator-Version UID: of software
        0x00340003,  # Flow Transfer Syntax UID
        0x04000010,  # MAC Calculation Transfer Syntax UID
        0x04000510,  # Encrypted Content Transfer Syntax UID
        0x30100052,  # Pertinent SOP Classes in Study
        0x30100053,  # Pertinent SOP Classes in Series
    }
)
"""UIDs of classes, encodings and vocabularies, which Table E.1-1 does not list: private ones, too,
are the same at every site. All other UIDs could be those of an object or an organization."""


class Row(NamedTuple):
    """A row of Table E.1-1: its tag, mask or `private`, and its action in each column."""

    selector: str
    actions: Mapping[str, str]

    @property
    def basic(self) -> str:
        """The action of the Basic Profile, such as `X/Z`."""
        return self.actions[_BASIC_COLUMN]

    def cell(self, option: ProfileOption) -> str:
        """Return the action of an option, K or C; "" if it changes nothing."""
        return self.actions.get(COLUMNS[option], "")


class Decision(NamedTuple):
    """What happens to the elements with a tag, and why.

    `option` is the option whose column decides, or None if the Basic Profile does, or no row of
    the table. `selected_by` is the option of the configuration that names the attribute, such as
    `privacy.remove`, whatever the profile says. Dates, names and UIDs that the table does not list
    are treated like those that it lists; `unlisted` says which of them an attribute is.
    """

    action: Action | None
    row: Row | None = None
    option: ProfileOption | None = None
    selected_by: str | None = None
    unlisted: str = ""


def rows() -> Collection[Row]:
    """Return all rows of Table E.1-1, in the order of the file."""
    return _rows().values()


def row(tag: int) -> Row | None:
    """Return the row of Table E.1-1 for a tag: its own, that of its mask or of all private tags.

    >>> row(0x00080020).basic, row(0x00080020).cell("retainLongitudinalModifiedDates")
    ('Z', 'C')
    """
    rows = _rows()
    if is_private(tag):
        return rows[_PRIVATE]
    digits = f"{tag:08X}"
    if digits in rows:
        return rows[digits]
    return next((rows[mask] for mask, pattern in _masks() if pattern.fullmatch(digits)), None)


def profile_action(tag: int, options: Collection[ProfileOption]) -> Action | None:
    """Return what the Basic Profile with `options` does to the elements with a tag.

    Where options contradict each other, C takes precedence over K for dates and times, so that one
    calendar holds for all dates of a patient, and K over C for everything else.
    """
    return profile_decision(tag, options).action


def profile_decision(tag: int, options: Collection[ProfileOption]) -> Decision:
    """Return what `profile_action` returns, with the row and the column that decide."""
    if tag >> 16 in _REMOVED_GROUPS and tag not in _ENCODING:
        return Decision(Action.REMOVE)
    listed = row(tag)
    if listed is None:
        return _unlisted_decision(tag, options)
    return _listed_decision(tag, listed, options)


def _listed_decision(tag: int, listed: Row, options: Collection[ProfileOption]) -> Decision:
    """Return what a row of the table says of a tag."""
    basic = _BASIC[listed.basic]
    cells = {option: cell for option in options if (cell := listed.cell(option))}
    if _SHIFTING in cells:
        return Decision(_shifting(tag, basic), listed, _SHIFTING)
    for option, cell in cells.items():
        if cell == "K":
            return Decision(_KEEPING.get(public_vr(tag)), listed, option)
    cleaning = _cleaning(cells, options)
    if cleaning is None:
        return Decision(basic, listed)
    first = "cleanDescriptors" if "cleanDescriptors" in cells else next(iter(cells))
    return Decision(cleaning, listed, _CLEANS.get(cleaning, first))


def _unlisted_decision(tag: int, options: Collection[ProfileOption]) -> Decision:
    """Return what happens to an attribute that the table does not list, by its VR."""
    vr = public_vr(tag)
    if vr in _DATE_VRS or tag in DATES_IN_TEXT:
        return _unlisted_date(tag, options)
    if vr == "PN":
        return Decision(Action.EMPTY, unlisted="a name")
    if vr != "UI" or tag in _PUBLISHED_UIDS:
        return Decision(None)
    if _KEEPING_UIDS in options:
        return Decision(Action.CHECK_UID, option=_KEEPING_UIDS, unlisted="a UID")
    return Decision(Action.HASH, unlisted="a UID")


def _unlisted_date(tag: int, options: Collection[ProfileOption]) -> Decision:
    if tag in DATES_IN_TEXT:
        return Decision(Action.REMOVE, unlisted="a date")
    if _KEEPING_DATES in options:
        return Decision(None)
    if _SHIFTING in options:
        return Decision(_shifting(tag, Action.EMPTY), option=_SHIFTING, unlisted="a date")
    return Decision(Action.EMPTY, unlisted="a date")


def _shifting(tag: int, otherwise: Action | None) -> Action | None:
    """Return what happens to a date or time if dates are shifted."""
    return Action.SHIFT if can_be_modified(tag) else otherwise


def _cleaning(
    cells: Mapping[ProfileOption, str], options: Collection[ProfileOption]
) -> Action | None:
    """Return the action for the C's of options; None if none of them can be obeyed."""
    if "retainSafePrivate" in cells:
        return Action.CHECK_SAFE
    if "cleanStructuredContent" in cells:
        return Action.CLEAN_CONTENT
    # The C's of other columns are for text, such as allergies and AE titles: the same list holds.
    if cells and "cleanDescriptors" in options:
        return Action.CLEAN_DESCRIPTION
    return None


_CLEANS: dict[Action, ProfileOption] = {
    Action.CHECK_SAFE: "retainSafePrivate",
    Action.CLEAN_CONTENT: "cleanStructuredContent",
}
"""The options that some actions of `_cleaning` belong to, and no others."""


def basic_action(tag: int) -> Action | None:
    """Return what the Basic Profile without options does to the elements with a tag."""
    return profile_action(tag, ())


@lru_cache(maxsize=16)
def deidentification_codes(options: Privacy) -> tuple[str, ...]:
    """Return the codes of CID 7050 (PS3.16) for what is done to a header; none without a profile.

    >>> deidentification_codes(Privacy(profile="basic", options=("retainUids",)))
    ('113100', '113110')
    """
    if options.profile is None:
        return ()
    return (_BASIC_CODE, *sorted(_CODES[option] for option in set(options.options)))


@cache
def _rows() -> dict[str, Row]:
    """Return the rows of the table by selector."""
    text = resources.files(__package__).joinpath(_FILE).read_text()
    lines = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    columns = next(lines)
    rows = {}
    for cells in lines:
        actions = {column: cell for column, cell in zip(columns, cells, strict=False) if cell}
        selector = actions.pop(_TAG_COLUMN)
        rows[selector] = Row(selector, actions)
    return rows


@cache
def _masks() -> list[tuple[str, re.Pattern[str]]]:
    """Return the masks among the selectors, such as `60xx3000`, as patterns."""
    masks = [mask for mask in _rows() if "x" in mask and _MASK.fullmatch(mask)]
    return [(mask, re.compile(mask.replace("x", "[0-9A-F]"))) for mask in masks]
