"""Values in the flat format by VR, valid and broken."""

import base64
import json
import math
import struct
from io import BytesIO
from typing import Any

import pytest

from dcm2bq.dicom import convert
from tests.dicom.build import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    converted,
    dicom,
    element,
    flat,
    identity,
    item,
    sequence,
    warned,
)

VALUE = 0x00091001
"""A tag that is in no dictionary."""
CREATOR = element(0x00090010, "LO", "ACME 1.0")
"""Its block may be named in messages."""


def value(vr: str, content: bytes | str) -> Any:
    """Return one value of the flat format."""
    return flat(element(VALUE, vr, content))["00091001"]


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("AE", " STORE ", "STORE"),
        ("AS", "045Y", "045Y"),
        ("AT", b"\x18\0\x63\x10", "00181063"),
        ("AT", b"\x18\0\x63\x10\xe0\x7f\x10\0", ["00181063", "7FE00010"]),
        ("CS", " ORIGINAL\\ PRIMARY ", ["ORIGINAL", "PRIMARY"]),
        ("DA", "20240229", "20240229"),
        ("DT", "20240229123456.000001+0100 ", "20240229123456.000001+0100"),
        ("FD", struct.pack("<2d", 0.1, -5), [0.1, -5.0]),
        ("FL", struct.pack("<f", 3.14), 3.14),
        (
            "FL",
            struct.pack("<3f", 1e10, 16777217.0, 1.17549435e-38),
            [1e10, 16777216.0, 1.1754944e-38],
        ),
        ("FL", struct.pack("<f", 3.4028234663852886e38), 3.4028235e38),
        ("FL", struct.pack("<f", 1.4e-45), 1e-45),
        ("LO", " A \\ B ", ["A", "B"]),
        ("LT", " a\\b\r\n ", " a\\b\r\n"),
        ("PN", "Yamada^Tarou=Y=Z ", "Yamada^Tarou=Y=Z"),
        ("SH", " x\0", "x"),
        ("SL", struct.pack("<2l", -1, 2**31 - 1), [-1, 2**31 - 1]),
        ("SS", struct.pack("<h", -32768), -32768),
        ("ST", "  a\\b  ", "  a\\b"),
        ("SV", struct.pack("<q", -(2**63)), -(2**63)),
        ("TM", "235960.5", "235960.5"),
        ("UC", " a\\b ", [" a", "b"]),
        ("UI", "1.2.840\0", "1.2.840"),
        ("UI", "1.2\0\\1.3\0", ["1.2", "1.3"]),
        ("UL", struct.pack("<L", 2**32 - 1), 2**32 - 1),
        ("UR", "http://x/a\\b ", "http://x/a\\b"),
        ("US", struct.pack("<3H", 1, 2, 65535), [1, 2, 65535]),
        ("UT", " a\\b \0", " a\\b"),
        ("UV", struct.pack("<Q", 2**64 - 1), 2**64 - 1),
    ],
)
def test_a_valid_value_is_plain_json(vr: str, content: bytes | str, expected: Any) -> None:
    """Each VR has its rule; nothing is warned of."""
    assert value(vr, content) == expected
    assert warned(identity(), element(VALUE, vr, content)) == []


@pytest.mark.parametrize("vr", ["AE", "CS", "DS", "IS", "LO", "SH", "PN"])
def test_leading_spaces_are_stripped(vr: str) -> None:
    """In these VRs they are padding (PS3.5 Table 6.2-1)."""
    assert value(vr, "  1 ") in ("1", 1)


@pytest.mark.parametrize("vr", ["LT", "ST", "UT", "UC"])
def test_leading_spaces_of_long_text_are_kept(vr: str) -> None:
    """They may be an indentation."""
    assert value(vr, "  1 ") == "  1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("007", 7),
        ("-12", -12),
        ("+3", 3),
        ("5.000", 5.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        ("0.488281", 0.488281),
        ("-0.123456789012", -0.123456789012),
        ("123456789012345", 123456789012345),
        (str(2**63 - 1), 2**63 - 1),
        ("1\\2.5\\", [1, 2.5, None]),
    ],
)
def test_a_decimal_string_becomes_a_number(text: str, expected: Any) -> None:
    """Integer text becomes an integer."""
    result = value("DS", text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "abc", "1,5", "1_0", "nan", "NaN", "inf", "-Infinity", "1e999", "1e-999", "0x10", "1 2",
        "--1", "1-", ".", "-", "+", "e5", "1e", "1.2.3", "\xb2", str(2**63),
        "0.1234567890123456789", "0.12345678901234567", "123456789.12345678901",
        "9" * 5000, "1" + "0" * 70, "1\t",
        "0e99999999999999999999",
    ],
)  # fmt: skip
def test_a_decimal_string_that_json_numbers_cannot_hold_stays_text(text: str) -> None:
    """Every digit is kept, its neighbours become numbers, and a warning names the tag."""
    elements = (identity(), CREATOR, element(VALUE, "DS", f"1\\{text}\\2.5"))
    assert flat(*elements)["00091001"] == [1, text, 2.5]
    assert any(line.startswith("00091001 DS: ") for line in warned(*elements))


