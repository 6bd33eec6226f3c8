"""Fill the table `dicom_dictionary` from the data dictionary that this release uses.

A label of the table has the digest of its rows, so that they are loaded once.
"""

import hashlib

import msgspec

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.dicom import dictionary
from dcm2bq.tools.init import SchemaAction, SchemaEntry

LABEL = "dcm2bq_dictionary"
"""The label of `dicom_dictionary` with the digest of its rows."""
_DIGEST_DIGITS = 16
"""Of SHA-256: enough to tell dictionaries apart; a label has at most 63 characters."""


def encoded() -> bytes:
    """Return the rows as newline-delimited JSON."""
    return b"\n".join(msgspec.json.encode(entry._asdict()) for entry in dictionary.entries())


def fill_dictionary(dataset: Dataset, config: Config, *, dry_run: bool = False) -> SchemaEntry:
    """Replace the rows of `dicom_dictionary` unless they are those of this release.

    Rows that someone has added or deleted are noticed by their number. The table must exist, except
    for a dry run. Raises `ServiceError` if BigQuery cannot be reached or refuses.
    """
    (definition,) = (
        each for each in schema.load(config, dataset.project) if each.name == "dicom_dictionary"
    )
    content = encoded()
    count = content.count(b"\n") + 1
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
    existing = dataset.get_table(definition.name) or {}
    labels = existing.get("labels") or {}
    present = int(existing.get("numRows") or 0)
    if labels.get(LABEL) == digest and present == count:
        return SchemaEntry("rows", definition.name, SchemaAction.UNCHANGED)
    if not dry_run:
        dataset.replace_rows(definition.resource, content)
        dataset.patch_table(
            {**definition.resource, "labels": {**labels, LABEL: digest}}, ["labels"]
        )
    action = SchemaAction.UPDATED if present else SchemaAction.CREATED
    return SchemaEntry("rows", definition.name, action, (f"{count} rows",))
