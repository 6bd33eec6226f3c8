"""Doubles as BigQuery prints them.

BigQuery holds JSON numbers by nlohmann::json. Its PARSE_JSON, in the exact mode, refuses a number
that differs in value from that library's print of the double, and this is not always the shortest
decimal that reads back: of 67.174118 it is 67.17411800000001. The library prints by Grisu2
(F. Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers", 2010), which
works with 64 bits and leaves out the ends of what rounds to the double.

`printable` finds the doubles concerned; `encode` writes them as BigQuery does.
"""

from functools import cache
from math import copysign, fma, frexp
from typing import Any

import msgspec


class UnevenFloat(float):
    """A double that BigQuery prints with other digits than Python."""

    __slots__ = ()


def printable(numbers: list[Any]) -> list[Any]:
    """Replace the doubles of a list that BigQuery prints otherwise by `UnevenFloat`s.

    Integers in the list stay. Most doubles are passed by a test in doubles alone: let p be
    a power of ten with all |x| p < 2^51, and m the integer nearest to x p. At most one multiple
    of 1/p rounds to x, so that if m/p does, Python prints m/p, and Grisu2 does too unless m/p
    lies where it does not look: in the last 2 of at least 2^8 units before the end of what
    rounds to x. The margin is twice that.
    """
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
        x + fma(-x, 1e12, (x * 1e12 + _ROUND) - _ROUND) * (_MARGIN / 1e12) == x
    ):
        return x  # the test of `printable`, with the power of ten that suits most numbers
    return _checked(x)


def encode(value: Any) -> bytes:
    """Return JSON text in which every number is as BigQuery prints it, in value."""
    return _encoder.encode(value)


def printed(x: float) -> str:
    """Return a finite double as nlohmann::json prints it."""
    sign = "-" if copysign(1, x) < 0 else ""
    return sign + _formatted(*_grisu2(abs(x)) if x else (0, 0))


_MOST = 2.0**51
_ROUND = 3 * _MOST
"""Adding and subtracting this rounds a double below 2^51 to an integer."""
_COMMON = _MOST / 1e12
_MARGIN = 1 + 1 / 64
_LEAST_SCALE = -23
"""From here down the power would be above 10^22, the last that a double holds exactly."""
_SCALES = {
    exponent: (power, _MARGIN / power)
    for exponent in range(_LEAST_SCALE, 52)
    for power in [float(10 ** min(len(str(2 ** (51 - exponent))) - 1, 22))]
}
"""The largest power of ten whose product with numbers below 2^exponent is below 2^51."""


def _checked(x: float) -> float:
    """Return the number as `printable_one` does, by a power of ten of its own, or by printing it.

    A double that differs in its format alone, from 1e15 on, becomes an `UnevenFloat` too.
    """
    if isinstance(x, int):
        return x
    if abs(x) < _MOST:
        p, q = _SCALES[max(frexp(x)[1], _LEAST_SCALE)]
        if x + fma(-x, p, (x * p + _ROUND) - _ROUND) * q == x:
            return x
    return x if printed(x) == repr(x) else UnevenFloat(x)


def _raw(value: UnevenFloat) -> msgspec.Raw:
    """Encode the one type that msgspec does not know."""
    return msgspec.Raw(printed(value).encode())


_encoder = msgspec.json.Encoder(enc_hook=_raw)


def _grisu2(x: float) -> tuple[int, int]:
    """Return digits and decimal exponent of a positive double, by Grisu2 as in nlohmann::json.

    The double, and the ends of what rounds to it, are scaled by a power of ten to integers of 64
    bits, of which the last ones stand after the decimal point. Of all decimals between `lower`
    and `upper` the result has the fewest digits; of those with so few it is nearest to x, as far
    as 64 bits tell.
    """
    mantissa, exponent = frexp(x)
    power, half, decimals, fraction = _scaling(exponent)
    scaled = int(mantissa * _2_64) * power + _HALF
    # Below a power of two doubles lie twice as densely, but among the least ones.
    below = half if mantissa != 0.5 or exponent <= _LEAST_NORMAL else half >> 1  # noqa: PLR2004
    upper = (scaled + half >> 64) - 1
    room = upper - (scaled - below >> 64) - 1
    distance = upper - (scaled >> 64)
    mask = (1 << fraction) - 1
    if upper & mask <= room:  # what is left after some digit before the point
        count = 0
        while upper % (_TENS[count + 1] << fraction) <= room:
            count += 1
        unit = _TENS[count] << fraction
        decimals += count
    else:
        count = _most_digits(fraction - room.bit_length())
        while count > 1 and upper * _TENS[count - 1] & mask <= room * _TENS[count - 1]:
            count -= 1
        ten, unit = _TENS[count], mask + 1
        upper, room, distance = upper * ten, room * ten, distance * ten
        decimals -= count
    digits, rest = divmod(upper, unit)
    if rest < distance:  # step down from upper, as long as that comes nearer to x
        steps, left = divmod(distance - rest, unit)
        digits -= min(steps + (left > unit - left), (room - rest) // unit)
    return digits, decimals


_2_64 = 2.0**64
_HALF = 1 << 63
_LEAST_NORMAL = -1021
_TENS = [10**n for n in range(20)]


@cache
def _most_digits(bits: int) -> int:
    """Return how many decimal digits always tell numbers apart that have so many bits."""
    return len(str(2 << bits))


@cache
def _scaling(exponent: int) -> tuple[int, int, int, int]:
    """Return what scales doubles of a binary exponent, as `frexp` has it, to 64 bits.

    That is the power of ten in 64 bits; half the distance of doubles, scaled by it; the decimal
    exponent that is left; and how many bits, 32 to 60, are after the point. nlohmann::json
    has every eighth power from 10^-300 on, and takes the least that leaves at most 60.
    """
    wanted = 3 - exponent
    least = int(wanted * 78913 / 2**18) + (wanted > 0)  # 78913 / 2^18: the logarithm of 2
    ten = (least + 307) // 8 * 8 - 300
    numerator, denominator = 10 ** max(ten, 0), 10 ** max(-ten, 0)
    binary = numerator.bit_length() - denominator.bit_length() - 64
    numerator, denominator = numerator << max(-binary, 0), denominator << max(binary, 0)
    if numerator >= denominator << 64:
        binary, denominator = binary + 1, denominator * 2
    power = (2 * numerator + denominator) // (2 * denominator)
    half = power << max(10, -1011 - exponent)  # doubles have 53 bits, or end at 2^-1074
    return power, half, -ten, -(exponent + binary)


def _formatted(digits: int, exponent: int) -> str:
    """Return digits times a power of ten in nlohmann's format: exponents from 1e15 and 1e-5 on."""
    text = str(digits).rstrip("0") or "0"
    exponent += len(str(digits)) - len(text)
    point = len(text) + exponent
    if _LEAST_POINT < point <= _MOST_POINT:
        if exponent >= 0:
            return f"{text}{'0' * exponent}.0"
        if point > 0:
            return f"{text[:point]}.{text[point:]}"
        return f"0.{'0' * -point}{text}"
    first, others = text[0], text[1:]
    return f"{first}{'.' if others else ''}{others}e{point - 1:+03}"


_LEAST_POINT, _MOST_POINT = -4, 15