@pytest.mark.parametrize("text", ["1.0", "1e3", "x", str(2**63), str(-(2**63) - 1), "1" * 100])
def test_an_invalid_integer_string_stays_text(text: str) -> None:
    """Nothing is rounded."""
    elements = (identity(), CREATOR, element(VALUE, "IS", f"{text}\\ -7 "))
    assert flat(*elements)["00091001"] == [text, -7]
    assert any(line.startswith("00091001 IS: not an integer") for line in warned(*elements))


@pytest.mark.parametrize(("vr", "code"), [("FL", "f"), ("FD", "d")])
def test_numbers_that_are_not_finite_become_text(vr: str, code: str) -> None:
    """JSON has no such numbers."""
    content = struct.pack(f"<4{code}", math.nan, math.inf, -math.inf, 1.5)
    assert value(vr, content) == ["NaN", "Infinity", "-Infinity", 1.5]
    assert value(vr, content[: len(content) // 4]) == "NaN"


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1e-40, 2.0**24 + 2, 123456.789, 9.999999e37, -7e-3])
def test_single_precision_becomes_the_shortest_text_that_reads_back(number: float) -> None:
    """It gives the same four bytes."""
    content = struct.pack("<f", number)
    result = value("FL", content)
    assert struct.pack("<f", result) == content
    digits = [d for d in range(1, 10) if struct.pack("<f", float(f"{number:.{d}g}")) == content]
    assert result == float(f"{struct.unpack('<f', content)[0]:.{digits[0]}g}")


@pytest.mark.parametrize("vr", ["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"])
def test_an_empty_element_of_any_vr_is_null(vr: str) -> None:
    assert value(vr, b"") is None


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("DA", "2024-02-30", "2024-02-30"),
        ("DA", "20241301", "20241301"),
        ("TM", "12:34:56", "12:34:56"),
        ("DT", "yesterday ", "yesterday"),
        ("AS", "45", "45"),
        ("CS", "Ct\\MR", ["Ct", "MR"]),
        ("UI", "1.2.x ", "1.2.x"),
        ("AE", "A\nB ", "A\nB"),
        ("US", b"AB", 16961),
        ("US", b"ABC", "ABC"),
        ("FD", b"1.5 ", "1.5"),
    ],
)
def test_a_value_that_breaks_its_vr_becomes_its_raw_text(
    vr: str, content: bytes | str, expected: Any
) -> None:
    """A warning has the tag and the reason. A value that fits by chance has none."""
    content = content if isinstance(content, bytes) else content.encode()
    broken = element(VALUE, vr, content, length=len(content))
    assert flat(identity(), broken)["00091001"] == expected
    lines = warned(identity(), CREATOR, broken)
    lines = [line for line in lines if line.startswith(f"00091001 {vr}: ")]
    assert bool(lines) is (not isinstance(expected, int))


@pytest.mark.parametrize("vr", ["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"])
def test_bytes_that_are_neither_numbers_nor_text_become_a_reference(vr: str) -> None:
    """With offset, length and VR."""
    broken = element(VALUE, vr, b"\1\2\3", length=3)
    content = dicom(identity(), CREATOR, broken, element(0x00100020, "LO", "X"))
    done = converted(content)
    assert done.metadata["00091001"] == {
        "BulkDataURI": f"?offset={content.index(bytes([1, 2, 3]))}&length=3",
        "vr": vr,
    }
    assert done.metadata["PatientID"] == "X"
    assert any(line.startswith(f"00091001 {vr}: ") for line in done.warnings)


