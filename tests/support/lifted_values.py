"""A different value for each attribute that has a column, by the list and pydicom's dictionary."""

from collections.abc import Callable
from datetime import date, time
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dcm2bq.lifted import LIFTED

TYPED: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "DATE": date.fromisoformat,
    "TIME": time.fromisoformat,
    "INTEGER": int,
}
"""From the text of a column to what a query returns, by the type of the column."""


class LiftedValue(NamedTuple):
    """The value of an attribute as written in a header, in a row, and as a query returns it."""

    tag: int
    vr: str
    written: str
    column: str
    typed: Any


def _value(keyword: str, kind: str, n: int) -> LiftedValue:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is not a keyword"
    vr = dictionary_VR(tag)
    written, column = {
        "UI": (f"1.2.{n}", f"1.2.{n}"),
        "CS": (f"CODE_{n}", f"CODE_{n}"),
        "DA": (f"20{n:02}0228", f"20{n:02}-02-28"),
        "TM": (f"{n % 24:02}30", f"{n % 24:02}:30:00"),
        "IS": (f"+00{n}", f"{n}"),
    }.get(vr, (f"Text {n}", f"Text {n}"))
    return LiftedValue(tag, vr, written, column, TYPED[kind](column))


VALUES = {
    column.keyword: _value(column.keyword, column.type, n)
    for n, column in enumerate(LIFTED, start=1)
}
"""The values by keyword, in the order of the columns."""
