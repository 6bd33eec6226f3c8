"""The DICOM JSON Model (PS3.18 Annex F)."""

import base64
from typing import Any

from dcm2bq.dicom.values import NUMBER_VRS, BadValueError, Values

_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class Model:
    """Writes elements of the DICOM JSON Model."""

    levels = 3
    """JSON levels that one sequence adds."""
    has_meta = False
    """File Meta Information is no part of a data set."""
    bare = False
    weight = 2

    def key(self, tag: int) -> str:
        """Return the eight hex digits of a tag."""
        return f"{tag:08X}"

    def plain(self, vr: str, values: Values) -> Any:
        """Return an attribute with values; NaN and infinities are beyond JSON's numbers."""
        if values == [None]:
            return {"vr": vr}
        return {"vr": vr, "Value": self.values(vr, values)}

    def values(self, vr: str, values: Values) -> Values:
        """Return values as they stand in an array."""
        if vr == "PN":
            return [value and _name(value) for value in values]
        if vr in {"FL", "FD"} and any(isinstance(value, str) for value in values):
            raise BadValueError("a number is not finite", None)
        return values

    def array(self, vr: str, array: Any) -> Any:
        """Return an attribute with an array of such values."""
        return {"vr": vr, "Value": array}

    def broken(self, vr: str, values: Values) -> Any:
        """Return the raw text of values that break their VR; numbers cannot be text."""
        return None if vr in NUMBER_VRS else self.plain(vr, values)

    def empty(self, vr: str) -> Any:
        """Return an attribute without value."""
        return {"vr": vr}

    def sequence(self, items: list[dict[str, Any]]) -> Any:
        """Return a sequence of items that are yet to be filled."""
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def items(self, sequence: Any) -> list[dict[str, Any]]:
        """Return the items of such a sequence."""
        return list(sequence.get("Value", []))

    def inline(self, vr: str, value: bytes) -> Any:
        """Return a short binary value."""
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}

    def bulk(self, vr: str, uri: str) -> Any:
        """Return a reference to a value that stays in the object."""
        return {"vr": vr, "BulkDataURI": uri}


def _name(value: str) -> dict[str, str]:
    """Return the component groups of a person name that are not empty (PS3.18 F.2.2)."""
    groups = value.split("=", 2)
    return {name: group for name, group in zip(_NAME_GROUPS, groups, strict=False) if group}
