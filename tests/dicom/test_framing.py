"""Files as they are found: framing right and wrong, with and without preamble and meta."""

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
    """Return the refusal of a file."""
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
    """Of known and of undefined length, nested."""
    implicit, big = syntax == IMPLICIT, syntax == BIG
    code = element(0x00080100, "SH", "X", implicit=implicit, big=big)
    inner = item(code, defined=defined_item, big=big)
    kind = sequence(0x00081140, inner, inner, defined=defined, implicit=implicit, big=big)
    outer = item(kind, code, defined=defined_item, big=big)
    both = sequence(0x00081115, outer, defined=defined, implicit=implicit, big=big)
    last = element(0x00100020, "LO", "LAST", implicit=implicit, big=big)
    found = flat(identity(implicit=implicit, big=big), both, last, transfer_syntax=syntax)
    one = {"CodeValue": "X"}
    expected = {"CodeValue": "X", "ReferencedImageSequence": [one, one]}
    assert found["ReferencedSeriesSequence"] == [expected]
    assert found["PatientID"] == "LAST"


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
def test_un_hides_sequences_of_both_kinds(*, implicit: bool, defined: bool) -> None:
    """Decided for each item by whether a VR stands where one must (PS3.5 6.2.2)."""
    code = element(0x00080100, "SH", "X", implicit=implicit)
    other = element(0x00080100, "SH", "Y", implicit=not implicit)
    hidden = sequence(0x00081140, item(code), item(other), item(), vr="UN", defined=defined)
    found = flat(identity(), hidden, LAST)
    assert found["ReferencedImageSequence"] == [{"CodeValue": "X"}, {"CodeValue": "Y"}, {}]
    assert found["PatientID"] == "LAST"
    in_big_endian = flat(
        identity(big=True),
        header(0x00081140, "UN", UNDEFINED, big=True) + hidden[12:]
        if not defined
        else header(0x00081140, "UN", len(hidden) - 12, big=True) + hidden[12:],
        element(0x00100020, "LO", "LAST", big=True),
        transfer_syntax=BIG,
    )
    assert in_big_endian["ReferencedImageSequence"] == found["ReferencedImageSequence"]
    assert in_big_endian["PatientID"] == "LAST"


def test_what_un_hides_is_explicit_or_implicit_at_every_level() -> None:
    """Also the items of a sequence within an implicit item."""
    inner = item(element(0x00080100, "SH", "X")), item(element(0x00080100, "", "Y", implicit=True))
    nested = sequence(0x00081115, *inner, implicit=True)
    found = flat(identity(), sequence(0x00081140, item(nested), vr="UN"), LAST)
    expected = [{"ReferencedSeriesSequence": [{"CodeValue": "X"}, {"CodeValue": "Y"}]}]
    assert found["ReferencedImageSequence"] == expected


def test_unknown_un_of_undefined_length_is_a_sequence() -> None:
    """Of known length it stays binary."""
    code = element(0x00080100, "SH", "X", implicit=True)
    hidden = sequence(0x00091001, item(code), vr="UN", defined=False)
    assert flat(hidden, LAST)["00091001"] == [{"CodeValue": "X"}]
    assert "BulkDataURI" in flat(sequence(0x00091001, item(code), vr="UN"), LAST)["00091001"]
    implicit = sequence(0x00091001, item(code), implicit=True, defined=False)
    found = flat(identity(implicit=True), implicit, transfer_syntax=IMPLICIT)
    assert found["00091001"] == [{"CodeValue": "X"}]


