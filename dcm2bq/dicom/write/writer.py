"""Write the elements of a data set as the JSON object of the metadata."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from dcm2bq.config import JsonOutput
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import MOST_KEYS, is_private
from dcm2bq.dicom.elements import (
    CHECK_EVERY,
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
from dcm2bq.dicom.values import (
    DECODERS,
    NUMBER_TEXT_VRS,
    NUMBER_VRS,
    BadValueError,
    Values,
)
from dcm2bq.dicom.vr import BINARY_VRS
from dcm2bq.dicom.write.formats import Json, format_of

_LUT_DESCRIPTORS = frozenset({0x00281100, 0x00281101, 0x00281102, 0x00281103, 0x00283002})
"""LUT Descriptors (PS3.3 C.11): only their second value is a pixel value, and may be signed."""
_SPECIAL = _LUT_DESCRIPTORS | {SPECIFIC_CHARACTER_SET}
_MANY_VALUES = 4096
"""Values that are written before they are paid for and the clock is checked: some milliseconds."""
_OMITTED = object()
"""What a method returns for an element that is not written."""
_SHORT = 128
"""Longest value, in bytes, that stays a Python object; longer ones become JSON text at once.

As an object a number of 2 bytes takes 40 bytes, and text with one rare character 4 per byte.
"""
_CHUNK = 8 * 1024
"""Bytes of a list of numbers that are decoded at a time; a multiple of the size of any number."""
_WIDEST = 4
"""Most bytes that a Python string needs for one byte of the value."""


class _Keys(dict[int, str | None]):
    """Tag to key in the output; None for tags that are omitted or need `Writer._write_rare`."""

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
        """Return the key of any tag; None if the options omit it."""
        options = self._options
        if (options.ignore_group_length and not tag & 0xFFFF) or (
            options.ignore_private and is_private(tag)
        ):
            return None
        return self._format.key(tag)


_keys = lru_cache(maxsize=16)(_Keys)


class _Scope(msgspec.Struct, gc=False):
    """The context of an item's elements: character set and Pixel Representation."""

    elements: Item
    outer: "_Scope | None"
    charset: Charset
    declared: bool = False
    """Whether the item has its own Specific Character Set; of two the first counts."""
    _signed: bool | None = None

    @property
    def signed(self) -> bool:
        """Whether pixel values are signed: by the nearest Pixel Representation, here or outside."""
        if self._signed is None:
            own = find(self.elements, PIXEL_REPRESENTATION)
            if own and isinstance(own.value, bytes):
                self._signed = int.from_bytes(own.value, "little") == 1
            else:
                self._signed = self.outer is not None and self.outer.signed
        return self._signed


