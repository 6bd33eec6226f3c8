"""Hostile and enormous objects: converted or refused, in bounded time and memory."""

import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest

from dcm2bq.config import from_overrides
from dcm2bq.dicom import Budget, convert, convert_within
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom.build import (
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    CountingSource,
    converted,
    delimiter,
    dicom,
    element,
    header,
    identity,
    item,
    sequence,
)
from tests.support.patience import own_clock

MIB = 1024 * 1024


@contextmanager
def bounded(*, seconds: float, mib: float) -> Iterator[None]:
    """Fail if the body takes more CPU time, or allocates more memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
    finally:
        used = time.process_time() - start
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used < seconds
    assert peak < mib * MIB


@pytest.mark.parametrize("levels", [249, 10_000, 200_000])
@pytest.mark.parametrize("vr", ["SQ", "UN"])
def test_deep_nesting_is_refused(levels: int, vr: str) -> None:
    """Without a RecursionError; BigQuery allows 500 levels of JSON."""
    start = header(0x00081140, vr, UNDEFINED)
    inner = header(0x00081140, vr, UNDEFINED, implicit=vr == "UN")
    content = dicom(identity(), start + delimiter(0xFFFEE000, UNDEFINED))
    content += (inner + delimiter(0xFFFEE000, UNDEFINED)) * (levels - 1)
    with bounded(seconds=2, mib=20), pytest.raises(UnreadableDicomError, match="nested"):
        converted(content, limits={"depth": 1_000_000})


@pytest.mark.parametrize(
    ("form", "depth", "levels"),
    [("flat", 160, 160), ("dicom-json", 160, 160), ("flat", 1000, 248), ("dicom-json", 1000, 165)],
)
def test_nesting_up_to_the_limit_is_converted(form: str, depth: int, levels: int) -> None:
    """To JSON of at most 500 levels; one sequence more is refused."""
    nested = element(0x00091001, "OB", b"12")
    for _ in range(levels):
        nested = sequence(0x00081140, item(nested))
    options = {"jsonOutput": {"format": form}, "limits": {"depth": depth}}
    text = converted(dicom(identity(), nested), **options).text
    deepest = level = 0
    for character in text:
        level += (character in "{[") - (character in "}]")
        deepest = max(deepest, level)
    assert 2 * levels < deepest <= 500
    with pytest.raises(UnreadableDicomError, match="nested"):
        converted(dicom(identity(), sequence(0x00081140, item(nested))), **options)


def test_a_million_empty_items_are_converted() -> None:
    """Whole-slide and enhanced multi-frame objects have up to 100,000."""
    content = dicom(identity(), sequence(0x00081140, *[item()] * 1_000_000))
    start = time.process_time()
    conversion = converted(content)
    assert time.process_time() - start < 30
    assert len(conversion.metadata["ReferencedImageSequence"]) == 1_000_000


@pytest.mark.parametrize("kind", ["elements", "items", "items of undefined length"])
def test_too_many_elements_are_refused(kind: str) -> None:
    """Elements and items are counted together; the limit is exact."""
    one = {"elements": b"", "items": item(), "items of undefined length": item(defined=False)}[kind]
    content = dicom(identity(), sequence(0x00081140, *[one] * 1000)) if one else dicom(
        identity(), *[element(0x00091000 + n, "SH", "") for n in range(1001)]
    )  # fmt: skip
    assert converted(content, limits={"elements": 1003})
    with pytest.raises(UnreadableDicomError, match=r"limits\.elements, 1002"):
        converted(content, limits={"elements": 1002})


def test_a_limit_is_reported_as_the_reason_for_any_file() -> None:
    """Without prefix and UIDs, too: bytes that are elements are not mistaken for another format."""
    content = element(0x00080005, "CS", "ISO_IR 100") * 3000
    with pytest.raises(UnreadableDicomError, match=r"limits\.elements, 1000"):
        converted(content, limits={"elements": 1000})
    with pytest.raises(UnreadableDicomError, match=r"limits\.headerBytes, 5000"):
        converted(content, limits={"headerBytes": 5000})
    with pytest.raises(NotDicomError):
        converted(content)


@pytest.mark.parametrize("defined", [True, False])
def test_too_many_sequences_are_refused_before_all_are_read(*, defined: bool) -> None:
    """Whatever an object consists of, the limits are checked while it is read."""
    content = dicom(identity(), *[sequence(0x00081140, defined=defined)] * 300_000)
    source = CountingSource(content)
    with pytest.raises(UnreadableDicomError, match=r"limits\.elements, 1000"):
        convert(source, {"limits": {"elements": 1000}})
    assert source.fetched < 500_000


def test_a_header_of_too_many_bytes_is_refused() -> None:
    """Values that stay in the object do not count."""
    texts = [element(0x00091000 + number, "LT", "x" * 1000) for number in range(1000)]
    content = dicom(identity(), *texts)
    with pytest.raises(UnreadableDicomError, match=r"exceeds limits\.headerBytes"):
        converted(content, limits={"headerBytes": 900_000})
    assert converted(content, limits={"headerBytes": 1_100_000})
    broken = dicom(identity(), sequence(0x00081140, b"broken" * 20_000))
    assert converted(broken, limits={"headerBytes": 1_000})
    bulk = [element(0x00091000 + number, "OB", bytes(100_000)) for number in range(100)]
    assert converted(dicom(identity(), *bulk), limits={"headerBytes": 10_000})


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("length", [0xFFFFFFFE, 0xFFFFFFF0, 0x80000000])
def test_enormous_lengths_are_refused(*, length: int, implicit: bool) -> None:
    """Of elements, items and sequences."""
    syntax = IMPLICIT if implicit else EXPLICIT
    for broken in (
        header(0x00100010, "UT", length, implicit=implicit),
        header(0x00081140, "SQ", length, implicit=implicit),
        header(0x00081140, "SQ", UNDEFINED, implicit=implicit) + delimiter(0xFFFEE000, length),
    ):
        content = dicom(identity(implicit=implicit), broken, bytes(100), transfer_syntax=syntax)
        with bounded(seconds=1, mib=5), pytest.raises(UnreadableDicomError):
            converted(content)


def test_a_sequence_that_contains_itself_is_read_once() -> None:
    """False lengths cannot make the reader go back."""
    inner = header(0x00081140, "SQ", 200) + delimiter(0xFFFEE000, 192)
    content = dicom(identity(), inner * 9, bytes(300))
    with bounded(seconds=1, mib=5):
        conversion = converted(content)
    assert set(conversion.metadata["ReferencedImageSequence"]) == {"BulkDataURI", "vr"}


def test_twelve_megabytes_of_text_stay_in_the_object() -> None:
    """Without being fetched."""
    size = 12 * MIB
    head = dicom(identity(), header(0x00091001, "UT", size))
    source = CountingSource(head, gap=size, tail=element(0x00100020, "LO", "X"))
    conversion = convert(source)
    assert conversion.metadata["00091001"]["vr"] == "UT"
    assert conversion.metadata["PatientID"] == "X"
    assert source.fetched < 100_000


def test_a_private_blob_of_fifty_megabytes_stays_in_the_object() -> None:
    """Whatever its VR."""
    size = 50 * MIB
    for vr in ("OB", "UN"):
        head = dicom(identity(), header(0x00091001, vr, size))
        source = CountingSource(head, gap=size, tail=element(0x00100020, "LO", "X"))
        with bounded(seconds=1, mib=5):
            assert convert(source).metadata["PatientID"] == "X"


def test_warnings_are_bounded() -> None:
    """To 200 lines and one for the rest; equal warnings are counted."""
    creators = [element(0x00090010 + n, "LO", "ACME") for n in range(2)]
    broken = [element(0x00091000 + n, "US", b"\xff", length=1) for n in range(500)]
    conversion = converted(dicom(identity(), *creators, *broken))
    assert len(conversion.warnings) == 201
    assert conversion.warnings[-1] == "300 further warnings"
    twice = [element(0x00091000 + n, "SH", "x") for n in range(500)]
    conversion = converted(dicom(identity(), *creators, *twice, *twice))
    assert len(conversion.dropped_tags) == 200
    items = [item(element(0x00280010, "US", b"\xff", length=1))] * 5000
    conversion = converted(dicom(identity(), sequence(0x00081140, *items)))
    assert len(conversion.warnings) == 1
    assert "5000 times" in conversion.warnings[0]


@pytest.mark.parametrize("content", [b"\0" * MIB, b"\xff" * MIB, b"A" * MIB])
def test_large_objects_that_are_not_dicom_are_refused_at_once(content: bytes) -> None:
    """After one or two reads."""
    source = CountingSource(content, gap=1024 * MIB)
    with bounded(seconds=1, mib=5), pytest.raises(NotDicomError):
        convert(source)
    assert source.fetched < 300_000


def test_many_private_blocks_take_linear_time() -> None:
    """The creators of an item are searched once."""
    blocks = [
        element(
            (0x0009 + 2 * (n // 100)) << 16 | 0x1000 + (n % 100) * 256, "", b"12", implicit=True
        )
        for n in range(20_000)
    ]
    content = dicom(identity(implicit=True), *blocks, transfer_syntax=IMPLICIT)
    with bounded(seconds=10, mib=50):
        assert len(converted(content).metadata) > 19_000


def test_many_values_that_depend_on_the_pixel_representation_take_linear_time() -> None:
    """It is searched once in each item."""
    inner = item(element(0x00280106, "", b"\1\0", implicit=True))
    many = [element(0x00091000 + n, "", b"", implicit=True) for n in range(30_000)]
    content = dicom(
        identity(implicit=True),
        sequence(0x00081140, *[inner] * 5_000, implicit=True),
        *many,
        transfer_syntax=IMPLICIT,
    )
    with bounded(seconds=10, mib=100):
        assert converted(content).metadata["ReferencedImageSequence"][0] == {
            "SmallestImagePixelValue": 1
        }


def test_no_message_holds_a_value() -> None:
    """Warnings and errors have tags, VRs, offsets, sizes and counts only."""
    sentinel = "SENTINEL"
    elements = (
        identity(),
        element(0x00080005, "CS", sentinel),
        element(0x00080020, "DA", sentinel),
        element(0x00100020, "LO", f"{sentinel}\\{sentinel}\0{sentinel}"),
        element(0x00280010, "UN", sentinel + "x", length=9),
        element(0x00200013, "IS", sentinel),
        element(0x00200013, "IS", sentinel),
        element(0x00091001, "LO", "\x1b$B" + sentinel),
        sequence(0x00081140, sentinel.encode()),
        struct.pack("<HH", 0x0010, 0x0011) + b"ZZ" + struct.pack("<H", 8) + sentinel.encode(),
        element(0x7FE00010, "OB", sentinel),
        sentinel.encode(),
    )
    conversion = converted(dicom(*elements))
    assert len(conversion.warnings) >= 8
    assert not any(sentinel in line for line in conversion.warnings)
    for broken in (
        sequence(0x00081140, sentinel.encode(), defined=False),
        element(0x00100010, "PN", sentinel, length=99),
    ):
        with pytest.raises(UnreadableDicomError) as caught:
            convert(BytesIO(dicom(identity(), broken)))
        assert sentinel not in str(caught.value)


def charged(content: bytes, hops: int) -> tuple[int, int]:
    """Return the elements and the bytes of values that a conversion was charged for."""
    config = from_overrides({"limits": {"hops": hops}})
    with Budget(64 * MIB).claim() as claim:
        convert_within(claim, BytesIO(content), config)
    return claim.count, claim.kept


def test_elements_that_are_read_on_trial_are_not_charged_for() -> None:
    """In search of the end of pixel data, and to see whether "DICM" is a prefix or a value."""
    last = [element(0x7FE10010 + n, "LO", "x" * 60) for n in range(900)]
    fragments = [item(b"\x44" * 40_000)] * 30
    pixels = sequence(0x7FE00010, item(), *fragments, vr="OB", defined=False)
    content = dicom(identity(), pixels, *last)
    assert charged(content, hops=0) == charged(content, hops=64)
    start = identity()
    text = "x" * (128 - len(start) - 8) + "DICM"
    bare = start + element(0x00081030, "LO", text) + b"".join(last[:100])
    without = bare.replace(b"DICM", b"DICN")
    assert bare[128:132] == b"DICM"
    assert charged(bare, hops=0) == charged(without, hops=0)


def test_a_header_is_refused_soon_after_its_limit() -> None:
    """However few elements it has."""
    large = dicom(identity(), *[element(0x00091010, "LT", b"x" * 65_534)] * 2000)
    with bounded(seconds=10, mib=48), pytest.raises(UnreadableDicomError):
        converted(large, limits={"headerBytes": 8 * MIB})


def test_numbers_that_take_too_long_make_an_object_unreadable() -> None:
    numbers = (b"1\\" * 32_000)[:-1] + b" "
    content = dicom(identity(), *[element(0x00281000 + n, "IS", numbers) for n in range(300)])
    start = time.process_time()
    message = r"not converted within limits\.deadlineSeconds"
    with own_clock(), pytest.raises(UnreadableDicomError, match=message):
        convert(BytesIO(content), {"bulkData": {"textMaxBytes": 100_000}}, timeout=0.3)
    assert time.process_time() - start < 3


def test_many_places_that_look_like_the_end_of_pixel_data_take_bounded_time() -> None:
    end = delimiter(0xFFFEE0DD)
    odd = element(0x7FE00010, "OB", item(b"") + item(b"\1" * 101), length=UNDEFINED)
    following = b"".join(element(0x7FE10000 + n, "OB", end) for n in range(64))
    rest = b"".join(element(0x7FE30000 + n, "LO") for n in range(50_000))
    content = dicom(identity(), odd, item(b"\1" * 11)[:-4], following, rest, b"\1\2")
    start = time.process_time()
    converted(content, limits={"hops": 0})
    assert time.process_time() - start < 5
