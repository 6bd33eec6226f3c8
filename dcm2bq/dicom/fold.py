"""Make the metadata fit a row: the largest parts become references to the object."""

import heapq
from itertools import count

from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.numbers import encode
from dcm2bq.dicom.output import Json, Writer
from dcm2bq.dicom.source import Deadline
from dcm2bq.dicom.tree import MADE, Element, Item


class _Part:
    """An element of the output: where it stands, what it was made of, and its size.

    The parts of a sequence are measured once, and only if one asks for them.
    """

    __slots__ = ("_parts", "element", "item", "key", "owner", "size", "writer")

    def __init__(self, writer: Writer, owner: Json, key: str, element: Element, item: Item) -> None:
        self.writer = writer
        self.item = item
        self.owner = owner
        self.key = key
        self.element = element
        self.size = escaped_size(encode(owner[key])) - 2
        self._parts: list[_Part] | None = None

    @property
    def parts(self) -> list["_Part"]:
        """The elements in a sequence's items; none for what is no sequence, or is folded."""
        if self._parts is None:
            items = self.element[4] if isinstance(self.element[4], list) else []
            owners = self.writer.items(self.owner[self.key]) if items else []
            self._parts = [
                part
                for elements, owner in zip(items, owners, strict=True)
                for part in _parts(self.writer, elements, owner)
            ]
        return self._parts

    def fold(self, notes: Notes) -> int:
        """Become a reference if that is shorter; return the bytes that it saves."""
        reference = self.writer.refer(self.element)
        saved = self.size - (escaped_size(encode(reference)) - 2)
        if saved <= 0:
            return 0
        self.owner[self.key] = reference
        reason = f"{self.size} bytes of JSON are left in the object to fit the row"
        notes.about(self.element, self.item, reason)
        self.size -= saved
        self._parts = []
        return saved


def encode_within(
    limit: int,
    metadata: Json,
    data_sets: list[tuple[Writer, Item]],
    notes: Notes,
    deadline: Deadline,
) -> str:
    """Return the metadata as JSON text that takes at most `limit` bytes as a JSON string.

    For that the largest elements of `metadata`, sequences among them, are replaced by
    references, the largest first, and each is noted. Where one element makes up more than
    half of a sequence, the element is replaced, not the sequence. `data_sets` are what the
    metadata was written from. If nothing is left to replace, the text is longer.
    """
    text = encode(metadata)
    excess = escaped_size(text) - limit
    if excess <= 0:
        return text.decode()
    order = count()  # of two parts of a size the first goes first
    parts = [
        (-part.size, next(order), part)
        for writer, elements in data_sets
        for part in _parts(writer, elements, metadata)
    ]
    heapq.heapify(parts)
    while excess > 0 and parts:
        deadline.check()
        _, _, part = heapq.heappop(parts)
        path = _path_to_fold(part)
        saved = path[-1].fold(notes)
        excess -= saved
        for outer in path[:-1]:
            outer.size -= saved
        if len(path) > 1 and saved:
            heapq.heappush(parts, (-part.size, next(order), part))
    return encode(metadata).decode()


def escaped_size(text: bytes) -> int:
    """Return the bytes of a JSON text written as a JSON string, as BigQuery is sent it."""
    return len(text) + text.count(b'"') + text.count(b"\\") + 2


def _parts(writer: Writer, elements: Item, owner: Json) -> list[_Part]:
    """Return the elements that stand in the output and can be left in the object."""
    found: dict[str, _Part] = {}
    for element in elements:
        key = writer.key(element[0])
        if element[2] != MADE and key is not None and key in owner and key not in found:
            found[key] = _Part(writer, owner, key, element, elements)
    return list(found.values())


def _path_to_fold(part: _Part) -> list[_Part]:
    """Return the way from a part to what makes up more than half of it, or to itself."""
    path = [part]
    while largest := max(path[-1].parts, key=lambda each: each.size, default=None):
        if 2 * largest.size <= path[-1].size:
            break
        path.append(largest)
    return path
