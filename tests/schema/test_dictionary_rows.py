"""The rows of `dicom_dictionary`: loaded once, and complete."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, private_dictionary_VR
from pydicom.datadict import private_dictionary_description as private_name

from dcm2bq import config, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.dicom.dictionary import entries
from dcm2bq.tools import dictionary_rows
from dcm2bq.tools.dictionary_rows import fill_dictionary
from dcm2bq.tools.init import SchemaAction
from tests.support.datasets import connect, dropped

CONFIG = config.from_overrides({"bigQuery": {"datasetId": f"test_{uuid4().hex[:12]}"}})


@pytest.fixture(scope="module")
def dataset(bigquery_url: str) -> Iterator[Dataset]:
    """A dataset that has only this table."""
    made = connect(bigquery_url, CONFIG)
    with dropped(bigquery_url, made.dataset_id):
        made.create(None)
        made.create_table(resource())
        yield made


def resource() -> dict[str, Any]:
    (definition,) = (d for d in schema.load(CONFIG, "local") if d.name == "dicom_dictionary")
    return {**definition.resource, "labels": {"team": "radiology"}}


def test_the_rows_are_loaded_once_and_labelled(dataset: Dataset) -> None:
    planned = fill_dictionary(dataset, CONFIG, dry_run=True)
    assert (planned.action, numbered(dataset)) == (SchemaAction.CREATED, 0)
    assert fill_dictionary(dataset, CONFIG) == planned
    assert fill_dictionary(dataset, CONFIG).action == SchemaAction.UNCHANGED
    table = dataset.get_table("dicom_dictionary")
    assert table is not None
    assert table["labels"].keys() == {"team", dictionary_rows.LABEL}
    assert table["description"] == resource()["description"]
    assert numbered(dataset) == len(list(entries()))


def test_rows_that_are_missing_are_loaded_again(dataset: Dataset) -> None:
    fill_dictionary(dataset, CONFIG)
    dataset.replace_rows(resource(), b'{"tag": "00100010"}')
    assert fill_dictionary(dataset, CONFIG).action == SchemaAction.UPDATED
    assert numbered(dataset) == len(list(entries()))


def numbered(dataset: Dataset) -> int:
    (row,) = dataset.query("SELECT COUNT(tag) AS n FROM dicom_dictionary")
    return int(row["n"])


def test_the_entries_agree_with_pydicom() -> None:
    rows = {(entry.private_creator, entry.tag): entry for entry in entries()}
    assert len(rows) == len(list(entries())) > 15_000
    assert rows[None, "00100010"][1:] == ("PatientName", "Patient's Name", "PN", "1", False, None)
    assert rows[None, "00280400"].retired
    for (creator, tag), entry in rows.items():
        number = int(tag.replace("x", "0"), 16)
        if creator is None and "x" not in tag:
            assert (entry.keyword or "", entry.vr) == (
                *(keyword_for_tag(number), dictionary_VR(number)),
            )
    csa = rows["SIEMENS CSA HEADER", "0029xx10"]
    assert csa.name == private_name(0x00291010, "SIEMENS CSA HEADER")
    assert csa.vr == private_dictionary_VR(0x00291010, "SIEMENS CSA HEADER")


def test_each_column_is_in_every_row() -> None:
    columns = [field["name"] for field in resource()["schema"]["fields"]]
    for line in dictionary_rows.encoded().splitlines():
        assert list(msgspec.json.decode(line)) == columns