def test_items_may_be_implicit_though_the_data_set_is_explicit() -> None:
    """Some writers switch."""
    inner = item(
        element(0x00080100, "SH", "X", implicit=True),
        sequence(0x00081140, item(element(0x00080100, "SH", "Y", implicit=True)), implicit=True),
    )
    found = flat(identity(), sequence(0x00081115, inner), LAST)
    assert found["ReferencedSeriesSequence"] == [
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
    found = converted(whole)
    first, second = found.metadata["ReferencedSeriesSequence"]
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
    assert found.metadata["PatientID"] == "LAST"
    assert any(line.startswith("00081140 SQ: broken sequence") for line in found.warnings)


@pytest.mark.parametrize("content", BROKEN_CONTENTS.values(), ids=BROKEN_CONTENTS.keys())
def test_un_that_is_no_sequence_is_left_in_the_object(content: bytes) -> None:
    """Though the dictionary has it as one."""
    found = flat(identity(), header(0x00081140, "UN", len(content)) + content, LAST)
    assert set(found["ReferencedImageSequence"]) == {"BulkDataURI"}
    assert found["PatientID"] == "LAST"


def test_the_innermost_sequence_of_known_length_is_the_one_left() -> None:
    """One of undefined length has no end to go on from."""
    inner = sequence(0x00081140, item(b"\x08\0\0\1S"), defined=False)
    found = flat(identity(), sequence(0x00081115, item(inner)), LAST)
    assert set(found["ReferencedSeriesSequence"]) == {"BulkDataURI", "vr"}
    assert found["PatientID"] == "LAST"


def test_broken_framing_in_undefined_length_is_refused() -> None:
    """With the tag and the offset of the place."""
    whole = dicom(identity(), sequence(0x00081140, b"no item!", defined=False))
    refusal = unreadable(whole)
    assert refusal.tag == "00081140"
    assert refusal.offset == whole.index(b"no item!")


@pytest.mark.parametrize("length", [5000, 0x7FFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("vr", ["SQ", "UN", "UT", "OB"])
def test_a_length_beyond_the_object_is_refused(vr: str, length: int) -> None:
    """Whatever the VR, with tag and offset."""
    refusal = unreadable(dicom(identity(), header(0x00081140, vr, length) + bytes(64)))
    assert refusal.tag == "00081140"
    assert refusal.offset is not None


@pytest.mark.parametrize("tag", [0xFFFEE00D, 0xFFFEE0DD])
def test_stray_delimiters_are_skipped(tag: int) -> None:
    """At the top and within items, with a warning."""
    stray = delimiter(tag)
    inner = item(element(0x00080100, "SH", "X"), stray, element(0x00080102, "SH", "Y"))
    elements = (identity(), stray, sequence(0x00081140, inner), stray, LAST)
    found = flat(*elements)
    assert found["ReferencedImageSequence"] == [{"CodeValue": "X", "CodingSchemeDesignator": "Y"}]
    assert found["PatientID"] == "LAST"
    assert any("stray delimiter" in line and "3 times" in line for line in warned(*elements))


# Headers


@pytest.mark.parametrize("length_bytes", [2, 4])
@pytest.mark.parametrize("where", ["top", "item", "end"])
def test_an_unknown_vr_is_read_by_what_follows(length_bytes: int, where: str) -> None:
    """Its length has two or four bytes."""
    value = b"12345678"
    length = struct.pack("<H", 8) if length_bytes == 2 else struct.pack("<HL", 0, 8)
    odd = struct.pack("<HH", 0x0009, 0x1001) + b"ZZ" + length + value
    known = struct.pack("<HH", 0x0010, 0x0010) + b"ZZ" + length + value
    follower = element(0x00100020, "LO", "LAST")
    if where == "item":
        found = flat(identity(), sequence(0x00081140, item(odd, known, follower)))
        found = found["ReferencedImageSequence"][0]
    elif where == "top":
        found = flat(identity(), odd, known, follower)
    else:
        found = flat(identity(), odd, known)
    assert found["00091001"]["BulkDataURI"].endswith("length=8")
    assert found["PatientName"] == "12345678"
    assert where == "end" or found["PatientID"] == "LAST"
    assert any("no known VR" in line for line in warned(identity(), odd, known, follower))


@pytest.mark.parametrize("value", [b"ABCDEFGHIJKLMNOP", b"ABCDEFGH"])
def test_the_value_of_an_unknown_vr_is_not_taken_for_an_element(value: bytes) -> None:
    """Though its length could be a tag and its first letters a VR."""
    odd = struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, len(value)) + value
    found = flat(identity(), odd, LAST)
    assert found["00091001"]["BulkDataURI"].endswith(f"length={len(value)}")
    assert found["PatientID"] == "LAST"


@pytest.mark.parametrize("code", [b"\0\0", b"  ", b"??", b"a1"])
def test_a_header_without_a_vr_is_read_by_what_follows(code: bytes) -> None:
    """As explicit with two or four bytes of length, or as implicit."""
    two = struct.pack("<HH2sH", 0x0010, 0x0010, code, 4) + b"A^B "
    four = struct.pack("<HH2sHL", 0x0010, 0x0010, code, 0, 4) + b"A^B "
    implicit = element(0x00100010, "PN", "A^B ", implicit=True)
    for odd in (two, four, implicit):
        found = flat(identity(), odd, LAST)
        assert found["PatientName"] == "A^B"
        assert found["PatientID"] == "LAST"


def test_a_first_element_without_a_vr_does_not_make_the_data_set_implicit() -> None:
    """The second one tells."""
    found = flat(element(0x00080008, "CS", "X ", implicit=True), identity(), LAST)
    assert found["ImageType"] == "X"
    assert found["PatientID"] == "LAST"


def test_odd_lengths_are_read_as_they_are() -> None:
    """Forbidden, and found everywhere."""
    assert (
        flat(identity(), element(0x00100010, "PN", "A^B", length=3), LAST)["PatientName"] == "A^B"
    )
    inner = item(element(0x00080100, "SH", "X", length=1))
    assert flat(sequence(0x00081140, inner), LAST)["ReferencedImageSequence"] == [
        {"CodeValue": "X"}
    ]


def test_elements_out_of_order_are_read() -> None:
    """Before the pixel data any order does."""
    found = flat(LAST, identity())
    assert list(found) == ["SOPClassUID", "SOPInstanceUID", "PatientID"]


# Behind the pixel data


def test_elements_behind_the_pixel_data_are_read() -> None:
    """Sequences too."""
    signature = sequence(0xFFFAFFFA, item(element(0x04000005, "US", b"\1\0")), defined=False)
    found = flat(identity(), PIXELS, element(0x7FE10010, "LO", "X"), signature)
    assert found["7FE10010"] == "X"
    assert found["DigitalSignaturesSequence"] == [{"MACIDNumber": 1}]


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage behind the pixels",
        LAST,
        element(0x7FE10010, "LO", "X", length=100),
        element(0x7FE10010, "ZZ", "X"),
        b"\xe1\x7f\x10",
        sequence(0xFFFAFFFA, item(b"\1"), defined=False),
        b"\0" * 16 + b"x",
    ],
)
def test_what_is_no_element_behind_the_pixel_data_ends_the_file(garbage: bytes) -> None:
    """A row all the same; the warning says where and how much."""
    good = element(0x7FE00021, "LO", "GOOD")
    content = dicom(identity(), PIXELS, good)
    found = converted(content + garbage)
    assert found.metadata["7FE00021"] == "GOOD"
    expected = f"{len(garbage)} bytes after the pixel data are not elements (offset {len(content)})"
    assert expected in found.warnings


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100, 1_000_000])
def test_nuls_behind_the_pixel_data_are_padding(count: int) -> None:
    """No value is lost by them."""
    found = converted(dicom(identity(), PIXELS) + bytes(count))
    assert found.warnings == ()


