"""Doubles in JSON, with the digits that BigQuery prints.

BigQuery stores JSON numbers with nlohmann::json. In its exact mode PARSE_JSON refuses a number
whose value differs from what that library prints for the double, and this is not always the
shortest decimal that reads back: for 67.174118 it is 67.17411800000001. The reason is Grisu2
(`grisu2.py`), which ignores decimals near the ends of the interval that rounds to a double.

`printable` marks the doubles concerned; `encode` writes them as BigQuery does.
"""

import sys
from functools import lru_cache
from math import frexp
from typing import Any

import msgspec

from dcm2bq.dicom.grisu2 import is_clear, printed


class UnevenFloat(float):
    """A double that BigQuery prints with other digits than Python."""

    __slots__ = ()


def fma_by_parts(x: float, y: float, z: float) -> float:
    """Return x y + z, rounded once: `math.fma` for Python 3.12, where it is missing.

    Exact where this module needs it: y is an integer, |x y| < 2^51, and z is the integer nearest
    to -x y. Then no part of the product is below the least double (T. J. Dekker, "A
    Floating-Point Technique for Extending the Available Precision", 1971), and z + x y, without
    the error of the product, is exact by Sterbenz' lemma. Only the last sum is rounded.
    """
    product = x * y
    x_high = _SPLITTER * x - (_SPLITTER * x - x)
    y_high = _SPLITTER * y - (_SPLITTER * y - y)
    x_low, y_low = x - x_high, y - y_high
    error = x_low * y_low - (((product - x_high * y_high) - x_low * y_high) - x_high * y_low)
    return (z + product) + error


_SPLITTER = 2.0**27 + 1
"""Splits the 53 bits of a double into two halves, whose products are exact."""
if sys.version_info >= (3, 13):
    from math import fma
else:
    fma = fma_by_parts


def printable(numbers: list[Any]) -> list[Any]:
    """Return the list with the doubles that BigQuery prints differently as `UnevenFloat`s.

    The list may be changed in place. Integers stay as they are.

    Most doubles pass a test of a few floating-point operations. Let p be a power of ten with
    |x| p < 2^51 for all x, and m the integer nearest to x p. At most one multiple of 1/p rounds
    to x. If m/p does, Python prints m/p, and so does Grisu2, unless m/p lies in the last 2 of at
    least 2^8 units before the end of the interval that rounds to x. `_MARGIN` is a little more
    than these 2 units.
    """
    if len(numbers) < _MANY:
        return [printable_one(x) for x in numbers]
    top = max(map(abs, numbers))
    if top >= _MOST:
        numbers[:] = map(_checked, numbers)
        return numbers
    p, q = _SCALES[max(frexp(top)[1], _LEAST_SCALE)]
    for index, x in enumerate(numbers):
        # fma gives m - x p exactly. Moved by m/p - x, times the margin, x must round to itself.
        if x + fma(-x, p, (x * p + _ROUND) - _ROUND) * q != x:
            numbers[index] = _checked(x)
    return numbers


def printable_one(x: float) -> float:
    """Return the number; an `UnevenFloat` if BigQuery prints it differently."""
    if -_COMMON < x < _COMMON and (
        x + fma(-x, 1e12, (x * 1e12 + _ROUND) - _ROUND) * _COMMON_MARGIN == x
    ):
        return x  # the test of `printable`, with a power of ten that suits most numbers
    return _checked(x)


def encode(value: Any) -> bytes:
    """Return JSON text in which every number has the value that BigQuery prints.

    >>> encode(printable([67.174118, 0.5]))
    b'[67.17411800000001,0.5]'
    """
    return _encoder.encode(value)


_MOST = 2.0**51
_ROUND = 3 * _MOST
"""Adding and subtracting this rounds a double below 2^51 to the nearest integer."""
_MARGIN = 1 + 1 / 120
"""A little more than 256 / 254: see `printable`."""
_COMMON, _COMMON_MARGIN = _MOST / 1e12, _MARGIN / 1e12
_MANY = 8
"""Length from which one power of ten for the whole list is faster."""
_LEAST_SCALE = -23
"""Least exponent: below it the power would exceed 10^22, the last that a double holds exactly."""
_SCALES = {
    exponent: (power, _MARGIN / power)
    for exponent in range(_LEAST_SCALE, 52)
    for power in [float(10 ** min(len(str(2 ** (51 - exponent))) - 1, 22))]
}
"""The largest power of ten whose product with numbers below 2^exponent is below 2^51."""


@lru_cache(maxsize=1024, typed=True)  # frames and items repeat spacings and the like
def _checked(x: float) -> float:
    """Do what `printable_one` does, with the power of ten that suits x, or by printing it.

    From 1e15 on, a double that differs only in its format may become an `UnevenFloat` as well.
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
    """Encode the one type that is foreign to msgspec."""
    return msgspec.Raw(printed(value).encode())


_encoder = msgspec.json.Encoder(enc_hook=_raw)
