"""Datasets of the local BigQuery.

`init` costs the local BigQuery seconds, and each statement costs more the more tables and views
there are. Tests therefore borrow datasets that are emptied and lent again; only those that need
other definitions, or change them, have a dataset made for them, which is then dropped.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from dcm2bq import config, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.local.prepared_database import PreparedDatabase
from dcm2bq.tools.init import init

_TIMEOUT_SECONDS = 300


def in_dataset(dataset_id: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides of the configuration that also name the dataset."""
    return {**overrides, "bigQuery": {**overrides.get("bigQuery", {}), "datasetId": dataset_id}}


def connect(bigquery_url: str, settings: config.Config) -> Dataset:
    """Return the product's own access to a dataset of the local BigQuery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
        return Dataset(settings)


@contextmanager
def dropped(bigquery_url: str, dataset_id: str) -> Iterator[None]:
    """Drop a dataset, if it is there, when the block ends."""
    try:
        yield
    finally:
        _drop(bigquery_url, dataset_id)


@contextmanager
def fresh_dataset(bigquery_url: str, settings: config.Config) -> Iterator[Dataset]:
    """Make the tables and views by `init`; drop them when the block ends."""
    dataset = connect(bigquery_url, settings)
    with dropped(bigquery_url, dataset.dataset_id):
        init(dataset, settings)
        yield dataset


@contextmanager
def borrowed_dataset(
    bigquery_url: str, overrides: Mapping[str, Any] | None = None
) -> Iterator[Dataset]:
    """Lend a dataset with every table and view, and without rows.

    `overrides` are those of the configuration; its dataset is the one that is lent. If they change
    the definitions, the dataset is made for this block only.
    """
    if schema.load(_settings("d", overrides), "p") != schema.load(_settings("d"), "p"):
        with fresh_dataset(bigquery_url, _settings(_new_id(), overrides)) as dataset:
            yield dataset
        return
    if bigquery_url not in _idle:
        _idle[bigquery_url] = [_prepare(bigquery_url, _FIRST)]
    idle = _idle[bigquery_url]
    lent = idle.pop() if idle else _prepare(bigquery_url, _new_id())
    try:
        yield connect(bigquery_url, _settings(lent.dataset_id, overrides))
    finally:
        if _etags(bigquery_url, lent.dataset_id) == lent.etags:
            dataset = connect(bigquery_url, _settings(lent.dataset_id))
            dataset.query("TRUNCATE TABLE instances; TRUNCATE TABLE dead_letter")
            idle.append(lent)
        else:  # the block has changed a definition, or added one
            _drop(bigquery_url, lent.dataset_id)


@contextmanager
def server_with_dataset(folder: Path, storage_url: str) -> Iterator[str]:
    """Run a BigQuery with a dataset to lend, whose tables come from an earlier run if possible.

    Its load jobs read from the Cloud Storage at `storage_url`.
    """
    prepared = PreparedDatabase(_settings(_FIRST))
    with ExitStack() as exits:
        url = prepared.start_server(exits, folder, storage=storage_url)
        _idle[url] = [_prepare(url, _FIRST)]
        prepared.keep(folder)
        yield url


_FIRST = "test_first"
"""The dataset that a server of `server_with_dataset` has, also for the tests of other processes."""


@dataclass(frozen=True)
class _Prepared:
    """A dataset as `init` left it; `etags` change with any definition."""

    dataset_id: str
    etags: Mapping[str, str]


_idle: dict[str, list[_Prepared]] = {}
"""Datasets to lend, by the URL of their server; they live as long as that."""


def _prepare(bigquery_url: str, dataset_id: str) -> _Prepared:
    settings = _settings(dataset_id)
    dataset = connect(bigquery_url, settings)
    init(dataset, settings)
    return _Prepared(dataset.dataset_id, _etags(bigquery_url, dataset.dataset_id))


def _new_id() -> str:
    return f"test_{uuid4().hex[:12]}"


def _settings(dataset_id: str, overrides: Mapping[str, Any] | None = None) -> config.Config:
    return config.from_overrides(in_dataset(dataset_id, overrides or {}))


def _etags(bigquery_url: str, dataset_id: str) -> dict[str, str]:
    """Return the etag of the dataset and of each object in it, by kind and name."""
    url = _url(bigquery_url, dataset_id)
    dataset, tables, routines = (
        requests.get(url + path, params={"maxResults": 1000}, timeout=_TIMEOUT_SECONDS).json()
        for path in ("", "/tables", "/routines")
    )
    return {
        "dataset": dataset.get("etag"),
        **{
            f"table {table['tableReference']['tableId']}": table["etag"]
            for table in tables.get("tables", [])
        },
        **{
            f"routine {routine['routineReference']['routineId']}": routine["etag"]
            for routine in routines.get("routines", [])
        },
    }


def _drop(bigquery_url: str, dataset_id: str) -> None:
    url = _url(bigquery_url, dataset_id)
    requests.delete(url, params={"deleteContents": "true"}, timeout=_TIMEOUT_SECONDS)


def _url(bigquery_url: str, dataset_id: str) -> str:
    return f"{bigquery_url}/bigquery/v2/projects/local/datasets/{dataset_id}"