def test_a_broken_nested_value_does_not_affect_others() -> None:
    """Neither its neighbours nor its item nor the sequences around it."""
    broken = element(0x00280010, "US", b"\xff", length=1) + element(0x00280011, "US", b"\2\0")
    nested = sequence(0x00081140, item(sequence(0x00081199, item(broken), item())))
    metadata = flat(identity(), nested, element(0x00100020, "LO", "X"))
    inner = metadata["ReferencedImageSequence"][0]["ReferencedSOPSequence"]
    assert inner[0]["Rows"]["vr"] == "US"
    assert inner[0]["Columns"] == 2
    assert inner[1] == {}
    assert metadata["PatientID"] == "X"


def test_nul_within_text_is_replaced_with_a_warning() -> None:
    """BigQuery's JSON cannot hold NULs. The text after it is kept."""
    elements = (identity(), CREATOR, element(VALUE, "LO", "before\0after\\ok\0"))
    assert flat(*elements)["00091001"] == ["before�after", "ok"]
    assert any("00091001 LO: NUL within the text" in line for line in warned(*elements))


@pytest.mark.parametrize(
    ("pixel_representation", "expected"), [(b"\0\0", 65535), (b"\1\0", -1), (None, 65535)]
)
def test_us_or_ss_depends_on_the_pixel_representation(
    pixel_representation: bytes | None, expected: int
) -> None:
    """Without one it is US. It may come later, and in an enclosing data set."""
    own = [] if pixel_representation is None else [(0x00280103, pixel_representation)]
    elements = [(0x00189810, b"\xff\xff"), *own, (0x00280106, b"\xff\xff")]
    content = b"".join(element(tag, "", value, implicit=True) for tag, value in elements)
    nested = sequence(
        0x00081140,
        item(
            sequence(
                0x00081199, item(element(0x00280107, "", b"\xff\xff", implicit=True)), implicit=True
            )
        ),
        implicit=True,
    )
    metadata = flat(identity(implicit=True), nested, content, transfer_syntax=IMPLICIT)
    assert metadata["ZeroVelocityPixelValue"] == expected
    assert metadata["SmallestImagePixelValue"] == expected
    inner = metadata["ReferencedImageSequence"][0]["ReferencedSOPSequence"][0]
    assert inner["LargestImagePixelValue"] == expected


def test_the_nearest_pixel_representation_counts() -> None:
    """That of the item takes precedence over that of the data set."""
    unsigned = element(0x00280103, "", b"\0\0", implicit=True)
    inner = item(unsigned, element(0x00280106, "", b"\xff\xff", implicit=True))
    metadata = flat(
        identity(implicit=True),
        sequence(0x00081140, inner, implicit=True),
        element(0x00280103, "", b"\1\0", implicit=True),
        transfer_syntax=IMPLICIT,
    )
    assert metadata["ReferencedImageSequence"][0]["SmallestImagePixelValue"] == 65535


@pytest.mark.parametrize("tag", [0x00281101, 0x00283002])
def test_first_and_third_value_of_a_lut_descriptor_are_unsigned(tag: int) -> None:
    """Only the second one is a pixel value."""
    values = struct.pack("<3H", 65535, 65534, 65533)
    content = element(0x00280103, "", b"\1\0", implicit=True) + element(
        tag, "", values, implicit=True
    )
    metadata = flat(identity(implicit=True), content, transfer_syntax=IMPLICIT)
    assert list(metadata.values())[-1] == [65535, -2, 65533]
    explicit = flat(identity(), element(tag, "SS", values))
    assert list(explicit.values())[-1] == [65535, -2, 65533]


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x60003000, "OW"),
        (0x601E3000, "OW"),
        (0x54001010, "OW"),
        (0x7F000010, "OW"),
        (0x50003000, "OB"),
        (0x501E3000, "OB"),
        (0x5002200C, "OB"),
        (0x50020110, "US"),
        (0x50020022, "LO"),
        (0x60020050, "SS"),
        (0x60020022, "LO"),
    ],
)
def test_repeating_groups_have_the_vr_of_the_implicit_transfer_syntax(tag: int, vr: str) -> None:
    """OB or OW is OW, except for curves and audio, which are bytes (PS3.5-2004 A.1)."""
    done = converted(
        dicom(
            identity(implicit=True),
            element(tag, "", b"1234", implicit=True),
            transfer_syntax=IMPLICIT,
        ),
        jsonOutput={"format": "dicom-json"},
    )
    assert done.metadata[f"{tag:08X}"]["vr"] == vr


