"""What queries and storage of BigQuery cost, as messages say it.

List prices of on-demand queries and of logical storage in the US, as of November 2026.
"""

_TIB = 1 << 40
_GIB = 1 << 30
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))

USD_PER_TIB = 6.25
"""Price of a query for each TiB that it reads."""
_LONG_TERM_USD = 0.01
"""What a GiB costs more for each month of active instead of long-term storage."""
_ACTIVE_MONTHS = 3
"""Months until a partition that was changed is long-term storage again."""


def priced(size: int) -> str:
    """Return the bytes that a query reads, with their price.

    >>> priced(2_100_000_000), priced(10_400_000_000_000), priced(7)
    ('2.1 GB, $0.01', '10.4 TB, $59.12', '0.0 MB, $0.00')
    """
    return f"{readable(size)}, ${usd(size):,.2f}"


def usd(size: int) -> float:
    """Return the price of a query, given the bytes that it reads."""
    return size / _TIB * USD_PER_TIB


def lost_discount_usd(size: int) -> float:
    """Return what storage costs more if that many bytes are not long-term storage any more."""
    return size / _GIB * _LONG_TERM_USD * _ACTIVE_MONTHS


def readable(size: int) -> str:
    """Return a size in decimal units."""
    unit, scale = next((unit for unit in _UNITS if size >= unit[1]), _UNITS[-1])
    return f"{size / scale:,.1f} {unit}"
