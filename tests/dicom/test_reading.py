"""What is requested from a source: few reads, and no bulk bytes."""

import contextlib
import random
import struct
import time
import zlib
from io import BytesIO

import pytest

from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import Source, convert
from dcm2bq.dicom.elements import Element
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read import source as source_module
from dcm2bq.dicom.write.writer import Writer
from dcm2bq.errors import ReadFailedError, RejectedEventError
from tests.dicom.build import (
    DEFLATED,
    JPEG,
    CountingSource,
    dicom,
    element,
    header,
    identity,
    item,
    sequence,
)

GIB = 1024**3
MIB = 1024**2
PIXELS = header(0x7FE00010, "OW", GIB)
TEXT = b"".join(element(0x00091000 + number, "LO", "x" * 60) for number in range(280))


def test_native_pixel_data_at_the_end_costs_one_read() -> None:
    """A gigabyte after a header of 20 KiB."""
    head = dicom(identity(), element(0x00090010, "LO", "ACME"), TEXT, PIXELS)
    source = CountingSource(head, gap=GIB)
    conversion = convert(source)
    assert conversion.metadata["PixelData"] == {"BulkDataURI": f"?offset={len(head)}&length={GIB}"}
    assert source.reads == [(0, 65536)]


def test_what_follows_the_pixel_data_costs_a_second_read() -> None:
    """But not one byte of the pixels."""
    head = dicom(identity(), PIXELS)
    source = CountingSource(head, gap=GIB, tail=element(0x7FE10010, "LO", "AFTER"))
    assert convert(source).metadata["7FE10010"] == "AFTER"
    assert len(source.reads) == 2
    assert source.fetched < 100_000


def test_reading_starts_small_again_after_a_jump() -> None:
    """At most twice the first read."""
    tail = b"".join(element(0x7FE11000 + n, "LO", "x" * 60) for n in range(300))
    tail += element(0x7FE20010, "OB", bytes(2_000_000))
    source = CountingSource(dicom(identity(), PIXELS), gap=GIB, tail=tail)
    assert len(convert(source).metadata) > 300
    assert source.fetched < 150_000


def test_padding_is_not_fetched_beyond_one_window() -> None:
    """However long it is."""
    source = CountingSource(dicom(identity(), header(0x7FE00010, "OW", 4), b"1234"), gap=GIB)
    assert convert(source).warnings == ()
    assert source.fetched < 200_000


def test_bulk_values_within_sequences_are_not_fetched() -> None:
    """Each jump costs one small read."""
    head = dicom(
        identity(),
        header(0x00081140, "SQ", 8 + 12 + GIB),
        b"\xfe\xff\0\xe0" + (12 + GIB).to_bytes(4, "little"),
        header(0x00420011, "OB", GIB),
    )
    source = CountingSource(head, gap=GIB, tail=element(0x00100020, "LO", "AFTER"))
    conversion = convert(source)
    assert set(conversion.metadata["ReferencedImageSequence"][0]["EncapsulatedDocument"]) == {
        "BulkDataURI"
    }
    assert conversion.metadata["PatientID"] == "AFTER"
    assert len(source.reads) == 2
    assert source.fetched < 100_000


def test_small_gaps_are_read_through() -> None:
    """Not one request for each of 500 values of 5 KB."""
    bulk_item = item(element(0x00420011, "OB", bytes(5000)))
    source = CountingSource(dicom(identity(), sequence(0x00081140, *[bulk_item] * 500)))
    assert len(convert(source).metadata["ReferencedImageSequence"]) == 500
    assert len(source.reads) < 12


def test_a_large_header_is_read_in_growing_steps() -> None:
    """Ten megabytes of elements, no byte of them twice."""
    bulk_item = item(element(0x00204000, "LT", "x" * 1000))
    content = dicom(identity(), sequence(0x00081140, *[bulk_item] * 10_000))
    source = CountingSource(content)
    conversion = convert(source, {"limits": {"outputBytes": 20_000_000}})
    assert len(conversion.metadata["ReferencedImageSequence"]) == 10_000
    assert len(source.reads) < 12
    assert source.fetched == len(content)


