"""The encodings of a data set: implicit or explicit VR, and the byte order (PS3.5 7.1, 7.3)."""

from dataclasses import dataclass
from struct import Struct

HEADER, LONG_HEADER = 8, 12
"""Bytes of an element's header, short and long form; items and delimiters have the short one."""
UNDEFINED = 0xFFFFFFFF
"""The length of a value that ends at a delimiter."""
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
DELIMITERS = frozenset({ITEM, ITEM_END, SEQUENCE_END})
"""The tags that structure sequences; they have no VR and no value (PS3.5 7.5)."""
DELIMITER_GROUP = 0xFFFE

_WORD = {"AT": 2, "OW": 2, "SS": 2, "US": 2, "US or SS": 2}
_WORD |= {"FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4}
_WORD |= {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}
"""Bytes of the words that the byte order swaps, for VRs with words of more than one (PS3.5 7.3)."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """An encoding of a data set; a big endian one is explicit."""

    name: str
    """What messages call it."""
    implicit: bool
    """Whether headers have no VR."""
    little: bool
    tag_and_length: Struct
    """Group, number and length: an implicit header, an item's, a delimiter's."""
    explicit: Struct
    """Group, number, VR and 2-byte length: an explicit header in its short form."""
    long: Struct
    """The 4-byte length at the end of the other headers."""


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
    """Return a big endian value in little endian order.

    A value that is not a whole number of words is returned as it is.
    """
    size = _WORD.get(vr, 1)
    if size == 1 or len(value) % size:
        return value
    swapped = bytearray(len(value))
    for index in range(size):
        swapped[index::size] = value[size - 1 - index :: size]
    return bytes(swapped)
