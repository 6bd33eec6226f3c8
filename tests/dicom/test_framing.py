"""Files as they occur: structure sound and broken, with and without preamble and File Meta."""

import struct
import zlib
from io import BytesIO

import pytest

from dcm2bq.dicom import convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SOP_CLASS,
    SOP_INSTANCE,
    UNDEFINED,
    converted,
    delimiter,
    dicom,
    element,
    flat,
    header,
    identity,
    item,
    meta,
    sequence,
    warned,
)

LAST = element(0x00100020, "LO", "LAST")
PIXELS = element(0x7FE00010, "OW", b"\1" * 64)


def unreadable(content: bytes) -> UnreadableDicomError:
    """Return the error that a file is refused with."""
    with pytest.raises(UnreadableDicomError) as caught:
        convert(BytesIO(content))
    return caught.value


# Sequences


@pytest.mark.parametrize("defined_item", [True, False])
@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_sequences_are_read_in_every_encoding(
    *, syntax: str, defined: bool, defined_item: bool
) -> None:
    """Nested, with known and undefined lengths."""
    implicit, big = syntax == IMPLICIT, syntax == BIG
    code = element(0x00080100, "SH", "X", implicit=implicit, big=big)
    inner = item(code, defined=defined_item, big=big)
    kind = sequence(0x00081140, inner, inner, defined=defined, implicit=implicit, big=big)
    outer = item(kind, code, defined=defined_item, big=big)
    both = sequence(0x00081115, outer, defined=defined, implicit=implicit, big=big)
    last = element(0x00100020, "LO", "LAST", implicit=implicit, big=big)
    metadata = flat(identity(implicit=implicit, big=big), both, last, transfer_syntax=syntax)
    one = {"CodeValue": "X"}
    expected = {"CodeValue": "X", "ReferencedImageSequence": [one, one]}
    assert metadata["ReferencedSeriesSequence"] == [expected]
    assert metadata["PatientID"] == "LAST"


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
def test_sequences_written_as_un_are_read_explicit_or_implicit(
    *, implicit: bool, defined: bool
) -> None:
    """A VR after the first tag of an item shows that it is explicit (PS3.5 6.2.2)."""
    code = element(0x00080100, "SH", "X", implicit=implicit)
    other = element(0x00080100, "SH", "Y", implicit=not implicit)
    hidden = sequence(0x00081140, item(code), item(other), item(), vr="UN", defined=defined)
    metadata = flat(identity(), hidden, LAST)
    assert metadata["ReferencedImageSequence"] == [{"CodeValue": "X"}, {"CodeValue": "Y"}, {}]
    assert metadata["PatientID"] == "LAST"
    in_big_endian = flat(
        identity(big=True),
        header(0x00081140, "UN", UNDEFINED, big=True) + hidden[12:]
        if not defined
        else header(0x00081140, "UN", len(hidden) - 12, big=True) + hidden[12:],
        element(0x00100020, "LO", "LAST", big=True),
        transfer_syntax=BIG,
    )
    assert in_big_endian["ReferencedImageSequence"] == metadata["ReferencedImageSequence"]
    assert in_big_endian["PatientID"] == "LAST"


def test_items_within_un_are_explicit_or_implicit_at_every_level() -> None:
    """Those of a sequence within an implicit item, too."""
    inner = item(element(0x00080100, "SH", "X")), item(element(0x00080100, "", "Y", implicit=True))
    nested = sequence(0x00081115, *inner, implicit=True)
    metadata = flat(identity(), sequence(0x00081140, item(nested), vr="UN"), LAST)
    expected = [{"ReferencedSeriesSequence": [{"CodeValue": "X"}, {"CodeValue": "Y"}]}]
    assert metadata["ReferencedImageSequence"] == expected


def test_unknown_un_of_undefined_length_is_a_sequence() -> None:
    """With a known length it is binary."""
    code = element(0x00080100, "SH", "X", implicit=True)
    hidden = sequence(0x00091001, item(code), vr="UN", defined=False)
    assert flat(hidden, LAST)["00091001"] == [{"CodeValue": "X"}]
    assert "BulkDataURI" in flat(sequence(0x00091001, item(code), vr="UN"), LAST)["00091001"]
    implicit = sequence(0x00091001, item(code), implicit=True, defined=False)
    metadata = flat(identity(implicit=True), implicit, transfer_syntax=IMPLICIT)
    assert metadata["00091001"] == [{"CodeValue": "X"}]


