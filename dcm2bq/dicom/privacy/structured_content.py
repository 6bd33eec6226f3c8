"""Keep of content items what nobody typed: `cleanStructuredContent` (PS3.15 E.3.4).

A content item (PS3.3 C.17.3) says what it holds by a coded concept and a value type, so that its
numbers, codes, references and coordinates can be told from its texts and names. Only attributes
that are listed here are kept, and of these only values of their form: everything else in a
content tree could be text that a person has typed.

Items stay in their places, with an empty value if need be, because other items refer to them by
position. UIDs, dates and times pass here; the rules for these apply to them afterwards.
"""

import re
from typing import Any

from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.charset import Charset
from dcm2bq.dicom.dictionary import public_vr
from dcm2bq.dicom.elements import (
    CHECK_EVERY,
    Element,
    Item,
    find,
    made,
    tag_of,
)
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.codes import SCHEMES, current_code, is_common_unit, standard_meaning
from dcm2bq.dicom.privacy.dates import OLDEST, is_temporal
from dcm2bq.dicom.values import DECODERS, NUMBER_VRS, TEXT_VRS, BadValueError

_CODE_VALUE = 0x00080100
_SCHEME = 0x00080102
_CODE_MEANING = 0x00080104
_LONG_CODE_VALUE = 0x00080119
_CODES = frozenset({_CODE_VALUE, _LONG_CODE_VALUE})
_UNIT = 0x004008EA
_CONCEPT_NAME = 0x0040A043
_MEASURED_VALUE = 0x0040A300
_NUMERIC_VALUE = 0x0040A30A

_SEQUENCES = frozenset(
    {
        _UNIT,
        _CONCEPT_NAME,
        _MEASURED_VALUE,
        0x00081199,  # Referenced SOP Sequence
        0x00400612,  # Specimen Preparation Step Content Item Sequence
        0x0040A168,  # Concept Code Sequence
        0x0040A301,  # Numeric Value Qualifier Code Sequence
        0x0040A504,  # Content Template Sequence
        0x0040A730,  # Content Sequence
    }
)
_NUMBERS = frozenset(
    {
        _NUMERIC_VALUE,
        0x00081160,  # Referenced Frame Number
        0x0062000B,  # Referenced Segment Number
        0x00700022,  # Graphic Data
        0x0040A0B0,  # Referenced Waveform Channels
        0x0040A132,  # Referenced Sample Positions
        0x0040A136,  # Referenced Frame Numbers
        0x0040A138,  # Referenced Time Offsets
        0x0040A161,  # Floating Point Value
        0x0040A162,  # Rational Numerator Value
        0x0040A163,  # Rational Denominator Value
        0x0040DB73,  # Referenced Content Item Identifier
    }
)
_UIDS = frozenset(
    {
        0x00081150,  # Referenced SOP Class UID
        0x00081155,  # Referenced SOP Instance UID
        0x0040A124,  # UID
        0x0040A171,  # Observation UID
        0x0070031A,  # Fiducial UID
        0x30060024,  # Referenced Frame of Reference UID
    }
)
_TIMES = frozenset(
    {
        0x0040A032,  # Observation DateTime
        0x0040A120,  # DateTime
        0x0040A121,  # Date
        0x0040A122,  # Time
        0x0040A13A,  # Referenced DateTime
    }
)
_EMPTIED = frozenset(
    {
        0x0040A123,  # Person Name
        0x0040A160,  # Text Value
    }
)
"""Values that are emptied; all other attributes without a rule here are left out."""

_UID = re.compile(r"[0-9.]{1,64}")
_CODE = re.compile(r"[!-~µμ]{1,64}")
"""64: what codes in real objects never exceed. A text would have blanks."""
_NOT_IN_CODES = re.compile(r"[@\\^=]")
"""What separates the parts of names and of addresses, and occurs in no coding scheme."""
_DIGIT = re.compile("[0-9]")
_TEMPLATE = re.compile(r"[0-9]{1,16}")
_FORMS = {
    0x0040DB00: _TEMPLATE,  # Template Identifier
    0x00080105: re.compile("DCMR"),  # Mapping Resource
    0x0040A010: re.compile(  # Relationship Type
        "CONTAINS|HAS (OBS CONTEXT|ACQ CONTEXT|CONCEPT MOD|PROPERTIES)|(INFERRED|SELECTED) FROM"
    ),
    0x0040A040: re.compile(  # Value Type
        "CODE|COMPOSITE|CONTAINER|DATE|DATETIME|IMAGE|NUM|NUMERIC|PNAME|SCOORD|SCOORD3D|TABLE"
        "|TCOORD|TEXT|TIME|UIDREF|WAVEFORM"
    ),
    0x0040A050: re.compile("SEPARATE|CONTINUOUS"),  # Continuity Of Content
    0x0040A130: re.compile(  # Temporal Range Type
        "POINT|MULTIPOINT|SEGMENT|MULTISEGMENT|BEGIN|END"
    ),
    0x00480301: re.compile("FRAME|VOLUME"),  # Pixel Origin Interpretation
    0x00700023: re.compile(  # Graphic Type
        "POINT|MULTIPOINT|POLYLINE|CIRCLE|ELLIPSE|POLYGON|ELLIPSOID"
    ),
}
_FORMS |= dict.fromkeys(_UIDS, _UID)

