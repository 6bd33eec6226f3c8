"""Decode value fields to plain JSON values, by Value Representation (PS3.5 6.2).

A decoder takes a value field, which is little endian and not empty, and the character sets in
force. It returns the list of values, with None for empty ones. For a value that breaks the
rules of its VR it raises `BadValueError`, which holds the text to keep instead.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from math import inf, isfinite, isnan
from struct import Struct, unpack
from typing import Any

from dcm2bq.dicom.charset import (
    LINE_DELIMITERS,
    NAME_DELIMITERS,
    VALUE_DELIMITERS,
    Charset,
    UndecodableTextError,
)
from dcm2bq.dicom.numbers import printable, printable_one

type Values = list[Any]
type Strip = Callable[[str], str]
type Plain = Callable[[bytes], Values | None]
type Decoder = Callable[[bytes, Charset], Values]

NUMBER_VRS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
"""VRs whose values are binary numbers."""
_CONTROLS = re.compile(rb"[\x01-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
"""Characters that no text may contain (PS3.5 6.1.3). The decoders themselves check for NUL."""
_LINE_CONTROLS = re.compile(rb"[\0-\x1a\x1c-\x1f\x7f]")
"""Characters that no single-line text may contain. ESC is allowed: it switches character sets."""

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_INTEGER_CHARACTERS = b"0123456789-\\ "
_DECIMAL_CHARACTERS = _INTEGER_CHARACTERS + b"."
_NUMBER = re.compile(r"[+-]?(?:\d+|(?=\.\d))(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_INT64 = range(-(2**63), 2**63)
_MOST_CHARACTERS = 64
"""Longest text that is parsed as a number: PS3.5 6.2 allows 16 characters, and longer ones occur.
It bounds the time for a number."""
_MOST_PLAIN = 16
"""Longest plain number: with its point it has 15 digits, all of which a double keeps."""
_SHORT = 5
"""Longest number that BigQuery always prints unchanged: one of up to 4 decimals (all were tried).
It does not print 0.01207 so."""
_POINT = ord(".")
_UID_CHARACTERS = b"0123456789."
_UID = re.compile(r"[0-9.]*")
_EXACT_SINGLE = 2.0**24
"""Below this, an integer in single precision is its own shortest text."""
_LEAST_NORMAL_SINGLE = 2.0**-126
"""From here on, single precision keeps every decimal of 6 digits."""
_SINGLE = Struct("<f")
_DOUBLE = Struct("<d")


class BadValueError(Exception):
    """A value breaks the rules of its VR; `values` is its raw text, or None if it is not text."""

    def __init__(self, reason: str, values: Values | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.values = values


def _strip(value: str) -> str:
    return value.strip(" \0")


def _strip_end(value: str) -> str:
    return value.rstrip(" \0")


def _split(text: str, strip: Strip) -> Values:
    """Return the values of a text, which backslashes separate."""
    if "\\" in text:
        return [strip(part) or None for part in text.split("\\")]
    return [strip(text) or None]


def _checked(values: Values, problem: str) -> Values:
    """Return the values; raise `BadValueError` for a `problem` or for a NUL within a value."""
    if any(value is not None and "\0" in value for value in values):
        values = [value and value.replace("\0", "\ufffd") for value in values]
        problem = problem or "NUL within the text"
    if problem:
        raise BadValueError(problem, values)
    return values


def _texts(delimiters: re.Pattern[bytes], strip: Strip) -> Decoder:
    """Return a decoder of texts in the declared character sets, separated by backslashes."""

    def decode(value: bytes, charset: Charset) -> Values:
        try:
            text = charset.decode(value, delimiters)
        except UndecodableTextError as error:
            return _checked(_split(error.text, strip), str(error))
        values = _split(text, strip)
        return _checked(values, "") if "\0" in text else values

    return decode


def _single_text(value: bytes, charset: Charset) -> Values:
    """Decode text that is always one value: backslashes are part of it."""
    try:
        text, problem = charset.decode(value, LINE_DELIMITERS), ""
    except UndecodableTextError as error:
        text, problem = error.text, str(error)
    return _checked([_strip_end(text) or None], problem)


def _ascii(value: bytes, charset: Charset) -> tuple[str, str]:
    """Return text of the default repertoire (PS3.5 6.1.1), and what is wrong with it."""
    try:
        return str(value, "ascii"), ""
    except UnicodeDecodeError:
        problem = "text beyond the default repertoire"
    try:
        return charset.decode(value), problem
    except UndecodableTextError as error:
        return error.text, problem


def _ascii_texts(strip: Strip, *, allowed: bytes, problem: str) -> Decoder:
    """Return a decoder of texts that consist of `allowed` characters, separated by backslashes."""

    def decode(value: bytes, charset: Charset) -> Values:
        if not value.translate(None, allowed):
            text = str(value.rstrip(b" \0"), "ascii")
            values = _split(text, strip)
            return _checked(values, "") if "\0" in text else values
        text, not_ascii = _ascii(value, charset)
        return _checked(_split(text, strip), not_ascii or problem)

    return decode


def _formatted(pattern: str, problem: str) -> Decoder:
    """Return a decoder of texts in a fixed format."""
    matches = re.compile(pattern, re.ASCII).fullmatch

    def decode(value: bytes, charset: Charset) -> Values:
        text, not_ascii = _ascii(value, charset)
        values = _split(text, _strip_end)
        for part in values:
            if part is not None and not matches(part):
                return _checked(values, not_ascii or problem)
        return values

    return decode


def _uids(value: bytes, charset: Charset) -> Values:
    """Decode UIDs. Blanks around a UID are stripped; a leading one is a problem all the same."""
    stripped = value.rstrip(b" \0")
    if not stripped.translate(None, _UID_CHARACTERS):
        return [str(stripped, "ascii") or None]
    text, problem = _ascii(value, charset)
    values = _split(text, _strip)
    if not all(_UID.fullmatch(_strip_end(part)) for part in text.split("\\")):
        problem = problem or "not a UID"
    return _checked(values, problem)


def _uri(value: bytes, charset: Charset) -> Values:
    text, problem = _ascii(value, charset)
    return _checked([_strip_end(text) or None], problem)


def _number_texts(
    plain: Plain, number: Callable[[str], int | float | None], problem: str
) -> Decoder:
    """Return a decoder of numbers written as text; a part that is not a number stays text.

    `number` reads every part. `plain` only saves time: it reads the most common ones.
    """

    def decode(value: bytes, charset: Charset) -> Values:
        numbers = plain(value)
        if numbers is not None:
            return numbers
        values: Values = []
        first_problem = ""
        for part in value.split(b"\\"):
            numbers = plain(part)
            if numbers is not None:
                values += numbers
                continue
            text, not_ascii = _ascii(part.strip(b" \0"), charset)
            parsed = number(text)
            if parsed is None and text:
                first_problem = first_problem or not_ascii or problem
                values.append(text.replace("\0", "\ufffd"))
            else:
                values.append(parsed)
        if first_problem:
            raise BadValueError(first_problem, values)
        return values

    return decode


def _plain_integers(value: bytes) -> Values | None:
    """Return short integers; None if one of them is not plain."""
    if value.translate(None, _INTEGER_CHARACTERS):
        return None
    parts = value.split(b"\\")
    if len(value) > _MOST_PLAIN and max(map(len, parts)) > _MOST_PLAIN:
        return None
    try:
        return [int(part) for part in parts]
    except ValueError:  # empty, or a sign or a space within
        return None


def _plain_decimals(value: bytes) -> Values | None:
    """Return short decimals without exponents; None if one of them is not plain."""
    if value.translate(None, _DECIMAL_CHARACTERS):
        return None
    parts = value.split(b"\\")
    longest = len(value) if len(parts) == 1 else max(map(len, parts))
    if longest > _MOST_PLAIN:
        return None
    numbers: Values
    try:
        if longest > _SHORT and value.count(_POINT) == len(parts):
            numbers = list(map(float, parts))  # a part with two points raises
        else:
            numbers = [float(part) if _POINT in part else int(part) for part in parts]
    except ValueError:  # empty, or a sign or a space within
        return None
    if longest <= _SHORT:
        return numbers
    return [printable_one(*numbers)] if len(numbers) == 1 else printable(numbers)


def _integer(text: str) -> int | None:
    """Return an integer; None if the text is not one or needs more than 64 bits."""
    if len(text) > _MOST_CHARACTERS or not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if value in _INT64 else None


def _decimal(text: str) -> int | float | None:
    """Return a number; None if the text is not one, or JSON would lose a digit of it."""
    if len(text) > _MOST_CHARACTERS or not (match := _NUMBER.fullmatch(text)):
        return None
    fraction, exponent = match.groups()
    if fraction is None and exponent is None:
        return _integer(text)
    value = float(text)
    try:
        exact = repr(value) == text or (isfinite(value) and Decimal(text) == Decimal(repr(value)))
    except InvalidOperation:  # an exponent beyond what Decimal accepts
        return None
    return printable_one(value) if exact else None


def _numbers(code: str) -> Decoder:
    """Return a decoder of binary numbers."""
    one = Struct(f"<{code}")

    def decode(value: bytes, _: Charset) -> Values:
        if len(value) == one.size:
            return list(one.unpack(value))
        return list(unpack(f"<{_count(value, one.size)}{code}", value))

    return decode


def _count(value: bytes, size: int) -> int:
    """Return how many numbers of `size` bytes a value has; raise `BadValueError` for a rest."""
    count, rest = divmod(len(value), size)
    if rest:
        raise BadValueError(
            f"{len(value)} bytes are not a multiple of {size}", _printable(value.rstrip(b" \0"))
        )
    return count


def _printable(value: bytes) -> Values | None:
    text = str(value, "latin_1")
    return [text] if text and is_printable(value) else None


def has_controls(value: bytes) -> bool:
    """Return whether a value contains control characters; NULs around it are padding."""
    return bool(_LINE_CONTROLS.search(value.strip(b" \0")))


def is_printable(value: bytes) -> bool:
    """Return whether a value is ASCII text without control characters."""
    return value.isascii() and str(value, "ascii").isprintable()


def is_text(vr: str, value: bytes, charset: Charset) -> bool:
    """Return whether a value is really text, given that its VR is one of text.

    It is if it obeys its VR or is printable. Encoded elements, for instance, are not.
    """
    if is_printable(value):
        return True
    if _CONTROLS.search(value):
        return False
    try:
        DECODERS[vr](value, charset)
    except BadValueError:
        return is_printable(value.rstrip(b" \0"))
    return True


def _doubles(value: bytes, _: Charset) -> Values:
    if len(value) == _DOUBLE.size:
        return [_finite(*_DOUBLE.unpack(value))]
    values = list(unpack(f"<{_count(value, 8)}d", value))
    return printable(values) if all(map(isfinite, values)) else [_finite(value) for value in values]


def _singles(value: bytes, _: Charset) -> Values:
    if len(value) == _SINGLE.size:
        return [_shortest_single(*_SINGLE.unpack(value))]
    return [_shortest_single(number) for number in unpack(f"<{_count(value, 4)}f", value)]


def _finite(value: float) -> float | str:
    if isfinite(value):
        return printable_one(value)
    return "NaN" if isnan(value) else "Infinity" if value == inf else "-Infinity"


def _shortest_single(value: float) -> float | str:
    """Return the shortest decimal that reads back as the same single-precision number."""
    if value.is_integer() and -_EXACT_SINGLE < value < _EXACT_SINGLE:
        return value
    if not isfinite(value):
        return _finite(value)
    for digits in range(6 if abs(value) >= _LEAST_NORMAL_SINGLE else 1, 10):
        short = float(f"{value:.{digits}g}")
        if _SINGLE.unpack(_SINGLE.pack(short))[0] == value:
            break
    return printable_one(short)


def _tags(value: bytes, _: Charset) -> Values:
    halves = unpack(f"<{2 * _count(value, 4)}H", value)
    return [
        f"{group:04X}{element:04X}"
        for group, element in zip(halves[::2], halves[1::2], strict=True)
    ]


# By PS3.5 6.2; second 60 is a leap second.
_TIME = r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"
_DATE = r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_DATE_TIME = rf"\d{{4}}((0[1-9]|1[0-2])((0[1-9]|[12]\d|3[01])({_TIME})?)?)?([+-][01]\d[0-5]\d)?"

_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\0"
_CODE_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ \\\0"

DECODERS: dict[str, Decoder] = {
    "AE": _ascii_texts(_strip, allowed=_PRINTABLE, problem="control characters"),
    "AS": _formatted(r"\d{3}[DWMY]", "not an age"),
    "AT": _tags,
    "CS": _ascii_texts(
        _strip, allowed=_CODE_CHARACTERS, problem="characters beyond A-Z, 0-9, space, underscore"
    ),
    "DA": _formatted(_DATE, "not a date"),
    "DS": _number_texts(_plain_decimals, _decimal, "not a decimal number that JSON can hold"),
    "DT": _formatted(_DATE_TIME, "not a date and time"),
    "FD": _doubles,
    "FL": _singles,
    "IS": _number_texts(_plain_integers, _integer, "not an integer"),
    "LO": _texts(VALUE_DELIMITERS, _strip),
    "LT": _single_text,
    "PN": _texts(NAME_DELIMITERS, _strip),
    "SH": _texts(VALUE_DELIMITERS, _strip),
    "SL": _numbers("l"),
    "SS": _numbers("h"),
    "ST": _single_text,
    "SV": _numbers("q"),
    "TM": _formatted(_TIME, "not a time"),
    "UC": _texts(VALUE_DELIMITERS, _strip_end),
    "UI": _uids,
    "UL": _numbers("L"),
    "UR": _uri,
    "US": _numbers("H"),
    "UT": _single_text,
    "UV": _numbers("Q"),
}

TEXT_VRS = frozenset(DECODERS) - NUMBER_VRS
"""VRs whose values are text, including numbers and dates written as text."""
NUMBER_TEXT_VRS = frozenset({"DS", "IS"})