def test_items_of_an_explicit_data_set_may_be_implicit() -> None:
    """Some writers switch the encoding within a sequence."""
    inner = item(
        element(0x00080100, "SH", "X", implicit=True),
        sequence(0x00081140, item(element(0x00080100, "SH", "Y", implicit=True)), implicit=True),
    )
    metadata = flat(identity(), sequence(0x00081115, inner), LAST)
    assert metadata["ReferencedSeriesSequence"] == [
        {"CodeValue": "X", "ReferencedImageSequence": [{"CodeValue": "Y"}]}
    ]


BROKEN_CONTENTS = {
    "no items": b"this is no item of a sequence, but text",
    "item beyond the sequence": delimiter(0xFFFEE000, 1000) + element(0x00080100, "SH", "X"),
    "item that swallows what follows": delimiter(0xFFFEE000, 10 + len(LAST))
    + element(0x00080100, "SH", "X"),
    "element beyond the item": item(element(0x00080100, "SH", "X", length=4)),
    "cut header": item(b"\x08\0\0\1S"),
    "cut item header": delimiter(0xFFFEE000)[:6],
    "delimiter cut short": item(element(0x00080100, "SH", "X"), defined=False)[:-4],
    "item among elements that looks like SQ": item(delimiter(0xFFFEE000, 0x5153) + bytes(4)),
    "delimiter of a sequence cut short": item(sequence(0x00081140, item(), defined=False)[:-4]),
}


@pytest.mark.parametrize("content", BROKEN_CONTENTS.values(), ids=BROKEN_CONTENTS.keys())
def test_a_broken_sequence_of_known_length_is_left_in_the_object(content: bytes) -> None:
    """Its neighbours and the enclosing sequences are read."""
    code = element(0x00080100, "SH", "X")
    broken = header(0x00081140, "SQ", len(content)) + content
    whole = dicom(identity(), sequence(0x00081115, item(code, broken, LAST), item(code)), LAST)
    conversion = converted(whole)
    first, second = conversion.metadata["ReferencedSeriesSequence"]
    offset = whole.index(content)
    assert first == {
        "CodeValue": "X",
        "ReferencedImageSequence": {
            "BulkDataURI": f"?offset={offset}&length={len(content)}",
            "vr": "SQ",
        },
        "PatientID": "LAST",
    }
    assert second == {"CodeValue": "X"}
    assert conversion.metadata["PatientID"] == "LAST"
    assert any(line.startswith("00081140 SQ: broken sequence") for line in conversion.warnings)


@pytest.mark.parametrize("content", BROKEN_CONTENTS.values(), ids=BROKEN_CONTENTS.keys())
def test_un_that_is_not_a_sequence_is_left_in_the_object(content: bytes) -> None:
    """Although the dictionary says SQ."""
    metadata = flat(identity(), header(0x00081140, "UN", len(content)) + content, LAST)
    assert set(metadata["ReferencedImageSequence"]) == {"BulkDataURI"}
    assert metadata["PatientID"] == "LAST"


def test_the_innermost_sequence_of_known_length_is_left_in_the_object() -> None:
    """Reading cannot resume after one of undefined length."""
    inner = sequence(0x00081140, item(b"\x08\0\0\1S"), defined=False)
    metadata = flat(identity(), sequence(0x00081115, item(inner)), LAST)
    assert set(metadata["ReferencedSeriesSequence"]) == {"BulkDataURI", "vr"}
    assert metadata["PatientID"] == "LAST"


def test_a_broken_sequence_of_undefined_length_is_refused() -> None:
    """The error has the tag and the offset."""
    whole = dicom(identity(), sequence(0x00081140, b"no item!", defined=False))
    refusal = unreadable(whole)
    assert refusal.tag == "00081140"
    assert refusal.offset == whole.index(b"no item!")


