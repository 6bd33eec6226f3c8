"""From the elements as read to the JSON object of the metadata."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from dcm2bq.config import JsonOutput
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import MOST_KEYS, is_private
from dcm2bq.dicom.elements import (
    LEAST_HELD,
    MADE,
    PIXEL_REPRESENTATION,
    SPECIFIC_CHARACTER_SET,
    US_OR_SS,
    Element,
    Item,
    find,
    tag_of,
)
from dcm2bq.dicom.memory import REFERENCE, VALUE, Claim, unbounded
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.numbers import encode
from dcm2bq.dicom.read.source import NO_DEADLINE, Deadline
from dcm2bq.dicom.values import DECODERS, NUMBER_VRS, BadValueError, Values
from dcm2bq.dicom.vr import BINARY_VRS
from dcm2bq.dicom.write.formats import Flat
from dcm2bq.dicom.write.model import Model

type Json = dict[str, Any]

_LUT_DESCRIPTORS = frozenset({0x00281100, 0x00281101, 0x00281102, 0x00281103, 0x00283002})
_SPECIAL = _LUT_DESCRIPTORS | {SPECIFIC_CHARACTER_SET}
_MANY = 4096
"""Values, and elements, that are written before the clock is looked at: some milliseconds."""
_LEFT_OUT = object()
_CHECK_EVERY = 1024
_SHORT = 128
"""Bytes of a value that are kept as Python objects; longer ones are JSON text at once.

A number of 2 bytes takes 40 as an object, text with one rare character 4 for each byte.
"""
_CHUNK = 8 * 1024
"""Bytes of a list of numbers that become Python objects at a time; a multiple of each size."""
_NUMBER_TEXTS = frozenset({"DS", "IS"})
_WIDEST = 4
"""Bytes for each byte of a value, as Python's text."""


class Format(Protocol):
    """How elements look in JSON."""

    levels: int
    """JSON levels that one sequence adds."""
    has_meta: bool
    """Whether File Meta Information is part of the output."""
    weight: int
    """Memory of elements written, as a multiple of what they take as read (measured)."""
    bare: bool
    """Whether a single value stands by itself; `plain` would say the same, more slowly."""

    def key(self, tag: int, /) -> str:
        """Return the name of an element."""

    def plain(self, vr: str, values: Values, /) -> Any:
        """Return values; raise `BadValueError` for what JSON cannot hold."""

    def values(self, vr: str, values: Values, /) -> Values:
        """Return values as they stand in an array; raise `BadValueError` as `plain` does."""

    def array(self, vr: str, array: Any, /) -> Any:
        """Return an array of such values, which may be JSON text."""

    def broken(self, vr: str, values: Values, /) -> Any:
        """Return the raw text of values that break their VR; None if it has no place."""

    def empty(self, vr: str, /) -> Any:
        """Return what stands for an element without value."""

    def sequence(self, items: list[Json], /) -> Any:
        """Return a sequence of items that are yet to be filled."""

    def items(self, sequence: Any, /) -> list[Json]:
        """Return the items of such a sequence."""

    def inline(self, vr: str, value: bytes, /) -> Any:
        """Return a short binary value."""

    def bulk(self, vr: str, uri: str, /) -> Any:
        """Return a reference to a value that stays in the object."""


def format_of(options: JsonOutput) -> Format:
    """Return the format that the options ask for."""
    return Flat(options) if options.format == "flat" else Model()


class _Keys(dict[int, str | None]):
    """Tag to key in the output; None for what the options leave out or rules stand for."""

    def __init__(self, options: JsonOutput) -> None:
        super().__init__()
        self._options = options
        self._format = format_of(options)

    def __missing__(self, tag: int) -> str | None:
        key = None if tag in _SPECIAL else self.of(tag)
        if len(self) < MOST_KEYS:
            self[tag] = key
        return key

    def of(self, tag: int) -> str | None:
        """Return the key of any tag; None if it is left out."""
        options = self._options
        if (options.ignore_group_length and not tag & 0xFFFF) or (
            options.ignore_private and is_private(tag)
        ):
            return None
        return self._format.key(tag)


_keys = lru_cache(maxsize=16)(_Keys)


class _Scope(msgspec.Struct, gc=False):
    """What the elements of an item go by: character set and Pixel Representation."""

    elements: Item
    outer: "_Scope | None"
    charset: Charset
    declared: bool = False
    _signed: bool | None = None

    @property
    def signed(self) -> bool:
        """Whether the nearest Pixel Representation, here or further out, says so."""
        if self._signed is None:
            own = find(self.elements, PIXEL_REPRESENTATION)
            if own and isinstance(own.value, bytes):
                self._signed = int.from_bytes(own.value, "little") == 1
            else:
                self._signed = self.outer is not None and self.outer.signed
        return self._signed


