"""Objects that cost far more memory or time than their size suggests, and enormous genuine ones."""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import batched

from tests.dicom.build import (
    BIG,
    DEFLATED,
    IMPLICIT,
    UNDEFINED,
    delimiter,
    dicom,
    element,
    header,
    identity,
    item,
    sequence,
)

KIB, MIB = 1024, 1024 * 1024
_PRIVATE = 0x00091000
_NUMBERS = {
    "US": struct.pack("<H", 60_001),
    "SS": struct.pack("<h", -30_001),
    "UL": struct.pack("<L", 4_000_000_001),
    "SL": struct.pack("<l", -2_000_000_001),
    "UV": struct.pack("<Q", 2**64 - 3),
    "SV": struct.pack("<q", -(2**63) + 1),
    "FL": struct.pack("<f", 1.2345678e-30),
    "FD": struct.pack("<d", -1.2345678901234567e-300),
    "AT": struct.pack("<HH", 0x7FE0, 0x0010),
}

type Content = Callable[[], bytes]


def distinct(count: int, vr: str, value: bytes = b"") -> bytes:
    """Return `count` elements of one value under ascending private tags."""
    one = element(_PRIVATE, vr, value)
    content = bytearray(one * count)
    numbers = range(count)
    content[0 :: len(one)] = bytes(9 + 2 * (n >> 16) & 0xFF for n in numbers)
    content[2 :: len(one)] = bytes(n & 0xFF for n in numbers)
    content[3 :: len(one)] = bytes(n >> 8 & 0xFF for n in numbers)
    return bytes(content)


def descending(count: int) -> bytes:
    """Return empty elements in the order that takes longest to sort."""
    numbers = [0x00091000 + n * 7919 % count for n in range(count)]
    return b"".join(element(number, "SH") for number in numbers)


def arrays(size: int, vr: str, value: bytes) -> bytes:
    """Return about `size` bytes of elements that hold 60 KiB of one value each."""
    long = value * (60 * KIB // len(value))
    return b"".join(
        element(_PRIVATE + n, vr, long[: 60 * KIB & ~7]) for n in range(size // (60 * KIB))
    )


def rtstruct(size: int) -> bytes:
    """Return an RTSTRUCT of about `size` bytes: contours of some 300 points."""
    points = "\\".join(f"{n * 0.37:.2f}" for n in range(900))
    contour = item(
        element(0x30060042, "CS", "CLOSED_PLANAR"),
        element(0x30060046, "IS", "300"),
        element(0x30060050, "DS", points),
    )
    rois = [
        item(
            element(0x3006002A, "IS", "255\\0\\0"),
            sequence(0x30060040, *[contour] * len(part)),
            element(0x30060084, "IS", "1"),
        )
        for part in batched(range(size // len(contour)), 100)
    ]
    return dicom(identity(), sequence(0x30060039, *rois))


def nested(depth: int, width: int) -> bytes:
    """Return `width` chains of empty sequences, `depth` deep."""
    chain = b""
    for _ in range(depth):
        chain = sequence(0x00081140, item(chain))
    return dicom(identity(), sequence(0x00081115, *[item(chain)] * width))


def _deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    deflated = deflater.compress(content) + deflater.flush()
    return dicom(deflated + bytes(len(deflated) % 2), transfer_syntax=DEFLATED)


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1)


def _escapes(count: int) -> bytes:
    """Return text that switches its character set again and again."""
    text = (b"\x1b$)C\xb1\xe8\x1b-A\xe9" * count)[: 60 * KIB]
    return element(0x00080005, "CS", "\\ISO 2022 IR 149\\ISO 2022 IR 100") + b"".join(
        element(_PRIVATE + n, "LT", text) for n in range(count * 10 // len(text) + 1)
    )


def hostile(share: float = 1.0) -> Iterator[tuple[str, Content]]:
    """Yield a name and what makes the content of each object.

    `share` of the full size; a name that ends in `.gz.dcm` is to be stored gzip encoded.
    """
    many = int(1_000_000 * share)
    size = int(60 * MIB * share)

    for vr, value in _NUMBERS.items():
        yield (
            f"single {vr}",
            lambda vr=vr, value=value: dicom(  # type: ignore[misc]
                identity(), distinct(many, vr, value)
            ),
        )
    for vr in ("US", "FD", "AT"):
        yield (
            f"arrays of {vr}",
            lambda vr=vr: dicom(  # type: ignore[misc]
                identity(), arrays(size, vr, _NUMBERS[vr])
            ),
        )
    yield "arrays of DS", lambda: dicom(identity(), arrays(size // 4, "DS", b"12345678901.2345\\"))
    yield "arrays of IS", lambda: dicom(identity(), arrays(size // 2, "IS", b"7\\"))
    yield "many texts", lambda: dicom(identity(), arrays(size, "LO", b"ab\\"))
    yield "control characters", lambda: dicom(identity(), arrays(size, "LT", b"\1"))
    yield (
        "wide text",
        lambda: dicom(
            element(0x00080005, "CS", "ISO_IR 192"),
            identity(),
            arrays(size, "LT", b"abcd\xf0\x9f\x98\x80"),
        ),
    )
    yield "empty, distinct", lambda: dicom(identity(), distinct(2 * many - 8, "SH"))
    yield "empty, one tag", lambda: dicom(identity(), element(_PRIVATE, "SH") * (2 * many - 8))
    yield "empty, unsorted", lambda: dicom(identity(), descending(many // 2))
    yield "empty items", lambda: dicom(identity(), sequence(0x00081140, item() * (2 * many - 8)))
    yield (
        "empty items of undefined length",
        lambda: dicom(identity(), sequence(0x00081140, item(defined=False) * (many - 8))),
    )
    yield (
        "items of one element",
        lambda: dicom(
            identity(), sequence(0x00081140, item(element(0x00080060, "CS", "CT")) * (many - 8))
        ),
    )
    yield "nested empties", lambda: nested(100, many // 110)
    yield "references", lambda: dicom(identity(), distinct(many, "OB", b"12"))
    yield (
        "implicit, unknown tags",
        lambda: dicom(
            identity(implicit=True),
            element(0x00091001, "", b"12", implicit=True) * many,
            transfer_syntax=IMPLICIT,
        ),
    )
    yield (
        "big endian",
        lambda: dicom(
            identity(big=True),
            element(_PRIVATE, "US", b"\xea\x61", big=True) * many,
            transfer_syntax=BIG,
        ),
    )
    yield "deflated, empty", lambda: _deflated(identity() + element(_PRIVATE, "SH") * (2 * many))
    yield "deflated, zeros", lambda: _deflated(identity() + arrays(size, "US", b"\1\0"))
    for part in (0.07, 0.25, 1.0):
        yield f"RTSTRUCT {part}", lambda part=part: rtstruct(int(size * part))  # type: ignore[misc]
    yield "RTSTRUCT.gz", lambda: _gzipped(rtstruct(int(size * 0.9)))
    yield (
        "pixels.gz",
        lambda: _gzipped(
            dicom(identity(), element(0x00100020, "LO", "X"), header(0x7FE00010, "OW", size))
            + bytes(size)
        ),
    )
    yield "members.gz", lambda: _gzipped(b"") * many + _gzipped(dicom(identity()))
    yield (
        "fragments in an item",
        lambda: dicom(
            identity(),
            sequence(
                0x00880200,
                item(
                    header(0x7FE00010, "OB", UNDEFINED)
                    + item() * (2 * many)
                    + delimiter(0xFFFEE0DD)
                ),
            ),
        ),
    )
    yield "escapes", lambda: dicom(_escapes(many), identity())
