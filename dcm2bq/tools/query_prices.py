"""What queries and storage of BigQuery cost, as messages say it, from the packaged prices."""

from functools import cache

from dcm2bq.tools import wording
from dcm2bq.tools.prices import read_prices

_TIB = 1 << 40
_GIB = 1 << 30

_LONG_TERM_DISCOUNT = 0.5
"""Of the price of active storage: "approximately 50%", says BigQuery's documentation."""
_ACTIVE_MONTHS = 3
"""Months until a partition that was changed is long-term storage again."""


def priced(size: int) -> str:
    """Return the bytes that a query reads, with their price.

    >>> priced(2_100_000_000), priced(10_400_000_000_000), priced(7)
    ('2.1 GB, $0.01', '10.4 TB, $59.12', '7 bytes, $0.00')
    """
    return f"{wording.size(size)}, ${usd(size):,.2f}"


def usd(size: int) -> float:
    """Return the on-demand price of a query, given the bytes that it reads."""
    return size / _TIB * _dollars("bigquery_query")


def lost_discount_usd(size: int) -> float:
    """Return what storage costs more if that many bytes are not long-term storage any more.

    >>> f"{lost_discount_usd(1 << 40):.2f}"
    '35.33'
    """
    return size / _GIB * _dollars("bigquery_storage") * _LONG_TERM_DISCOUNT * _ACTIVE_MONTHS


@cache
def _dollars(item: str) -> float:
    """Return the price of a TiB read, or of a GiB stored for a month."""
    return read_prices().of(item).each