class Writer:
    """Writes elements as JSON and refers by URI to those that stay in the object."""

    def __init__(
        self,
        options: JsonOutput,
        notes: Notes,
        *,
        most_text: int,
        root: str,
        suffix: str = "",
        deadline: Deadline = NO_DEADLINE,
        memory: Claim | None = None,
    ) -> None:
        self._format = format_of(options)
        self._most_text = most_text
        self._deadline = deadline
        self._memory = memory or unbounded()
        self._short = -1 if most_text < LEAST_HELD else _SHORT
        self._values = 0
        self._keys = _keys(options)
        self._ignore_binary = options.ignore_binary
        self._notes = notes
        self._prefix = f"{root}&" if options.explicit_bulk_data_root and root else "?"
        self._suffix = suffix
        self._todo: list[tuple[Item, Json, _Scope]] = []

    def write(self, data_set: Item, metadata: Json) -> None:
        """Add the elements of a data set, sorted by tag, and of all its items to an object."""
        self._write_items(data_set, metadata, _Scope(data_set, None, DEFAULT_CHARSET))
        count = 0
        for elements, out, outer in self._todo:
            count += len(elements)
            if count >= _CHECK_EVERY:
                self._deadline.check()
                count = 0
            self._write_items(elements, out, _Scope(elements, outer, outer.charset))
        self._todo = []
        self._pay()

    def key(self, tag: int) -> str | None:
        """Return the key that an element has in the output; None if it is left out."""
        return self._keys.of(tag)

    def items(self, sequence: Any) -> list[Json]:
        """Return the items of a sequence in the output."""
        return self._format.items(sequence)

    def refer(self, element: Element, vr: str | None = None) -> Any:
        """Return a reference to the bytes of an element."""
        self._values += REFERENCE // VALUE
        if self._values >= _MANY:
            self._pay()
        uri = f"{self._prefix}offset={element.offset}&length={element.length}{self._suffix}"
        return self._format.bulk(vr or element.vr, uri)

    def _write_items(self, elements: Item, out: Json, scope: _Scope) -> None:
        """Add the elements of one item; those of its sequences are yet to do."""
        elements.sort(key=tag_of)
        if len(elements) <= _CHECK_EVERY:
            self._write_some(elements, out, scope)
            return
        for start in range(0, len(elements), _CHECK_EVERY):
            self._deadline.check()
            self._write_some(elements[start : start + _CHECK_EVERY], out, scope)

    def _write_some(self, elements: Item, out: Json, scope: _Scope) -> None:
        """Add elements of one item, in the order of their tags."""
        keys, decoder_of = self._keys, DECODERS.get
        bare, short = self._format.bare, self._short
        for element in elements:
            vr, value = element.vr, element.value
            key = keys[element.tag]
            if key is None or key in out or not value:
                self._write_rare(element, out, scope)
            elif (decode := decoder_of(vr)) is not None:
                if element.length > short or element.written == "UN":
                    self._write_rare(element, out, scope)
                    continue
                try:
                    values = decode(value, scope.charset)  # type: ignore[arg-type]
                    out[key] = values[0] if bare and len(values) == 1 else self._plain(vr, values)
                except BadValueError as bad:
                    out[key] = self._broken(element, scope.elements, vr, bad)
            elif vr == "SQ":
                out[key] = self._sequence(value, scope)  # type: ignore[arg-type]
            else:
                self._write_rare(element, out, scope)

    def _plain(self, vr: str, values: Values) -> Any:
        """Return ordinary values."""
        self._values += len(values)
        if self._values >= _MANY:  # they take memory, and time enough to look at the clock
            self._pay()
        return self._format.plain(vr, values)

    def _pay(self) -> None:
        self._deadline.check()
        self._memory.charge(VALUE * self._values)
        self._values = 0

    def _sequence(self, items: list[Item], scope: _Scope) -> Any:
        """Return a sequence whose items are yet to be written."""
        objects: list[Json] = []
        for item in items:
            json: Json = {}
            objects.append(json)
            if item:
                self._todo.append((item, json, scope))
        return self._format.sequence(objects)

    def _write_rare(self, element: Element, out: Json, scope: _Scope) -> None:
        """Add an element that is no ordinary value, by all the rules."""
        tag, value = element.tag, element.value
        if tag == SPECIFIC_CHARACTER_SET and isinstance(value, bytes) and not scope.declared:
            scope.declared = True
            scope.charset, problem = parse_charset(value)
            if problem:
                self._notes.about(element, scope.elements, problem)
        key = self._keys.of(tag)
        if key is None or (self._ignore_binary and element.vr in BINARY_VRS):
            return
        if key in out:
            self._notes.about(element, scope.elements, "duplicate, the first is kept")
            self._notes.drop(tag, scope.elements)
        elif isinstance(value, list):
            out[key] = self._sequence(value, scope)
        else:
            rare = self._rare(element, scope)
            if rare is not _LEFT_OUT:
                out[key] = rare

    def _rare(self, element: Element, scope: _Scope) -> Any:
        """Return what is no ordinary value: long, binary, empty, or of a VR to be settled."""
        tag, vr, value = element.tag, element.vr, element.value
        if vr == US_OR_SS:
            vr = "SS" if scope.signed else "US"
        is_long = (
            element.length > self._most_text and vr not in BINARY_VRS and element.offset != MADE
        )
        if is_long or not isinstance(value, bytes):
            return self.refer(element, vr)
        if not value:
            return self._format.empty(vr)
        if vr in BINARY_VRS:
            return self._format.inline(vr, value)
        if len(value) > _SHORT and tag not in _LUT_DESCRIPTORS:
            return self._long(element, vr, scope)
        try:
            values = DECODERS[vr](value, scope.charset)
            if vr == "SS" and tag in _LUT_DESCRIPTORS:
                values[::2] = [each & 0xFFFF for each in values[::2]]
            return self._plain(vr, values)
        except BadValueError as bad:
            return self._bad(element, scope, vr, bad)

    def _long(self, element: Element, vr: str, scope: _Scope) -> Any:
        """Return a long value as JSON text, which takes less memory than its values."""
        value = element.value
        assert isinstance(value, bytes)
        self._deadline.check()
        if len(value) > _CHUNK:
            if _is_list_of_numbers(vr, value):
                return self._numbers(element, vr, value, scope)
            self._memory.charge(spent := VALUE * value.count(b"\\") + _WIDEST * len(value))
            self._memory.used -= spent  # gone by the next charge
        try:
            json = self._format.plain(vr, DECODERS[vr](value, scope.charset))
        except BadValueError as bad:
            json = self._bad(element, scope, vr, bad)
        return self._packed(value, json)

    def _numbers(self, element: Element, vr: str, value: bytes, scope: _Scope) -> Any:
        """Return a long list of numbers, of which few at a time become Python objects."""
        decode, parts, problem = DECODERS[vr], [], ""
        for chunk in _chunks(vr, value):
            self._deadline.check()
            try:
                values = decode(chunk, scope.charset)
            except BadValueError as bad:
                values, problem = bad.values or [], problem or bad.reason
            try:
                text = encode(self._format.values(vr, values))
            except BadValueError as bad:
                return self._bad(element, scope, vr, bad)
            parts.append(text[1:-1])
        if problem and element.was_unknown:
            return self._bad(element, scope, vr, BadValueError(problem, None))
        if problem:
            self._notes.about(element, scope.elements, problem, vr=vr)
        array = msgspec.Raw(b"[" + b",".join(parts) + b"]")
        return self._packed(value, self._format.array(vr, array))

    def _packed(self, value: bytes, json: Any) -> Any:
        """Return what a value became as JSON text, and pay for it instead of the value."""
        if json is _LEFT_OUT:
            return json
        text = encode(json)
        self._memory.charge(len(text) - len(value))
        return msgspec.Raw(text)

    def _bad(self, element: Element, scope: _Scope, vr: str, bad: BadValueError) -> Any:
        """Return what stands for a value that breaks its VR, found in an element of any kind."""
        if not element.was_unknown:
            return self._broken(element, scope.elements, vr, bad)
        self._notes.about(element, scope.elements, f"UN does not hold {vr}: {bad.reason}", vr="")
        return _LEFT_OUT if self._ignore_binary else self.refer(element, "UN")

    def _broken(self, element: Element, item: Item, vr: str, bad: BadValueError) -> Any:
        """Return the raw text of a value that breaks its VR, or a reference to it."""
        self._notes.about(element, item, bad.reason, vr=vr)
        text = None if bad.values is None else self._format.broken(vr, bad.values)
        return self.refer(element, vr) if text is None else text


def _is_list_of_numbers(vr: str, value: bytes) -> bool:
    """Return whether a value can be cut between its numbers."""
    return b"\\" in value if vr in _NUMBER_TEXTS else vr in NUMBER_VRS and not len(value) % 8


def _chunks(vr: str, value: bytes) -> Iterator[bytes]:
    """Yield a list of numbers in parts of about `_CHUNK` bytes."""
    if vr not in _NUMBER_TEXTS:
        yield from (value[at : at + _CHUNK] for at in range(0, len(value), _CHUNK))
        return
    start = 0
    while (end := value.find(b"\\", start + _CHUNK)) >= 0:
        yield value[start:end]
        start = end + 1
    yield value[start:]
