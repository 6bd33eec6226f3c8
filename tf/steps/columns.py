"""Add the columns that a table lacks, set labels and policy tags; never drop or change the rest.

DCM2BQ_TABLE is projects/P/datasets/D/tables/T. DCM2BQ_COLUMNS holds the columns of this release,
DCM2BQ_LABELS the labels, as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

from google_api import RefusedError, call, endpoint, stop, stop_for

Column = dict  # of the REST API: name, type, mode, fields, description, policyTags

SAME_TYPE = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
CHANGED_MEANWHILE = 412  # the answer when the etag is no longer the table's
ATTEMPTS = 5  # as often as others may change the table between reading and writing it


def merge(live: list[Column], wanted: list[Column], parent: str = "") -> list[str]:
    """Complete the live columns in place; return what was changed, by column."""
    by_name = {column["name"].lower(): column for column in live}  # names ignore case
    changes = []
    for column in wanted:
        name = f"{parent}{column['name']}"
        existing = by_name.get(column["name"].lower())
        if existing is None:
            live.append(column)
            changes.append(f"{name} added")
            continue
        types = [SAME_TYPE.get(each["type"], each["type"]) for each in (existing, column)]
        if types[0] != types[1]:
            stop(
                f"the column {name} is {types[0]}, but must be {types[1]}: "
                "the table was not made by dcm2bq. Use another dataset, or rename the table."
            )
        tags = column.get("policyTags")
        if tags is not None and existing.get("policyTags") != tags:
            existing["policyTags"] = tags
            changes.append(f"{name} tagged")
        if "fields" in column:
            changes += merge(existing.setdefault("fields", []), column["fields"], f"{name}.")
    return changes


def complete(url: str, columns: list[Column], labels: dict[str, str]) -> list[str]:
    """Read the table, and write it if it lacks something; raises `RefusedError`."""
    table = call("GET", url)
    fields: list[Column] = table.get("schema", {}).get("fields", [])
    existing: dict[str, str] = table.get("labels", {})
    patch: dict[str, Any] = {}
    changes = merge(fields, columns)
    if changes:
        patch["schema"] = {"fields": fields}
    missing = {key: value for key, value in labels.items() if existing.get(key) != value}
    if missing:
        patch["labels"] = {**existing, **missing}
        changes += [f"label {key} set" for key in sorted(missing)]
    if patch:
        call("PATCH", url, patch, etag=table["etag"])
    return changes


def main() -> None:
    """Complete the table, again if somebody else changed it meanwhile."""
    table = os.environ["DCM2BQ_TABLE"]
    columns: list[Column] = json.loads(os.environ["DCM2BQ_COLUMNS"])
    labels: dict[str, str] = json.loads(os.environ["DCM2BQ_LABELS"])
    base = endpoint(
        "GOOGLE_BIG_QUERY_CUSTOM_ENDPOINT", "https://bigquery.googleapis.com/bigquery/v2/"
    )
    for attempt in range(ATTEMPTS):
        try:
            changes = complete(f"{base}/{table}", columns, labels)
        except RefusedError as refused:
            if refused.status == CHANGED_MEANWHILE and attempt + 1 < ATTEMPTS:
                continue
            stop_for(
                f"the table {table} was not completed",
                refused,
                {
                    403: "Whoever applies needs roles/bigquery.dataOwner on the dataset, and to "
                    "set policy tags the right to see their taxonomy (roles/datacatalog.viewer): "
                    "grant it, then run terraform apply again.",
                    404: "The table was deleted meanwhile: run terraform apply again.",
                },
            )
        print(f"{table}: {', '.join(changes) or 'complete'}")
        return


if __name__ == "__main__":
    main()
