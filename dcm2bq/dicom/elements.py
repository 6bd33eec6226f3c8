"""The elements of a data set as the reader returns them: values are still bytes."""

from bisect import bisect_left
from operator import attrgetter

import msgspec

type Item = list[Element]
"""The elements of a data set, or of an item of a sequence, in the order of the object."""


class Element(msgspec.Struct, gc=False):
    """A data element (PS3.5 7.1).

    `gc=False`: a data set of 400,000 elements would make the cyclic garbage collector visit
    400,000 more objects in every full collection. It is safe because elements form a tree: an
    element refers to its items and they to their elements, never to a parent, so reference
    counts alone free them. Whoever adds a field that refers upwards makes a leak.
    """

    tag: int
    vr: str
    """The VR to read the value by; for `US_OR_SS` the Pixel Representation decides."""
    offset: int
    """Where the value field begins in the object; `MADE` if it is not there."""
    length: int
    """Bytes of the value field."""
    value: bytes | list[Item] | None
    """The items of a sequence, or bytes, or None if the value stays in the object.

    The bytes are little endian whatever the transfer syntax.
    """
    written: str
    """The VR as found in the object, the dictionary's where none is written.

    It differs from `vr` where the object says UN and the dictionary knows better.
    """

    @property
    def was_unknown(self) -> bool:
        """Whether the object says UN where the dictionary knows the VR."""
        return self.written == "UN" != self.vr


LEAST_HELD = 1024
"""Bytes of a value that are held in any case: reading, and columns, go by short ones."""

US_OR_SS = "US or SS"

MADE = -1
"""The offset of a value that privacy rules made: it is nowhere in the object."""

SPECIFIC_CHARACTER_SET = 0x00080005
ROWS = 0x00280010
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA_PROVIDER_URL = 0x00287FE0
EXTENDED_OFFSET_TABLE = 0x7FE00001
PIXEL_DATA = 0x7FE00010
ALL_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Float, Double Float and ordinary Pixel Data."""

tag_of = attrgetter("tag")


def find(elements: Item, tag: int) -> Element | None:
    """Return the first element with a tag; the elements are in the order of their tags."""
    index = bisect_left(elements, tag, key=tag_of)
    return elements[index] if index < len(elements) and elements[index].tag == tag else None
