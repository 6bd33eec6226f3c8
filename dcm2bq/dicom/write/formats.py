"""The two formats of the metadata: `flat` and the DICOM JSON Model (PS3.18 Annex F)."""

import base64
from typing import Any, Protocol

from dcm2bq.config import JsonOutput
from dcm2bq.dicom.dictionary import KEYWORDS
from dcm2bq.dicom.values import NUMBER_VRS, BadValueError, Values
from dcm2bq.dicom.vr import BINARY_VRS

type Json = dict[str, Any]
"""The elements of a data set or of an item, in the output."""

_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class Format(Protocol):
    """How elements are represented in JSON."""

    levels: int
    """JSON levels that one sequence adds."""
    has_meta: bool
    """Whether the File Meta Information is part of the output."""
    weight: int
    """Memory of the elements in JSON, as a multiple of their memory as read (measured)."""
    bare: bool
    """Whether `plain` returns a single value unchanged.

    The writer then skips the call: `plain` would return the same, but the call would be made for
    nearly every element.
    """

    def key(self, tag: int, /) -> str:
        """Return the key of an element."""

    def plain(self, vr: str, values: Values, /) -> Any:
        """Return an element with values; raise `BadValueError` for one that JSON cannot hold."""

    def values(self, vr: str, values: Values, /) -> Values:
        """Return values as members of an array; raise `BadValueError` as `plain` does."""

    def array(self, vr: str, array: Any, /) -> Any:
        """Return an element with an array of such values, which may be JSON text already."""

    def broken(self, vr: str, values: Values, /) -> Any:
        """Return an element with the raw text of values that break their VR; None if impossible."""

    def empty(self, vr: str, /) -> Any:
        """Return an element without a value."""

    def sequence(self, items: list[Json], /) -> Any:
        """Return a sequence of items, which the writer fills later."""

    def items(self, sequence: Any, /) -> list[Json]:
        """Return the items of a sequence that `sequence` returned."""

    def inline(self, vr: str, value: bytes, /) -> Any:
        """Return an element with a short binary value."""

    def bulk(self, vr: str, uri: str, /) -> Any:
        """Return an element with a reference to a value that stays in the object."""


class Flat:
    """Keyword to plain value, made for SQL."""

    levels = 2
    has_meta = True
    weight = 1

    def __init__(self, options: JsonOutput) -> None:
        self.bare = not options.use_array_with_single_value
        self._keywords = options.use_common_names

    def key(self, tag: int) -> str:
        """Return the keyword of a tag, or its eight hex digits."""
        return KEYWORDS[tag] if self._keywords else f"{tag:08X}"

    def plain(self, _vr: str, values: Values) -> Any:
        """Return a single value as a scalar, several as an array."""
        if len(values) == 1 and self.bare:
            return values[0]
        return [] if values == [None] else values

    def values(self, _vr: str, values: Values) -> Values:
        """Return the values unchanged."""
        return values

    def array(self, _vr: str, array: Any) -> Any:
        """Return the array unchanged."""
        return array

    def broken(self, vr: str, values: Values) -> Any:
        """Return the raw text like any other value."""
        return self.plain(vr, values)

    def empty(self, _vr: str) -> Any:
        """Return null, or an empty array."""
        return None if self.bare else []

    def sequence(self, items: list[Json]) -> Any:
        """Return the array of items."""
        return items

    def items(self, sequence: Any) -> list[Json]:
        """Return the array of items."""
        return list(sequence)

    def inline(self, _vr: str, value: bytes) -> Any:
        """Return an object with an InlineBinary."""
        return {"InlineBinary": base64.b64encode(value).decode()}

    def bulk(self, vr: str, uri: str) -> Any:
        """Return an object with a BulkDataURI, and the VR if the value is not binary."""
        return {"BulkDataURI": uri} if vr in BINARY_VRS else {"BulkDataURI": uri, "vr": vr}


class DicomJson:
    """The DICOM JSON Model."""

    levels = 3
    has_meta = False
    """The File Meta Information is not part of a data set."""
    bare = False
    weight = 2

    def key(self, tag: int) -> str:
        """Return the eight hex digits of a tag (PS3.18 F.2.2)."""
        return f"{tag:08X}"

    def plain(self, vr: str, values: Values) -> Any:
        """Return an attribute object with a Value, or without one if it is empty."""
        if values == [None]:
            return {"vr": vr}
        return {"vr": vr, "Value": self.values(vr, values)}

    def values(self, vr: str, values: Values) -> Values:
        """Return names as objects, others unchanged; raise `BadValueError` for NaN and infinity."""
        if vr == "PN":
            return [value and _name(value) for value in values]
        if vr in {"FL", "FD"} and any(isinstance(value, str) for value in values):
            raise BadValueError("a number is not finite", None)
        return values

    def array(self, vr: str, array: Any) -> Any:
        """Return an attribute object with an array as its Value."""
        return {"vr": vr, "Value": array}

    def broken(self, vr: str, values: Values) -> Any:
        """Return the raw text like any other value; None for numbers, which cannot be text."""
        return None if vr in NUMBER_VRS else self.plain(vr, values)

    def empty(self, vr: str) -> Any:
        """Return an attribute object without Value."""
        return {"vr": vr}

    def sequence(self, items: list[Json]) -> Any:
        """Return an attribute object with the items as its Value."""
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def items(self, sequence: Any) -> list[Json]:
        """Return the Value."""
        return list(sequence.get("Value", []))

    def inline(self, vr: str, value: bytes) -> Any:
        """Return an attribute object with an InlineBinary."""
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}

    def bulk(self, vr: str, uri: str) -> Any:
        """Return an attribute object with a BulkDataURI."""
        return {"vr": vr, "BulkDataURI": uri}


def format_of(options: JsonOutput) -> Format:
    """Return the format that the options specify."""
    return Flat(options) if options.format == "flat" else DicomJson()


def _name(value: str) -> dict[str, str]:
    """Return the component groups of a person name that are not empty (PS3.18 F.2.2)."""
    groups = value.split("=", 2)
    return {name: group for name, group in zip(_NAME_GROUPS, groups, strict=False) if group}
