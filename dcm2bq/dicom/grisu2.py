"""Grisu2 as implemented in nlohmann::json: how BigQuery prints the doubles in JSON.

F. Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers", 2010. Grisu2
computes with 64 bits and ignores decimals near the ends of the interval that rounds to a double,
where 64 bits cannot decide. Usually it finds the shortest decimal that reads back, and of several
the nearest.
"""

from functools import cache
from math import copysign, frexp


def printed(x: float) -> str:
    """Return a finite double as nlohmann::json prints it.

    >>> printed(67.174118), printed(0.1), printed(1e15)
    ('67.17411800000001', '0.1', '1e+15')
    """
    sign = "-" if copysign(1, x) < 0 else ""
    return sign + _formatted(*_grisu2(abs(x)) if x else (0, 0))


def is_clear(x: float) -> bool:
    """Return whether Grisu2 is certain to print x, of 15 to 17 digits, as an exact algorithm does.

    It may differ only if some decimal is about as far from x as the end of the interval that
    rounds to x, or if two decimals are about equally near. False for all other doubles.
    """
    mantissa, exponent = frexp(abs(x))
    if mantissa == 0.5 or exponent <= _LEAST_NORMAL:  # noqa: PLR2004 - the next double below is nearer than the one above
        return False
    power, one, first, others = _levels(exponent)
    w = int(mantissa * _2_64) * power >> 64
    ten, rest = first, w * first & (one - 1)
    for fewer, inside, outside in others:
        farther = w * fewer & (one - 1)
        if farther > one >> 1:
            farther = one - farther
        if farther > outside:
            is_tie = abs(rest - (one >> 1)) <= _INACCURACY * ten
            return not is_tie
        if farther > inside:
            break
        ten, rest = fewer, farther
    return False


_INACCURACY = 4
"""In units of the last of 64 bits: 2 that Grisu2 ignores at the ends, and 2 for rounding."""


@cache
def _levels(exponent: int) -> tuple[int, int, int, list[tuple[int, int, int]]]:
    """Return the scaling power, the scaled 1, a power of ten, and three smaller powers of ten.

    10^n stands for decimals with n more places. With the first power, every double of this
    exponent has a decimal that rounds to it. Each smaller power comes with two distances: up to
    the first one Grisu2 accepts a decimal, from the second one on it refuses it.
    """
    power, half, _, fraction = _scaling(exponent)
    end = half >> 64
    count = _most_digits(fraction - (2 * end - _INACCURACY).bit_length())
    others = [
        (_TENS[n], (end - _INACCURACY) * _TENS[n], (end + _INACCURACY) * _TENS[n])
        for n in (count - 1, count - 2, count - 3)
    ]
    return power, 1 << fraction, _TENS[count], others


def _grisu2(x: float) -> tuple[int, int]:
    """Return the digits and the decimal exponent of a positive double.

    A power of ten scales the double, and the ends of the interval that rounds to it, to 64-bit
    fixed-point numbers. The result is the decimal in this interval with the fewest digits; of
    several it is the one nearest to x, as far as 64 bits can tell.
    """
    mantissa, exponent = frexp(x)
    power, half, decimals, fraction = _scaling(exponent)
    scaled = int(mantissa * _2_64) * power + _HALF
    # Below a power of two the doubles are twice as dense, except among the subnormal ones.
    below = half if mantissa != 0.5 or exponent <= _LEAST_NORMAL else half >> 1  # noqa: PLR2004
    upper = (scaled + half >> 64) - 1
    room = upper - (scaled - below >> 64) - 1
    distance = upper - (scaled >> 64)
    mask = (1 << fraction) - 1
    if upper & mask <= room:  # the digits after the point can be dropped, and more
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
    if rest < distance:  # step down from `upper` as long as this comes nearer to x
        steps, left = divmod(distance - rest, unit)
        digits -= min(steps + (left > unit - left), (room - rest) // unit)
    return digits, decimals


_2_64 = 2.0**64
_HALF = 1 << 63
_LEAST_NORMAL = -1021
_TENS = [10**n for n in range(20)]


@cache
def _most_digits(bits: int) -> int:
    """Return how many decimal digits always suffice to distinguish numbers of `bits` bits."""
    return len(str(2 << bits))


@cache
def _scaling(exponent: int) -> tuple[int, int, int, int]:
    """Return how doubles of a binary exponent, that of `frexp`, are scaled to 64 bits.

    Returns the power of ten as a 64-bit mantissa; half the distance between doubles, scaled by
    it; the decimal exponent of the result; and the number of bits, 32 to 60, after the point.
    nlohmann::json has every eighth power from 10^-300 on, and uses the least that leaves at most
    60 bits.
    """
    power_of_two = 3 - exponent
    # 78913 / 2^18 is log10(2), as nlohmann::json has it.
    least = int(power_of_two * 78913 / 2**18) + (power_of_two > 0)
    ten = (least + 307) // 8 * 8 - 300
    numerator, denominator = 10 ** max(ten, 0), 10 ** max(-ten, 0)
    binary = numerator.bit_length() - denominator.bit_length() - 64
    numerator, denominator = numerator << max(-binary, 0), denominator << max(binary, 0)
    if numerator >= denominator << 64:
        binary, denominator = binary + 1, denominator * 2
    power = (2 * numerator + denominator) // (2 * denominator)
    half = power << max(10, -1011 - exponent)  # doubles have 53 bits, or fewer above 2^-1074
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
