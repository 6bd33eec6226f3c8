"""No message carries bytes of a value, in whatever form."""

import pytest

from tests.dicom import fuzz_structure
from tests.dicom.build import (
    IMPLICIT,
    converted,
    delimiter,
    dicom,
    element,
    header,
    identity,
    item,
    sequence,
    warned,
)
from tests.support.leaks import leaks, windows

SECRET = windows(b"SENTINEL^NAME")


@pytest.mark.parametrize(
    "text",
    [
        "SENTINEL",
        "a value exceeds the object (tag 4553544E, offset 12)",  # two words, little endian
        "a value exceeds the object (tag 53454E54, offset 12)",
        "0x544e4553",
        f"length {int.from_bytes(b'SENT', 'little')}",
        f"length {int.from_bytes(b'SENT', 'big')}",
        f"length {int.from_bytes(b'SENTINEL', 'little')}",
        f"lengths {int.from_bytes(b'SE', 'little')} and {int.from_bytes(b'NT', 'little')}",
        "tag 4553: 21582 bytes",
        "53454e54494e454c",
    ],
)
def test_the_decoder_finds_a_value_in_numbers(text: str) -> None:
    assert leaks([text], SECRET) == [text]


def test_the_decoder_passes_what_is_known_without_the_value() -> None:
    texts = [f"00100010 PN: a value exceeds the object (offset {n})" for n in range(0, 70_000, 70)]
    assert leaks(texts, SECRET) == []


TEXT = 0x53455449
"""A tag that the letters of a value can spell, and its group is odd: 5345,5449."""
EVEN = 0x54455849


@pytest.mark.parametrize("tag", [TEXT, EVEN])
def test_an_unsound_tag_is_named_by_its_offset_alone(tag: int) -> None:
    broken = element(tag, "US", b"\xff", length=1)
    twice = element(0x00100020, "LO", "X") + broken + broken
    for kind in (dicom(identity(), twice), dicom(identity(), sequence(0x00081140, item(twice)))):
        conversion = converted(kind)
        assert [line.partition(" (")[0] for line in conversion.warnings] == [
            "1 bytes are not a multiple of 2",
            "duplicate, the first is kept",
        ]
        assert all("offset" in line for line in conversion.warnings)
        assert conversion.dropped_tags == ()
        assert conversion.metadata["PatientID" if b"SQ" not in kind else "ReferencedImageSequence"]


@pytest.mark.parametrize(
    ("creator", "named"), [("ACME 1.0", True), ("", False), (" ", False), ("\x01\x02", False)]
)
def test_a_private_tag_is_named_where_its_block_has_a_creator(creator: str, *, named: bool) -> None:
    block = element(0x00090010, "LO", creator)
    private = element(0x00091001, "US", b"\xff", length=1)
    conversion = converted(dicom(identity(), block, private, private))
    assert any(line.startswith("00091001 US: ") for line in conversion.warnings) is named
    assert conversion.dropped_tags == (("00091001",) if named else ())


def test_a_creator_is_named_like_what_is_in_its_block() -> None:
    assert any(
        line.startswith("00090010: no known VR")
        for line in warned(
            identity(), element(0x00090010, "LO", "ACME"), element(0x00090010, "??", "ACME")
        )
    )


def test_no_unsound_tag_is_named_whatever_leaves_its_value_in_the_object() -> None:
    """The size of the row, privacy rules, or the guessed end of an encapsulated value."""
    content = dicom(
        identity(),
        element(EVEN, "LO", "v" * 500),
        element(TEXT, "UT", b"\xfe\xff\0\xe0" + b"v" * 600),
        sequence(TEXT + 1, item(), delimiter(0xFFFEE000, 1) + b"1\0", vr="OB", defined=False),
    )
    for options in (
        {"limits": {"outputBytes": 400}},
        {"privacy": {"remove": ["PatientName"]}},
        {},
    ):
        lines = converted(content, **options).warnings
        assert lines
        for line in lines:
            assert not any(f"{tag:08X}" in line for tag in (EVEN, TEXT, TEXT + 1))


@pytest.mark.parametrize(
    ("elements", "line"),
    [
        ([element(0x00100020, "UN", "X"), element(0x00100020, "UN", "Y")], "00100020 UN: dup"),
        ([element(0x00281052, "UN", "X1"), element(0x00281052, "UN", "Y")], "00281052 UN: dup"),
    ],
)
def test_a_vr_in_a_message_is_one_of_the_standard(elements: list[bytes], line: str) -> None:
    assert any(warning.startswith(line) for warning in warned(identity(), *elements))


def test_a_choice_of_vrs_is_not_named_in_a_message() -> None:
    value = element(0x00280106, "", b"\1\0", implicit=True)
    lines = warned(identity(implicit=True), value, value, transfer_syntax=IMPLICIT)
    assert any(warning.startswith("00280106: duplicate") for warning in lines)


@pytest.mark.parametrize(("length", "shown"), [(64, "40 of 64 bytes"), (0x4E4B4A58, "40 bytes")])
def test_a_length_beyond_the_object_is_not_in_the_message(length: int, shown: str) -> None:
    content = dicom(identity(), header(0x7FE00010, "OW", length) + bytes(40))
    assert any(f"the object is cut: {shown}" in line for line in converted(content).warnings)


def test_no_message_about_a_mutated_object_carries_bytes_of_its_values() -> None:
    outcomes, findings = fuzz_structure.silence(count=750, seed=7)
    assert findings == []
    assert outcomes["UnreadableDicomError"] > 150
    assert outcomes["warned"] > 100