@pytest.mark.parametrize(
    "creator",
    [
        "Philips Imaging DD 001",
        "PHILIPS IMAGING DD 001",
        "philips imaging dd 001",
        "  Philips  Imaging DD001 ",
        "PhilipsImagingDD001\0",
    ],
)
@pytest.mark.parametrize("vr", ["", "UN"])
def test_a_private_creator_is_recognised_by_its_letters(creator: str, vr: str) -> None:
    """Case and blanks do not matter, in implicit data sets and in UN."""
    implicit = not vr
    value = struct.pack("<f", 800)
    metadata = flat(
        identity(implicit=implicit),
        element(0x20010010, "LO", creator, implicit=implicit),
        element(0x20011003, vr, value, implicit=implicit),
        transfer_syntax=IMPLICIT if implicit else EXPLICIT,
    )
    assert metadata["20011003"] == 800


def test_group_lengths_and_private_creators_have_their_vr_in_implicit_data_sets() -> None:
    """UL and LO. A known creator's block follows its dictionary; others are UN."""
    content = (
        element(0x00080000, "", b"\5\0\0\0", implicit=True)
        + element(0x00090000, "", b"\4\0\0\0", implicit=True)
        + element(0x00190010, "", "SIEMENS MR HEADER", implicit=True)
        + element(0x00191009, "", "1.5 ", implicit=True)
        + element(0x00210010, "", "NOBODY", implicit=True)
        + element(0x00211009, "", "1.5 ", implicit=True)
    )
    metadata = flat(
        identity(implicit=True),
        content,
        transfer_syntax=IMPLICIT,
        jsonOutput={"ignoreGroupLength": False},
    )
    assert metadata["00080000"] == 5
    assert metadata["00090000"] == 4
    assert metadata["00190010"] == "SIEMENS MR HEADER"
    assert metadata["00191009"] == "1.5"
    assert set(metadata["00211009"]) == {"BulkDataURI"}


