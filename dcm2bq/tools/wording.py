"""Numbers, sizes and durations as messages write them; needs nothing that workers lack."""

_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")
_KILO = 1000
_ROUNDED_UP = 999.5  # to three digits, this is 1 of the next unit
_SWITCH_AT = 1.5  # of a unit: a shorter time is written in the next smaller unit


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is due.

    >>> counted(1, "object"), counted(1200, "object")
    ('1 object', '1,200 objects')
    """
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def size(count: int) -> str:
    """Return a number of bytes with a decimal unit and three significant digits.

    >>> size(999), size(999_600), size(324_000_000_000)
    ('999 bytes', '1 MB', '324 GB')
    """
    value, unit = float(count), 0
    while value >= _ROUNDED_UP and unit < len(_UNITS) - 1:
        value, unit = value / _KILO, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(45), duration(720), duration(12240)
    ('45 s', '12 min', '3.4 h')
    """
    minutes = seconds / 60
    if minutes < _SWITCH_AT:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes / 60 < _SWITCH_AT else f"{minutes / 60:.1f} h"
