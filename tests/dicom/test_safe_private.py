"""`retainSafePrivate` keeps the private elements that PS3.15 lists, and nothing else private."""

import re
import struct
from typing import Any

import pytest

from dcm2bq.dicom import Conversion, convert
from tests.dicom.build import IMPLICIT, dicom, element, identity, item, sequence
from tests.support.privacy_options import KEY

CREATOR = element(0x00190010, "LO", "SIEMENS MR HEADER")
B_VALUE = element(0x0019100C, "IS", "1000")
PHILIPS = element(0x20010010, "LO", "Philips Imaging DD 001")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)


def safe(*elements: bytes, transfer_syntax: str = "", more: tuple[str, ...] = ()) -> Conversion:
    """Return the conversion of a data set with `retainSafePrivate`."""
    is_implicit = transfer_syntax == IMPLICIT
    syntax = {"transfer_syntax": transfer_syntax} if transfer_syntax else {}
    content = dicom(identity(implicit=is_implicit), *elements, **syntax)
    options = ["retainSafePrivate", *more]
    privacy = {"profile": "basic", "options": options}
    return convert(content, {"privacy": privacy, "bulkData": {"inlineMaxBytes": 1000}})


def private(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the private attributes of metadata."""
    return {key: value for key, value in metadata.items() if key[3:4] in set("13579BDF")}


def test_a_listed_element_stays_with_its_creator_and_others_of_the_block_do_not() -> None:
    done = safe(CREATOR, element(0x00191008, "CS", "IMAGE NUM 4"), B_VALUE)
    assert private(done.metadata) == {"00190010": "SIEMENS MR HEADER", "0019100C": 1000}
    assert done.warnings == ()


def test_the_block_is_that_of_the_creator() -> None:
    creator = element(0x001900A0, "LO", "SIEMENS MR HEADER")
    done = safe(creator, element(0x0019A00C, "IS", "1000"), element(0x0019A10C, "IS", "2000"))
    assert private(done.metadata) == {"001900A0": "SIEMENS MR HEADER", "0019A00C": 1000}


@pytest.mark.parametrize(
    "elements",
    [
        (B_VALUE,),
        (element(0x00190010, "LO", "SIEMENS"), B_VALUE),
        (element(0x00190011, "LO", "SIEMENS MR HEADER"), B_VALUE),
        (element(0x00190010, "OB", b"SIEMENS MR HEADER\0\1"), B_VALUE),
        (element(0x00190010, "LO", "SIEMENS\\MR HEADER"), B_VALUE),
    ],
    ids=["no creator", "another creator", "another block", "binary", "two values"],
)
def test_without_the_listed_creator_of_its_block_an_element_is_removed(
    elements: tuple[bytes, ...],
) -> None:
    assert "0019100C" not in safe(*elements).metadata


def test_a_creator_in_another_group_is_removed() -> None:
    creator = element(0x00210010, "LO", "SIEMENS MR HEADER")
    assert private(safe(creator, element(0x0021100C, "IS", "1000")).metadata) == {}


def test_a_creator_is_known_in_any_case_and_with_any_blanks() -> None:
    """As scanners write it."""
    creator = element(0x20010010, "LO", "PHILIPS IMAGING DD 001")
    done = safe(creator, element(0x20011008, "IS", "3"))
    assert private(done.metadata) == {"20010010": "PHILIPS IMAGING DD 001", "20011008": 3}


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x0019100C, "IS", "SENTINEL"),
        (0x0019100C, "LO", "SENTINEL"),
        (0x0019100C, "FD", struct.pack("<d", 1)),
        (0x0019100D, "CS", "Sentinel^Name"),
        (0x0019100E, "FD", struct.pack("<4d", 1, 2, 3, 4)),
    ],
)
def test_a_value_that_is_not_of_the_listed_kind_is_left_out_with_a_warning(
    tag: int, vr: str, value: bytes | str
) -> None:
    done = safe(CREATOR, element(tag, vr, value))
    assert f"{tag:08X}" not in done.metadata
    assert "SENTINEL" not in done.text.upper()
    (warning,) = done.warnings
    assert warning.startswith(f"{tag:08X} {vr}: left out: its value does not have the VR")
    assert re.search(r"\(offset \d+\)$", warning)


def test_a_value_is_written_by_the_listed_vr() -> None:
    done = safe(CREATOR, element(0x0019100C, "LO", "1000 "))
    assert done.metadata["0019100C"] == 1000


def test_bytes_stay_in_the_object() -> None:
    creator = element(0x7FD10010, "LO", "SIEMENS Ultrasound SC2000")
    done = safe(creator, element(0x7FD11001, "OB", b"SENTINEL"))
    assert "BulkDataURI" in done.metadata["7FD11001"]
    done = safe(CREATOR, element(0x0019100C, "OB", b"1000"))
    assert "BulkDataURI" in done.metadata["0019100C"]


@pytest.mark.parametrize(("value", "expected"), [("1000", 1000), ("SENTINEL", None)])
def test_a_value_of_unknown_vr_is_read_by_the_listed_one(value: str, expected: int | None) -> None:
    done = safe(CREATOR, element(0x0019100C, "UN", value))
    assert done.metadata.get("0019100C") == expected


def test_the_rules_apply_within_a_listed_sequence() -> None:
    inner = item(
        element(0x00080050, "SH", "SENTINEL"),
        element(0x20010010, "LO", "Philips Imaging DD 001"),
        element(0x20011033, "CS", "AP"),
        element(0x20011098, "LO", "SENTINEL"),
        element(0x20010011, "LO", "SENTINEL"),
    )
    done = safe(PHILIPS, sequence(0x2001105F, inner))
    (stack,) = done.metadata["2001105F"]
    assert stack == {
        "AccessionNumber": None,
        "20010010": "Philips Imaging DD 001",
        "20011033": "AP",
    }


def test_an_item_needs_a_creator_of_its_own() -> None:
    done = safe(PHILIPS, sequence(0x2001105F, item(element(0x20011033, "CS", "AP"))))
    assert done.metadata["2001105F"] == [{}]


def test_private_sequences_that_are_not_listed_are_removed() -> None:
    done = safe(PHILIPS, sequence(0x20011001, item(element(0x20011033, "CS", "AP"))))
    assert private(done.metadata) == {"20010010": "Philips Imaging DD 001"}


def test_uids_of_listed_elements_are_hashed_or_retained() -> None:
    elements = element(0x00990010, "LO", "NQHeader"), element(0x00991002, "UI", "1.2.3.9")
    assert safe(*elements).metadata["00991002"].startswith("2.25.")
    assert safe(*elements, more=("retainUids",)).metadata["00991002"] == "1.2.3.9"


def test_a_second_creator_of_a_block_does_not_count() -> None:
    second = element(0x00190010, "LO", "SENTINEL")
    done = safe(CREATOR, second, B_VALUE)
    assert private(done.metadata) == {"00190010": "SIEMENS MR HEADER", "0019100C": 1000}
    assert "0019100C" not in safe(second, CREATOR, B_VALUE).metadata


def test_an_implicit_element_has_the_vr_of_the_dictionary() -> None:
    creator = element(0x00190010, "", b"SIEMENS MR HEADER ", implicit=True)
    value = element(0x0019100C, "", b"1000", implicit=True)
    assert safe(creator, value, transfer_syntax=IMPLICIT).metadata["0019100C"] == 1000


def test_private_elements_can_still_be_removed() -> None:
    content = dicom(identity(), CREATOR, B_VALUE)
    privacy = {"profile": "basic", "options": ["retainSafePrivate"], "remove": ["private"]}
    assert private(convert(content, {"privacy": privacy}).metadata) == {}
