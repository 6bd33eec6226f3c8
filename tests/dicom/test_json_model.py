"""The DICOM JSON Model (PS3.18 Annex F)."""

import base64
import struct
from typing import Any

import pytest

from tests.dicom.build import (
    EXPLICIT,
    IMPLICIT,
    converted,
    dicom,
    element,
    identity,
    item,
    sequence,
)

VALUE = 0x00091001


def model(*elements: bytes, transfer_syntax: str = EXPLICIT, **options: Any) -> dict[str, Any]:
    """Return the metadata in this format."""
    output = {"format": "dicom-json"} | options.pop("jsonOutput", {})
    content = dicom(*elements, transfer_syntax=transfer_syntax)
    metadata: dict[str, Any] = converted(content, jsonOutput=output, **options).metadata
    return metadata


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("LO", "A\\B", {"vr": "LO", "Value": ["A", "B"]}),
        ("LO", "A\\\\B", {"vr": "LO", "Value": ["A", None, "B"]}),
        ("LO", "", {"vr": "LO"}),
        ("LO", "  ", {"vr": "LO"}),
        ("DS", "1.5\\2", {"vr": "DS", "Value": [1.5, 2]}),
        ("DS", "x\\2", {"vr": "DS", "Value": ["x", 2]}),
        ("US", b"\1\0", {"vr": "US", "Value": [1]}),
        ("AT", b"\x18\0\x63\x10", {"vr": "AT", "Value": ["00181063"]}),
        ("FL", struct.pack("<f", 3.14), {"vr": "FL", "Value": [3.14]}),
        ("PN", "A^B", {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}),
        ("PN", "A==C", {"vr": "PN", "Value": [{"Alphabetic": "A", "Phonetic": "C"}]}),
        ("PN", "=B", {"vr": "PN", "Value": [{"Ideographic": "B"}]}),
        ("PN", "A\\\\B=", {"vr": "PN", "Value": [{"Alphabetic": "A"}, None, {"Alphabetic": "B"}]}),
        ("OB", b"", {"vr": "OB"}),
    ],
)  # fmt: skip
def test_an_attribute_has_vr_and_value(vr: str, content: bytes | str, expected: Any) -> None:
    """The Value is always an array, and is missing if there is none."""
    assert model(element(VALUE, vr, content)) == {"00091001": expected}


def test_the_items_of_a_sequence_are_objects() -> None:
    """An empty sequence has no Value; an empty item is an empty object."""
    metadata = model(
        sequence(0x00081140, item(element(VALUE, "SH", "X")), item()), sequence(0x00081115)
    )
    assert metadata == {
        "00081115": {"vr": "SQ"},
        "00081140": {"vr": "SQ", "Value": [{"00091001": {"vr": "SH", "Value": ["X"]}}, {}]},
    }


def test_the_file_meta_information_is_never_included() -> None:
    """Whatever the option says."""
    assert list(model(identity())) == ["00080016", "00080018"]


def test_a_binary_value_is_a_reference_or_inline() -> None:
    """Inline values are little endian."""
    content = element(VALUE, "OW", b"1234")
    assert set(model(content)["00091001"]) == {"vr", "BulkDataURI"}
    kept = model(content, bulkData={"inlineMaxBytes": 4})["00091001"]
    assert kept == {"vr": "OW", "InlineBinary": base64.b64encode(b"1234").decode()}


@pytest.mark.parametrize("vr", ["FL", "FD"])
def test_numbers_that_are_not_finite_become_references(vr: str) -> None:
    """A Value may hold JSON numbers only."""
    code = {"FL": "f", "FD": "d"}[vr]
    metadata = model(element(VALUE, vr, struct.pack(f"<2{code}", 1, float("nan"))))["00091001"]
    assert set(metadata) == {"vr", "BulkDataURI"}


@pytest.mark.parametrize(("vr", "content"), [("US", b"ABC"), ("FD", b"1.5 "), ("AT", b"AB")])
def test_broken_numbers_become_references(vr: str, content: bytes) -> None:
    metadata = model(element(VALUE, vr, content, length=len(content)))["00091001"]
    assert metadata["vr"] == vr
    assert "BulkDataURI" in metadata


def test_the_vr_is_that_of_the_value() -> None:
    """In implicit data sets and for UN it comes from the dictionary, and choices are resolved."""
    content = element(0x00280103, "", b"\1\0", implicit=True) + element(
        0x00280106, "", b"\xff\xff", implicit=True
    )
    metadata = model(identity(implicit=True), content, transfer_syntax=IMPLICIT)
    assert metadata["00280106"] == {"vr": "SS", "Value": [-1]}
    assert model(element(0x00100010, "UN", "A^B "))["00100010"]["vr"] == "PN"
    assert model(element(0x00280010, "UN", b"123", length=3))["00280010"]["vr"] == "UN"
    assert model(element(VALUE, "UN", b"1234"))["00091001"]["vr"] == "UN"


def test_options_apply_to_this_format_too() -> None:
    """To private and binary elements and group lengths."""
    elements = (
        element(0x00080000, "UL", b"\0\0\0\0"),
        element(VALUE, "LO", "x"),
        sequence(0x00081140, item(element(VALUE, "LO", "x"), element(0x00420011, "OB", b"12"))),
    )
    metadata = model(*elements, jsonOutput={"ignorePrivate": True, "ignoreBinary": True})
    assert metadata == {"00081140": {"vr": "SQ", "Value": [{}]}}
    kept = model(*elements, jsonOutput={"ignoreGroupLength": False})
    assert kept["00080000"] == {"vr": "UL", "Value": [0]}


def test_a_broken_sequence_becomes_a_reference() -> None:
    """With its VR."""
    metadata = model(identity(), sequence(0x00081140, b"broken"))["00081140"]
    assert set(metadata) == {"vr", "BulkDataURI"}
    assert metadata["vr"] == "SQ"
