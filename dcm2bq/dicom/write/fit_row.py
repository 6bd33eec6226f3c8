"""Fit the metadata into a row: replace its largest parts by references to the object."""

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Any

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.elements import CHECK_EVERY, MADE, Element, Item
from dcm2bq.dicom.memory import ESCAPED, JSON, PART, Claim
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.numbers import encode
from dcm2bq.dicom.write.formats import Json
from dcm2bq.dicom.write.writer import Writer

_AT_ONCE = 32 * 1024 * 1024
"""Longest JSON, in bytes, that is written as a whole to be measured: several times a row.

Longer JSON is measured by parts: the whole text could take many times the memory of what remains
of it.
"""

_QUOTES = 2
"""Bytes of the quotes around a JSON string."""

type _Measure = Callable[[Any], int]
"""Returns the bytes that a JSON value takes within the metadata, escaped as a JSON string."""


class _Part:
    """An element in the output, with its size.

    The elements of a sequence's items are measured only on demand, and once.
    """

    __slots__ = ("_fit", "_parts", "element", "item", "key", "owner", "size", "writer")

    def __init__(
        self, fit: "_Fit", writer: Writer, element: Element, item: Item, *, owner: Json, key: str
    ) -> None:
        self._fit = fit
        self.writer = writer
        self.element = element
        self.item = item
        """The elements beside it."""
        self.owner = owner
        """The JSON object that has it as `key`."""
        self.key = key
        self.size = fit.measure(owner[key])
        self._parts: list[_Part] | None = None

    @property
    def parts(self) -> list["_Part"]:
        """The elements of a sequence's items; none if it is not a sequence or was replaced."""
        if self._parts is None:
            value = self.element.value
            items = value if isinstance(value, list) else []
            owners = self.writer.items(self.owner[self.key]) if items else []
            self._parts = [
                part
                for elements, owner in zip(items, owners, strict=True)
                for part in self._fit.parts(self.writer, elements, owner)
            ]
        return self._parts

    def replace(self, notes: Notes) -> int:
        """Become a reference if that is shorter; return the bytes saved."""
        reference = self.writer.refer(self.element)
        saved = self.size - _size(reference)
        if saved <= 0:
            return 0
        self.owner[self.key] = reference
        reason = f"{self.size} bytes of JSON are left in the object to fit the row"
        notes.about(self.element, self.item, reason)
        self.size -= saved
        self._parts = []
        return saved


class _Fit:
    """Makes parts of the metadata, within a deadline and a claim to memory."""

    def __init__(self, measure: _Measure, deadline: Deadline, memory: Claim) -> None:
        self.measure = measure
        self._deadline = deadline
        self._memory = memory
        self._count = 0

    def parts(self, writer: Writer, elements: Item, owner: Json) -> list[_Part]:
        """Return the elements of an item that are in the output and can stay in the object."""
        parts: dict[str, _Part] = {}
        self._memory.charge(PART * len(elements))
        for element in elements:
            key = writer.key(element.tag)
            if element.offset != MADE and key is not None and key in owner and key not in parts:
                parts[key] = _Part(self, writer, element, elements, owner=owner, key=key)
                self.count(1)
        return list(parts.values())

    def count(self, n: int) -> None:
        """Count parts that are made or compared, and check the clock from time to time."""
        self._count += n
        if self._count >= CHECK_EVERY:
            self._count = 0
            self._deadline.check()


def encode_within(
    limit: int,
    metadata: Json,
    data_sets: list[tuple[Writer, Item]],
    notes: Notes,
    *,
    deadline: Deadline,
    memory: Claim,
) -> str:
    """Return the metadata as JSON text that takes at most `limit` bytes as a JSON string.

    To achieve this, elements of `metadata` are replaced by references, the largest first, and
    each is noted. A sequence is replaced as a whole, unless one element makes up more than half
    of it: then that element is replaced instead. `data_sets` are the writers of the metadata with
    the elements that they wrote. If nothing is left to replace, the text exceeds the limit.
    """
    measure: _Measure = _size
    most = JSON * memory.count + ESCAPED * memory.kept  # bytes that the whole text can take
    if most <= _AT_ONCE:
        memory.charge(most)
        text = encode(metadata)
        excess = escaped_size(text) - limit
        if excess <= 0:
            return text.decode()
        del text
    else:
        measure = partial(_size_by_parts, deadline=deadline)
        excess = measure(metadata) + _QUOTES - limit
    if excess > 0:
        excess -= _replace(excess, metadata, data_sets, notes, _Fit(measure, deadline, memory))
    memory.charge(2 * (limit + excess))  # the text, as bytes and as a string
    return encode(metadata).decode()


def _replace(
    excess: int, metadata: Json, data_sets: list[tuple[Writer, Item]], notes: Notes, fit: _Fit
) -> int:
    """Replace elements by references until `excess` bytes are saved; return the bytes saved."""
    order = count()  # of two parts of the same size, the first one is replaced first
    parts = [
        (-part.size, next(order), part)
        for writer, elements in data_sets
        for part in fit.parts(writer, elements, metadata)
    ]
    heapq.heapify(parts)
    total = 0
    while total < excess and parts:
        _, _, part = heapq.heappop(parts)
        path = _path_to_replaced(part, fit)
        saved = path[-1].replace(notes)
        total += saved
        for outer in path[:-1]:
            outer.size -= saved
        if len(path) > 1 and saved:
            heapq.heappush(parts, (-part.size, next(order), part))
    return total


def _path_to_replaced(part: _Part, fit: _Fit) -> list[_Part]:
    """Return the path from a part to what is replaced: most of it, at any depth, or itself."""
    path = [part]
    while largest := max(path[-1].parts, key=attrgetter("size"), default=None):
        fit.count(len(path[-1].parts))
        if 2 * largest.size <= path[-1].size:
            break
        path.append(largest)
    fit.count(1)
    return path


def escaped_size(text: bytes) -> int:
    """Return the bytes of a JSON text as a JSON string, the form in which BigQuery receives it."""
    return len(text) + text.count(b'"') + text.count(b"\\") + _QUOTES


def _size(value: Any) -> int:
    return escaped_size(encode(value)) - _QUOTES


def _size_by_parts(value: Any, deadline: Deadline) -> int:
    """Return what `_size` returns, without making the whole text."""
    total = measured = 0
    todo = [value]
    while todo:
        measured += 1
        if not measured % CHECK_EVERY:
            deadline.check()
        part = todo.pop()
        if isinstance(part, dict):  # {\"key\":value,\"key\":value}
            total += 1 + sum(len(key) + 6 for key in part) + (not part)
            todo += part.values()
        elif isinstance(part, list) and part and isinstance(part[0], dict):
            total += 1 + len(part)
            todo += part
        else:
            total += _size(part)
    return total
