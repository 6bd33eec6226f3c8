"""Write the page of a report: one HTML file without scripts, which loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from dcm2bq.dicom.sop_classes import uid_name
from dcm2bq.tools.report.answers import Answered
from dcm2bq.tools.report.charts import draw
from dcm2bq.tools.report.questions import Section
from dcm2bq.tools.wording import size
from dcm2bq.version import VERSION

_ROWS = 100
"""Rows of a table: years by modality can have more, and the query beside it gives them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a page shows: the dataset's name, the answers, and what asking them cost."""

    dataset: str
    made_at: datetime
    overview: Answered
    sections: Sequence[tuple[Section, Sequence[Answered]]]
    usd: float | None
    identifiers: bool


def render(report: Report) -> str:
    """Return the page as HTML."""
    rows = report.overview.rows or ()
    numbers = dict(rows[0]) if rows else {}
    return _template().render(
        report=report,
        numbers=numbers,
        made_at=report.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=VERSION,
        style=Markup(_resource("page.css")),  # noqa: S704 - a file of this package
        most_rows=_ROWS,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "chart": _chart, "dollars": _dollars, "size": size}
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _chart(answer: Answered) -> Markup | None:
    """Return the chart of an answer; Vega has escaped the texts in it."""
    svg = draw(answer.question.drawing, [_named(row) for row in answer.rows or ()])
    return None if svg is None else Markup(svg)  # noqa: S704


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the name of its SOP class instead of the UID, if it is a known one."""
    uid = row.get("sop_class")
    return row if uid is None else {**row, "sop_class": uid_name(uid) or uid}


def shown(value: Any, column: str = "") -> str:
    """Return a value as a reader wants to see it.

    >>> shown(1234567), shown(0.123456), shown(None), shown(1234567, "bytes")
    ('1,234,567', '0.1235', '', '1.23 MB')
    """
    if value is None:
        return ""
    if column == "bytes":
        return size(value)
    if column == "sop_class":
        return uid_name(value) or str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{value:,.4g}" if isinstance(value, float) else _grouped(value)


def _grouped(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _dollars(usd: float) -> str:
    """Return a price; below a cent, say so rather than round it to nothing."""
    return "below $0.01" if usd < 0.01 else f"${usd:,.2f}"  # noqa: PLR2004 - a cent
