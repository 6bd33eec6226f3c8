"""Headers of elements that break the rules: what follows decides how they are read."""

import random
import struct
import time
from io import BytesIO

import pytest

from dcm2bq.dicom import convert
from dcm2bq.errors import UnreadableDicomError
from tests.dicom.build import (
    BIG,
    EXPLICIT,
    LONG,
    dicom,
    element,
    flat,
    header,
    identity,
    item,
    sequence,
    warned,
)

COMMENTS, PROTOCOL, STUDY = 0x00104000, 0x00181030, 0x00200010
ODD_VRS = [b"??", b"00", b"\0\0", b"--", b"  ", b"lo", b"Lo", b"\xff\xff", b"a1", b"\0L", b"ZZ"]
FORMS = ["2 bytes", "4 bytes", "implicit"]


def odd(tag: int, code: bytes, value: bytes, form: str, *, big: bool = False) -> bytes:
    """Return an element whose VR is not one of the standard."""
    order = ">" if big else "<"
    start = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if form == "2 bytes":
        return start + code + struct.pack(f"{order}H", len(value)) + value
    if form == "4 bytes":
        return start + code + struct.pack(f"{order}HL", 0, len(value)) + value
    return start + struct.pack(f"{order}L", len(value)) + value


# No known VR


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", ODD_VRS)
def test_a_run_of_unknown_vrs_is_read(code: bytes, form: str, *, big: bool) -> None:
    """Of any length, at the top level and in items of known and undefined length."""
    syntax = BIG if big else EXPLICIT
    last = element(STUDY, "SH", "S1", big=big)
    for count in (1, 2, 40):
        run = odd(COMMENTS, code, b"abcd", form, big=big)
        run += odd(PROTOCOL, code, b"abcdef", form, big=big)
        run += b"".join(
            odd(0x00190000 + n, code, b"12345678", form, big=big)
            for n in range(0x1001, 0x1001 + count)
        )
        metadata = flat(identity(big=big), run, last, transfer_syntax=syntax)
        assert (metadata["PatientComments"], metadata["ProtocolName"]) == ("abcd", "abcdef")
        assert metadata["StudyID"] == "S1"
        assert sum(key.startswith("001910") for key in metadata) == count
        for defined in (True, False):
            one = item(element(0x00080100, "SH", "X", big=big), run, last, defined=defined, big=big)
            outer = sequence(0x00081140, one, big=big)
            metadata = flat(identity(big=big), outer, last, transfer_syntax=syntax)
            (inner,) = metadata["ReferencedImageSequence"]
            assert (inner["PatientComments"], inner["StudyID"]) == ("abcd", "S1")
            assert metadata["StudyID"] == "S1"
    warnings = warned(identity(big=big), run, last, transfer_syntax=syntax)
    assert any("00104000: no known VR (offset " in line for line in warnings)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", ODD_VRS)
def test_unknown_vrs_need_not_ascend(code: bytes, form: str) -> None:
    """One may be repeated or followed by a lower tag, of unknown or known VR."""
    first = odd(PROTOCOL, code, b"abcdef", form)
    for second in (first, odd(COMMENTS, code, b"abcd", form), element(COMMENTS, "LT", "abcd")):
        for last in (element(STUDY, "SH", "S1"), b""):
            metadata = flat(identity(), first, second, last)
            assert metadata["ProtocolName"] == "abcdef"
            assert second is first or metadata["PatientComments"] == "abcd"
            assert not last or metadata["StudyID"] == "S1"


@pytest.mark.parametrize("form", ["2 bytes", "4 bytes"])
@pytest.mark.parametrize("code", [b"??", b"00", b"--", b"  ", b"lo", b"\0\0"])
def test_the_first_elements_may_have_no_known_vr(code: bytes, form: str) -> None:
    """Of a data set and of an item: that alone does not make it implicit."""
    first = odd(0x00080005, code, b"ISO_IR 100", form) + odd(0x00080008, code, b"ORIGINAL", form)
    metadata = flat(first, identity(), element(STUDY, "SH", "S1"))
    assert metadata["ImageType"] == "ORIGINAL"
    assert metadata["StudyID"] == "S1"
    one = item(odd(0x00080100, code, b"X ", form), odd(0x00080102, code, b"Y ", form))
    two = item(odd(0x00080100, code, b"X ", form), element(0x00080102, "SH", "Y"))
    metadata = flat(identity(), sequence(0x00081140, one, two), element(STUDY, "SH", "S1"))
    expected = {"CodeValue": "X", "CodingSchemeDesignator": "Y"}
    assert metadata["ReferencedImageSequence"] == [expected, expected]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("form", ["2 bytes", "4 bytes"])
