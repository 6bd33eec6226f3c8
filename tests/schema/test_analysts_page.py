"""What docs/FOR_ANALYSTS.md shows of the schema and of headers is what there is.

tests/analysis runs its questions.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.schema import Definition, DefinitionKind
from tests.support import googlesql
from tests.support.googlesql import engine

PAGE = Path(__file__).parents[2] / "docs" / "FOR_ANALYSTS.md"
BEGIN, END = "<!-- schema -->\n```text\n", "```\n<!-- end of schema -->\n"
_FOR_OPERATORS = {"dead_letter", "dismissed_letters", "objects"}
_WIDTH = 110
_SQL_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_ORDER = (DefinitionKind.VIEW, DefinitionKind.FUNCTION, DefinitionKind.TABLE)

type Fields = Sequence[Mapping[str, Any]]

_EXPRESSION = re.compile(r"^\| [^|]+ \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
_HEADER = re.compile(r"```json\n(.*?)```", re.DOTALL)


def outline() -> str:
    """Return each view, function and table with its columns by type."""
    shown: dict[str, str] = {}
    by_kind = sorted(_definitions(), key=lambda each: _ORDER.index(each.kind))
    lines = [line for definition in by_kind for line in _lines(definition, shown)]
    return "\n".join(lines) + "\n"


def _definitions() -> list[Definition]:
    """Return what analysts query."""
    every = schema.load(Config(), "project")
    return [definition for definition in every if definition.name not in _FOR_OPERATORS]


def _lines(definition: Definition, shown: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a definition; `shown` maps columns to the name that has them already."""
    resource = definition.resource
    arguments = ", ".join(
        f"{argument['name']} {argument['dataType']['typeKind']}"
        for argument in resource.get("arguments", ())
    )
    call = f"({arguments})" if arguments else ""
    (summary, *_) = re.split(r"\. |: (?![^(]*\))|\.$", resource["description"])
    yield from textwrap.wrap(f"{definition.name}{call}: {summary}", _WIDTH, subsequent_indent="  ")
    fields = resource.get("columns") or resource.get("schema", {}).get("fields")
    if fields is None:
        change = "change STRING, and " if definition.name == "changes_between" else ""
        yield f"  {change}the columns of instances_live"
        return
    columns = json.dumps(sorted(map(_column, fields)))
    if columns in shown:
        yield f"  the columns of {shown[columns]}"
        return
    shown[columns] = definition.name
    yield from _columns(fields)


def _columns(fields: Fields) -> Iterator[str]:
    """Yield the columns by type, strings first."""
    by_type: dict[str, list[str]] = {"STRING": []}
    for field in fields:
        name, kind = _column(field)
        by_type.setdefault(kind, []).append(name)
    strings = by_type.pop("STRING")
    parts = [", ".join(strings)]
    for kind, names in by_type.items():
        listed = ", ".join(names)
        parts.append(f"{listed} {kind}" if kind.startswith("STRUCT") else f"{kind}: {listed}")
    yield from textwrap.wrap(
        "; ".join(filter(None, parts)), _WIDTH, initial_indent="  ", subsequent_indent="  "
    )


def _column(field: Mapping[str, Any]) -> tuple[str, str]:
    kind = _SQL_NAMES.get(field["type"], field["type"])
    if kind == "RECORD":
        inner = (" ".join(_column(each)) for each in field["fields"])
        kind = f"STRUCT<{', '.join(inner).replace(' STRING', '')}>"
    return field["name"], f"ARRAY<{kind}>" if field.get("mode") == "REPEATED" else kind


def page() -> str:
    """Return the page with a newly generated schema."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}{outline()}{END}{rest.split(END)[1]}"


def test_the_schema_shown_is_that_of_the_schema_files() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.schema.test_analysts_page"


def test_the_schema_shown_has_every_name_and_column() -> None:
    shown = set(re.findall(r"\w+", outline()))
    for definition in _definitions():
        fields = definition.resource.get("schema", {}).get("fields", [])
        assert {definition.name, *(field["name"] for field in fields)} <= shown


@pytest.mark.timeout(googlesql.TIMEOUT)
@pytest.mark.parametrize(("expression", "value"), _EXPRESSION.findall(PAGE.read_text()))
def test_an_expression_has_the_value_shown(expression: str, value: str) -> None:
    (header,) = _HEADER.findall(PAGE.read_text())
    query = f"SELECT TO_JSON_STRING({expression}) FROM (SELECT PARSE_JSON(@header) AS metadata)"
    assert engine().query(query, header=header) == [(value,)]


def test_every_expression_of_the_table_is_evaluated() -> None:
    (table,) = re.findall(r"\| to get \|.*\n\|[-|]*\n((?:\|.*\n)+)", PAGE.read_text())
    assert len(_EXPRESSION.findall(PAGE.read_text())) == table.count("\n")


if __name__ == "__main__":
    PAGE.write_text(page())
