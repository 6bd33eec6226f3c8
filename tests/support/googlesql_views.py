"""The tables, views and table functions of the project on Google's engine.

    evaluate("SELECT path FROM instances_live", [{"path": "gs://b/a", "version": "1", ...}])

    dataset = EngineDataset()
    dataset.insert("instances", {"path": "gs://b/a", "version": "1", ...})
    dataset.query("SELECT path FROM instances_live")

Tables, views and functions become common table expressions, so that the engine needs no catalogue.
The arguments of a table function become query parameters with their names. The engine evaluates
anti-joins as nested loops: keep to some 40 rows.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.schema import Definition, DefinitionKind
from tests.support.googlesql import Parameter, engine

_CASTS = {"TIMESTAMP", "DATE", "TIME", "INTEGER", "FLOAT", "BOOLEAN"}
_RECURSIVE = "/* recursive */"
_ENGINE_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def evaluate(
    query: str,
    instances: Sequence[Mapping[str, Any]] = (),
    dead_letter: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[Any, ...]]:
    """Return the rows of a query over the dataset; `metadata` is JSON text.

    The query names table functions like tables; `arguments` are theirs, as text. Raises
    `SqlError` if the engine refuses the query, or the definition of anything that it reads.
    """
    tables = {"instances": instances, "dead_letter": dead_letter}
    statement, parameters = _expand(query, tables)
    return engine().query(statement, **parameters, **arguments)


class EngineDataset:
    """An empty dataset on Google's engine, with the query methods of `Dataset`."""

    name = "project.dicom"

    def __init__(self) -> None:
        self._tables: dict[str, list[Mapping[str, Any]]] = defaultdict(list)

    def insert(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Append rows to a table; `metadata` is JSON text or the JSON itself."""
        for row in rows:
            metadata = row.get("metadata")
            text = metadata if isinstance(metadata, str | None) else json.dumps(metadata)
            self._tables[table].append({**row, "metadata": text})

    def replace(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Replace the rows of a table."""
        self._tables[table] = []
        self.insert(table, *rows)

    def query(
        self, sql: str, parameters: Mapping[str, Parameter] | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a query.

        A table function is called with parameters that are named like its arguments.
        """
        sql = re.sub(r"`project\.dicom\.(\w+)`\((@\w+(?:, @\w+)*)\)", r"\1", sql)
        statement, tables = _expand(sql, self._tables)
        return engine().rows(statement, {**(parameters or {}), **tables})


def _expand(
    query: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[str, dict[str, Sequence[str]]]:
    """Return a query with the definitions of all that it reads, and the rows as parameters."""
    needed = _needed(query)
    expressions = ",\n".join(_as_table_expression(name) for name in needed)
    rows: dict[str, Sequence[str]] = {
        f"{name}_rows": [json.dumps(row) for row in tables.get(name, ())]
        for name in needed
        if name in _tables()
    }
    separator = "," if query.lstrip().startswith("WITH") else "\n"
    with_ = "WITH RECURSIVE" if _RECURSIVE in expressions else "WITH"
    query = query.lstrip().removeprefix("WITH")
    return f"{with_} {expressions}{separator}{query}".replace(_RECURSIVE, ""), rows


def _as_table_expression(name: str) -> str:
    """Return the definition of an object as a common table expression.

    A recursion may stand only at the top of a statement, so the expressions of a recursive view
    go before it, as its siblings; their names must not be used elsewhere.
    """
    sql = _expressions()[name].strip()
    if not sql.startswith("WITH RECURSIVE"):
        return f"`{name}` AS (\n{sql}\n)"
    before, _, last = sql.removeprefix("WITH RECURSIVE").rpartition("\n)\n\n")
    return f"{_RECURSIVE}{before}\n),\n`{name}` AS (\n{last}\n)"


def _needed(query: str) -> list[str]:
    """Return the objects that a query reads, directly or not, in order of creation."""
    needed: set[str] = set()
    new = set(re.findall(r"\w+", query)) & _expressions().keys()
    while new:
        needed |= new
        definitions = [_expressions()[name] for name in new]
        named = {name for sql in definitions for name in re.findall(r"`(\w+)`", sql)}
        new = (named & _expressions().keys()) - needed
    return [name for name in _expressions() if name in needed]


@cache
def _tables() -> frozenset[str]:
    """Return the names of the tables, which have rows and no query."""
    definitions = schema.load(Config(), "project")
    return frozenset(each.name for each in definitions if each.kind is DefinitionKind.TABLE)


@cache
def _expressions() -> dict[str, str]:
    """Return a query for each table, view and function, by name."""
    definitions = schema.load(Config(), "project")
    return {definition.name: _expression(definition) for definition in definitions}


def _expression(definition: Definition) -> str:
    if definition.kind is DefinitionKind.TABLE:
        columns = ",\n  ".join(_columns(definition.resource["schema"]["fields"], "$"))
        return (
            f"SELECT\n  {columns}\nFROM UNNEST(@{definition.name}_rows) AS text,\n"
            "UNNEST([PARSE_JSON(text, wide_number_mode => 'round')]) AS content"
        )
    sql = re.sub(r"`project\.dicom\.(\w+)`", r"`\1`", definition.sql or "")
    sql = re.sub(r"--[^\n]*", "", sql)
    for argument in definition.resource.get("arguments", []):
        value = f"CAST(@{argument['name']} AS {argument['dataType']['typeKind']})"
        sql = re.sub(rf"\b{argument['name']}\b", value, sql)
    return sql


def _columns(fields: Sequence[Mapping[str, Any]], path: str) -> Iterator[str]:
    for field in fields:
        yield f"{_value(field, f'{path}.{field["name"]}')} AS {field['name']}"


def _value(field: Mapping[str, Any], path: str) -> str:
    """Return an expression for a column of a row in JSON."""
    if field["type"] == "RECORD":
        return f"STRUCT({', '.join(_columns(field['fields'], path))})"
    if field["mode"] == "REPEATED":
        items = f"UNNEST(JSON_QUERY_ARRAY(content, '{path}')) AS item"
        return f"ARRAY(SELECT JSON_VALUE(item) FROM {items})"
    text = f"JSON_VALUE(content, '{path}')"
    if field["type"] == "JSON":
        return f"PARSE_JSON({text}, wide_number_mode => 'round')"
    if field["type"] == "BYTES":
        return f"FROM_BASE64({text})"
    if field["type"] in _CASTS:
        return f"CAST({text} AS {_ENGINE_NAMES.get(field['type'], field['type'])})"
    return text
