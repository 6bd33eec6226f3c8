"""New datasets in the local BigQuery, made by `init`, and rows for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from tests.support import datasets
from tests.support.datasets import borrowed_dataset, dropped
from tests.support.function_stack import unique

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def bigquery_url(complete_bigquery_url: str) -> str:
    """A running BigQuery, whose datasets have every view."""
    return complete_bigquery_url


@pytest.fixture(scope="module")
def client(bigquery_url: str) -> Iterator[bigquery.Client]:
    """A client of the local BigQuery."""
    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": bigquery_url},
    )
    yield client
    client.close()


def with_own_dataset(**options: str) -> Config:
    """Return a configuration with a dataset of its own."""
    return from_overrides({"bigQuery": {"datasetId": unique("schema_"), **options}})


@pytest.fixture
def config(bigquery_url: str) -> Iterator[Callable[..., Config]]:
    """Make a configuration with a dataset of its own, which is dropped after the test."""
    with ExitStack() as stack:

        def make(**options: str) -> Config:
            made = with_own_dataset(**options)
            stack.enter_context(dropped(bigquery_url, made.big_query.dataset_id))
            return made

        yield make


@pytest.fixture(scope="module")
def connect(bigquery_url: str) -> Callable[[Config], Dataset]:
    """Make the project's own access to a dataset."""
    return lambda config: datasets.connect(bigquery_url, config)


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `init` make no views and functions: each takes the local BigQuery a quarter second."""
    monkeypatch.setattr(schema, "NAMES", ("tables/instances", "tables/dead_letter"))


@pytest.fixture
def live_view_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `init` make only `instances` and its view `instances_live`."""
    monkeypatch.setattr(schema, "NAMES", ("tables/instances", "live/instances_live"))


@pytest.fixture(scope="module")
def dataset(bigquery_url: str) -> Iterator[Dataset]:
    """A dataset for the tests of one module, with every table, view and function."""
    with borrowed_dataset(bigquery_url) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def refreshed(dataset: Dataset) -> Iterator[Dataset]:
    """The dataset, for tests that refresh `objects`, which is emptied after the module."""
    yield dataset
    dataset.query("TRUNCATE TABLE objects")


@pytest.fixture(scope="module")
def insert(client: bigquery.Client) -> Callable[..., None]:
    """Stream rows into a table of a dataset."""

    def run(dataset: Dataset, table: str, *rows: Mapping[str, Any]) -> None:
        errors = client.insert_rows_json(f"{dataset.name}.{table}", rows)
        assert not errors

    return run


@pytest.fixture(scope="module")
def load(client: bigquery.Client) -> Callable[[Dataset, Sequence[dict[str, Any]]], None]:
    """Load any number of rows into `instances`, quickly."""

    def run(dataset: Dataset, rows: Sequence[dict[str, Any]]) -> None:
        table = client.get_table(f"{dataset.name}.instances")
        how = bigquery.LoadJobConfig(schema=table.schema, write_disposition="WRITE_APPEND")
        client.load_table_from_json(rows, table, job_config=how).result()

    return run


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, Any]]:
    """Make a row of `instances`; times are seconds after 2024-01-01."""

    def make(
        path: str,
        version: int | str,
        event: str = "finalized",
        *,
        at: float = 0,
        ingested: float | None = None,
        study: str | None = "1",
        series: str | None = "1.1",
        instance: str | None = "1.1.1",
        **columns: Any,
    ) -> dict[str, Any]:
        return {
            "timestamp": (EPOCH + timedelta(seconds=at)).isoformat(),
            "ingested_at": (
                EPOCH + timedelta(seconds=at if ingested is None else ingested)
            ).isoformat(),
            "event": event,
            "path": path,
            "version": str(version),
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": instance,
            **columns,
        }

    return make
