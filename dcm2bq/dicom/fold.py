"""Make the metadata fit a row: the largest parts become references to the object."""

import heapq
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec

from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.output import Json, Writer
from dcm2bq.dicom.tree import Element, Item

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class _Part:
    """An element of the output: where it stands, what it was made of, and its size."""

    owner: Json
    key: str
    element: Element
    size: int


def encode_within(
    limit: int, metadata: Json, data_sets: list[tuple[Writer, Item]], notes: Notes
) -> str:
    """Return the metadata as JSON text that takes at most `limit` bytes as a JSON string.

    For that the largest elements of `metadata`, sequences among them, are replaced by
    references, the largest first, and each is noted. Where one element makes up more than
    half of a sequence, the element is replaced, not the sequence. `data_sets` are what the
    metadata was written from. If nothing is left to replace, the text is longer.
    """
    text = _encode(metadata)
    excess = escaped_size(text) - limit
    if excess <= 0:
        return text.decode()
    order = count()  # of two parts of a size the first goes first
    parts = [
        (-part.size, next(order), writer, part)
        for writer, elements in data_sets
        for part in _parts(writer, elements, metadata)
    ]
    heapq.heapify(parts)
    while excess > 0 and parts:
        _, _, writer, part = heapq.heappop(parts)
        inner = _dominant(writer, part)
        saved = _replace(writer, inner, notes)
        excess -= saved
        if inner is not part and saved > 0:
            smaller = _Part(part.owner, part.key, part.element, part.size - saved)
            heapq.heappush(parts, (-smaller.size, next(order), writer, smaller))
    return _encode(metadata).decode()


def escaped_size(text: bytes) -> int:
    """Return the bytes of a JSON text written as a JSON string, as BigQuery is sent it."""
    return len(text) + text.count(b'"') + text.count(b"\\") + 2


def _parts(writer: Writer, elements: Item, owner: Json) -> list[_Part]:
    found: dict[str, _Part] = {}
    for element in elements:
        key = writer.key(element[0])
        if key is not None and key in owner and key not in found:
            found[key] = _Part(owner, key, element, _size(owner[key]))
    return list(found.values())


def _dominant(writer: Writer, part: _Part) -> _Part:
    """Return the part, or what makes up more than half of it on its own."""
    while isinstance(items := part.element[4], list):
        inner = [
            each
            for elements, owner in zip(items, writer.items(part.owner[part.key]), strict=True)
            for each in _parts(writer, elements, owner)
        ]
        largest = max(inner, key=lambda each: each.size, default=None)
        if largest is None or 2 * largest.size <= part.size:
            break
        part = largest
    return part


def _replace(writer: Writer, part: _Part, notes: Notes) -> int:
    """Replace a part by a reference if that is shorter; return the bytes that it saves."""
    reference = writer.refer(part.element)
    saved = part.size - _size(reference)
    if saved > 0:
        part.owner[part.key] = reference
        tag, vr, offset, _, _ = part.element
        notes.add(
            f"{part.size} bytes of JSON are left in the object to fit the row",
            tag=tag,
            vr=vr,
            offset=offset,
        )
    return max(saved, 0)


def _size(value: Any) -> int:
    return escaped_size(_encode(value)) - 2
