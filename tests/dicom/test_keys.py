"""Keys and shape of the flat format: names, order, multiplicity, and options that omit elements."""

import struct
from typing import Any

import pytest

from tests.dicom.build import (
    converted,
    dicom,
    element,
    flat,
    identity,
    item,
    sequence,
    warned,
)

PRIVATE = element(0x00090010, "LO", "ACME 1.0") + element(0x00091001, "LO", "secret")


def test_the_key_of_an_element_is_its_keyword() -> None:
    assert flat(element(0x00100010, "PN", "A^B")) == {"PatientName": "A^B"}


@pytest.mark.parametrize(
    ("tag", "key"),
    [
        (0x60000010, "60000010"),
        (0x50000010, "50000010"),
        (0x00280412, "00280412"),
        (0x00091001, "00091001"),
        (0x00180061, "00180061"),
        (0x7FDF0010, "7FDF0010"),
    ],
)
def test_a_tag_without_its_own_keyword_is_hexadecimal(tag: int, key: str) -> None:
    """Repeating groups share keywords; six tags and all private ones have none."""
    assert list(flat(element(tag, "LO", "x"))) == [key]


def test_without_common_names_every_key_is_hexadecimal() -> None:
    """Eight uppercase digits, as in PS3.18."""
    metadata = flat(element(0x0008103E, "LO", "x"), jsonOutput={"useCommonNames": False})
    assert metadata == {"0008103E": "x"}


def test_elements_are_sorted_by_tag_after_group_0002() -> None:
    """At every level, even if the object has another order."""
    done = converted(
        dicom(
            element(0x00100020, "LO", "late"),
            sequence(
                0x00081140, item(element(0x00081155, "UI", "1.2"), element(0x00081150, "UI", "1"))
            ),
            element(0x00080060, "CS", "CT"),
        )
    )
    keys = list(done.metadata)
    assert keys[0] == "FileMetaInformationVersion"
    assert keys[-3:] == ["Modality", "ReferencedImageSequence", "PatientID"]
    inner = done.metadata["ReferencedImageSequence"][0]
    assert list(inner) == ["ReferencedSOPClassUID", "ReferencedSOPInstanceUID"]


def test_group_lengths_are_omitted_by_default() -> None:
    """In group 0002, in the data set and in items."""
    length = element(0x00080000, "UL", struct.pack("<L", 10))
    elements = (length, sequence(0x00081140, item(length)))
    assert flat(*elements) == {"ReferencedImageSequence": [{}]}
    included = converted(dicom(*elements), jsonOutput={"ignoreGroupLength": False}).metadata
    assert included["FileMetaInformationGroupLength"] > 0
    assert included["00080000"] == 10
    assert included["ReferencedImageSequence"] == [{"00080000": 10}]


def test_the_file_meta_information_can_be_omitted() -> None:
    """It is included by default."""
    content = dicom(identity())
    assert "TransferSyntaxUID" in converted(content).metadata
    done = converted(content, jsonOutput={"ignoreMetaHeader": True})
    assert list(done.metadata) == ["SOPClassUID", "SOPInstanceUID"]
    assert done.transfer_syntax_uid == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    ("value", "single", "array"),
    [
        ("", None, []),
        ("  ", None, []),
        ("A", "A", ["A"]),
        ("A\\B", ["A", "B"], ["A", "B"]),
        ("A\\", ["A", None], ["A", None]),
        ("\\A", [None, "A"], [None, "A"]),
        (" A \\ B  ", ["A", "B"], ["A", "B"]),
        ("\\", [None, None], [None, None]),
    ],
)
def test_the_shape_depends_on_the_number_of_values(value: str, single: Any, array: Any) -> None:
    """A scalar for one, an array for several, null for none; or always an array."""
    content = element(0x00080008, "CS", value)
    assert flat(content) == {"ImageType": single}
    assert flat(content, jsonOutput={"useArrayWithSingleValue": True}) == {"ImageType": array}


def test_a_sequence_is_always_an_array() -> None:
    """Empty, with one item, with several, and with an empty item."""
    one = item(element(0x00081150, "UI", "1.2"))
    for items, expected in [
        ((), []),
        ((one,), [{"ReferencedSOPClassUID": "1.2"}]),
        (
            (one, item(), one),
            [{"ReferencedSOPClassUID": "1.2"}, {}, {"ReferencedSOPClassUID": "1.2"}],
        ),
    ]:
        for defined in (True, False):
            metadata = flat(sequence(0x00081140, *items, defined=defined))
            assert metadata == {"ReferencedImageSequence": expected}


def test_private_elements_have_plain_values() -> None:
    """Creators and elements, under hexadecimal keys."""
    assert flat(PRIVATE) == {"00090010": "ACME 1.0", "00091001": "secret"}


def test_private_elements_can_be_omitted_at_every_level() -> None:
    """With their creators."""
    nested = sequence(0x00081140, item(element(0x00081150, "UI", "1.2"), PRIVATE))
    metadata = flat(nested, PRIVATE, jsonOutput={"ignorePrivate": True})
    assert metadata == {"ReferencedImageSequence": [{"ReferencedSOPClassUID": "1.2"}]}


def test_binary_elements_can_be_omitted_at_every_level() -> None:
    """Also encapsulated and empty ones; the text of a UN element is not binary."""
    content = (
        sequence(0x00081140, item(element(0x00420011, "OB", b"xx"))),
        element(0x00100010, "UN", "A^B"),
        element(0x00091001, "UN", b"12"),
        sequence(0x7FE00010, item(), item(b"abcd"), vr="OB", defined=False),
    )
    metadata = flat(*content, jsonOutput={"ignoreBinary": True})
    assert metadata == {"ReferencedImageSequence": [{}], "PatientName": "A^B"}


def test_of_duplicates_the_first_is_kept() -> None:
    """The tag is among the dropped ones, and the warning has the count."""
    content = element(0x00100020, "LO", "first") + element(0x00100020, "LO", "second") * 3
    done = converted(dicom(content))
    assert done.metadata["PatientID"] == "first"
    assert done.columns["PatientID"] == "first"
    assert done.dropped_tags == ("00100020",)
    assert [line for line in done.warnings if "00100020" in line and "3 times" in line]


def test_duplicates_in_items_are_dropped_too() -> None:
    twice = element(0x00081150, "UI", "1.1") + element(0x00081150, "UI", "1.2")
    done = converted(dicom(sequence(0x00081140, item(twice))))
    assert done.metadata["ReferencedImageSequence"] == [{"ReferencedSOPClassUID": "1.1"}]
    assert done.dropped_tags == ("00081150",)


def test_an_element_that_an_option_omits_is_not_dropped() -> None:
    """This is intended, so nothing is warned of."""
    done = converted(dicom(PRIVATE), jsonOutput={"ignorePrivate": True})
    assert done.dropped_tags == ()
    assert done.warnings == ()


def test_a_good_file_has_no_warnings() -> None:
    assert warned(identity(), element(0x00100010, "PN", "A^B")) == []
