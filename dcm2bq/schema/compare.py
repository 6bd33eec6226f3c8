"""What differs between an object of the dataset and its definition; pure.

Resources come back from BigQuery with its own names for types (`INTEGER` for `INT64`) and with
defaults filled in or left out; none of that is a difference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcm2bq.schema import PRIVACY_LABEL, Definition, Kind

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
class Difference:
    """How an object that is there differs from its definition, in words for its owner.

    `changes` can be made and `refusals` cannot; `notes` tell what is left alone. `replace`
    tells that a view's query or columns change. `fields` is the schema to be set: the columns
    that are there, with what the definition adds to them.
    """

    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replace: bool = False
    fields: list[dict[str, Any]] = field(default_factory=list)


def compare(found: Mapping[str, Any], wanted: Definition) -> Difference:
    """Return how `found`, a resource of the REST API, differs from its definition."""
    difference = Difference()
    is_type = found.get("routineType" if wanted.kind is Kind.FUNCTION else "type", "TABLE")
    must_be = wanted.resource.get("routineType") or wanted.resource.get("type", "TABLE")
    if is_type != must_be:
        difference.refusals.append(f"is a {is_type} where a {must_be} must be")
        return difference
    match wanted.kind:
        case Kind.TABLE:
            _compare_layout(found, wanted.resource, difference)
            _compare_privacy(found, wanted.resource, difference)
            difference.fields = _merge(_fields(found), _fields(wanted.resource), "", difference)
        case Kind.VIEW:
            _compare_query(found.get("view", {}).get("query"), wanted.sql, difference)
            _compare_view_columns(found, wanted.resource, difference)
        case Kind.FUNCTION:
            _compare_query(found.get("definitionBody"), wanted.sql, difference)
            if _arguments(found) != _arguments(wanted.resource):
                difference.changes.append("arguments")
    if found.get("description") != wanted.resource["description"]:
        difference.changes.append("description")
    return difference


def _compare_layout(
    found: Mapping[str, Any], wanted: Mapping[str, Any], difference: Difference
) -> None:
    partitioning = found.get("timePartitioning") or {}
    unit, column = wanted["timePartitioning"]["type"], wanted["timePartitioning"]["field"]
    if (partitioning.get("type"), partitioning.get("field")) != (unit, column):
        difference.refusals.append(f"is not partitioned by {unit} of column {column}")
    if found.get("requirePartitionFilter") or partitioning.get("requirePartitionFilter"):
        difference.refusals.append("requires a partition filter, which the views cannot give")
    if partitioning.get("expirationMs"):
        days = int(partitioning["expirationMs"]) / _DAY_MS
        difference.notes.append(f"rows expire after {days:g} days, and with them what they tell")
    clustering = wanted.get("clustering")
    if clustering and (found.get("clustering") or {}).get("fields") != clustering["fields"]:
        difference.refusals.append(f"is not clustered by {', '.join(clustering['fields'])}")


def _compare_privacy(
    found: Mapping[str, Any], wanted: Mapping[str, Any], difference: Difference
) -> None:
    """Rows that are there stay as they are: one table holds those of one set of options."""
    made_by = (found.get("labels") or {}).get(PRIVACY_LABEL)
    if made_by != (wanted.get("labels") or {}).get(PRIVACY_LABEL):
        difference.refusals.append(
            "holds rows made by other privacy options: use another dataset, or those options"
        )


def _merge(
    found: Fields, wanted: Fields, prefix: str, difference: Difference
) -> list[dict[str, Any]]:
    """Return the columns of `found` with what `wanted` changes in and adds to them."""
    rest = {each["name"].casefold(): each for each in wanted}
    merged = []
    for column in found:
        name = prefix + column["name"]
        definition = rest.pop(column["name"].casefold(), None)
        if definition is not None:
            merged.append(_merge_column(column, definition, name, difference))
            continue
        merged.append(dict(column))
        if _mode(column) == "REQUIRED":
            difference.refusals.append(f"column {name} is REQUIRED and unknown to dcm2bq")
        else:
            difference.notes.append(f"column {name} is unknown to dcm2bq: left alone")
    for definition in rest.values():
        name = prefix + definition["name"]
        merged.append(dict(definition))
        if _mode(definition) == "REQUIRED":
            difference.refusals.append(f"column {name} is missing, and REQUIRED")
        else:
            difference.changes.append(f"column {name} added")
    return merged


def _merge_column(
    found: Mapping[str, Any], wanted: Mapping[str, Any], name: str, difference: Difference
) -> dict[str, Any]:
    merged = dict(found)
    if _type(found) != _type(wanted):
        difference.refusals.append(f"column {name} is {_type(found)}, not {_type(wanted)}")
        return merged
    if (_mode(found), _mode(wanted)) == ("REQUIRED", "NULLABLE"):
        difference.changes.append(f"column {name} is no longer REQUIRED")
        merged["mode"] = "NULLABLE"
    elif _mode(found) != _mode(wanted):
        difference.refusals.append(f"column {name} is {_mode(found)}, not {_mode(wanted)}")
    if found.get("description") != wanted["description"]:
        difference.changes.append(f"description of column {name}")
        merged["description"] = wanted["description"]
    if _type(wanted) == "RECORD":
        merged["fields"] = _merge(found["fields"], wanted["fields"], f"{name}.", difference)
    return merged


def _compare_query(found: str | None, wanted: str | None, difference: Difference) -> None:
    if _tokens(found) != _tokens(wanted):
        difference.changes.append("query")
        difference.replace = True


def _compare_view_columns(
    found: Mapping[str, Any], wanted: Mapping[str, Any], difference: Difference
) -> None:
    """A view over `SELECT *` may show more columns, and in another order."""
    columns = Difference()
    difference.fields = _merge(_fields(found), _fields(wanted), "", columns)
    if columns.refusals or len(difference.fields) > len(_fields(found)):
        difference.changes.append("columns")
        difference.replace = True
    elif not difference.replace:
        difference.changes += columns.changes


def _tokens(sql: str | None) -> list[str]:
    """Return the query without comments and white space, which services may rewrite."""
    return [token for token in _TOKEN.findall(sql or "") if token]


def _fields(resource: Mapping[str, Any]) -> Fields:
    fields: Fields = (resource.get("schema") or {}).get("fields") or []
    return fields


def _arguments(routine: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(each["name"], each["dataType"]["typeKind"]) for each in routine.get("arguments", [])]


def _type(column: Mapping[str, Any]) -> str:
    return _TYPES.get(column["type"]) or str(column["type"])


def _mode(column: Mapping[str, Any]) -> str:
    return str(column.get("mode") or "NULLABLE")
