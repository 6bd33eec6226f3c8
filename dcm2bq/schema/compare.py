"""Differences between an object of the dataset and its definition; no I/O.

BigQuery returns resources with its own names for types (`INTEGER` for `INT64`) and with defaults
filled in or left out. None of that is a difference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcm2bq.schema import KEY_LABEL, PRIVACY_LABEL, Definition, DefinitionKind

Fields = Sequence[Mapping[str, Any]]

_TYPES = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
_DAY_MS = 86_400_000
_TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|('[^']*'|`[^`]*`|\w+|[^\w\s])", re.DOTALL)


@dataclass(slots=True)
class SchemaDifference:
    """How an existing object differs from its definition, described for its owner.

    `changes` can be made and `refusals` cannot; `notes` describe what is left alone. `replace` is
    set if a view's query or columns change. `fields` is the schema to be set: the existing columns
    with what the definition changes in them and adds to them.
    """

    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replace: bool = False
    fields: list[dict[str, Any]] = field(default_factory=list)


def compare(actual: Mapping[str, Any], definition: Definition) -> SchemaDifference:
    """Return how `actual`, a resource of the REST API, differs from its definition."""
    difference = SchemaDifference()
    actual_type = actual.get(
        "routineType" if definition.kind is DefinitionKind.FUNCTION else "type", "TABLE"
    )
    required_type = definition.resource.get("routineType") or definition.resource.get(
        "type", "TABLE"
    )
    if actual_type != required_type:
        difference.refusals.append(f"is a {actual_type}, not a {required_type}")
        return difference
    match definition.kind:
        case DefinitionKind.TABLE:
            _compare_layout(actual, definition.resource, difference)
            _compare_privacy(actual, definition.resource, difference)
            difference.fields = _merge(
                fields_of(actual), fields_of(definition.resource), "", difference
            )
        case DefinitionKind.VIEW:
            _compare_query(actual.get("view", {}).get("query"), definition.sql, difference)
            _compare_view_columns(actual, definition.resource, difference)
        case DefinitionKind.FUNCTION:
            _compare_query(actual.get("definitionBody"), definition.sql, difference)
            if _arguments(actual) != _arguments(definition.resource):
                difference.changes.append("arguments")
    if actual.get("description") != definition.resource["description"]:
        difference.changes.append("description")
    return difference


def _compare_layout(
    actual: Mapping[str, Any], expected: Mapping[str, Any], difference: SchemaDifference
) -> None:
    partitioning = actual.get("timePartitioning") or {}
    required = expected.get("timePartitioning")
    if required and any(partitioning.get(key) != value for key, value in required.items()):
        unit, column = required["type"], required["field"]
        difference.refusals.append(f"is not partitioned by {unit} of column {column}")
    if actual.get("requirePartitionFilter") or partitioning.get("requirePartitionFilter"):
        difference.refusals.append("requires a partition filter, which the views do not have")
    if partitioning.get("expirationMs"):
        days = int(partitioning["expirationMs"]) / _DAY_MS
        difference.notes.append(f"rows expire after {days:g} days and then vanish from every view")
    clustering = expected.get("clustering")
    if clustering and (actual.get("clustering") or {}).get("fields") != clustering["fields"]:
        difference.refusals.append(f"is not clustered by {', '.join(clustering['fields'])}")


def _compare_privacy(
    actual: Mapping[str, Any], expected: Mapping[str, Any], difference: SchemaDifference
) -> None:
    """Existing rows are never rewritten, so a table holds rows of one set of privacy options.

    A table that Terraform or an earlier release made has no digest of the key: it is accepted,
    and labelled with that of the key in use.
    """
    made, used = actual.get("labels") or {}, expected.get("labels") or {}
    if made.get(PRIVACY_LABEL) != used.get(PRIVACY_LABEL):
        difference.refusals.append(
            "holds rows made with other privacy options: use those options or another dataset"
        )
    elif KEY_LABEL not in used:
        if KEY_LABEL in made:
            difference.notes.append("labelled with the digest of a key that is not known here")
    elif KEY_LABEL not in made:
        difference.changes.append(
            f"label {KEY_LABEL} added: from now on, only the key in use is accepted"
        )
    elif made[KEY_LABEL] != used[KEY_LABEL]:
        difference.refusals.append(
            "holds pseudonyms made with another key: use that key or another dataset"
        )


def _merge(
    actual: Fields, expected: Fields, prefix: str, difference: SchemaDifference
) -> list[dict[str, Any]]:
    """Return the columns of `actual` with the changes and additions of `expected`."""
    missing = {column["name"].casefold(): column for column in expected}
    merged = []
    for column in actual:
        name = prefix + column["name"]
        definition = missing.pop(column["name"].casefold(), None)
        if definition is not None:
            merged.append(_merge_column(column, definition, name, difference))
            continue
        merged.append(dict(column))
        if _mode(column) == "REQUIRED":
            difference.refusals.append(f"column {name} is REQUIRED, and dcm2bq does not write it")
        else:
            difference.notes.append(f"column {name} is not dcm2bq's: left alone")
    for definition in missing.values():
        name = prefix + definition["name"]
        merged.append(dict(definition))
        if _mode(definition) == "REQUIRED":
            difference.refusals.append(
                f"column {name} is missing, and a REQUIRED column cannot be added"
            )
        else:
            difference.changes.append(f"column {name} added")
    return merged


def _merge_column(
    actual: Mapping[str, Any], expected: Mapping[str, Any], name: str, difference: SchemaDifference
) -> dict[str, Any]:
    merged = dict(actual)
    if _type(actual) != _type(expected):
        difference.refusals.append(f"column {name} is {_type(actual)}, not {_type(expected)}")
        return merged
    if (_mode(actual), _mode(expected)) == ("REQUIRED", "NULLABLE"):
        difference.changes.append(f"column {name} is no longer REQUIRED")
        merged["mode"] = "NULLABLE"
    elif _mode(actual) != _mode(expected):
        difference.refusals.append(f"column {name} is {_mode(actual)}, not {_mode(expected)}")
    if actual.get("description") != expected["description"]:
        difference.changes.append(f"description of column {name}")
        merged["description"] = expected["description"]
    if _type(expected) == "RECORD":
        merged["fields"] = _merge(actual["fields"], expected["fields"], f"{name}.", difference)
    return merged


def _compare_query(actual: str | None, expected: str | None, difference: SchemaDifference) -> None:
    if _tokens(actual) != _tokens(expected):
        difference.changes.append("query")
        difference.replace = True


def _compare_view_columns(
    actual: Mapping[str, Any], expected: Mapping[str, Any], difference: SchemaDifference
) -> None:
    """The view of a `SELECT *` may show more columns, and in another order."""
    columns = SchemaDifference()
    difference.fields = _merge(fields_of(actual), fields_of(expected), "", columns)
    if columns.refusals or len(difference.fields) > len(fields_of(actual)):
        difference.changes.append("columns")
        difference.replace = True
    elif not difference.replace:
        difference.changes += columns.changes


def _tokens(sql: str | None) -> list[str]:
    """Return the tokens of a query without comments and white space, which BigQuery may change."""
    return [token for token in _TOKEN.findall(sql or "") if token]


def fields_of(resource: Mapping[str, Any]) -> Fields:
    """Return the columns of a table or view; none if it has no schema."""
    fields: Fields = (resource.get("schema") or {}).get("fields") or []
    return fields


def _arguments(routine: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(a["name"], a["dataType"]["typeKind"]) for a in routine.get("arguments", [])]


def _type(column: Mapping[str, Any]) -> str:
    return _TYPES.get(column["type"]) or str(column["type"])


def _mode(column: Mapping[str, Any]) -> str:
    return str(column.get("mode") or "NULLABLE")
