"""Doubles as BigQuery prints them.

BigQuery holds JSON numbers by nlohmann::json. Its PARSE_JSON, in the exact mode, refuses a number
that differs in value from that library's print of the double, and this is not always the shortest
decimal that reads back: of 67.174118 it is 67.17411800000001. The library prints by Grisu2
(`grisu2.py`), which leaves out the ends of what rounds to the double.

`printable` finds the doubles concerned; `encode` writes them as BigQuery does.
"""

from functools import lru_cache
from math import fma, frexp
from typing import Any

import msgspec

from dcm2bq.dicom.grisu2 import is_clear, printed


class UnevenFloat(float):
    """A double that BigQuery prints with other digits than Python."""

    __slots__ = ()


def printable(numbers: list[Any]) -> list[Any]:
    """Return a list with those doubles that BigQuery prints otherwise as `UnevenFloat`s.

    It may be the same list, changed. Integers stay.

    Most doubles pass a test that takes a few operations on doubles. Let p be a power of ten with
    all |x| p < 2^51, and m the integer nearest to x p. At most one multiple of 1/p rounds to x,
    so that if m/p does, Python prints m/p; and so does Grisu2, unless m/p lies in the last 2 of
    at least 2^8 units before the end of what rounds to x. The margin is a little more than that.
    """
    if len(numbers) < _MANY:
        return [printable_one(x) for x in numbers]
    top = max(map(abs, numbers))
    if top >= _MOST:
        numbers[:] = map(_checked, numbers)
        return numbers
    p, q = _SCALES[max(frexp(top)[1], _LEAST_SCALE)]
    for index, x in enumerate(numbers):
        # fma gives m - x p without an error: this adds m/p - x, times the margin.
        if x + fma(-x, p, (x * p + _ROUND) - _ROUND) * q != x:
            numbers[index] = _checked(x)
    return numbers


def printable_one(x: float) -> float:
    """Return the number, as an `UnevenFloat` if it is such a double."""
    if -_COMMON < x < _COMMON and (
        x + fma(-x, 1e12, (x * 1e12 + _ROUND) - _ROUND) * _COMMON_MARGIN == x
    ):
        return x  # the test of `printable`, with the power of ten that suits most numbers
    return _checked(x)


def encode(value: Any) -> bytes:
    """Return JSON text in which every number is as BigQuery prints it, in value."""
    return _encoder.encode(value)


_MOST = 2.0**51
_ROUND = 3 * _MOST
"""Adding and subtracting this rounds a double below 2^51 to an integer."""
_MARGIN = 1 + 1 / 120
_COMMON, _COMMON_MARGIN = _MOST / 1e12, _MARGIN / 1e12
_MANY = 8
"""From here on a power of ten that suits the whole list is faster."""
_LEAST_SCALE = -23
"""From here down the power would be above 10^22, the last that a double holds exactly."""
_SCALES = {
    exponent: (power, _MARGIN / power)
    for exponent in range(_LEAST_SCALE, 52)
    for power in [float(10 ** min(len(str(2 ** (51 - exponent))) - 1, 22))]
}
"""The largest power of ten whose product with numbers below 2^exponent is below 2^51."""


@lru_cache(maxsize=1024, typed=True)  # spacings and the like are repeated in frames and items
def _checked(x: float) -> float:
    """Return the number as `printable_one` does: by a power of ten of its own, or by its digits.

    A double that differs in its format alone, from 1e15 on, may become an `UnevenFloat` too.
    """
    if isinstance(x, int):
        return x
    is_short = False
    if abs(x) < _MOST:
        p, q = _SCALES[max(frexp(x)[1], _LEAST_SCALE)]
        m = (x * p + _ROUND) - _ROUND
        if x + fma(-x, p, m) * q == x:
            return x
        is_short = m / p == x
    if not is_short and is_clear(x):
        return x
    return x if printed(x) == repr(x) else UnevenFloat(x)


def _raw(value: UnevenFloat) -> msgspec.Raw:
    """Encode the one type that msgspec does not know."""
    return msgspec.Raw(printed(value).encode())


_encoder = msgspec.json.Encoder(enc_hook=_raw)
