"""The prices that every cost is computed with: `prices.tsv`, or a file in its place.

    item     place   storage_class  price  currency  unit             published_for  date  source
    class_b  region  ARCHIVE        0.05   USD       1000 operations  ...

The packaged file is the definition: a replacement has the same lines with other prices.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from dcm2bq.errors import ConfigError
from dcm2bq.files import open_regular

PACKAGED = Path(__file__).with_name("prices.tsv")

_COLUMNS = (
    *("item", "place", "storage_class", "price", "currency", "unit"),
    *("published_for", "date", "source"),
)
_UNITS = {
    "1000 operations": 1000,
    **dict.fromkeys(("GiB", "GiB-month", "GiB-hour", "TiB", "vCPU-hour"), 1),
}
"""How many of what is counted a price is for."""
_CURRENCY = "USD"
_DECIMAL = re.compile(r"\d{1,6}(\.\d{1,9})?", re.ASCII)  # as published: no sign, no exponent

type Key = tuple[str, str, str]
"""The item, the place and the storage class; the last two may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What `unit` costs in US dollars, as published for some places on a day."""

    dollars: float
    unit: str
    published_for: str
    date: date
    source: str

    @property
    def each(self) -> float:
        """Dollars for one of what is counted: an operation, a GiB."""
        return self.dollars / _UNITS[self.unit]

    def __str__(self) -> str:
        cents = f"{self.dollars:.2f}"
        number = cents if float(cents) == self.dollars else f"{self.dollars:.9f}".rstrip("0")
        return f"${number} per {self.unit.replace('1000', '1,000')}"


@dataclass(frozen=True)
class Prices:
    """All prices, and the name of their file."""

    place: str
    by_key: Mapping[Key, Price]

    def of(self, item: str, place: str = "", storage_class: str = "") -> Price:
        """Return a price; raise `KeyError` for one that no file has."""
        return self.by_key[item, place, storage_class]

    @cached_property
    def storage_classes(self) -> tuple[str, ...]:
        """The storage classes, from the cheapest to read to the dearest."""
        keys = [key for key in self.by_key if key[:2] == ("class_b", "region")]
        return tuple(key[2] for key in sorted(keys, key=lambda key: self.by_key[key].dollars))

    @cached_property
    def dates(self) -> tuple[date, date]:
        """The earliest and the latest day of the prices."""
        days = [price.date for price in self.by_key.values()]
        return min(days), max(days)


def read_prices(path: Path | None = None) -> Prices:
    """Read a file of prices, by default the packaged one.

    Raises `ConfigError`, which names the line, for a file that is not complete and correct, and
    `OSError` for one that cannot be read.
    """
    packaged = _read(PACKAGED)
    if path is None:
        return packaged
    prices = _read(path)
    for key, price in prices.by_key.items():
        if key not in packaged.by_key:
            raise ConfigError(f"{path}: {_words(key)}: the packaged file has no such line")
        if price.unit != (unit := packaged.by_key[key].unit):
            raise ConfigError(f"{path}: {_words(key)}: the unit is not {unit}")
    for key in packaged.by_key:
        if key not in prices.by_key:
            raise ConfigError(f"{path}: {_words(key)}: the line is missing")
    return prices


def _read(path: Path) -> Prices:
    with open_regular(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")  # spreadsheets begin a file with a mark
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None
    by_key: dict[Key, Price] = {}
    for number, cells in _lines(text, str(path)):
        place = f"{path}:{number}"
        values = dict(zip(_COLUMNS, cells, strict=True))
        key = values["item"], values["place"], values["storage_class"]
        if key in by_key:
            raise ConfigError(f"{place}: {_words(key)}: the line is there twice")
        by_key[key] = _price(values, place)
    return Prices(str(path), by_key)


def _lines(text: str, path: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the number and the cells of each line after the names of the columns."""
    header: Sequence[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        (cells,) = csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE)
        cells = [cell.strip() for cell in cells]
        if header is None:
            header = cells
            if tuple(header) != _COLUMNS:
                raise ConfigError(
                    f"{path}:{number}: the columns are not {', '.join(_COLUMNS)}, separated by tabs"
                )
        elif len(cells) != len(_COLUMNS):
            raise ConfigError(f"{path}:{number}: has {len(cells)} cells instead of {len(_COLUMNS)}")
        else:
            yield number, cells
    if header is None:
        raise ConfigError(f"{path}: is empty")


def _price(values: Mapping[str, str], place: str) -> Price:
    if not _DECIMAL.fullmatch(values["price"]):
        raise ConfigError(f"{place}: price: {values['price']!r} is not a decimal number")
    if values["currency"] != _CURRENCY:
        raise ConfigError(f"{place}: currency: only {_CURRENCY} is supported")
    if values["unit"] not in _UNITS:
        raise ConfigError(f"{place}: unit: is not one of {', '.join(_UNITS)}")
    try:
        day = date.fromisoformat(values["date"])
    except ValueError:
        raise ConfigError(f"{place}: date: is not a day like 2026-01-31") from None
    if not values["source"].startswith("https://"):
        raise ConfigError(f"{place}: source: is not an https:// address")
    return Price(
        dollars=float(values["price"]),
        unit=values["unit"],
        published_for=values["published_for"],
        date=day,
        source=values["source"],
    )


def _words(key: Key) -> str:
    """Return a key as messages write it.

    >>> _words(("class_b", "region", "ARCHIVE"))
    'class_b, region, ARCHIVE'
    """
    return ", ".join(part for part in key if part)