def test_trailing_padding_is_an_element_like_any_other() -> None:
    """(FFFC,FFFC)."""
    found = flat(identity(), PIXELS, element(0xFFFCFFFC, "OB", bytes(16)))
    assert set(found["DataSetTrailingPadding"]) == {"BulkDataURI"}


@pytest.mark.parametrize("count", [1, 8, 9, 5000])
def test_nuls_behind_other_data_sets_are_padding_with_a_warning(count: int) -> None:
    """They might be the rest of something."""
    found = converted(dicom(identity(), LAST) + bytes(count))
    assert found.metadata["PatientID"] == "LAST"
    assert any(line.startswith("padding") for line in found.warnings)


def test_pixel_data_that_is_cut_makes_a_row_with_a_warning() -> None:
    """Expected and actual length are in it."""
    content = dicom(identity(), PIXELS)[:-24]
    found = converted(content)
    assert found.metadata["PixelData"]["BulkDataURI"].endswith("length=40")
    assert any("40 of 64 bytes" in line for line in found.warnings)


def test_rows_without_pixel_data_are_warned_of() -> None:
    """Such an object may be cut between two elements; a URL of pixels will do."""
    rows = element(0x00280010, "US", b"\1\0")
    assert any("Rows without pixel data" in line for line in warned(identity(), rows))
    assert warned(identity(), rows, PIXELS) == []
    assert warned(identity(), rows, element(0x00287FE0, "UR", "http://x/y")) == []
    assert warned(identity(), rows, element(0x7FE00008, "OF", bytes(8))) == []


