"""The flat format: keyword to plain value, made for SQL."""

import base64
from typing import Any

from dcm2bq.config import JsonOutput
from dcm2bq.dicom.dictionary import KEYWORDS
from dcm2bq.dicom.values import Values
from dcm2bq.dicom.vr import BINARY_VRS


class Flat:
    """Writes elements of the flat format."""

    levels = 2
    """JSON levels that one sequence adds."""
    has_meta = True
    weight = 1

    def __init__(self, options: JsonOutput) -> None:
        self.bare = not options.use_array_with_single_value
        self._keywords = options.use_common_names

    def key(self, tag: int) -> str:
        """Return the keyword of a tag, or its eight hex digits."""
        return KEYWORDS[tag] if self._keywords else f"{tag:08X}"

    def plain(self, _vr: str, values: Values) -> Any:
        """Return values as they are: one by itself, several in an array."""
        if len(values) == 1 and self.bare:
            return values[0]
        return [] if values == [None] else values

    def values(self, _vr: str, values: Values) -> Values:
        """Return values as they stand in an array."""
        return values

    def array(self, _vr: str, array: Any) -> Any:
        """Return an array of such values."""
        return array

    def broken(self, vr: str, values: Values) -> Any:
        """Return the raw text of values that break their VR."""
        return self.plain(vr, values)

    def empty(self, _vr: str) -> Any:
        """Return what stands for an element without value."""
        return None if self.bare else []

    def sequence(self, items: list[dict[str, Any]]) -> Any:
        """Return a sequence of items that are yet to be filled."""
        return items

    def items(self, sequence: Any) -> list[dict[str, Any]]:
        """Return the items of such a sequence."""
        return list(sequence)

    def inline(self, _vr: str, value: bytes) -> Any:
        """Return a short binary value."""
        return {"InlineBinary": base64.b64encode(value).decode()}

    def bulk(self, vr: str, uri: str) -> Any:
        """Return a reference to a value that stays in the object."""
        return {"BulkDataURI": uri} if vr in BINARY_VRS else {"BulkDataURI": uri, "vr": vr}
