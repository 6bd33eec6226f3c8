"""The tables, views and table functions of the project on Google's engine, as one query.

    evaluate("SELECT path FROM instances_live", [{"path": "gs://b/a", "version": "1", ...}])

Each of them is a common table expression, so that the engine needs to know of no catalogue; an
argument of a table function is a query parameter of its name.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.schema import Definition, DefinitionKind
from tests.support.googlesql import engine

_CASTS = {"TIMESTAMP", "DATE", "TIME", "INTEGER"}
_ENGINE_NAMES = {"INTEGER": "INT64"}


def evaluate(
    query: str,
    instances: Sequence[Mapping[str, Any]] = (),
    dead_letter: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[Any, ...]]:
    """Return the rows of a query over everything in the dataset; `metadata` is JSON text.

    Functions stand in it as tables, called with `arguments`, all of them texts. Raises
    `SqlError` for what the engine refuses, in any of their queries that the query needs.
    """
    needed = _needed(query)
    expressions = ",\n".join(f"`{name}` AS (\n{_expressions()[name]}\n)" for name in needed)
    used = f"WITH {expressions}\n{query}"
    tables = {"instances": instances, "dead_letter": dead_letter}
    texts: dict[str, Any] = {
        f"{name}_rows": [json.dumps(row) for row in rows]
        for name, rows in tables.items()
        if name in needed
    }
    return engine().query(used, **texts, **arguments)


def _needed(query: str) -> list[str]:
    """Return the names that a query reads, and those that these read, in order of creation."""
    todo = [query]
    needed: set[str] = set()
    while todo:
        words = set(re.findall(r"\w+", todo.pop()))
        found = (words & _expressions().keys()) - needed
        needed |= found
        todo += [_expressions()[name] for name in found]
    return [name for name in _expressions() if name in needed]


@cache
def _expressions() -> dict[str, str]:
    """Return the query that each table, view or function stands for, by its name."""
    definitions = schema.load(Config(), "project")
    return {each.name: _expression(each) for each in definitions}


def _expression(definition: Definition) -> str:
    if definition.kind is DefinitionKind.TABLE:
        columns = ",\n  ".join(_columns(definition.resource["schema"]["fields"], "$"))
        return (
            f"SELECT\n  {columns}\nFROM UNNEST(@{definition.name}_rows) AS text,\n"
            "UNNEST([PARSE_JSON(text, wide_number_mode => 'round')]) AS content"
        )
    sql = re.sub(r"`project\.dicom\.(\w+)`", r"`\1`", definition.sql or "")
    sql = re.sub(r"--[^\n]*", "", sql)
    for each in definition.resource.get("arguments", []):
        value = f"CAST(@{each['name']} AS {each['dataType']['typeKind']})"
        sql = re.sub(rf"\b{each['name']}\b", value, sql)
    return sql


def _columns(fields: Sequence[Mapping[str, Any]], path: str) -> Iterator[str]:
    for field in fields:
        yield f"{_value(field, f'{path}.{field["name"]}')} AS {field['name']}"


def _value(field: Mapping[str, Any], path: str) -> str:
    """Return a column's value, read from a row in JSON."""
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