@pytest.mark.parametrize("code", [b"??", b"00", b"--", b"  ", b"lo", b"\0\0"])
def test_first_elements_without_a_known_vr_need_not_ascend(
    code: bytes, form: str, *, big: bool
) -> None:
    """And there may be many of them, in a data set and in an item."""
    ages = [odd(0x00101010, code, b"030Y", form, big=big)] * 2
    comments = odd(COMMENTS, code, b"abcd", form, big=big)
    for run in ([comments, *ages], [*ages, comments], [comments, *ages * 10]):
        syntax = BIG if big else EXPLICIT
        last = element(STUDY, "SH", "S1", big=big)
        metadata = flat(*run, last, transfer_syntax=syntax)
        assert [metadata[key] for key in ("PatientAge", "PatientComments", "StudyID")] == [
            "030Y",
            "abcd",
            "S1",
        ]
        for defined in (True, False):
            one = item(*run, defined=defined, big=big)
            outer = sequence(0x00081140, one, defined=defined, big=big)
            metadata = flat(identity(big=big), outer, last, transfer_syntax=syntax)
            assert metadata["ReferencedImageSequence"] == [
                {"PatientAge": "030Y", "PatientComments": "abcd"}
            ]


@pytest.mark.parametrize("form", ["2 bytes", "4 bytes"])
@pytest.mark.parametrize("code", [b"??", b"00", b"\0\0"])
def test_elements_without_a_known_vr_have_the_byte_order_of_their_data_set(
    code: bytes, form: str
) -> None:
    """Numbers, and the items of a sequence."""
    one = item(element(0x00080100, "SH", "X", big=True), big=True)
    metadata = flat(
        identity(big=True),
        odd(0x00081140, code, one, form, big=True),
        odd(0x00189087, code, struct.pack(">d", 1.5), form, big=True),
        odd(0x00280010, code, struct.pack(">H", 512), form, big=True),
        odd(0x00280106, code, struct.pack(">H", 3), form, big=True),
        transfer_syntax=BIG,
    )
    assert metadata["ReferencedImageSequence"] == [{"CodeValue": "X"}]
    assert metadata["DiffusionBValue"] == 1.5
    assert (metadata["Rows"], metadata["SmallestImagePixelValue"]) == (512, 3)


@pytest.mark.parametrize("form", ["2 bytes", "4 bytes"])
def test_unknown_vrs_of_two_forms_may_follow_each_other(form: str) -> None:
    """Without a sound element between them."""
    other = "4 bytes" if form == "2 bytes" else "2 bytes"
    first, second = odd(COMMENTS, b"??", b"abcd", form), odd(PROTOCOL, b"--", b"abcdef", other)
    metadata = flat(identity(), first, second, element(STUDY, "SH", "S1"))
    keys = ["PatientComments", "ProtocolName", "StudyID"]
    assert [metadata[key] for key in keys] == ["abcd", "abcdef", "S1"]


@pytest.mark.parametrize("form", ["2 bytes", "4 bytes"])
def test_unknown_vrs_may_follow_a_short_header_of_a_long_vr(form: str) -> None:
    """The sound element after them shows how all are to be read."""
    short = struct.pack("<HH2sH", 0x0008, 0x1190, b"UR", 8) + b"http://x"
    run = odd(COMMENTS, b"??", b"abcd", form) + odd(PROTOCOL, b"--", b"abcdef", form)
    metadata = flat(identity(), short, run, element(STUDY, "SH", "S1"))
    keys = ["RetrieveURL", "PatientComments", "ProtocolName", "StudyID"]
    assert [metadata[key] for key in keys] == ["http://x", "abcd", "abcdef", "S1"]


def test_unknown_vrs_of_several_forms_are_told_apart() -> None:
    """Each by what follows it."""
    parts = [
        odd(0x00100010, b"??", b"A^B ", "2 bytes"),
        element(0x00100020, "LO", "ID"),
        odd(0x00100022, b"??", b"TEXT", "4 bytes"),
        element(0x00100030, "DA", "20200102"),
        odd(0x00100040, b"??", b"F ", "implicit"),
        element(0x00101010, "AS", "001Y"),
        odd(COMMENTS, b"??", b"abcd", "2 bytes"),
    ]
    metadata = flat(identity(), *parts, element(STUDY, "SH", "S1"))
    keys = ["PatientName", "TypeOfPatientID", "PatientSex", "PatientComments", "StudyID"]
    assert [metadata[key] for key in keys] == ["A^B", "TEXT", "F", "abcd", "S1"]