_NEVER_KEPT = frozenset(
    {
        ("DCM", "121031"),  # Subject Birth Date
        ("DCM", "113723"),  # Calibration DateTime: several patients share it
    }
)
"""Concepts, by coding scheme designator and code value, of dates that the Basic Profile removes, or
that would give the shift away."""
_SUBJECT = frozenset(
    {
        ("DCM", "121032"),  # Subject Sex
        ("DCM", "121033"),  # Subject Age
        ("LN", "11449-6"),  # pregnancy status
        ("LN", "29463-7"),  # body weight
        ("LN", "29553-5"),  # age
        ("LN", "30525-0"),  # age
        ("LN", "3141-9"),  # body weight, measured
        ("LN", "39156-5"),  # body mass index
        ("LN", "8277-6"),  # body surface area
        ("LN", "8302-2"),  # body height
        ("SCT", "27113001"),  # body weight
        ("SCT", "397669002"),  # age
        ("SCT", "424144002"),  # current chronological age
        ("SCT", "50373000"),  # body height
        ("SCT", "60621009"),  # body mass index
    }
)
"""Concepts of what `retainPatientCharacteristics` keeps as attributes of the patient."""
_AGES = frozenset(
    {
        ("DCM", "121033"),  # Subject Age
        ("LN", "29553-5"),
        ("LN", "30525-0"),
        ("SCT", "397669002"),
        ("SCT", "424144002"),
        *(("DCM", str(code)) for code in range(111518, 111526)),  # ages at events of life
        ("DCM", "111538"),  # Age at Occurrence
    }
)
_PER_YEAR = {"a": 1, "mo": 12, "wk": 365.25 / 7, "d": 365.25, "h": 8766}
"""UCUM units of ages."""
_OTHER_NUMBERS = frozenset({0x0040A161, 0x0040A162, 0x0040A163})
"""The same number again, as floating point or as a fraction."""
_VALUES = _OTHER_NUMBERS | {
    _MEASURED_VALUE,
    _NUMERIC_VALUE,
    0x0040A120,  # DateTime
    0x0040A121,  # Date
    0x0040A122,  # Time
    0x0040A124,  # UID
    0x0040A168,  # Concept Code Sequence
}


def clean_content(
    items: list[Item],
    charset: Charset,
    notes: Notes,
    *,
    keeps_patient: bool,
    deadline: Deadline = NO_DEADLINE,
) -> None:
    """Clean the items of a sequence of content items in place, at every level.

    Sorts the elements of each item by tag. Without `keeps_patient`, the values of what describes
    the patient are left out, as the profile does with the attributes; with it, ages above 89
    years become 90 years. Raises the errors of `deadline`.
    """
    todo = list(items)
    count = 0
    while todo:
        item = todo.pop()
        count += len(item)
        if count >= CHECK_EVERY:
            deadline.check()
            count = 0
        item.sort(key=tag_of)
        _clean_patient(item, charset, keeps_patient=keeps_patient)
        kept = [_cleaned(element, item, charset, notes) for element in item]
        item[:] = [element for element in kept if element is not None]
        for element in item:
            if isinstance(element.value, list):
                todo += element.value


def _cleaned(element: Element, item: Item, charset: Charset, notes: Notes) -> Element | None:
    """Return what replaces an element of a sorted item; None if it is left out."""
    tag = element.tag
    if tag in _EMPTIED:
        return made(tag, public_vr(tag), b"")
    if tag == _CODE_MEANING:
        scheme, code = _code(item, charset)
        meaning = standard_meaning(scheme, code) if _is_code(scheme, code) else None
        return made(tag, public_vr(tag), (meaning or "").encode())
    if tag in _SEQUENCES:
        is_sound = isinstance(element.value, list)
    elif tag in _NUMBERS:
        is_sound = _are_numbers(element, charset)
    elif tag == _SCHEME:
        is_sound = all(map(_is_scheme, _texts(element, charset)))
    elif tag in _CODES:
        scheme, _ = _code(item, charset)
        is_sound = all(_is_code(scheme, text) for text in _texts(element, charset))
    elif tag in _TIMES or tag in _FORMS:
        is_sound = all(_has_form(tag, text) for text in _texts(element, charset))
    else:
        return None
    if is_sound or element.value == b"":
        return element
    notes.about(element, item, "emptied: it could be text that was typed")
    return made(tag, public_vr(tag), [] if tag in _SEQUENCES else b"")


