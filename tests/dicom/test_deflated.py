"""Deflated data sets: inflated in chunks, never held as a whole."""

import base64
import random
import re
import tracemalloc
import zlib
from io import BytesIO

import pytest

from dcm2bq.dicom import convert
from dcm2bq.errors import UnreadableDicomError
from tests.dicom.build import (
    DEFLATED,
    CountingSource,
    converted,
    dicom,
    element,
    header,
    identity,
    item,
    meta,
    sequence,
)

LAST = element(0x00100020, "LO", "LAST")
MIB = 1024 * 1024


def deflated(data_set: bytes, *, uid: str = DEFLATED, window: int = -15) -> bytes:
    """Return a file with a deflated data set."""
    deflater = zlib.compressobj(wbits=window)
    return b"\0" * 128 + b"DICM" + meta(uid) + deflater.compress(data_set) + deflater.flush()


@pytest.mark.parametrize("uid", [DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_offsets_are_those_of_the_inflated_data_set(uid: str) -> None:
    """References say so; those into the File Meta Information do not."""
    data_set = identity() + element(0x7FE00010, "OW", b"\1" * 100_000)
    conversion = converted(deflated(data_set, uid=uid))
    offset = len(data_set) - 100_000
    uri = f"?offset={offset}&length=100000&deflated=true"
    assert conversion.metadata["PixelData"] == {"BulkDataURI": uri}
    version = conversion.metadata["FileMetaInformationVersion"]["BulkDataURI"]
    assert "deflated" not in version
    assert conversion.warnings == ()


def test_the_result_equals_that_of_the_plain_file() -> None:
    """Apart from offsets."""
    inner = item(element(0x00080100, "SH", "X"), element(0x00091001, "ZZ", "12345678"))
    elements = (identity(), sequence(0x00081140, inner, inner, defined=False), LAST)
    plain = converted(dicom(*elements), jsonOutput={"ignoreBinary": True, "ignoreMetaHeader": True})
    conversion = converted(
        deflated(b"".join(elements)), jsonOutput={"ignoreBinary": True, "ignoreMetaHeader": True}
    )
    assert conversion.metadata == plain.metadata
    assert conversion.warnings[0].split(" (")[0] == plain.warnings[0].split(" (")[0]


def test_elements_after_large_bulk_data_are_read() -> None:
    """The bulk data is inflated and dropped."""
    bulk = header(0x7FE00010, "OW", 64 * MIB) + bytes(64 * MIB)
    content = deflated(identity() + bulk + element(0x7FE10010, "LO", "AFTER"))
    tracemalloc.start()
    conversion = convert(BytesIO(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert conversion.metadata["7FE10010"] == "AFTER"
    assert peak < 8 * MIB


def test_a_zlib_header_is_tolerated() -> None:
    """Some writers add one; a warning says so."""
    conversion = converted(deflated(identity() + LAST, window=15))
    assert conversion.metadata["PatientID"] == "LAST"
    assert any("zlib header" in line for line in conversion.warnings)


def test_bytes_after_the_stream_cause_a_warning() -> None:
    """Except for one, which pads to an even length."""
    content = deflated(identity() + LAST)
    assert converted(content + b"\0").warnings == ()
    assert any("9 bytes after" in line for line in converted(content + bytes(9)).warnings)


@pytest.mark.parametrize("tag", [0x7FE00010, 0x00091001])
def test_a_bomb_is_refused_at_the_limit(tag: int) -> None:
    """200 KB that inflate to 200 MB; memory stays small."""
    content = deflated(identity() + header(tag, "OB", 0x7FFFFFF0) + bytes(200 * MIB))
    assert len(content) < 210_000
    tracemalloc.start()
    with pytest.raises(UnreadableDicomError, match="inflatedBytes"):
        converted(content, limits={"inflatedBytes": 100 * MIB})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


def test_a_header_bomb_is_refused_at_the_limit() -> None:
    """The bytes of values that are kept count."""
    items = item(element(0x00204000, "LT", "x" * 1000)) * 20_000
    content = deflated(identity() + sequence(0x00081140, items, defined=False))
    with pytest.raises(UnreadableDicomError, match=r"exceeds limits\.headerBytes"):
        converted(content, limits={"headerBytes": MIB})


def test_the_compressed_bytes_are_read_in_growing_steps() -> None:
    """Not in one request for each chunk."""
    noise = random.Random(1).randbytes(8 * MIB)
    content = deflated(identity() + header(0x7FE00010, "OW", len(noise)) + noise)
    source = CountingSource(content)
    assert convert(source).warnings == ()
    assert len(source.reads) < 12
    assert source.fetched <= len(content)


def test_a_corrupt_stream_is_refused() -> None:
    """And not taken for one that ends early."""
    content = deflated(identity() + LAST * 2000 + bytes(100_000))
    start = len(content) // 2
    with pytest.raises(UnreadableDicomError):
        converted(content[:start] + b"\xff" * 50 + content[start + 50 :])


def test_a_data_set_that_is_cut_is_refused() -> None:
    """Although the deflate stream is complete."""
    texts = element(0x00204000, "LT", "x" * 1000) * 200
    data_set = identity() + texts + element(0x00404000, "LO", "A LONG ENOUGH VALUE")
    for cut in range(1, 28):
        with pytest.raises(UnreadableDicomError):
            converted(deflated(data_set[:-cut]))
    assert converted(deflated(data_set[:-28])).metadata["SOPInstanceUID"]


def test_an_object_whose_stream_is_cut_inside_the_pixel_data_is_converted() -> None:
    """With a warning that says how much there is."""
    noise = random.Random(1).randbytes(100_000)
    content = deflated(identity() + header(0x7FE00010, "OW", len(noise)) + noise)
    conversion = converted(content[:-50_000])
    assert any("is cut" in line for line in conversion.warnings)
    assert any(
        re.match(r"7FE00010 OW: the object is cut: \d+ bytes", line) for line in conversion.warnings
    )
    assert conversion.metadata["PixelData"]["BulkDataURI"].endswith("deflated=true")


def test_a_short_encapsulated_value_is_kept_while_the_window_holds_it() -> None:
    """Once it has been passed it becomes a reference, and never other bytes."""
    for size in (10, 10_000):
        pixels = sequence(0x7FE00010, item(), *[item(b"\x44" * size)] * 20, vr="OB", defined=False)
        content = deflated(identity() + pixels)
        conversion = converted(content, bulkData={"inlineMaxBytes": 1_000_000}).metadata[
            "PixelData"
        ]
        if "InlineBinary" in conversion:
            assert base64.b64decode(conversion["InlineBinary"]) == pixels[12:-8]
        else:
            assert size == 10_000


def test_encapsulated_values_are_walked_over() -> None:
    """The standard forbids them here, but they can be read."""
    pixels = sequence(0x7FE00010, item(), *[item(bytes(10_000))] * 50, vr="OB", defined=False)
    data_set = identity() + pixels + element(0x7FE10010, "LO", "AFTER")
    conversion = converted(deflated(data_set))
    offset = len(identity()) + 12
    uri = f"?offset={offset}&length={len(pixels) - 20}&deflated=true"
    assert conversion.metadata["PixelData"] == {"BulkDataURI": uri}
    assert conversion.metadata["7FE10010"] == "AFTER"


def test_nothing_is_lost_after_a_skipped_value_of_any_length() -> None:
    """Whether or not the value ends within what has been inflated so far."""
    text = element(0x00091010, "UT", b"q" * 60_000)
    for length in range(500, 45_000, 1500):
        skipped = element(0x00091011, "OB", b"b" * length)
        done = convert(BytesIO(deflated(identity() + text + skipped + LAST)))
        assert done.metadata["PatientID"] == "LAST", length
