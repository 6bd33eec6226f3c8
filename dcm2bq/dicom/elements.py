"""The elements of a data set as the reader returns them: values are still bytes."""

from bisect import bisect_left
from operator import attrgetter

import msgspec

type Item = list[Element]
"""The elements of a data set, or of one item of a sequence, in the order of the object."""


class Element(msgspec.Struct, gc=False):
    """A data element (PS3.5 7.1).

    `gc=False`: otherwise each full collection of the cyclic garbage collector would visit all
    elements, of which an object may have millions. It is safe because elements form a tree: an
    element refers to its items and they to their elements, but nothing refers to a parent, so
    that reference counts alone free them. A field that refers upwards would leak memory.
    """

    tag: int
    vr: str
    """The VR to read the value by; `US_OR_SS` leaves the choice to the Pixel Representation."""
    offset: int
    """The offset of the value field in the object, or `MADE`."""
    length: int
    """Bytes of the value field."""
    value: bytes | list[Item] | None
    """The items of a sequence; bytes; None if the value stays in the object.

    The bytes are little endian, whatever the transfer syntax.
    """
    written: str
    """The VR in the object, or the dictionary's where headers have none.

    It differs from `vr` where the object says UN and the dictionary knows the VR.
    """

    @property
    def was_unknown(self) -> bool:
        """Whether the object says UN where the dictionary knows the VR."""
        return self.written == "UN" != self.vr


LEAST_HELD = 1024
"""Bytes up to which a text is read whatever `bulkData.textMaxBytes` says: character sets, private
creators, UIDs and most columns are shorter, and neither reading nor writing can do without them."""
CHECK_EVERY = 1024
"""Elements that are read, changed or written between two checks of the clock and the limits.

1,024 elements take some milliseconds and less memory than `memory.AHEAD`, so that no limit is
exceeded by much; a check takes no longer than one element does.
"""

US_OR_SS = "US or SS"
"""The VR of the dictionary for values whose sign depends on (0028,0103) Pixel Representation."""

MADE = -1
"""The offset of a value that is not in the object: privacy rules made it."""

SPECIFIC_CHARACTER_SET = 0x00080005
ROWS = 0x00280010
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA_PROVIDER_URL = 0x00287FE0
EXTENDED_OFFSET_TABLE = 0x7FE00001
PIXEL_DATA = 0x7FE00010
ALL_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Float Pixel Data, Double Float Pixel Data and Pixel Data."""

tag_of = attrgetter("tag")


def find(elements: Item, tag: int) -> Element | None:
    """Return the first element with a tag; the elements must be sorted by tag."""
    index = bisect_left(elements, tag, key=tag_of)
    return elements[index] if index < len(elements) and elements[index].tag == tag else None


def made(tag: int, vr: str, value: bytes | list[Item]) -> Element:
    """Return an element that privacy rules put in the place of one of the object."""
    return Element(tag, vr, MADE, len(value), value, vr)
