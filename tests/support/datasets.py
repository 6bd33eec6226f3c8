"""Datasets of the local BigQuery.

`init` costs the local BigQuery 3.7 s of CPU with all views, and 0.4 s with those in `CORE`. Tests
therefore borrow datasets that are emptied and lent again, on a server that has only what most tests
read. Only tests that need other definitions, or change them, have a dataset made for them, which is
then dropped.
"""

from collections.abc import Iterator, Mapping, Sequence
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

CORE = (
    *("tables/instances", "tables/dead_letter", "live/instances_live", "live/study"),
    *("dead_letters/dead_letters", "dead_letters/dismissed_letters"),
)
"""The definitions, by file, that the function and the commands use."""

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
    """Lend a dataset without rows; with every view, if it is on a server of that kind.

    `overrides` are those of the configuration; its dataset is the one that is lent. If they change
    the definitions, the dataset is made for this block only.
    """
    names = _names.get(bigquery_url, CORE)
    if schema.load(_settings("d", overrides), "p") != schema.load(_settings("d"), "p"):
        settings = _settings(_new_id(), overrides)
        with dropped(bigquery_url, settings.big_query.dataset_id):
            yield _make(bigquery_url, settings, names)
        return
    if bigquery_url not in _idle:
        _idle[bigquery_url] = [_prepare(bigquery_url, _FIRST, names)]
    idle = _idle[bigquery_url]
    lent = idle.pop() if idle else _prepare(bigquery_url, _new_id(), names)
    try:
        yield connect(bigquery_url, _settings(lent.dataset_id, overrides))
    finally:
        if _etags(bigquery_url, lent.dataset_id) == lent.etags:
            dataset = connect(bigquery_url, _settings(lent.dataset_id))
            tables = (name.removeprefix("tables/") for name in names if name.startswith("tables/"))
            dataset.query("; ".join(f"TRUNCATE TABLE {table}" for table in tables))
            idle.append(lent)
        else:  # the block has changed a definition, or added one
            _drop(bigquery_url, lent.dataset_id)


@contextmanager
def server_with_dataset(
    folder: Path, storage_url: str, names: Sequence[str] = CORE
) -> Iterator[str]:
    """Run a BigQuery with a dataset to lend, whose tables come from an earlier run if possible.

    `names` are the files of the definitions that its datasets have. Its load jobs read from the
    Cloud Storage at `storage_url`.
    """
    with _defining(names):
        prepared = PreparedDatabase(_settings(_FIRST))
    with ExitStack() as exits:
        url, has_tables = prepared.start_server(exits, folder, storage=storage_url)
        _names[url] = names
        if not has_tables:
            _make(url, _settings(_FIRST), names)
            prepared.keep(folder)
        _idle[url] = [_Prepared(_FIRST, _etags(url, _FIRST))]
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
_names: dict[str, Sequence[str]] = {}
"""What the datasets of a server have, by its URL."""


def _prepare(bigquery_url: str, dataset_id: str, names: Sequence[str]) -> _Prepared:
    _make(bigquery_url, _settings(dataset_id), names)
    return _Prepared(dataset_id, _etags(bigquery_url, dataset_id))


def _make(bigquery_url: str, settings: config.Config, names: Sequence[str]) -> Dataset:
    dataset = connect(bigquery_url, settings)
    with _defining(names):
        init(dataset, settings)
    return dataset


@contextmanager
def _defining(names: Sequence[str]) -> Iterator[None]:
    """Let the dataset consist of these definitions only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "NAMES", names)
        yield


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
