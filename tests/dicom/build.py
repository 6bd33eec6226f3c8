"""Build DICOM objects byte by byte, valid and broken, and convert them."""

import struct
from io import BytesIO
from typing import Any

from dcm2bq.dicom import Conversion, convert

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"

UNDEFINED = 0xFFFFFFFF
LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7"
SOP_INSTANCE = "1.2.3.4"


def header(tag: int, vr: str, length: int, *, implicit: bool = False, big: bool = False) -> bytes:
    """Return the header of an element; an empty VR writes an implicit one."""
    order = ">" if big else "<"
    group, number = tag >> 16, tag & 0xFFFF
    if implicit:
        return struct.pack(f"{order}HHL", group, number, length)
    code = vr.encode()
    if vr in LONG:
        return struct.pack(f"{order}HH2sHL", group, number, code, 0, length)
    return struct.pack(f"{order}HH2sH", group, number, code, length)


def element(
    tag: int,
    vr: str,
    value: bytes | str = b"",
    *,
    length: int | None = None,
    implicit: bool = False,
    big: bool = False,
) -> bytes:
    """Return an element; a given `length` may be wrong."""
    value = value.encode("latin_1") if isinstance(value, str) else value
    if length is None:
        value += b"\0" * (len(value) % 2) if vr in {"UI", "OB", "UN"} else b" " * (len(value) % 2)
    size = len(value) if length is None else length
    return header(tag, vr, size, implicit=implicit, big=big) + value


def delimiter(tag: int, length: int = 0, *, big: bool = False) -> bytes:
    """Return an item's header or a delimiter."""
    return struct.pack(">HHL" if big else "<HHL", tag >> 16, tag & 0xFFFF, length)


def item(*elements: bytes, defined: bool = True, big: bool = False) -> bytes:
    """Return an item of a sequence, or a fragment."""
    content = b"".join(elements)
    if defined:
        return delimiter(0xFFFEE000, len(content), big=big) + content
    start = delimiter(0xFFFEE000, UNDEFINED, big=big)
    return start + content + delimiter(0xFFFEE00D, big=big)


def sequence(
    tag: int,
    *items: bytes,
    defined: bool = True,
    vr: str = "SQ",
    implicit: bool = False,
    big: bool = False,
) -> bytes:
    """Return a sequence of items, or of fragments."""
    content = b"".join(items)
    if defined:
        return header(tag, vr, len(content), implicit=implicit, big=big) + content
    start = header(tag, vr, UNDEFINED, implicit=implicit, big=big)
    return start + content + delimiter(0xFFFEE0DD, big=big)


def meta(transfer_syntax: str = EXPLICIT) -> bytes:
    """Return File Meta Information with the right group length."""
    content = (
        element(0x00020001, "OB", b"\0\1")
        + element(0x00020002, "UI", SOP_CLASS)
        + element(0x00020003, "UI", SOP_INSTANCE)
        + element(0x00020010, "UI", transfer_syntax)
        + element(0x00020012, "UI", "1.2.3")
    )
    return element(0x00020000, "UL", struct.pack("<L", len(content))) + content


def identity(*, implicit: bool = False, big: bool = False) -> bytes:
    """Return SOP Class and SOP Instance UID, by which a data set is recognised as DICOM."""
    return element(0x00080016, "UI", SOP_CLASS, implicit=implicit, big=big) + element(
        0x00080018, "UI", SOP_INSTANCE, implicit=implicit, big=big
    )


def dicom(*elements: bytes, transfer_syntax: str = EXPLICIT) -> bytes:
    """Return a file with preamble and File Meta Information."""
    return b"\0" * 128 + b"DICM" + meta(transfer_syntax) + b"".join(elements)


def converted(content: bytes, **options: Any) -> Conversion:
    """Return the conversion of a file's bytes; options by group."""
    return convert(BytesIO(content), options)


def flat(*elements: bytes, transfer_syntax: str = EXPLICIT, **options: Any) -> dict[str, Any]:
    """Return the metadata of a data set, without the File Meta Information."""
    options["jsonOutput"] = {"ignoreMetaHeader": True} | options.get("jsonOutput", {})
    return converted(dicom(*elements, transfer_syntax=transfer_syntax), **options).metadata


def warned(*elements: bytes, transfer_syntax: str = EXPLICIT) -> list[str]:
    """Return the warnings for a data set."""
    return list(converted(dicom(*elements, transfer_syntax=transfer_syntax)).warnings)


class CountingSource:
    """A source that records what is read.

    It has the bytes of `head`, then `gap` NULs, which are not stored, then `tail`.
    """

    def __init__(self, head: bytes, *, gap: int = 0, tail: bytes = b"") -> None:
        self._head, self._gap, self._tail = head, gap, tail
        self.size = len(head) + gap + len(tail)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the bytes and record the read."""
        assert n > 0
        assert offset + n <= self.size
        self.reads.append((offset, n))
        head, gap = self._head, self._gap
        middle = min(offset + n, len(head) + gap) - max(offset, len(head))
        tail_start = len(head) + gap
        return (
            head[offset : offset + n]
            + bytes(max(middle, 0))
            + self._tail[max(offset - tail_start, 0) : max(offset + n - tail_start, 0)]
        )

    @property
    def fetched(self) -> int:
        """Bytes that were read."""
        return sum(n for _, n in self.reads)