@pytest.mark.parametrize("length", [5000, 0x7FFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("vr", ["SQ", "UN", "UT", "OB"])
def test_a_length_beyond_the_object_is_refused(vr: str, length: int) -> None:
    """Whatever the VR; the error has the tag and the offset."""
    refusal = unreadable(dicom(identity(), header(0x00081140, vr, length) + bytes(64)))
    assert refusal.tag == "00081140"
    assert refusal.offset is not None


@pytest.mark.parametrize("tag", [0xFFFEE00D, 0xFFFEE0DD])
def test_stray_delimiters_are_skipped(tag: int) -> None:
    """At the top level and in items, with a warning."""
    stray = delimiter(tag)
    inner = item(element(0x00080100, "SH", "X"), stray, element(0x00080102, "SH", "Y"))
    elements = (identity(), stray, sequence(0x00081140, inner), stray, LAST)
    metadata = flat(*elements)
    assert metadata["ReferencedImageSequence"] == [
        {"CodeValue": "X", "CodingSchemeDesignator": "Y"}
    ]
    assert metadata["PatientID"] == "LAST"
    assert any("stray delimiter" in line and "3 times" in line for line in warned(*elements))


# Headers


@pytest.mark.parametrize("length_bytes", [2, 4])
@pytest.mark.parametrize("where", ["top", "item", "end"])
def test_what_follows_decides_how_an_unknown_vr_is_read(length_bytes: int, where: str) -> None:
    """Its length may have 2 or 4 bytes."""
    value = b"12345678"
    length = struct.pack("<H", 8) if length_bytes == 2 else struct.pack("<HL", 0, 8)
    odd = struct.pack("<HH", 0x0009, 0x1001) + b"ZZ" + length + value
    known = struct.pack("<HH", 0x0010, 0x0010) + b"ZZ" + length + value
    follower = element(0x00100020, "LO", "LAST")
    if where == "item":
        metadata = flat(identity(), sequence(0x00081140, item(odd, known, follower)))
        metadata = metadata["ReferencedImageSequence"][0]
    elif where == "top":
        metadata = flat(identity(), odd, known, follower)
    else:
        metadata = flat(identity(), odd, known)
    assert metadata["00091001"]["BulkDataURI"].endswith("length=8")
    assert metadata["PatientName"] == "12345678"
    assert where == "end" or metadata["PatientID"] == "LAST"
    assert any("no known VR" in line for line in warned(identity(), odd, known, follower))


@pytest.mark.parametrize("value", [b"ABCDEFGHIJKLMNOP", b"ABCDEFGH"])
def test_the_value_of_an_unknown_vr_is_not_taken_for_an_element(value: bytes) -> None:
    """Although its length could be a tag and its first letters a VR."""
    odd = struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, len(value)) + value
    metadata = flat(identity(), odd, LAST)
    assert metadata["00091001"]["BulkDataURI"].endswith(f"length={len(value)}")
    assert metadata["PatientID"] == "LAST"


@pytest.mark.parametrize("code", [b"\0\0", b"  ", b"??", b"a1"])
def test_what_follows_decides_how_a_header_without_a_vr_is_read(code: bytes) -> None:
    """As explicit with a length of 2 or 4 bytes, or as implicit."""
    two = struct.pack("<HH2sH", 0x0010, 0x0010, code, 4) + b"A^B "
    four = struct.pack("<HH2sHL", 0x0010, 0x0010, code, 0, 4) + b"A^B "
    implicit = element(0x00100010, "PN", "A^B ", implicit=True)
    for odd in (two, four, implicit):
        metadata = flat(identity(), odd, LAST)
        assert metadata["PatientName"] == "A^B"
        assert metadata["PatientID"] == "LAST"


def test_a_first_element_without_a_vr_does_not_make_the_data_set_implicit() -> None:
    """The second element decides."""
    metadata = flat(element(0x00080008, "CS", "X ", implicit=True), identity(), LAST)
    assert metadata["ImageType"] == "X"
    assert metadata["PatientID"] == "LAST"


def test_values_of_odd_length_are_read() -> None:
    """The standard forbids them, but they are common."""
    assert (
        flat(identity(), element(0x00100010, "PN", "A^B", length=3), LAST)["PatientName"] == "A^B"
    )
    inner = item(element(0x00080100, "SH", "X", length=1))
    assert flat(sequence(0x00081140, inner), LAST)["ReferencedImageSequence"] == [
        {"CodeValue": "X"}
    ]


def test_elements_out_of_order_are_read() -> None:
    """Any order is accepted before the pixel data."""
    metadata = flat(LAST, identity())
    assert list(metadata) == ["SOPClassUID", "SOPInstanceUID", "PatientID"]


# After the pixel data


def test_elements_after_the_pixel_data_are_read() -> None:
    """Sequences, too."""
    signature = sequence(0xFFFAFFFA, item(element(0x04000005, "US", b"\1\0")), defined=False)
    metadata = flat(identity(), PIXELS, element(0x7FE10010, "LO", "X"), signature)
    assert metadata["7FE10010"] == "X"
    assert metadata["DigitalSignaturesSequence"] == [{"MACIDNumber": 1}]


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage after the pixels",
        LAST,
        element(0x7FE10010, "LO", "X", length=100),
        element(0x7FE10010, "ZZ", "X"),
        b"\xe1\x7f\x10",
        sequence(0xFFFAFFFA, item(b"\1"), defined=False),
        b"\0" * 16 + b"x",
    ],
)
def test_bytes_after_the_pixel_data_that_are_not_elements_end_the_data_set(garbage: bytes) -> None:
    """The object is converted; a warning says where they begin and how many they are."""
    good = element(0x7FE00021, "LO", "GOOD")
    content = dicom(identity(), PIXELS, good)
    conversion = converted(content + garbage)
    assert conversion.metadata["7FE00021"] == "GOOD"
    expected = f"{len(garbage)} bytes after the pixel data are not elements (offset {len(content)})"
    assert expected in conversion.warnings


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100, 1_000_000])
def test_nuls_after_the_pixel_data_are_padding(count: int) -> None:
    """Without a warning: no value can be lost."""
    conversion = converted(dicom(identity(), PIXELS) + bytes(count))
    assert conversion.warnings == ()