@pytest.mark.parametrize("vr", ["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
def test_a_binary_value_becomes_a_reference(vr: str) -> None:
    """Its offset counts from the first byte of the object, at any depth."""
    marker = b"*MARKER*"
    content = dicom(identity(), sequence(0x00081140, item(element(VALUE, vr, marker))))
    reference = converted(content).metadata["ReferencedImageSequence"][0]["00091001"]
    assert reference == {"BulkDataURI": f"?offset={content.index(marker)}&length=8"}


def test_bulk_data_uris_start_with_the_given_root() -> None:
    """If the option is on and a root is given."""
    content = dicom(identity(), element(VALUE, "OB", b"12"))
    option = {"jsonOutput": {"explicitBulkDataRoot": True}}
    root = "gs://bucket/a%3Fb?generation=7"
    with_root = convert(BytesIO(content), option, bulk_data_root=root).metadata["00091001"]
    offset = len(content) - 2
    assert with_root == {"BulkDataURI": f"{root}&offset={offset}&length=2"}
    without = convert(BytesIO(content), option).metadata["00091001"]
    assert without == {"BulkDataURI": f"?offset={offset}&length=2"}
    off = convert(BytesIO(content), bulk_data_root=root).metadata["00091001"]
    assert off == without


def test_short_binary_values_can_be_kept_inline() -> None:
    """In base64, up to the length of the option."""
    elements = (element(VALUE, "OB", b"1234"), element(VALUE + 1, "OB", b"123456"))
    metadata = flat(*elements, bulkData={"inlineMaxBytes": 4})
    assert metadata["00091001"] == {"InlineBinary": base64.b64encode(b"1234").decode()}
    assert set(metadata["00091002"]) == {"BulkDataURI"}


@pytest.mark.parametrize(
    ("vr", "content", "little"),
    [
        ("OW", b"\1\2\3\4", b"\2\1\4\3"),
        ("OL", b"\1\2\3\4", b"\4\3\2\1"),
        ("OF", b"\1\2\3\4", b"\4\3\2\1"),
        ("OD", b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
        ("OV", b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
        ("OB", b"\1\2\3\4", b"\1\2\3\4"),
    ],
)
def test_inline_binary_values_are_little_endian(vr: str, content: bytes, little: bytes) -> None:
    """Whatever the transfer syntax."""
    metadata = flat(
        identity(big=True),
        element(VALUE, vr, content, big=True),
        transfer_syntax=BIG,
        bulkData={"inlineMaxBytes": 99},
    )
    assert metadata["00091001"] == {"InlineBinary": base64.b64encode(little).decode()}


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("US", struct.pack(">2H", 1, 2), [1, 2]),
        ("SS", struct.pack(">h", -2), -2),
        ("UL", struct.pack(">L", 7), 7),
        ("SL", struct.pack(">l", -7), -7),
        ("UV", struct.pack(">Q", 7), 7),
        ("SV", struct.pack(">q", -7), -7),
        ("FL", struct.pack(">f", 3.14), 3.14),
        ("FD", struct.pack(">d", 3.14), 3.14),
        ("AT", b"\0\x18\x10\x63", "00181063"),
        ("LO", b"AB", "AB"),
    ],
)
def test_big_endian_values_are_the_same_numbers(vr: str, content: bytes, expected: Any) -> None:
    """At every level."""
    nested = sequence(0x00081140, item(element(VALUE, vr, content, big=True), big=True), big=True)
    metadata = flat(identity(big=True), nested, transfer_syntax=BIG)
    assert metadata["ReferencedImageSequence"] == [{"00091001": expected}]


def test_un_of_a_known_tag_is_read_by_the_dictionary() -> None:
    """Little endian even in a big endian file (PS3.5 6.2.2); private dictionaries apply."""
    elements = (
        identity(big=True),
        element(0x00100010, "UN", "A^B ", big=True),
        element(0x00190010, "LO", "SIEMENS MR HEADER ", big=True),
        element(0x00191009, "UN", "1.5 ", big=True),
        element(0x00280010, "UN", b"\2\1", big=True),
    )
    metadata = flat(*elements, transfer_syntax=BIG)
    assert metadata["PatientName"] == "A^B"
    assert metadata["00191009"] == "1.5"
    assert metadata["Rows"] == 258


@pytest.mark.parametrize(
    ("tag", "content"), [(0x00280010, b"ABC"), (0x00200013, b"x "), (0x00080020, b"2024 ")]
)
def test_un_that_does_not_fit_the_dictionary_becomes_a_reference(tag: int, content: bytes) -> None:
    """With a warning and with the VR UN."""
    elements = (identity(), element(tag, "UN", content, length=len(content)))
    (reference,) = [value for value in flat(*elements).values() if isinstance(value, dict)]
    assert set(reference) == {"BulkDataURI"}
    assert any(line.startswith(f"{tag:08X}: UN does not hold") for line in warned(*elements))


@pytest.mark.parametrize(("vr", "size"), [("UT", 70_000), ("UC", 70_000), ("LT", 65_500)])
def test_long_text_becomes_a_reference(vr: str, size: int) -> None:
    """With its VR, if it exceeds the limit and not if it reaches it."""
    content = element(VALUE, vr, "x" * size)
    bound = min(size, 65_536)
    metadata = flat(content, bulkData={"textMaxBytes": bound - 1})["00091001"]
    assert metadata["vr"] == vr
    assert f"length={size}" in metadata["BulkDataURI"]
    assert flat(content, bulkData={"textMaxBytes": size})["00091001"] == "x" * size


def test_long_arrays_of_numbers_become_references() -> None:
    content = sequence(0x00081140, item(element(VALUE, "US", bytes(4096))))
    metadata = flat(content, bulkData={"textMaxBytes": 4095})["ReferencedImageSequence"][0]
    assert metadata["00091001"]["vr"] == "US"
    assert flat(content)["ReferencedImageSequence"][0]["00091001"] == [0] * 2048


def test_the_text_is_the_metadata_as_json() -> None:
    """Valid, and without unnecessary escapes."""
    done = converted(dicom(identity(), element(0x00100010, "PN", 'Müller^"J\\')))
    assert json.loads(done.text) == done.metadata


def test_un_that_does_not_fit_the_dictionary_is_binary_and_can_be_omitted() -> None:
    broken = element(0x00180050, "UN", b"\xff\0")
    assert "BulkDataURI" in flat(broken, identity())["SliceThickness"]
    assert "SliceThickness" not in flat(identity(), broken, jsonOutput={"ignoreBinary": True})


@pytest.mark.parametrize("most", [0, 8])
def test_text_that_reading_depends_on_is_read_whatever_the_options(most: int) -> None:
    content = [
        identity(),
        element(0x00080005, "CS", "ISO_IR 192"),
        element(0x00100010, "PN", "Müller^M".encode()),
        element(0x00100020, "LO", "0123456789"),
    ]
    done = converted(dicom(*content), bulkData={"textMaxBytes": most})
    assert done.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert done.columns["PatientID"] == "0123456789"
    assert done.metadata["PatientID"]["vr"] == "LO"
