"""New datasets in the local BigQuery, made by `init`, and rows for them."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from dcm2bq.tools.init import init

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def client(bigquery_url: str) -> Iterator[bigquery.Client]:
    """A client of the local BigQuery."""
    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": bigquery_url},
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def config() -> Callable[..., Config]:
    """Make a configuration with a new dataset name."""

    def make(**options: str) -> Config:
        name = f"schema_{uuid.uuid4().hex[:12]}"
        return from_overrides({"bigQuery": {"datasetId": name, **options}})

    return make


@pytest.fixture(scope="session")
def connect(bigquery_url: str) -> Callable[[Config], Dataset]:
    """Make a `Dataset` of the product."""

    def make(config: Config) -> Dataset:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
            return Dataset(config)

    return make


@pytest.fixture(scope="module")
def dataset(config: Callable[..., Config], connect: Callable[[Config], Dataset]) -> Dataset:
    """A dataset for the tests of one module, with every table, view and function."""
    made = config()
    dataset = connect(made)
    init(dataset, made)
    return dataset


@pytest.fixture(scope="session")
def insert(client: bigquery.Client) -> Callable[..., None]:
    """Stream rows into a table of a dataset."""

    def run(dataset: Dataset, table: str, *rows: Mapping[str, Any]) -> None:
        errors = client.insert_rows_json(f"{dataset.name}.{table}", rows)
        assert not errors

    return run


@pytest.fixture(scope="session")
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
