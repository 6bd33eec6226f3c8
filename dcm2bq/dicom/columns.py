"""Lift the attributes that have columns from the data set, whatever its JSON omits."""

import re
from collections.abc import Callable
from datetime import date
from typing import Any

from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.elements import SPECIFIC_CHARACTER_SET, Element, Item
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.values import DECODERS, NUMBER_VRS, BadValueError, has_controls
from dcm2bq.lifted import LIFTED

_MOST_BYTES = 4096
"""Longest value that is lifted. All columns together, escaped, fit between `limits.outputBytes` and
BigQuery's 10 MB a row. None of the VRs concerned allows more than about 200 characters."""
_DATE = re.compile(r"\d{8}|\d{4}\.\d{2}\.\d{2}", re.ASCII)
"""YYYYMMDD, or YYYY.MM.DD as before DICOM 3.0 (PS3.5 6.2)."""
_TIME = re.compile(
    r"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d)(\.\d{1,6})?)?)?",  # BigQuery has no second 60
    re.ASCII,
)
"""HHMMSS.FFFFFF, its last parts optional, or with colons as before DICOM 3.0 (PS3.5 6.2)."""
_PLAIN_VRS = frozenset({"AE", "CS", "DA", "LO", "PN", "SH", "TM", "UI"})
"""VRs whose values are the text as written, without the blanks around it. ASCII without control
characters (and thus escape sequences) and backslashes is the same in every character set."""
_INTEGER = re.compile(r"[+-]?\d{1,64}", re.ASCII)
_INT64 = range(-(2**63), 2**63)


def lift(data_set: Item, notes: Notes, deadline: Deadline = NO_DEADLINE) -> dict[str, str | None]:
    """Return the value of each column by keyword, in the form of BigQuery's JSON, or None.

    Integers are text: as JSON numbers they would not be exact beyond 2^53. A value that its
    column cannot hold is None, with a note. The elements must be sorted by tag.
    """
    deadline.check()
    columns: dict[str, str | None] = dict(_EMPTY)
    charset = DEFAULT_CHARSET
    last = None
    for element in data_set:
        tag = element.tag
        if tag > _LAST_TAG:
            break
        if tag not in _COLUMNS or tag == last:  # of equal tags the first counts
            continue
        last = tag
        if tag == SPECIFIC_CHARACTER_SET:
            if isinstance(element.value, bytes):
                charset, _ = parse_charset(element.value)
            continue
        value = _plain_text(element)
        if value is None:
            value = _first_value(element, charset, notes)
        if value is None or value == "":
            continue
        keyword, convert, problem = _COLUMNS[tag]
        columns[keyword] = column = convert(value)
        if problem and column is None:
            notes.add(problem, tag=tag)
    return columns


def _plain_text(element: Element) -> Any:
    """Return a value that is plain text, as nearly all are; None if it must be decoded.

    The decoder would return the same, in three times the time.
    """
    value = element.value
    if element.written not in _PLAIN_VRS or not isinstance(value, bytes):
        return None
    if not value.isascii() or len(value) > _MOST_BYTES:
        return None
    text = str(value, "ascii").rstrip(" \0")
    return text if text.isprintable() and "\\" not in text else None


def _first_value(element: Element, charset: Charset, notes: Notes) -> Any:
    """Return the first value of an element; None if it is empty or cannot be lifted."""
    tag, vr, offset, value = element.tag, element.written, element.offset, element.value
    if value == b"":
        return None
    decode = DECODERS.get(element.vr)
    if decode is None or not isinstance(value, bytes) or len(value) > _MOST_BYTES:
        notes.add("not lifted into its column", tag=tag, vr=vr, offset=offset)
        return None
    try:
        values = decode(value, charset)
    except BadValueError as bad:
        # As in the metadata, where broken numbers and broken UN values are references, not text.
        refused = element.was_unknown or vr in NUMBER_VRS or has_controls(value)
        if refused or bad.values is None:
            notes.add("not lifted into its column", tag=tag, vr=vr, offset=offset)
            return None
        values = bad.values
    if len(values) > 1:
        notes.add(f"the first of {len(values)} values is lifted", tag=tag, vr=vr, offset=offset)
    return values[0]


def _text(value: Any) -> str | None:
    return str(value).strip(" ") or None


def iso_date(value: Any) -> str | None:
    """Return a DA value as YYYY-MM-DD; None if it is not a date (PS3.5 6.2).

    >>> iso_date("20240229"), iso_date("2024.02.29"), iso_date("20230229")
    ('2024-02-29', '2024-02-29', None)
    """
    text = str(value).strip(" ")
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text.replace(".", "")).isoformat()
    except ValueError:
        return None


def iso_time(value: Any) -> str | None:
    """Return a TM value as HH:MM:SS.FFFFFF, missing minutes and seconds as zeros (PS3.5 6.2).

    None if it is not a time.

    >>> iso_time("0930"), iso_time("09:30:15.25"), iso_time("2500")
    ('09:30:00', '09:30:15.25', None)
    """
    match = _TIME.fullmatch(str(value).strip(" "))
    if not match:
        return None
    hour, _, minute, second, fraction = match.groups(default="")
    return f"{hour}:{minute or '00'}:{second or '00'}{fraction}"


def _integer(value: Any) -> str | None:
    text = str(value).strip(" ")
    if not _INTEGER.fullmatch(text) or int(text) not in _INT64:
        return None
    return str(int(text))


type _Column = tuple[str, Callable[[Any], str | None], str]
"""Keyword, conversion of the value, and the note for a value that the column cannot hold."""

_CONVERSIONS: dict[str, tuple[Callable[[Any], str | None], str]] = {
    "STRING": (_text, ""),
    "DATE": (iso_date, "not a date that a column can hold"),
    "TIME": (iso_time, "not a time that a column can hold"),
    "INTEGER": (_integer, "not an integer that a column can hold"),
}
_COLUMNS: dict[int, _Column] = {
    column.tag: (column.keyword, *_CONVERSIONS[column.type]) for column in LIFTED
}
_COLUMNS[SPECIFIC_CHARACTER_SET] = ("", _text, "")
_LAST_TAG = max(_COLUMNS)
_EMPTY = dict.fromkeys((column.keyword for column in LIFTED), None)
