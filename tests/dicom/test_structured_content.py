"""Content trees keep their numbers, codes and references, and nothing that was typed."""

import struct

import pytest

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET
from dcm2bq.dicom.elements import Element, Item
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.codes import standard_meaning
from dcm2bq.dicom.privacy.structured_content import clean_content
from dcm2bq.errors import ReadFailedError

SENTINEL = "SENTINEL"

CODE_VALUE, SCHEME, MEANING = 0x00080100, 0x00080102, 0x00080104
LONG_CODE_VALUE, UNITS = 0x00080119, 0x004008EA
RELATIONSHIP, VALUE_TYPE, CONCEPT = 0x0040A010, 0x0040A040, 0x0040A043
DATETIME, DATE, TIME, NAME, UID = 0x0040A120, 0x0040A121, 0x0040A122, 0x0040A123, 0x0040A124
TEXT, FLOAT, CODE = 0x0040A160, 0x0040A161, 0x0040A168
MEASURED, NUMBER, CONTENT = 0x0040A300, 0x0040A30A, 0x0040A730
TEMPLATES, TEMPLATE = 0x0040A504, 0x0040DB00
REFERENCED_SOP, FRAME_NUMBER, GRAPHIC_DATA = 0x00081199, 0x00081160, 0x00700022


def element(tag: int, vr: str, value: bytes | str | list[Item] | None) -> Element:
    value = value.encode() if isinstance(value, str) else value
    return Element(tag, vr, 0, len(value or b""), value, vr)


def code(value: str, scheme: str = "DCM", meaning: str = SENTINEL) -> Item:
    return [
        element(CODE_VALUE, "SH", value),
        element(SCHEME, "SH", scheme),
        element(MEANING, "LO", meaning),
    ]


def content_item(value_type: str, concept: Item, *values: Element) -> Item:
    named = element(CONCEPT, "SQ", [concept])
    return [element(VALUE_TYPE, "CS", value_type), named, *values]


def number(value: str, unit: str, concept: Item) -> Item:
    measured = [element(NUMBER, "DS", value), element(UNITS, "SQ", [code(unit, "UCUM")])]
    return content_item("NUM", concept, element(MEASURED, "SQ", [measured]))


def clean(*items: Item, keeps_patient: bool = True) -> tuple[str, ...]:
    """Clean the items in place; return the warnings."""
    notes = Notes()
    clean_content(list(items), DEFAULT_CHARSET, notes, keeps_patient=keeps_patient)
    return notes.warnings


def value(item: Item, *tags: int) -> bytes | list[Item] | None:
    """Return the value at a path of tags through first items; None if there is none."""
    for tag in tags[:-1]:
        items = value(item, tag)
        if not isinstance(items, list) or not items:
            return None
        item = items[0]
    return next((element.value for element in item if element.tag == tags[-1]), None)


def test_a_number_keeps_its_value_its_unit_and_its_concept() -> None:
    item = number("12.5 ", "mm", code("410668003", "SCT"))
    assert clean(item) == ()
    assert value(item, MEASURED, NUMBER) == b"12.5 "
    assert value(item, MEASURED, UNITS, CODE_VALUE) == b"mm"
    assert value(item, CONCEPT, CODE_VALUE) == b"410668003"
    assert value(item, CONCEPT, SCHEME) == b"SCT"


@pytest.mark.parametrize(("value_type", "tag", "vr"), [("TEXT", TEXT, "UT"), ("PNAME", NAME, "PN")])
def test_texts_and_names_are_emptied_in_their_places(value_type: str, tag: int, vr: str) -> None:
    """Items refer to others by position, so none is taken out."""
    child = number("1", "mm", code("410668003", "SCT"))
    item = content_item(
        value_type, code("121106"), element(tag, vr, SENTINEL), element(CONTENT, "SQ", [child])
    )
    assert clean(item) == ()
    assert value(item, tag) == b""
    assert value(item, VALUE_TYPE) == value_type.encode()
    assert value(item, CONTENT, MEASURED, NUMBER) == b"1"


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00100010, "PN"),
        (0x00080005, "CS"),
        (0x00080103, "SH"),
        (0x0008010F, "CS"),
        (0x00081010, "SH"),
        (0x00191001, "LO"),
        (0x00880200, "UT"),
        (0x0040A801, "LT"),
        (0x0040A033, "DT"),
        (0x0AF10BCD, "LO"),
    ],
)
def test_an_attribute_without_a_rule_is_left_out(tag: int, vr: str) -> None:
    item = content_item("NUM", code("121033"), element(tag, vr, SENTINEL))
    assert clean(item) == ()
    assert value(item, tag) is None


