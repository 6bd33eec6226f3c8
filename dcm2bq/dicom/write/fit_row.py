"""Make the metadata fit a row: the largest parts become references to the object."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.elements import MADE, Element, Item
from dcm2bq.dicom.memory import ESCAPED, JSON, PART, Claim
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.numbers import encode
from dcm2bq.dicom.write.formats import Json
from dcm2bq.dicom.write.writer import Writer

_CHECK_EVERY = 1024
"""Values that are measured before the clock is looked at."""

_AT_ONCE = 32 * 1024 * 1024
"""JSON that is written to be measured: several times what a row may have. More is measured
by parts, since the text as a whole could take many times the memory of what stays of it."""

type _Measure = Callable[[Any], int]
"""Takes a JSON value; returns the bytes that it takes within the metadata as a JSON string."""


class _Part:
    """An element of the output: where it stands, what it was made of, and its size.

    The parts of a sequence are measured once, and only if one asks for them.
    """

    __slots__ = ("_fit", "_parts", "element", "item", "key", "owner", "size", "writer")

    def __init__(
        self, fit: "_Fit", writer: Writer, element: Element, item: Item, *, owner: Json, key: str
    ) -> None:
        self._fit = fit
        self.writer = writer
        self.item = item
        self.owner = owner
        self.key = key
        self.element = element
        self.size = fit.measure(owner[key])
        self._parts: list[_Part] | None = None

    @property
    def parts(self) -> list["_Part"]:
        """The elements in a sequence's items; none for what is no sequence, or is folded."""
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

    def fold(self, notes: Notes) -> int:
        """Become a reference if that is shorter; return the bytes that it saves."""
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
    """Makes parts of metadata, within the time and memory that there are."""

    def __init__(self, measure: _Measure, deadline: Deadline, memory: Claim) -> None:
        self.measure = measure
        self._deadline = deadline
        self._memory = memory
        self._count = 0

    def parts(self, writer: Writer, elements: Item, owner: Json) -> list[_Part]:
        """Return the elements of an item that stand in the output and can be left in the object."""
        found: dict[str, _Part] = {}
        self._memory.charge(PART * len(elements))
        for element in elements:
            key = writer.key(element.tag)
            if element.offset != MADE and key is not None and key in owner and key not in found:
                found[key] = _Part(self, writer, element, elements, owner=owner, key=key)
                self.count(1)
        return list(found.values())

    def count(self, n: int) -> None:
        """Count parts that are made or looked at, and look at the clock from time to time."""
        self._count += n
        if self._count >= _CHECK_EVERY:
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

    For that the largest elements of `metadata`, sequences among them, are replaced by
    references, the largest first, and each is noted. Where one element makes up more than
    half of a sequence, the element is replaced, not the sequence. `data_sets` are what the
    metadata was written from. If nothing is left to replace, the text is longer.
    """
    measure: _Measure = _size
    most = JSON * memory.count + ESCAPED * memory.kept
    if most <= _AT_ONCE:
        memory.charge(most)
        text = encode(metadata)
        excess = escaped_size(text) - limit
        if excess <= 0:
            return text.decode()
        del text
    else:

        def measure(value: Any) -> int:
            return _careful_size(value, deadline)

        excess = measure(metadata) + 2 - limit
    if excess > 0:
        excess -= _fold(excess, metadata, data_sets, notes, _Fit(measure, deadline, memory))
    memory.charge(2 * (limit + excess))
    return encode(metadata).decode()


def _fold(
    excess: int, metadata: Json, data_sets: list[tuple[Writer, Item]], notes: Notes, fit: _Fit
) -> int:
    """Replace elements by references until `excess` bytes are saved; return what is saved."""
    order = count()  # of two parts of a size the first goes first
    parts = [
        (-part.size, next(order), part)
        for writer, elements in data_sets
        for part in fit.parts(writer, elements, metadata)
    ]
    heapq.heapify(parts)
    total = 0
    while total < excess and parts:
        _, _, part = heapq.heappop(parts)
        path = _path_to_fold(part, fit)
        saved = path[-1].fold(notes)
        total += saved
        for outer in path[:-1]:
            outer.size -= saved
        if len(path) > 1 and saved:
            heapq.heappush(parts, (-part.size, next(order), part))
    return total


def escaped_size(text: bytes) -> int:
    """Return the bytes of a JSON text written as a JSON string, as BigQuery is sent it."""
    return len(text) + text.count(b'"') + text.count(b"\\") + 2


def _size(value: Any) -> int:
    return escaped_size(encode(value)) - 2


def _careful_size(value: Any, deadline: Deadline) -> int:
    """Return the same as `_size`, measured without the text of the whole."""
    total = looked_at = 0
    todo = [value]
    while todo:
        looked_at += 1
        if not looked_at % _CHECK_EVERY:
            deadline.check()
        each = todo.pop()
        if isinstance(each, dict):  # {"key":value,"key":value}, the quotes escaped
            total += 1 + sum(len(key) + 6 for key in each) + (not each)
            todo += each.values()
        elif isinstance(each, list) and each and isinstance(each[0], dict):
            total += 1 + len(each)
            todo += each
        else:
            total += _size(each)
    return total


def _path_to_fold(part: _Part, fit: _Fit) -> list[_Part]:
    """Return the way from a part to what makes up more than half of it, or to itself."""
    path = [part]
    while largest := max(path[-1].parts, key=lambda each: each.size, default=None):
        fit.count(len(path[-1].parts))
        if 2 * largest.size <= path[-1].size:
            break
        path.append(largest)
    fit.count(1)
    return path