def test_noise_is_not_taken_for_a_run_of_unknown_vrs() -> None:
    """However large the object, so that its lengths would fit."""
    rng = random.Random(3)
    for _ in range(40):
        noise = rng.randbytes(2_000) + bytes(500_000)
        with pytest.raises(UnreadableDicomError):
            convert(BytesIO(dicom(identity(), noise)))
    for pattern in (b"\1\0\2\0\3\0", b"\x20\x20", b"ABCDEFGH"):
        with pytest.raises(UnreadableDicomError):
            convert(BytesIO(dicom(identity(), pattern * 50_000)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [0, 1])
def test_long_runs_of_unknown_vrs_take_linear_time(
    form: str, step: int, pytestconfig: pytest.Config
) -> None:
    """100,000 of them, or 20,000 in a fifth of the time, with ascending tags or with the same."""
    part = 1 if pytestconfig.getoption("--long") else 5
    run = b"".join(odd(0x00191001 + n * step, b"??", b"", form) for n in range(100_000 // part))
    begin = time.process_time()
    flat(identity(), run, element(STUDY + 0x10000000, "SH", "S1"))
    assert time.process_time() - begin < 20 / part


# The long form


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("vr", sorted(LONG - {"SQ"}))
def test_a_vr_of_the_long_form_may_have_the_short_header(vr: str, *, big: bool) -> None:
    """With its length in place of the two reserved bytes (PS3.5 7.1.2)."""
    order = ">" if big else "<"
    syntax = BIG if big else EXPLICIT
    last = element(STUDY, "SH", "S1", big=big)

    def short(tag: int, value: bytes) -> bytes:
        code = vr.encode()
        return struct.pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, code, len(value)) + value

    for value in (b"abcdefgh", b"\0" * 8, b"\1\0\0\0\2\0\0\0", b"", b"x" * 65534):
        one = short(0x00191001, value)
        for run in (one, one + short(0x00191002, value), one + one):
            whole = dicom(identity(big=big), run, last, transfer_syntax=syntax)
            metadata = flat(identity(big=big), run, last, transfer_syntax=syntax)
            assert metadata["StudyID"] == "S1"
            inner = item(run, last, big=big)
            nested = sequence(0x00081140, inner, big=big)
            inside = flat(identity(big=big), nested, last, transfer_syntax=syntax)
            assert inside["ReferencedImageSequence"][0]["StudyID"] == "S1"
            assert inside["ReferencedImageSequence"][0].keys() == metadata.keys() - {
                "SOPClassUID",
                "SOPInstanceUID",
            }
            reference = metadata["00191001"]
            if isinstance(reference, dict) and "BulkDataURI" in reference:
                offset = whole.index(one) + 8
                assert reference["BulkDataURI"] == f"?offset={offset}&length={len(value)}"
        if value:
            alone = flat(identity(big=big), one, transfer_syntax=syntax)
            assert alone["00191001"] == reference
        else:  # the object may be cut inside a header
            with pytest.raises(UnreadableDicomError):
                flat(identity(big=big), one, transfer_syntax=syntax)
    warnings = warned(identity(big=big), short(COMMENTS, b"abcd"), last, transfer_syntax=syntax)
    assert any(line.startswith("00104000") and "offset" in line for line in warnings)


@pytest.mark.parametrize("big", [False, True])
def test_a_sequence_may_have_the_short_header(*, big: bool) -> None:
    """With items and without."""
    syntax, order = (BIG, ">") if big else (EXPLICIT, "<")
    last = element(STUDY, "SH", "S1", big=big)
    for items, expected in (
        (item(element(0x00080100, "SH", "X", big=big), big=big), [{"CodeValue": "X"}]),
        (b"", []),
    ):
        short = struct.pack(f"{order}HH2sH", 0x0008, 0x1140, b"SQ", len(items)) + items
        metadata = flat(identity(big=big), short, last, transfer_syntax=syntax)
        assert metadata["ReferencedImageSequence"] == expected
        assert metadata["StudyID"] == "S1"
        nested = sequence(0x00081115, item(short, big=big), big=big)
        metadata = flat(identity(big=big), nested, last, transfer_syntax=syntax)
        assert metadata["ReferencedSeriesSequence"] == [{"ReferencedImageSequence": expected}]


@pytest.mark.parametrize("reserved", [b"\1\0", b"\0\1", b"\4\0", b"\xff\xff", b"OB"])
@pytest.mark.parametrize("vr", sorted(LONG))
def test_garbage_in_reserved_bytes_is_not_taken_for_a_length(vr: str, reserved: bytes) -> None:
    """They must not be decoded; what follows the value shows that they are garbage."""
    value = item(element(0x00080100, "SH", "X")) if vr == "SQ" else b"ab" * 9
    whole = (
        header(0x00191001, vr, len(value))[:6] + reserved + struct.pack("<L", len(value)) + value
    )
    right = header(0x00191001, vr, len(value)) + value
    for last in (element(STUDY, "SH", "S1"), b""):
        assert flat(identity(), whole, last) == flat(identity(), right, last)
    undefined = sequence(0x00191001, value if vr == "SQ" else item(), vr=vr, defined=False)
    if vr in {"SQ", "OB", "OW", "UN"}:
        whole = undefined[:6] + reserved + undefined[8:]
        last = element(STUDY, "SH", "S1")
        assert flat(identity(), whole, last) == flat(identity(), undefined, last)


def test_pixel_data_with_garbage_in_its_reserved_bytes_may_be_cut() -> None:
    """Like any other."""
    pixels = element(0x7FE00010, "OW", b"\1" * 64)
    metadata = flat(identity(), pixels[:6] + b"\1\1" + pixels[8:-24])
    assert metadata["PixelData"]["BulkDataURI"].endswith("length=40")