@pytest.mark.parametrize(
    ("tag", "vr", "sound"),
    [
        (CODE_VALUE, "SH", "T-28000"),
        (LONG_CODE_VALUE, "UC", "1234567890123456789"),
        (SCHEME, "SH", "99ACME"),
        (RELATIONSHIP, "CS", "HAS CONCEPT MOD"),
        (VALUE_TYPE, "CS", "UIDREF"),
        (TEMPLATE, "CS", "1500"),
        (UID, "UI", "1.2.3.4"),
        (DATE, "DA", "20240305"),
        (DATETIME, "DT", "202403"),
        (TIME, "TM", "101530"),
        (NUMBER, "DS", "-1.5e3"),
        (FRAME_NUMBER, "IS", "1\\2"),
    ],
)
@pytest.mark.parametrize("typed", ["Jane Doe", "DOE^JANE", "jane1@example.org", "DOE"])
def test_a_value_that_could_have_been_typed_is_emptied(
    tag: int, vr: str, sound: str, typed: str
) -> None:
    """Whatever the VR it is written in."""
    for written in {vr, "LO", "UN"}:
        item = [element(tag, written, typed)]
        assert clean(item) == (
            f"{tag:08X} {written}: emptied: it could be text that was typed (offset 0)",
        )
        assert value(item, tag) == b""
    item = [element(tag, vr, sound)]
    assert clean(item) == ()
    assert value(item, tag) == sound.encode()


def test_binary_numbers_keep_their_vr() -> None:
    """Coordinates may stay in the object, where only numbers can be."""
    points = struct.pack("<4f", 1, 2, 3, 4)
    items = [[element(GRAPHIC_DATA, "FL", points)], [element(GRAPHIC_DATA, "FL", None)]]
    assert clean(*items) == ()
    assert [value(item, GRAPHIC_DATA) for item in items] == [points, None]
    typed = [element(GRAPHIC_DATA, "LO", SENTINEL)]
    assert len(clean(typed)) == 1
    assert value(typed, GRAPHIC_DATA) == b""


@pytest.mark.parametrize("tag", [CONTENT, CONCEPT, MEASURED, REFERENCED_SOP])
def test_a_sequence_that_is_written_as_text_is_emptied(tag: int) -> None:
    item = [element(tag, "UT", SENTINEL)]
    assert len(clean(item)) == 1
    assert value(item, tag) == []


@pytest.mark.parametrize(
    ("scheme", "value_", "meaning"),
    [
        ("DCM", "113820", b"CT Acquisition Type"),
        ("SCT", "10200004", b"Liver structure (body structure)"),
        ("SRT", "T-28000", b"Lung structure (body structure)"),
        ("UCUM", "mGy.cm", b"mGy.cm"),
        ("DCM", "999999", b""),
        ("99ACME", "113820", b""),
        ("", "113820", b""),
    ],
)
def test_the_meaning_of_a_code_is_that_of_the_standard(
    scheme: str, value_: str, meaning: bytes
) -> None:
    """The one in the object could be anything, and is often in the language of the site."""
    item = code(value_, scheme)
    assert clean(item) == ()
    assert value(item, MEANING) == meaning
    assert value(item, CODE_VALUE) == value_.encode()


@pytest.mark.parametrize(
    ("scheme", "code_value", "is_kept"),
    [
        ("DCM", "CT", True),  # without a digit, but in PS3.16
        ("UCUM", "µGym2", True),  # no unit of UCUM, but scanners write it
        ("99ACME", "C-7", True),
        ("99ACME", "DOE", False),
        ("DCM", "DOE", False),
        ("DOE", "1", False),
    ],
)
def test_a_code_that_could_be_a_name_is_emptied(
    scheme: str, code_value: str, *, is_kept: bool
) -> None:
    item = code(code_value, scheme)
    assert len(clean(item)) == 1 - is_kept
    assert (value(item, CODE_VALUE) == b"" or value(item, SCHEME) == b"") != is_kept


def test_every_meaning_of_the_standard_can_be_written_in_every_character_set() -> None:
    assert standard_meaning("DCM", "111034") == "Individual Impression/Recommendation"
    assert standard_meaning("DCM", "112344") is None, "it has an umlaut"