def test_trailing_padding_is_an_element_like_any_other() -> None:
    """Its tag is (FFFC,FFFC)."""
    metadata = flat(identity(), PIXELS, element(0xFFFCFFFC, "OB", bytes(16)))
    assert set(metadata["DataSetTrailingPadding"]) == {"BulkDataURI"}


@pytest.mark.parametrize("count", [1, 8, 9, 5000])
def test_nuls_after_a_data_set_without_pixels_are_padding_with_a_warning(count: int) -> None:
    """They could be the rest of an element."""
    conversion = converted(dicom(identity(), LAST) + bytes(count))
    assert conversion.metadata["PatientID"] == "LAST"
    assert any(line.startswith("padding") for line in conversion.warnings)


def test_an_object_cut_inside_its_pixel_data_is_converted_with_a_warning() -> None:
    """The warning has the expected and the actual length."""
    content = dicom(identity(), PIXELS)[:-24]
    conversion = converted(content)
    assert conversion.metadata["PixelData"]["BulkDataURI"].endswith("length=40")
    assert any("40 of 64 bytes" in line for line in conversion.warnings)


def test_rows_without_pixel_data_cause_a_warning() -> None:
    """Such an object may be cut between two elements. A URL of the pixels suffices."""
    rows = element(0x00280010, "US", b"\1\0")
    assert any("Rows without pixel data" in line for line in warned(identity(), rows))
    assert warned(identity(), rows, PIXELS) == []
    assert warned(identity(), rows, element(0x00287FE0, "UR", "http://x/y")) == []
    assert warned(identity(), rows, element(0x7FE00008, "OF", bytes(8))) == []


# Recognition


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("begin", ["preamble", "prefix without meta", "meta", "data set"])
def test_files_without_preamble_or_meta_are_recognised(begin: str, syntax: str) -> None:
    """By a SOP Class or SOP Instance UID, with a warning."""
    implicit, big = syntax == IMPLICIT, syntax == BIG
    data_set = identity(implicit=implicit, big=big) + element(
        0x00100020, "LO", "LAST", implicit=implicit, big=big
    )
    start = {
        "preamble": b"\0" * 128 + b"DICM" + meta(syntax),
        "prefix without meta": b"\0" * 128 + b"DICM",
        "meta": meta(syntax),
        "data set": b"",
    }[begin]
    conversion = converted(start + data_set)
    assert conversion.metadata["PatientID"] == "LAST"
    assert conversion.columns["SOPInstanceUID"] == SOP_INSTANCE
    assert conversion.transfer_syntax_uid == (syntax if begin in {"preamble", "meta"} else None)
    assert bool(conversion.warnings) is (begin != "preamble")


