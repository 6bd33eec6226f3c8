"""Grisu2 as nlohmann::json has it: how BigQuery prints the doubles of JSON.

F. Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers", 2010. It works
with 64 bits, and leaves out the ends of what rounds to a double, where these do not tell. Most
often what it finds is the shortest decimal that reads back, and of these the nearest.
"""

from functools import cache
from math import copysign, frexp


def printed(x: float) -> str:
    """Return a finite double as nlohmann::json prints it."""
    sign = "-" if copysign(1, x) < 0 else ""
    return sign + _formatted(*_grisu2(abs(x)) if x else (0, 0))


def is_clear(x: float) -> bool:
    """Whether Grisu2, on a double of 15 to 17 digits, decides nothing within its inaccuracy.

    It may differ from what is exact only if some decimal is about as far from x as the end of
    what rounds to x, or two are about as near. False for other doubles.
    """
    mantissa, exponent = frexp(abs(x))
    if mantissa == 0.5 or exponent <= _LEAST_NORMAL:  # noqa: PLR2004 - irregular neighbours
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
"""In units of 64 bits: 2 that Grisu2 leaves out at the ends, and 2 for rounding."""


@cache
def _levels(exponent: int) -> tuple[int, int, int, list[tuple[int, int, int]]]:
    """Return the power that scales, as `_scaling` has it, the scaled 1, and three powers of ten.

    Some decimal with as many places as the first of them has zeros rounds to any double of that
    exponent. With each other one is the distance up to which, with so many places, a decimal does
    so in Grisu2's eyes, and the distance from which on none does.
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