# Recognition


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("begin", ["preamble", "prefix without meta", "meta", "data set"])
def test_files_without_preamble_or_meta_are_recognised(begin: str, syntax: str) -> None:
    """If they have a SOP Class or Instance UID; with a warning."""
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
    found = converted(start + data_set)
    assert found.metadata["PatientID"] == "LAST"
    assert found.columns["SOPInstanceUID"] == SOP_INSTANCE
    assert found.transfer_syntax_uid == (syntax if begin in {"preamble", "meta"} else None)
    assert bool(found.warnings) is (begin != "preamble")


@pytest.mark.parametrize("declared", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("actual", [EXPLICIT, IMPLICIT, BIG])
def test_a_wrong_transfer_syntax_is_recognised(declared: str, actual: str) -> None:
    """With a warning."""
    implicit, big = actual == IMPLICIT, actual == BIG
    data_set = identity(implicit=implicit, big=big) + element(
        0x00100020, "LO", "LAST", implicit=implicit, big=big
    )
    found = converted(dicom(data_set, transfer_syntax=declared))
    assert found.metadata["PatientID"] == "LAST"
    assert any("not as declared" in line for line in found.warnings) is (declared != actual)


def test_the_meta_information_ends_with_its_group() -> None:
    """Whatever its group length says, and without one."""
    right = meta()
    for length in (0, 1, 4000, 0xFFFFFFFF):
        wrong = right[:8] + struct.pack("<L", length) + right[12:]
        found = converted(b"\0" * 128 + b"DICM" + wrong + identity() + LAST)
        assert found.metadata["PatientID"] == "LAST"
        assert found.metadata["ImplementationClassUID"] == "1.2.3"
    without = converted(b"\0" * 128 + b"DICM" + right[12:] + identity() + LAST)
    assert without.metadata["PatientID"] == "LAST"


def test_meta_information_may_be_implicit() -> None:
    """Wrong, and found."""
    uid = element(0x00020010, "UI", EXPLICIT, implicit=True)
    found = converted(b"\0" * 128 + b"DICM" + uid + identity() + LAST)
    assert found.transfer_syntax_uid == EXPLICIT
    assert found.metadata["PatientID"] == "LAST"


def test_a_command_set_may_precede_the_data_set() -> None:
    """Implicit VR little endian, whatever follows (PS3.7 6.3.1)."""
    command = element(0x00000002, "UI", "1.2.3", implicit=True)
    found = flat(command, identity(), LAST)
    assert found["AffectedSOPClassUID"] == "1.2.3"
    assert found["PatientID"] == "LAST"


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
def test_what_is_no_dicom_is_refused(content: bytes) -> None:
    """Leading garbage and data sets without SOP UIDs among it."""
    with pytest.raises(NotDicomError):
        convert(BytesIO(content))


@pytest.mark.parametrize("content", [dicom(), b"\0" * 128 + b"DICM" + meta()[:-20]])
def test_a_file_that_ends_with_its_meta_information_is_refused(content: bytes) -> None:
    """There is nothing to put into a row."""
    assert unreadable(content)


def test_a_broken_data_set_without_preamble_is_refused_as_what_it_is() -> None:
    """It has shown to be DICOM by its UIDs."""
    assert unreadable(identity() + element(0x00100020, "LO", "X", length=99))


@pytest.mark.parametrize("behind", [b"", element(0x00100010, "PN", "A^B")])
def test_implicit_private_elements_in_an_explicit_data_set_are_read(behind: bytes) -> None:
    """One after the other: a known defect of some devices."""
    odd = [element(0x00091001 + n, "", b"abcd", implicit=True) for n in range(5)]
    metadata = flat(identity(), element(0x00090010, "LO", "PRIV"), *odd, behind)
    assert all(f"{0x00091001 + n:08X}" in metadata for n in range(5))
    assert metadata.get("PatientName") == ("A^B" if behind else None)


# No data set


GROUP_LENGTHS = [
    element(0x00080000, "UL", b"\4\0\0\0") + element(0x00100000, "UL", b"\0\0\0\0"),
    element(0x00080000, "UL", b"\4\0\0\0", implicit=True),
]


@pytest.mark.parametrize("command", [b"", element(0x00000002, "UI", "1.2.3", implicit=True)])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_nothing_but_padding_is_not_a_data_set(syntax: str, command: bytes) -> None:
    """Nor are group lengths, nor a command set; the refusal says where one should begin."""
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
@pytest.mark.parametrize("where", ["within", "at its begin", "at its end"])
def test_a_bare_data_set_may_have_the_letters_of_the_prefix_in_it(where: str, syntax: str) -> None:
    """At byte 128, in a text that goes on or ends there."""
    form = {"implicit": syntax == IMPLICIT, "big": syntax == BIG}
    start = identity(**form)
    begin = len(start) + 8
    text = "DICM" if where == "at its begin" else "x" * (128 - begin) + "DICM"
    if where == "at its begin":
        start = element(0x00080008, "CS", "A" * (128 - begin - 8), **form) + start
    text += "" if where == "at its end" else "y" * 20
    content = start + element(0x00081030, "LO", text, **form)
    content += element(0x00080018, "UI", SOP_INSTANCE, **form) * (where == "at its end")
    content += element(0x00100020, "LO", "LAST", **form)
    assert content[128:132] == b"DICM"
    found = converted(content)
    assert found.metadata["StudyDescription"] == text
    assert found.metadata["SOPClassUID"] == SOP_CLASS
    assert found.metadata["PatientID"] == "LAST"
    assert any(line.startswith("no File Meta Information") for line in found.warnings)


def test_meta_information_without_preamble_may_have_the_letters_of_the_prefix_in_it() -> None:
    """Though more of it follows."""
    start = meta()[:-14] + element(0x00020013, "SH", "")
    name = "x" * (128 - len(start)) + "DICM"
    content = meta()[:-14] + element(0x00020013, "SH", name) + element(0x00020016, "AE", "A")
    content += identity() + LAST
    assert content[128:132] == b"DICM"
    found = converted(content)
    assert found.metadata["ImplementationVersionName"] == name
    assert found.transfer_syntax_uid == EXPLICIT
    assert found.metadata["PatientID"] == "LAST"


@pytest.mark.parametrize(
    "preamble", [bytes(128), b"II*\0" + bytes(124), b"\xff" * 128, identity().ljust(128, b"\0")]
)
def test_a_preamble_is_never_a_data_set(preamble: bytes) -> None:
    """Whatever an application writes there, with meta information or without."""
    for start in (b"", meta()):
        found = converted(preamble + b"DICM" + start + identity() + LAST)
        assert found.metadata["PatientID"] == "LAST"


def test_a_broken_data_set_with_the_letters_of_the_prefix_is_refused_as_what_it_is() -> None:
    """Its offsets are those of the data set that begins at the start."""
    start = identity()
    text = element(0x00081030, "LO", "x" * (128 - len(start) - 8) + "DICM" + "y" * 20)
    broken = start + text + element(0x00100020, "LO", "X", length=99)
    refusal = unreadable(broken)
    assert refusal.tag == "00100020"
    assert refusal.offset == len(start + text) + 8
