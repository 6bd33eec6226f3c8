"""What the reader hands on: the elements of a data set as found, values still bytes."""

from bisect import bisect_left
from operator import itemgetter

type Item = list[Element]
"""The elements of a data set or of a sequence's item, in the object's order."""
type Element = tuple[int, str, int, int, bytes | list[Item] | None]
"""Tag, VR, offset and length of the value field, and the value.

The value is a sequence's items, or bytes (little endian whatever the transfer syntax), or
None if it stays in the object. The VR is the one to read the value by: `UN/LO` is a UN
value that the dictionary knows to be LO, `US or SS` is for the Pixel Representation to say.
"""

LEAST_HELD = 1024
"""Bytes of a value that are held in any case: reading, and columns, go by short ones."""

UNKNOWN = "UN/"
"""What precedes the dictionary's VR of a value that was written as UN."""
US_OR_SS = "US or SS"

MADE = -1
"""The offset of a value that stands nowhere in the object: it was made in its place."""

SPECIFIC_CHARACTER_SET = 0x00080005
ROWS = 0x00280010
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA_PROVIDER_URL = 0x00287FE0
EXTENDED_OFFSET_TABLE = 0x7FE00001
PIXEL_DATA = 0x7FE00010
ALL_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Float, Double Float and ordinary Pixel Data."""

tag_of = itemgetter(0)


def find(elements: Item, tag: int) -> Element | None:
    """Return the first element with a tag among elements in the order of their tags."""
    index = bisect_left(elements, tag, key=tag_of)
    return elements[index] if index < len(elements) and elements[index][0] == tag else None