def sentinels(depth: int) -> Item:
    """Return a container that has a name, a text and an unknown value at every level."""
    inside = [sentinels(depth - 1)] if depth else []
    return content_item(
        "CONTAINER",
        code("126000"),
        element(CONTENT, "SQ", [
            content_item("PNAME", code("121008"), element(NAME, "PN", SENTINEL)),
            content_item("TEXT", code("121106", SENTINEL), element(TEXT, "UT", SENTINEL)),
            content_item(SENTINEL, code(SENTINEL + " X"), element(0x0040A0FF, "LO", SENTINEL)),
            content_item("DATE", code("111060"), element(DATE, "LO", SENTINEL)),
            number(SENTINEL, SENTINEL + " X", code("121033")),
            *inside,
        ]),
    )  # fmt: skip


def test_no_level_of_a_tree_keeps_what_was_typed() -> None:
    tree = sentinels(60)
    clean(tree)
    todo, levels = [tree], 0
    while todo:
        item = todo.pop()
        levels += value(item, VALUE_TYPE) == b"CONTAINER"
        for one in item:
            if isinstance(one.value, list):
                todo += one.value
            else:
                assert SENTINEL.encode() not in (one.value or b"")
    assert levels == 61


AGE = code("121033")


@pytest.mark.parametrize(
    ("age", "unit", "expected"),
    [
        ("45", "a", b"45"),
        ("89.9", "a", b"89.9"),
        ("90", "a", b"90"),
        ("101.5", "a", b"90"),
        ("1100", "mo", b"1080"),
        ("1000", "mo", b"1000"),
        ("5000", "wk", b"4696"),
        ("36000", "d", b"32872"),
        ("95", "furlong", b""),
        ("old", "a", b""),
        ("44\\93", "a", b"44\\90"),
    ],
)
def test_a_number_that_is_an_age_is_capped(age: str, unit: str, expected: bytes) -> None:
    item = number(age, unit, AGE)
    clean(item)
    assert value(item, MEASURED, NUMBER) == expected


def test_an_age_is_not_left_as_a_binary_number() -> None:
    item = number("95", "a", AGE)
    measured = value(item, MEASURED)
    assert isinstance(measured, list)
    measured[0].append(element(FLOAT, "FD", struct.pack("<d", 95.5)))
    clean(item)
    assert value(item, MEASURED, FLOAT) is None
    size = number("95", "mm", code("410668003", "SCT"))
    measured = value(size, MEASURED)
    assert isinstance(measured, list)
    measured[0].append(element(FLOAT, "FD", struct.pack("<d", 95.5)))
    clean(size)
    assert value(size, MEASURED, FLOAT) == struct.pack("<d", 95.5)


def test_an_age_of_acquisition_context_is_capped() -> None:
    """Its items have the number and the unit themselves."""
    units = element(UNITS, "SQ", [code("a", "UCUM")])
    item = content_item("NUMERIC", AGE, element(NUMBER, "DS", "97"), units)
    clean(item)
    assert value(item, NUMBER) == b"90"


def test_what_describes_the_patient_is_kept_only_by_the_option_for_it() -> None:
    def described() -> list[Item]:
        female = element(CODE, "SQ", [code("F")])
        sex = content_item("CODE", code("121032"), female)
        index = number("22", "kg/m2", code("F-01860", "SNM3"))
        weight = number("70", "kg", code("29463-7", "LOINC"))
        return [number("45", "a", AGE), weight, sex, index]

    kept = described()
    clean(*kept)
    assert value(kept[0], MEASURED, NUMBER) == b"45"
    assert value(kept[1], MEASURED, NUMBER) == b"70"
    assert value(kept[2], CODE, CODE_VALUE) == b"F"
    removed = described()
    clean(*removed, keeps_patient=False)
    assert [value(item, MEASURED) or value(item, CODE) for item in removed] == [None] * 4
    assert value(removed[0], CONCEPT, CODE_VALUE) == b"121033"


@pytest.mark.parametrize("concept", ["121031", "113723"])
def test_dates_of_birth_and_of_calibration_are_left_out(concept: str) -> None:
    """The profile removes the one, and several patients share the other."""
    item = content_item("DATE", code(concept), element(DATE, "DA", "19540305"))
    other = content_item("DATE", code("111060"), element(DATE, "DA", "20240305"))
    clean(item, other)
    assert value(item, DATE) is None
    assert value(other, DATE) == b"20240305"


def test_cleaning_ends_at_the_deadline() -> None:
    items = [number("1", "mm", code("410668003", "SCT")) for _ in range(1000)]
    with pytest.raises(ReadFailedError):
        clean_content(
            items, DEFAULT_CHARSET, Notes(), keeps_patient=True, deadline=Deadline.after(0)
        )