class Writer:
    """Writes elements as JSON; values that stay in the object become references.

    `root` and `suffix` are the start and the end of BulkDataURIs, whose query begins with `query`.
    Values longer than `most_text`
    bytes stay in the object. Raises the errors of `deadline` and `memory`.
    """

    def __init__(
        self,
        options: JsonOutput,
        notes: Notes,
        *,
        most_text: int,
        root: str,
        query: str = "",
        suffix: str = "",
        deadline: Deadline = NO_DEADLINE,
        memory: Claim | None = None,
    ) -> None:
        self._format = format_of(options)
        self._most_text = most_text
        self._deadline = deadline
        self._memory = memory or unbounded()
        # Short values are written without comparing their length with `most_text`, if they may be.
        self._short = -1 if most_text < LEAST_HELD else _SHORT
        self._unpaid_values = 0
        self._keys = _keys(options)
        self._ignore_binary = options.ignore_binary
        self._notes = notes
        start = f"{root}&" if options.explicit_bulk_data_root and root else "?"
        self._prefix = start + query
        self._suffix = suffix
        self._todo: list[tuple[Item, Json, _Scope]] = []

    def write(self, data_set: Item, metadata: Json) -> None:
        """Add the elements of a data set to `metadata`, sorted by tag at every level.

        The items of sequences wait in `_todo`: nesting costs no recursion.
        """
        self._write_items(data_set, metadata, _Scope(data_set, None, DEFAULT_CHARSET))
        count = 0
        for elements, out, outer in self._todo:
            count += len(elements)
            if count >= CHECK_EVERY:
                self._deadline.check()
                count = 0
            self._write_items(elements, out, _Scope(elements, outer, outer.charset))
        self._todo = []
        self._pay()

    def key(self, tag: int) -> str | None:
        """Return the key of an element in the output; None if it is omitted."""
        return self._keys.of(tag)

    def items(self, sequence: Any) -> list[Json]:
        """Return the items of a sequence that is in the output."""
        return self._format.items(sequence)

    def refer(self, element: Element, vr: str | None = None) -> Any:
        """Return a reference to the bytes of an element."""
        self._unpaid_values += REFERENCE // VALUE
        if self._unpaid_values >= _MANY_VALUES:
            self._pay()
        uri = f"{self._prefix}offset={element.offset}&length={element.length}{self._suffix}"
        return self._format.bulk(vr or element.vr, uri)

    def _write_items(self, elements: Item, out: Json, scope: _Scope) -> None:
        """Add the elements of one item, but not those of the items in its sequences."""
        elements.sort(key=tag_of)
        if len(elements) <= CHECK_EVERY:
            self._write_some(elements, out, scope)
            return
        for start in range(0, len(elements), CHECK_EVERY):
            self._deadline.check()
            self._write_some(elements[start : start + CHECK_EVERY], out, scope)

    def _write_some(self, elements: Item, out: Json, scope: _Scope) -> None:
        """Add elements of one item, in the order of their tags.

        This is the hot loop: ordinary values are written here, all others by `_write_rare`.
        """
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
                    out[key] = self._raw(element, scope.elements, vr, bad)
            elif vr == "SQ":
                out[key] = self._sequence(value, scope)  # type: ignore[arg-type]
            else:
                self._write_rare(element, out, scope)

    def _plain(self, vr: str, values: Values) -> Any:
        self._unpaid_values += len(values)
        if self._unpaid_values >= _MANY_VALUES:
            self._pay()
        return self._format.plain(vr, values)

    def _pay(self) -> None:
        """Check the clock and charge the memory of the values written since the last time."""
        self._deadline.check()
        self._memory.charge(VALUE * self._unpaid_values)
        self._unpaid_values = 0

    def _sequence(self, items: list[Item], scope: _Scope) -> Any:
        """Return a sequence; its items are written later."""
        objects: list[Json] = []
        for item in items:
            json: Json = {}
            objects.append(json)
            if item:
                self._todo.append((item, json, scope))
        return self._format.sequence(objects)

    def _write_rare(self, element: Element, out: Json, scope: _Scope) -> None:
        """Add an element that needs more than the hot loop knows, or leave it out."""
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
            if rare is not _OMITTED:
                out[key] = rare

    def _rare(self, element: Element, scope: _Scope) -> Any:
        """Return a value that is long, binary, empty or absent, or whose VR depends on others."""
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
                values[::2] = [number & 0xFFFF for number in values[::2]]
            return self._plain(vr, values)
        except BadValueError as bad:
            return self._broken(element, scope, vr, bad)

    def _long(self, element: Element, vr: str, scope: _Scope) -> Any:
        """Return a long value as JSON text, which takes less memory than Python objects."""
        value = element.value
        assert isinstance(value, bytes)
        self._deadline.check()
        if len(value) > _CHUNK:
            if _is_list_of_numbers(vr, value):
                return self._numbers(element, vr, value, scope)
            self._memory.charge(spent := VALUE * value.count(b"\\") + _WIDEST * len(value))
            self._memory.used -= spent  # these objects are freed before the next charge
        try:
            json = self._format.plain(vr, DECODERS[vr](value, scope.charset))
        except BadValueError as bad:
            json = self._broken(element, scope, vr, bad)
        return self._packed(value, json)

    def _numbers(self, element: Element, vr: str, value: bytes, scope: _Scope) -> Any:
        """Return a long list of numbers as JSON text, decoded in chunks."""
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
                return self._broken(element, scope, vr, bad)
            parts.append(text[1:-1])
        if problem and element.was_unknown:
            return self._broken(element, scope, vr, BadValueError(problem, None))
        if problem:
            self._notes.about(element, scope.elements, problem, vr=vr)
        array = msgspec.Raw(b"[" + b",".join(parts) + b"]")
        return self._packed(value, self._format.array(vr, array))

    def _packed(self, value: bytes, json: Any) -> Any:
        """Return a written value as JSON text, and pay for the text instead of the value."""
        if json is _OMITTED:
            return json
        text = encode(json)
        self._memory.charge(len(text) - len(value))
        return msgspec.Raw(text)

    def _broken(self, element: Element, scope: _Scope, vr: str, bad: BadValueError) -> Any:
        """Return a value that breaks its VR; one that was UN stays in the object as UN."""
        if not element.was_unknown:
            return self._raw(element, scope.elements, vr, bad)
        self._notes.about(element, scope.elements, f"UN does not hold {vr}: {bad.reason}", vr="")
        return _OMITTED if self._ignore_binary else self.refer(element, "UN")

    def _raw(self, element: Element, item: Item, vr: str, bad: BadValueError) -> Any:
        """Return the raw text of a value that breaks its VR, or a reference to it."""
        self._notes.about(element, item, bad.reason, vr=vr)
        text = None if bad.values is None else self._format.broken(vr, bad.values)
        return self.refer(element, vr) if text is None else text


def _is_list_of_numbers(vr: str, value: bytes) -> bool:
    """Return whether a value is a list of numbers that can be split between them."""
    if vr in NUMBER_TEXT_VRS:
        return b"\\" in value
    return vr in NUMBER_VRS and not len(value) % 8  # 8: the longest number; any size divides it


def _chunks(vr: str, value: bytes) -> Iterator[bytes]:
    """Yield a list of numbers in parts of about `_CHUNK` bytes."""
    if vr not in NUMBER_TEXT_VRS:
        yield from (value[at : at + _CHUNK] for at in range(0, len(value), _CHUNK))
        return
    start = 0
    while (end := value.find(b"\\", start + _CHUNK)) >= 0:
        yield value[start:end]
        start = end + 1
    yield value[start:]
