"""The types of columns that hold attributes: one rule for each, in SQL and in Python.

A value that breaks its VR, and one that its type cannot hold, is NULL.
"""

import re
from contextlib import suppress
from datetime import date, datetime, time
from enum import StrEnum
from typing import Any

from dcm2bq.dicom.columns import iso_date, iso_time

_INTEGER = "[-+]?[0-9]+"
_NUMBER = "[-+]?(?:[0-9]{1,99}[.]?[0-9]{0,99}|[.][0-9]{1,99})(?:[eE][-+]?[0-9]{1,2})?"
"""Unlike FLOAT64, this excludes NaN, and infinity, as which FLOAT64 also reads 1e999."""
_DATE = "[0-9]{4}(?:[0-9]{4}|[.][0-9]{2}[.][0-9]{2})"
_HOUR, _SIXTY, _FRACTION = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]", "[.][0-9]{1,6}"
_TIME = f"{_HOUR}(?:{_SIXTY}(?:{_SIXTY}(?:{_FRACTION})?)?|:{_SIXTY}(?::{_SIXTY}(?:{_FRACTION})?)?)?"
_MOMENT = f"([0-9]{{8}}(?:{_HOUR}(?:{_SIXTY}(?:{_SIXTY}(?:{_FRACTION})?)?)?)?)(?:[-+][0-9]{{4}})?"
_INT64 = range(-(2**63), 2**63)


class ColumnType(StrEnum):
    """The types, by BigQuery's names."""

    STRING = "STRING"
    INT64 = "INT64"
    FLOAT64 = "FLOAT64"
    DATE = "DATE"
    TIME = "TIME"
    DATETIME = "DATETIME"

    @property
    def resource_name(self) -> str:
        """The name in resources of BigQuery's REST API."""
        return {"INT64": "INTEGER", "FLOAT64": "FLOAT"}.get(self, str(self))


_OF_VR = {
    **dict.fromkeys(("DS", "FL", "FD"), ColumnType.FLOAT64),
    **dict.fromkeys(("IS", "US", "SS", "UL", "SL", "UV", "SV"), ColumnType.INT64),
    "DA": ColumnType.DATE,
    "TM": ColumnType.TIME,
    "DT": ColumnType.DATETIME,
}


def type_of_vr(vr: str) -> ColumnType:
    """Return the type that suits a VR; of `US or SS`, the first counts.

    >>> [type_of_vr(vr).value for vr in ("DS", "US or SS", "DT", "PN", "UN")]
    ['FLOAT64', 'INT64', 'DATETIME', 'STRING', 'STRING']
    """
    return _OF_VR.get(vr[:2], ColumnType.STRING)


def cast(kind: ColumnType, text: str) -> str:
    """Return SQL for a value of a type, on several lines; `text` is the name of a text column."""
    match kind:
        case ColumnType.INT64:
            return f"SAFE_CAST(REGEXP_EXTRACT({text}, '^{_INTEGER}$') AS INT64)"
        case ColumnType.FLOAT64:
            return _safe_cast(_call("REGEXP_EXTRACT", text, f"'^{_NUMBER}$'"), kind)
        case ColumnType.DATE:
            day = _call("REGEXP_EXTRACT", text, f"'^{_DATE}$'")
            return _safe_cast(_replace(day, ("^(.{4})[.]?(..)[.]?(..)$", r"\\1-\\2-\\3")), kind)
        case ColumnType.TIME:
            written = _call("REGEXP_EXTRACT", text, f"'^{_TIME}$'")
            parts = ("^(..):?([0-9]{2})?:?([0-9]{2})?(.*)$", r"\\1:\\2:\\3\\4")
            return _safe_cast(_replace(written, parts, *_ZEROS), kind)
        case ColumnType.DATETIME:
            written = _call("REGEXP_EXTRACT", text, f"'^{_MOMENT}$'")
            pattern = "^(....)(..)(..)([0-9]{2})?([0-9]{2})?([0-9]{2})?(.*)$"
            parts = (pattern, r"\\1-\\2-\\3 \\4:\\5:\\6\\7")
            return _safe_cast(_replace(written, parts, (" :", " 00:"), *_ZEROS), kind)
    return text


_ZEROS = (("::$", ":00:"), (":$", ":00"))
"""What the missing minutes and seconds of a time are replaced by."""


def _safe_cast(text: str, kind: ColumnType) -> str:
    return f"SAFE_CAST(\n{indented(text)} AS {kind}\n)"


def _replace(text: str, *replacements: tuple[str, str]) -> str:
    for pattern, replacement in replacements:
        text = _call("REGEXP_REPLACE", text, f"'{pattern}', '{replacement}'")
    return text


def _call(function: str, *arguments: str) -> str:
    return f"{function}(\n{indented(',\n'.join(arguments))}\n)"


def indented(text: str, by: int = 2) -> str:
    """Return lines of SQL, each further to the right."""
    return "\n".join(" " * by + line for line in text.split("\n"))


def typed(kind: ColumnType, value: Any, *, is_value: bool) -> Any:
    r"""Return a value of a header in the format `flat` as a value of a type, as `cast` does.

    Several values of text are joined by a backslash, as in DICOM, unless one of them was chosen
    (`is_value`); of several numbers, dates or times, the first is taken.

    >>> typed(ColumnType.STRING, ["ORIGINAL", None, "AXIAL"], is_value=False)
    'ORIGINAL\\\\AXIAL'
    >>> typed(ColumnType.FLOAT64, [0.5, 0.7], is_value=False)
    0.5
    """
    if isinstance(value, list):
        if is_value:
            return None
        if kind is ColumnType.STRING:
            return "\\".join("" if each is None else str(each) for each in value)
        value = value[0] if value else None
    if value is None or isinstance(value, dict | list):
        return None
    return _parse(kind, str(value))


def _parse(kind: ColumnType, text: str) -> Any:
    value: Any = None
    with suppress(ValueError):  # such as the day 20230230
        match kind:
            case ColumnType.STRING:
                value = text
            case ColumnType.INT64 if re.fullmatch(_INTEGER, text) and int(text) in _INT64:
                value = int(text)
            case ColumnType.FLOAT64 if re.fullmatch(_NUMBER, text):
                value = float(text)
            case ColumnType.DATE if day := iso_date(text):
                value = date.fromisoformat(day)
            case ColumnType.TIME if clock := iso_time(text):
                value = time.fromisoformat(clock)
            case ColumnType.DATETIME if moment := re.fullmatch(_MOMENT, text):
                day, clock = iso_date(moment[1][:8]), iso_time(moment[1][8:] or "00")
                value = datetime.fromisoformat(f"{day}T{clock}")
    return value