def small_objects() -> dict[str, bytes]:
    """Return objects of 400 KB to 1 MiB whose shapes invite many reads."""
    frames = [item(bytes([number]) * 30_000) for number in range(1, 26)]
    starts = [number * 30_008 for number in range(25)]
    basic = item(struct.pack("<25L", *starts))
    lying = item(struct.pack("<2L", 0, 12 * 30_008 + 2))
    extended = element(0x7FE00001, "OV", struct.pack("<25Q", *starts)) + element(
        0x7FE00002, "OV", struct.pack("<25Q", *[30_000] * 25)
    )
    long_extended = element(0x7FE00001, "OV", bytes(80_000) + struct.pack("<Q", 24 * 30_008))
    tail = [element(0x7FE10010 + (n << 17), "OB", bytes(70_000)) for n in range(4)]
    bulk = item(element(0x00420011, "OB", bytes(80_000)))
    icon = item(pixels(item(), *frames[:3]), defined=False)
    odd = [element(0x00091001 + n, "QQ", bytes(60_000)) for n in range(12)]
    native = element(0x7FE00010, "OW", bytes(100_000))
    compressed = zlib.compressobj(level=0, wbits=-15)
    deflated = compressed.compress(identity() + sequence(0x00081140, *[bulk] * 8) + native)
    return {
        "no table": dicom(identity(), pixels(item(), *frames), transfer_syntax=JPEG),
        "basic table": dicom(identity(), pixels(basic, *frames), transfer_syntax=JPEG),
        "lying table": dicom(identity(), pixels(lying, *frames), transfer_syntax=JPEG),
        "long basic table": dicom(identity(), pixels(item(bytes(80_000)), *frames)),
        "extended table": dicom(identity(), extended, pixels(item(), *frames)),
        "long extended table": dicom(identity(), long_extended, pixels(item(), *frames)),
        "broken fragment": dicom(identity(), pixels(item(), *frames[:9], b"x" * 9, *frames[9:])),
        "cut": dicom(identity(), pixels(item(), *frames))[:-5000],
        "large header": dicom(identity(), TEXT * 30, pixels(item(), *frames[:3])),
        "elements after fragments": dicom(identity(), pixels(item(), *frames[:12]), *tail),
        "elements after native pixels": dicom(identity(), native * 5, *tail),
        "bulk values in sequences": dicom(identity(), sequence(0x00081140, *[bulk] * 8), native),
        "icons": dicom(identity(), sequence(0x00880200, *[icon] * 6, defined=False), native),
        "odd headers": dicom(identity(), *odd, native),
        "padding": dicom(identity(), pixels(item(), *frames[:20]), bytes(100_000)),
        "deflated": dicom(deflated + compressed.flush(), transfer_syntax=DEFLATED),
    }


def pixels(*fragments: bytes) -> bytes:
    """Return encapsulated pixel data; the first item is the Basic Offset Table."""
    return sequence(0x7FE00010, *fragments, vr="OB", defined=False)