@pytest.mark.parametrize("declared", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("actual", [EXPLICIT, IMPLICIT, BIG])
def test_a_wrong_transfer_syntax_is_recognised(declared: str, actual: str) -> None:
    """The bytes count, and a warning says so."""
    implicit, big = actual == IMPLICIT, actual == BIG
    data_set = identity(implicit=implicit, big=big) + element(
        0x00100020, "LO", "LAST", implicit=implicit, big=big
    )
    conversion = converted(dicom(data_set, transfer_syntax=declared))
    assert conversion.metadata["PatientID"] == "LAST"
    assert any("not as declared" in line for line in conversion.warnings) is (declared != actual)


def test_the_meta_information_ends_with_its_group() -> None:
    """Whatever its group length is, and without one."""
    right = meta()
    for length in (0, 1, 4000, 0xFFFFFFFF):
        wrong = right[:8] + struct.pack("<L", length) + right[12:]
        conversion = converted(b"\0" * 128 + b"DICM" + wrong + identity() + LAST)
        assert conversion.metadata["PatientID"] == "LAST"
        assert conversion.metadata["ImplementationClassUID"] == "1.2.3"
    without = converted(b"\0" * 128 + b"DICM" + right[12:] + identity() + LAST)
    assert without.metadata["PatientID"] == "LAST"


def test_meta_information_may_be_implicit() -> None:
    """Against the standard, but it occurs."""
    uid = element(0x00020010, "UI", EXPLICIT, implicit=True)
    conversion = converted(b"\0" * 128 + b"DICM" + uid + identity() + LAST)
    assert conversion.transfer_syntax_uid == EXPLICIT
    assert conversion.metadata["PatientID"] == "LAST"


def test_a_command_set_may_precede_the_data_set() -> None:
    """Implicit VR little endian, whatever follows (PS3.7 6.3.1)."""
    command = element(0x00000002, "UI", "1.2.3", implicit=True)
    metadata = flat(command, identity(), LAST)
    assert metadata["AffectedSOPClassUID"] == "1.2.3"
    assert metadata["PatientID"] == "LAST"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"D",
        b"\0" * 200,
        b"%PDF-1.7 and so on" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(300),
        b" " + identity() + LAST,
        LAST,
        element(0x00100020, "LO", "LAST", implicit=True),
        element(0x00080001, "UL", b"\0\0\0\0") + LAST,
    ],
)
def test_an_object_that_is_not_dicom_is_refused(content: bytes) -> None:
    """Garbage before the data set, and data sets without SOP UIDs, are not DICOM either."""
    with pytest.raises(NotDicomError):
        convert(BytesIO(content))


@pytest.mark.parametrize("content", [dicom(), b"\0" * 128 + b"DICM" + meta()[:-20]])
def test_a_file_that_ends_with_its_meta_information_is_refused(content: bytes) -> None:
    """There would be nothing in its row."""
    assert unreadable(content)


def test_a_broken_data_set_without_preamble_is_still_dicom() -> None:
    """Its UIDs show that it is DICOM."""
    assert unreadable(identity() + element(0x00100020, "LO", "X", length=99))


@pytest.mark.parametrize("last", [b"", element(0x00100010, "PN", "A^B")])
def test_implicit_private_elements_in_an_explicit_data_set_are_read(last: bytes) -> None:
    """Several in a row: a known defect of some devices."""
    odd = [element(0x00091001 + n, "", b"abcd", implicit=True) for n in range(5)]
    metadata = flat(identity(), element(0x00090010, "LO", "PRIV"), *odd, last)
    assert all(f"{0x00091001 + n:08X}" in metadata for n in range(5))
    assert metadata.get("PatientName") == ("A^B" if last else None)


# No data set


