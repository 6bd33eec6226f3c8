"""The printed tables: safe on a terminal, plain in a pipe."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from dcm2bq.tools.terminal_tables import console, print_rows
from dcm2bq.tools.wording import size


def table(*rows: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    print_rows(console(out), rows)
    return out.getvalue().splitlines()


def test_numbers_are_right_aligned_and_lines_have_no_trailing_blanks() -> None:
    assert table({"name": "a", "count": 5}, {"name": "long name", "count": 10}) == [
        "  name        count",
        "  ─────────────────",
        "  a               5",
        "  long name      10",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "NULL"),
        ("text", "text"),
        ("[red]text", "[red]text"),
        ("\x1b[31mred\x07\n", r"\x1b[31mred\x07\n"),
        ("山田^太郎", "山田^太郎"),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "2024-01-02 03:04:05+00:00"),
        (1.5, "1.5"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        (b"abc", "YWJj"),
        (["CT", "MR"], "CT, MR"),
        ({"vr": "CS", "Value": ["CT"]}, '{"vr":"CS","Value":["CT"]}'),
        ([{"a": None}], '[{"a":null}]'),
        ({"a": "\x1b\x9b\u202e[red]"}, r'{"a":"\u001b\u009b\u202e[red]"}'),
    ],
)
def test_a_cell_shows_its_value_with_control_characters_escaped(value: Any, shown: str) -> None:
    assert table({"x": value})[-1].strip() == shown


def test_control_characters_in_column_names_are_escaped() -> None:
    assert table({"[red]\x9b\u202e": 1})[0].strip() == r"[red]\x9b\u202e"


def test_lines_are_not_wrapped_in_a_pipe() -> None:
    assert table({"x": "y" * 500})[-1].strip() == "y" * 500


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 KB"), (1_234_567, "1.23 MB"), (2**43, "8.8 TB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text