@pytest.mark.parametrize("shape", small_objects())
def test_a_small_object_costs_at_most_two_reads(
    monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """Whatever its shape; the result is the same as in hops."""
    content = small_objects()[shape]
    assert 400_000 < len(content) < MIB
    source = CountingSource(content)
    conversion = convert(source)
    assert len(source.reads) <= 2
    assert source.fetched <= len(content)
    monkeypatch.setattr(source_module, "SMALL", 0)
    assert convert(CountingSource(content)) == conversion


def test_mutated_small_objects_cost_at_most_two_reads() -> None:
    """Broken ones, too."""
    chance = random.Random(12)
    for content in small_objects().values():
        for _ in range(20):
            mutated = bytearray(content)
            for _ in range(4):
                mutated[chance.randrange(len(mutated))] = chance.choice([0, 1, 0xFE, 0xFF])
                mutated[chance.randrange(2000)] = chance.choice([0, 1, 0xFE, 0xFF])
            source = CountingSource(bytes(mutated[: chance.randrange(300_000, len(mutated))]))
            with contextlib.suppress(RejectedEventError):
                convert(source)
            assert len(source.reads) <= 2


def test_no_pixels_are_read_to_reach_the_elements_after_them() -> None:
    """However small the object: what a jump skips is not needed."""
    head = dicom(identity(), header(0x7FE00010, "OW", 600_000))
    tail = element(0x7FE10010, "OB", bytes(100_000)) + element(0x7FE30010, "LO", "LAST")
    source = CountingSource(head, gap=600_000, tail=tail)
    assert convert(source).metadata["7FE30010"] == "LAST"
    assert source.reads == [(0, 65536), (len(head) + 600_000, len(tail))]


def test_the_small_rest_of_a_large_object_is_read_at_once() -> None:
    """Fragments without a table, after a large header."""
    header_elements = [element(0x00091000 + n, "OB", bytes(200_000)) for n in range(10)]
    for frames in [item(bytes(30_000))] * 25, [item(bytes(750_000))]:
        content = dicom(identity(), *header_elements, pixels(item(), *frames))
        start = content.index(frames[0])
        for cut in 0, 100:
            source = CountingSource(content[: len(content) - cut])
            assert bool(convert(source).warnings) is (cut > 0)
            assert len([offset for offset, _ in source.reads if offset >= start]) == 1


def test_a_value_that_is_kept_is_not_read_again() -> None:
    """Although its end was searched for in the object's last bytes."""
    content = dicom(identity(), pixels(item(), *[item(bytes(30_000))] * 25))
    source = CountingSource(content)
    options = {"bulkData": {"inlineMaxBytes": MIB}, "limits": {"hops": 0}}
    assert "InlineBinary" in convert(source, options).metadata["PixelData"]
    assert len(source.reads) == 2


def mixed() -> bytes:
    """Return a file with many kinds of elements."""
    code = element(0x00080100, "SH", "X")
    return dicom(
        identity(),
        sequence(
            0x00081140, item(code, element(0x00420011, "OB", bytes(30_000))), item(), defined=False
        ),
        element(0x00091001, "ZZ", "12345678"),
        element(0x00091002, "UT", "x" * 70_000),
        sequence(0x00091003, item(code, defined=False), vr="UN", defined=False),
        sequence(0x00091004, b"broken"),
        element(0x00100020, "LO", "LAST"),
        sequence(0x7FE00010, item(), *[item(bytes(9_000))] * 40, vr="OB", defined=False),
        element(0x7FE10010, "LO", "AFTER"),
        b"\0" * 40,
    )


@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize(
    ("first", "hop", "most"), [(1, 1, 1), (7, 3, 50), (1000, 16, 1000), (65536, 16384, 1 << 30)]
)
def test_the_size_of_the_window_makes_no_difference(
    monkeypatch: pytest.MonkeyPatch, first: int, hop: int, most: int, small: int
) -> None:
    """Nor whether the object is a stream or a source."""
    expected = convert(BytesIO(mixed()))
    assert expected.metadata["7FE10010"] == "AFTER"
    monkeypatch.setattr(source_module, "FIRST_READ", first)
    monkeypatch.setattr(source_module, "HOP_READ", hop)
    monkeypatch.setattr(source_module, "MOST_READ", most)
    monkeypatch.setattr(source_module, "SMALL", small)
    assert convert(CountingSource(mixed())) == expected
    assert convert(BytesIO(mixed())) == expected


def test_a_stream_may_be_unbuffered() -> None:
    """Each of its reads may return fewer bytes than requested."""

    class Dribble(BytesIO):
        def read(self, n: int | None = -1, /) -> bytes:
            return super().read(min(n or 1, random.randint(1, 100)))

    assert convert(Dribble(mixed())) == convert(BytesIO(mixed()))


def test_the_position_of_a_stream_does_not_matter() -> None:
    """The object begins at the first byte of the stream."""
    stream = BytesIO(mixed())
    stream.seek(1000)
    assert convert(stream) == convert(BytesIO(mixed()))


@pytest.mark.parametrize("missing", [1, 10_000])
def test_a_source_that_returns_too_few_bytes_has_failed(missing: int) -> None:
    """Its size promises more."""

    class Short(CountingSource):
        def read_at(self, offset: int, n: int, /) -> bytes:
            return super().read_at(offset, n)[: max(n - missing, 0)]

    with pytest.raises(ReadFailedError):
        convert(Short(mixed()))


def test_an_error_of_the_source_passes_unchanged() -> None:
    """Whatever its type."""

    class Failing(CountingSource):
        def read_at(self, offset: int, n: int, /) -> bytes:
            return super().read_at(offset, n // 0)

    with pytest.raises(ZeroDivisionError):
        convert(Failing(mixed()))


def test_a_deadline_that_has_passed_ends_the_reading() -> None:
    """At the first read, and in the middle of a long window."""
    with pytest.raises(ReadFailedError):
        convert(BytesIO(mixed()), timeout=-1)
    convert(BytesIO(mixed()), timeout=60)

    class Slow(CountingSource):
        def read_at(self, offset: int, n: int, /) -> bytes:
            time.sleep(0.1)
            return super().read_at(offset, n)

    many = dicom(identity(), sequence(0x00081140, *[item()] * 5000))
    with pytest.raises(ReadFailedError):
        convert(Slow(many), timeout=0.05)


def test_the_deadline_holds_for_the_writing_too() -> None:
    """The writer checks it, too."""
    code_value = Element(0x00080100, "SH", 0, 1, b"X", "SH")
    elements = [Element(0x00081140, "SQ", 0, 0, [[code_value]], "SQ")]
    passed = Deadline.after(-1)
    writer = Writer(Config().json_output, Notes(), root="", most_text=65536, deadline=passed)
    with pytest.raises(ReadFailedError):
        writer.write(elements, {})


def test_a_source_needs_nothing_beyond_the_protocol() -> None:
    """Nothing but `size` and `read_at` is used."""
    source: Source = CountingSource(mixed())
    assert convert(source) == convert(BytesIO(mixed()))