GROUP_LENGTHS = [
    element(0x00080000, "UL", b"\4\0\0\0") + element(0x00100000, "UL", b"\0\0\0\0"),
    element(0x00080000, "UL", b"\4\0\0\0", implicit=True),
]


@pytest.mark.parametrize("command", [b"", element(0x00000002, "UI", "1.2.3", implicit=True)])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_padding_alone_is_not_a_data_set(syntax: str, command: bytes) -> None:
    """Nor are group lengths or a command set; the error says where one should begin."""
    lengths = GROUP_LENGTHS[syntax == IMPLICIT] if syntax != BIG else b""
    contents = [bytes(count) for count in (0, 1, 2, 7, 8, 9, 16, 100, 4096, 70_000, 1_000_000)]
    contents += [lengths, lengths + bytes(8), element(0xFFFCFFFC, "OB", bytes(16))]
    for content in contents:
        start = dicom(command, transfer_syntax=syntax)
        if syntax == DEFLATED:
            deflater = zlib.compressobj(wbits=-15)
            deflated = deflater.compress(content) + deflater.flush()
            refusal = unreadable(start + deflated)
            assert (refusal.reason, refusal.offset) == ("the object has no data set", 0)
        refusal = unreadable(start + content)
        assert refusal.reason == "the object has no data set"
        assert refusal.offset in ({0, len(start)} if syntax == DEFLATED else {len(start)})


# The prefix by chance


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("where", ["within", "at its start", "at its end"])
def test_a_bare_data_set_may_contain_the_letters_of_the_prefix(where: str, syntax: str) -> None:
    """At byte 128, inside a text or at one of its ends."""
    form = {"implicit": syntax == IMPLICIT, "big": syntax == BIG}
    start = identity(**form)
    begin = len(start) + 8
    text = "DICM" if where == "at its start" else "x" * (128 - begin) + "DICM"
    if where == "at its start":
        start = element(0x00080008, "CS", "A" * (128 - begin - 8), **form) + start
    text += "" if where == "at its end" else "y" * 20
    content = start + element(0x00081030, "LO", text, **form)
    content += element(0x00080018, "UI", SOP_INSTANCE, **form) * (where == "at its end")
    content += element(0x00100020, "LO", "LAST", **form)
    assert content[128:132] == b"DICM"
    conversion = converted(content)
    assert conversion.metadata["StudyDescription"] == text
    assert conversion.metadata["SOPClassUID"] == SOP_CLASS
    assert conversion.metadata["PatientID"] == "LAST"
    assert any(line.startswith("no File Meta Information") for line in conversion.warnings)


def test_meta_information_without_preamble_may_contain_the_letters_of_the_prefix() -> None:
    """Even if more of it follows."""
    start = meta()[:-14] + element(0x00020013, "SH", "")
    name = "x" * (128 - len(start)) + "DICM"
    content = meta()[:-14] + element(0x00020013, "SH", name) + element(0x00020016, "AE", "A")
    content += identity() + LAST
    assert content[128:132] == b"DICM"
    conversion = converted(content)
    assert conversion.metadata["ImplementationVersionName"] == name
    assert conversion.transfer_syntax_uid == EXPLICIT
    assert conversion.metadata["PatientID"] == "LAST"


@pytest.mark.parametrize(
    "preamble", [bytes(128), b"II*\0" + bytes(124), b"\xff" * 128, identity().ljust(128, b"\0")]
)
def test_a_preamble_is_never_a_data_set(preamble: bytes) -> None:
    """Whatever an application writes there, with File Meta Information or without."""
    for start in (b"", meta()):
        conversion = converted(preamble + b"DICM" + start + identity() + LAST)
        assert conversion.metadata["PatientID"] == "LAST"


def test_a_broken_data_set_with_the_letters_of_the_prefix_is_still_dicom() -> None:
    """The offset in the error counts from the first byte."""
    start = identity()
    text = element(0x00081030, "LO", "x" * (128 - len(start) - 8) + "DICM" + "y" * 20)
    broken = start + text + element(0x00100020, "LO", "X", length=99)
    refusal = unreadable(broken)
    assert refusal.tag == "00100020"
    assert refusal.offset == len(start + text) + 8
