"""How elements are encoded: VRs, byte order, and the three ways to write a header (PS3.5 7.1)."""

from dataclasses import dataclass
from struct import Struct

HEADER, LONG_HEADER = 8, 12
"""Bytes of an element's header; that of an item or a delimiter has 8, too."""
UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
DELIMITER_GROUP = 0xFFFE

_WORD = {"AT": 2, "OW": 2, "SS": 2, "US": 2, "US or SS": 2}
_WORD |= {"FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4}
_WORD |= {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}


@dataclass(frozen=True, slots=True)
class Syntax:
    """An encoding of elements; big endian ones are explicit."""

    name: str
    implicit: bool
    little: bool
    tag_and_length: Struct
    explicit: Struct
    long: Struct


def _syntax(name: str, *, implicit: bool, little: bool) -> Syntax:
    order = "<" if little else ">"
    return Syntax(
        name,
        implicit,
        little,
        tag_and_length=Struct(f"{order}HHL"),
        explicit=Struct(f"{order}HH2sH"),
        long=Struct(f"{order}L"),
    )


IMPLICIT_LITTLE = _syntax("implicit VR little endian", implicit=True, little=True)
EXPLICIT_LITTLE = _syntax("explicit VR little endian", implicit=False, little=True)
EXPLICIT_BIG = _syntax("explicit VR big endian", implicit=False, little=False)


def to_little(vr: str, value: bytes) -> bytes:
    """Return a big endian value in little endian order; a broken one as it is."""
    size = _WORD.get(vr, 1)
    if size == 1 or len(value) % size:
        return value
    swapped = bytearray(len(value))
    for index in range(size):
        swapped[index::size] = value[size - 1 - index :: size]
    return bytes(swapped)
