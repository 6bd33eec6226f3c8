"""Rows as a table for people, on a terminal or in a pipe."""

from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any, TextIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dcm2bq.tools.display import printable, printable_json
from dcm2bq.tools.tables import to_json

Row = Mapping[str, Any]

_PIPE_WIDTH = 10_000  # columns: no line is wrapped, since programs read pipes line by line


def console(stream: TextIO) -> Console:
    """Return a console that uses colours and wraps lines only on a terminal."""
    out = Console(file=stream, highlight=False)
    if not out.is_terminal:
        out.width = _PIPE_WIDTH
    return out


def print_rows(out: Console, rows: Sequence[Row]) -> None:
    """Print rows as a table, with numbers aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in rows[0] if rows else ():
        numbers = any(isinstance(row[name], int | float) for row in rows)
        justify: JustifyMethod = "right" if numbers else "left"
        table.add_column(Text(printable(name)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    with out.capture() as captured:
        out.print(Padding(table, (0, 0, 0, 2), expand=False))
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _cell(value: Any) -> Text:
    if value is None:
        return Text("NULL", style="dim")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return Text(printable(", ".join(value)))
    if isinstance(value, str | date | time):
        return Text(printable(str(value)))
    if isinstance(value, list | dict):
        return Text(printable_json(to_json(value)))
    return Text(to_json(value).strip('"'))