def _are_numbers(element: Element, charset: Charset) -> bool:
    vr = public_vr(element.tag)
    if vr in NUMBER_VRS:
        return element.vr == vr
    return all(isinstance(number, int | float | None) for number in _values(element, charset))


def _has_form(tag: int, text: str) -> bool:
    """Return whether a value of an attribute that has a form is in it."""
    if tag in _TIMES:
        return is_temporal(public_vr(tag), text)
    return bool(_FORMS[tag].fullmatch(text))


def _is_scheme(text: str) -> bool:
    """Return whether a text is a coding scheme designator, and not a name.

    Private ones begin with 99 (PS3.16 8.2).
    """
    return text in SCHEMES or (bool(_DIGIT.search(text)) and _looks_like_a_code(text))


def _is_code(scheme: str, text: str) -> bool:
    """Return whether a text is a code, and not a name: units and known codes need no digit."""
    if not _looks_like_a_code(text):
        return False
    is_known = standard_meaning(scheme, text) is not None or is_common_unit(text)
    return is_known or bool(_DIGIT.search(text))


def _looks_like_a_code(text: str) -> bool:
    return bool(_CODE.fullmatch(text)) and not _NOT_IN_CODES.search(text)


def _values(element: Element, charset: Charset) -> list[Any]:
    """Return the values of an element by the VR of the dictionary; `[""]` if they are not text."""
    if not isinstance(element.value, bytes) or element.vr not in TEXT_VRS:
        return [""]
    if not element.value:
        return [None]
    try:
        return DECODERS[public_vr(element.tag)](element.value, charset)
    except BadValueError as bad:
        return bad.values or [""]


def _texts(element: Element, charset: Charset) -> list[str]:
    """Return the values that are not empty as text; `[""]` if they are not text."""
    return [str(value).strip() for value in _values(element, charset) if value is not None]


def _code(item: Item, charset: Charset) -> tuple[str, str]:
    """Return the coding scheme designator and the code value of an item; "" for what is missing."""
    scheme, code = find(item, _SCHEME), find(item, _CODE_VALUE) or find(item, _LONG_CODE_VALUE)
    return (
        "".join(_texts(scheme, charset)) if scheme else "",
        "".join(_texts(code, charset)) if code else "",
    )


def _concept(item: Item, charset: Charset) -> tuple[str, str]:
    """Return the code of the concept of a content item, under the current name of its scheme."""
    name = find(item, _CONCEPT_NAME)
    codes = name.value if name and isinstance(name.value, list) else []
    return current_code(*_code(sorted(codes[0], key=tag_of), charset)) if codes else ("", "")


def _clean_patient(item: Item, charset: Charset, *, keeps_patient: bool) -> None:
    """Leave out what the profile removes of the patient's attributes, and cap ages."""
    concept = _concept(item, charset)
    if concept in _NEVER_KEPT or (concept in _SUBJECT and not keeps_patient):
        item[:] = [element for element in item if element.tag not in _VALUES]
    elif concept in _AGES:
        measured = [element.value for element in item if element.tag == _MEASURED_VALUE]
        values = [value for items in measured if isinstance(items, list) for value in items]
        for value in (item, *values):
            _cap_age(value, charset)


def _cap_age(value: Item, charset: Charset) -> None:
    """Cap the age of an item with a number and its unit; empty it if the unit is unknown."""
    value.sort(key=tag_of)
    units = find(value, _UNIT)
    unit = units.value[0] if units and isinstance(units.value, list) and units.value else []
    per_year = _PER_YEAR.get(_code(sorted(unit, key=tag_of), charset)[1])
    value[:] = [
        _capped(element, per_year, charset) if element.tag == _NUMERIC_VALUE else element
        for element in value
        if element.tag not in _OTHER_NUMBERS
    ]


def _capped(number: Element, per_year: float | None, charset: Charset) -> Element:
    ages = _values(number, charset)
    if per_year is None or not all(isinstance(age, int | float) for age in ages):
        return made(number.tag, public_vr(number.tag), b"")
    if max(ages) < OLDEST * per_year:
        return number
    oldest = round(OLDEST * per_year)
    texts = [str(age if age < OLDEST * per_year else oldest) for age in ages]
    return made(number.tag, public_vr(number.tag), "\\".join(texts).encode())
