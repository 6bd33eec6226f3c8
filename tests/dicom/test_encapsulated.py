"""Encapsulated values: where they end, and what it costs to find out (PS3.5 A.4)."""

import json
import struct
from collections.abc import Iterable
from itertools import accumulate

import pytest

from dcm2bq.config import Config, from_overrides
from dcm2bq.dicom import Conversion, convert
from tests.dicom.build import (
    JPEG,
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

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
DELIMITER = delimiter(0xFFFEE0DD)
AFTER = element(0x7FE10010, "LO", "AFTER")
SIGNATURES = sequence(0xFFFAFFFA, item(element(0x04000005, "US", b"\1\0")), item(), defined=False)
GIB = 1024**3


def pixels(*fragments: bytes, table: bytes = b"") -> bytes:
    """Return encapsulated pixel data."""
    return sequence(PIXEL_DATA, item(table), *fragments, vr="OB", defined=False)


def basic_table(lengths: Iterable[int]) -> bytes:
    """Return the Basic Offset Table of frames of one fragment each."""
    starts = accumulate((length + 8 for length in lengths), initial=0)
    return b"".join(struct.pack("<L", start) for start in list(starts)[:-1])


def place(content: bytes, data: bytes) -> tuple[int, int]:
    """Return the offset and length that the reference to the pixel data must have."""
    offset = content.index(data[12:])
    return offset, len(data) - 12 - len(DELIMITER)


def referred(conversion: Conversion) -> tuple[int, int]:
    """Return offset and length of the reference to the pixel data."""
    uri = conversion.metadata["PixelData"]["BulkDataURI"]
    offset, length = uri.removeprefix("?offset=").split("&length=")
    return int(offset), int(length)


@pytest.mark.parametrize(
    "data",
    [
        pixels(),
        pixels(item(b"ab" * 10)),
        pixels(*[item(b"ab" * 10)] * 5),
        pixels(*[item(b"ab" * 10)] * 5, table=basic_table([20] * 5)),
        pixels(*[item(b"ab" * 10)] * 5, table=b"\0\0\0\0"),
        pixels(*[item(b"ab" * 10)] * 5, table=b"\xff" * 4),
        pixels(*[item(b"ab" * 10)] * 5, table=struct.pack("<2L", 0, 13)),
        pixels(item(b"ab" + DELIMITER + b"cd"), item(b"")),
        header(PIXEL_DATA, "OW", UNDEFINED) + item() + item(b"ab") + DELIMITER,
    ],
    ids=[
        "no frames", "one", "empty table", "table", "table of zero", "wild table", "wrong table",
        "delimiter within", "OW",
    ],
)  # fmt: skip
@pytest.mark.parametrize("following", [b"", AFTER, AFTER + SIGNATURES, bytes(100)])
def test_the_reference_runs_from_the_table_to_the_delimiter(data: bytes, following: bytes) -> None:
    """The delimiter is not part of it; the elements after it are read."""
    content = dicom(identity(), data, following, transfer_syntax=JPEG)
    conversion = converted(content)
    assert referred(conversion) == place(content, data)
    assert ("7FE10010" in conversion.metadata) is (AFTER in following)
    assert ("DigitalSignaturesSequence" in conversion.metadata) is (SIGNATURES in following)
    assert conversion.warnings == ()


def test_pixel_data_without_items_is_empty() -> None:
    """Only a delimiter."""
    conversion = converted(dicom(identity(), header(PIXEL_DATA, "OB", UNDEFINED), DELIMITER, AFTER))
    assert conversion.metadata["PixelData"] is None
    assert conversion.metadata["7FE10010"] == "AFTER"


def test_icons_within_items_may_be_encapsulated() -> None:
    """As any OB or OW of undefined length, at any depth."""
    data = pixels(*[item(b"ab" * 10)] * 50)
    icon = sequence(0x00880200, item(identity(), data))
    content = dicom(identity(), icon, element(0x00100020, "LO", "X"), transfer_syntax=JPEG)
    conversion = converted(content, limits={"hops": 0})
    nested = Conversion(json.dumps(conversion.metadata["IconImageSequence"][0]), (), (), None, {})
    assert referred(nested) == place(content, data)
    assert conversion.metadata["PatientID"] == "X"
    assert conversion.warnings == ()


def test_short_encapsulated_values_can_be_kept() -> None:
    """With their table and all fragments."""
    content = dicom(identity(), pixels(item(b"ab")), AFTER)
    conversion = converted(content, bulkData={"inlineMaxBytes": 18})
    assert set(conversion.metadata["PixelData"]) == {"InlineBinary"}
    assert conversion.metadata["7FE10010"] == "AFTER"


class Frames:
    """A source of about 1 GiB: a header, large frames of NULs, and what follows them."""

    def __init__(self, *, frame: int, count: int, tables: str, following: bytes = b"") -> None:
        lengths = [frame] * count
        extended = table = b""
        if tables == "extended":
            starts = [number * (frame + 8) for number in range(count)]
            extended = element(0x7FE00001, "OV", struct.pack(f"<{count}Q", *starts)) + element(
                0x7FE00002, "OV", struct.pack(f"<{count}Q", *lengths)
            )
        if tables == "basic":
            table = basic_table(lengths)
        self.header = dicom(identity(), extended, transfer_syntax=JPEG)
        self.start = len(self.header) + 12
        self.head = self.header + header(PIXEL_DATA, "OB", UNDEFINED) + item(table)
        self.first = len(self.head)
        self.frame, self.count = frame, count
        self.tail = DELIMITER + following
        self.end = self.first + count * (frame + 8)
        self.size = self.end + len(self.tail)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the bytes, which are generated."""
        assert 0 < n <= self.size - offset
        self.reads.append((offset, n))
        out = bytearray(n)
        self._put(out, offset, 0, self.head)
        first = max((offset - self.first) // (self.frame + 8), 0)
        for number in range(first, self.count):
            start = self.first + number * (self.frame + 8)
            if start >= offset + n:
                break
            self._put(out, offset, start, delimiter(0xFFFEE000, self.frame))
        self._put(out, offset, self.end, self.tail)
        return bytes(out)

    @staticmethod
    def _put(out: bytearray, offset: int, start: int, data: bytes) -> None:
        begin, end = max(start, offset), min(start + len(data), offset + len(out))
        if begin < end:
            out[begin - offset : end - offset] = data[begin - start : end - start]


@pytest.mark.parametrize(
    ("frames", "requests", "inferred"),
    [
        (Frames(frame=GIB, count=1, tables="none"), 2, False),
        (Frames(frame=GIB, count=1, tables="none", following=AFTER + SIGNATURES), 2, False),
        (Frames(frame=GIB // 1024, count=1000, tables="basic"), 3, False),
        (Frames(frame=GIB // 1024, count=1000, tables="extended"), 3, False),
        (Frames(frame=10_000, count=100_000, tables="basic", following=AFTER), 5, False),
        (Frames(frame=10_000, count=100_000, tables="extended", following=SIGNATURES), 5, False),
        (Frames(frame=GIB // 16, count=10, tables="none"), 20, False),
        (Frames(frame=GIB // 1024, count=1000, tables="none", following=SIGNATURES), 20, True),
        (Frames(frame=1000, count=1_000_000, tables="none", following=AFTER), 20, True),
    ],
    ids=[
        "one fragment", "one fragment and elements after it", "basic", "extended", "large basic",
        "large extended", "ten fragments", "no table", "no table, many fragments",
    ],
)  # fmt: skip
def test_a_gigabyte_costs_little(*, frames: Frames, requests: int, inferred: bool) -> None:
    """In requests, and 1 MiB altogether."""
    frames.reads = []
    conversion = convert(frames)
    assert referred(conversion) == (frames.start, frames.end - frames.start)
    assert len(frames.reads) <= requests
    assert sum(n for _, n in frames.reads) <= 1024 * 1024
    assert ("7FE10010" in conversion.metadata) is (AFTER in frames.tail)
    assert ("DigitalSignaturesSequence" in conversion.metadata) is (SIGNATURES in frames.tail)
    assert any("inferred" in line for line in conversion.warnings) is inferred


@pytest.mark.parametrize("hops", [0, 1, 2, 5, 16, 64])
def test_the_walk_over_fragments_keeps_to_its_budget_of_reads(hops: int) -> None:
    """`limits.hops` reads, and four for the header and the object's end."""
    frames = Frames(frame=GIB // 1024, count=1000, tables="none")
    conversion = convert(frames, from_overrides({"limits": {"hops": hops}}))
    assert len(frames.reads) <= hops + 4 + (hops == 0)
    assert referred(conversion) == (frames.start, frames.end - frames.start)


def test_a_wrong_offset_table_is_not_trusted() -> None:
    """Its entry must point to an item, from which fragments lead to a delimiter."""
    fragments = [item(bytes([number]) * 100) for number in range(5)]
    for wild in (108 * 4 + 2, 0xFFFFFFF0, 108 * 5, 7):
        data = pixels(*fragments, table=struct.pack("<2L", 0, wild))
        content = dicom(identity(), data, AFTER)
        conversion = converted(content)
        assert referred(conversion) == place(content, data)
        assert conversion.metadata["7FE10010"] == "AFTER"
    for offset, length in ((108 * 4, 98), (1, 100), (2**63, 2**63), (108 * 3, 100)):
        tables = element(0x7FE00001, "OV", struct.pack("<2Q", 0, offset)) + element(
            0x7FE00002, "OV", struct.pack("<2Q", 100, length)
        )
        data = pixels(*fragments)
        content = dicom(identity(), tables, data, AFTER)
        assert referred(converted(content)) == place(content, data)


@pytest.mark.parametrize("following", [b"", AFTER, SIGNATURES, AFTER + SIGNATURES, bytes(50)])
@pytest.mark.parametrize("defined_item", [True, False])
def test_the_end_is_inferred_from_the_last_bytes(*, following: bytes, defined_item: bool) -> None:
    """The delimiter with nothing but elements after it, outside fragments and sequences."""
    if following == SIGNATURES and not defined_item:
        following = sequence(
            0xFFFAFFFA, item(element(0x04000005, "US", b"\1\0"), defined=False), defined=False
        )
    noise = b"\x11" * 30 + DELIMITER + b"\x22" * 30 + item(DELIMITER) + b"\x33" * 600
    data = pixels(*[item(b"\x44" * 40_000)] * 30, item(noise))
    content = dicom(identity(), data, following, transfer_syntax=JPEG)
    conversion = converted(content, limits={"hops": 2})
    assert referred(conversion) == place(content, data)
    assert any("inferred" in line for line in conversion.warnings)
    assert ("7FE10010" in conversion.metadata) is (AFTER in following)


def test_a_last_fragment_that_ends_at_a_later_delimiter_wins() -> None:
    """What looks like an end inside a fragment is not one."""
    fake = (
        DELIMITER
        + element(0x7FE10010, "LO", "FAKE")
        + header(0x7FE10011, "UT", 100 + 8)
        + b"x" * 100
    )
    data = pixels(*[item(b"\x44" * 40_000)] * 30, item(fake))
    content = dicom(identity(), data)
    conversion = converted(content, limits={"hops": 1})
    assert referred(conversion) == place(content, data)
    assert "7FE10010" not in conversion.metadata


def test_a_delimiter_at_an_odd_distance_is_part_of_a_fragment() -> None:
    """Fragments have even lengths."""
    following = header(0x7FE10011, "UT", 101 + len(DELIMITER)) + b"x" * 101
    data = pixels(item(b"\x44" * 600_001 + DELIMITER + following))
    content = dicom(identity(), data)
    offset, length = referred(converted(content, limits={"hops": 0}))
    assert (offset, length) == place(content, data)


@pytest.mark.parametrize("hops", [0, 1, 16])
def test_a_value_without_end_is_the_rest_of_the_object(hops: int) -> None:
    """An object that is cut is converted, with a warning."""
    data = pixels(*[item(b"ab" * 1000)] * 5)
    content = dicom(identity(), data)
    for cut in (len(DELIMITER), len(DELIMITER) + 100, len(data) - 13, len(data) - 20):
        conversion = converted(content[:-cut], limits={"hops": hops})
        offset, _ = place(content, data)
        assert referred(conversion) == (offset, len(content) - cut - offset)
        assert any("no end was found" in line for line in conversion.warnings)


def test_a_tail_full_of_delimiters_is_searched_in_bounded_time() -> None:
    """In hostile objects."""
    content = dicom(identity(), header(PIXEL_DATA, "OB", UNDEFINED), DELIMITER * 60_000, b"x")
    assert "PixelData" in converted(content, limits={"hops": 0}).metadata
    chain = b"".join(
        DELIMITER[4:] + element(0x7FE10000 + number, "LO", b"") for number in range(20_000)
    )
    content = dicom(identity(), header(PIXEL_DATA, "OB", UNDEFINED), chain, b"x")
    assert "PixelData" in converted(content).metadata


def test_the_way_of_reading_does_not_change_the_result() -> None:
    """Stream or source, large or small fragments."""
    for size in (10, 5_000, 20_000, 70_000):
        data = pixels(*[item(b"\x44" * size)] * 25)
        content = dicom(identity(), data, AFTER, transfer_syntax=JPEG)
        by_source = convert(CountingSource(content), Config())
        by_stream = converted(content)
        assert by_source == by_stream
        assert referred(by_source) == place(content, data)
