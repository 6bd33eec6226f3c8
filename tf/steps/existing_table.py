"""Refuse a table of another deployment that cannot take the rows of this one; change nothing.

DCM2BQ_TABLE is projects/P/datasets/D/tables/T. DCM2BQ_COLUMNS holds the columns of this release as
JSON, DCM2BQ_PRIVACY the fingerprint of the privacy options, or nothing if there are none.
"""

from __future__ import annotations

import json
import os
from typing import Any

from columns import Column, merge
from google_api import RefusedError, call, endpoint, stop, stop_for

PRIVACY_LABEL = "dcm2bq_privacy"


def main() -> None:
    """Compare the table's columns and label with those that the function needs."""
    name = os.environ["DCM2BQ_TABLE"]
    columns: list[Column] = json.loads(os.environ["DCM2BQ_COLUMNS"])
    fingerprint = os.environ["DCM2BQ_PRIVACY"]
    base = endpoint(
        "GOOGLE_BIG_QUERY_CUSTOM_ENDPOINT", "https://bigquery.googleapis.com/bigquery/v2/"
    )
    try:
        table = call("GET", f"{base}/{name}")
    except RefusedError as refused:
        stop_for(
            f"the table {name} was not read",
            refused,
            {
                403: "Whoever applies needs roles/bigquery.metadataViewer on the dataset: "
                "grant it, then run terraform apply again.",
                404: "dataset.existing takes a dataset with tables: apply the deployment that "
                "owns it first, or leave dataset.existing out.",
            },
        )
    check(name, table, columns, fingerprint)
    print(f"{name}: as needed")


def check(name: str, table: dict[str, Any], columns: list[Column], fingerprint: str) -> None:
    """Stop unless the table has every column, and rows of the same privacy options."""
    changes = merge(table.get("schema", {}).get("fields", []), columns)
    if changes:
        missing = ", ".join(change.split()[0] for change in changes)
        stop(
            f"the table {name} lacks columns of this release: {missing}. "
            "Upgrade the deployment that owns the dataset first."
        )
    if table.get("labels", {}).get(PRIVACY_LABEL, "") != fingerprint:
        stop(
            f"the table {name} holds rows made by other privacy options: "
            "use the options of the deployment that owns the dataset, or another dataset."
        )


if __name__ == "__main__":
    main()
