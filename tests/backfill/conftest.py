"""A source and a staging bucket for each test, and one dataset for all of them."""

import os
from collections.abc import Iterator

import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.local import servers
from tests.support.backfill_site import PYTHON, Site
from tests.support.datasets import borrowed_dataset
from tests.support.forks import Forks, forking
from tests.support.proxy import LoadingBigQuery, Proxy

IMPORTED = (
    *("dcm2bq.cli", "dcm2bq.tools.backfill.launch"),
    *("dcm2bq.tools.backfill.runners.dataflow", "dcm2bq.tools.backfill.runners.in_process"),
)
"""What a backfill imports, at the latest when it runs."""


@pytest.fixture(scope="package")
def dataset(bigquery_url: str) -> Iterator[Dataset]:
    """The tables and views that all backfills share."""
    with borrowed_dataset(bigquery_url) as dataset:
        yield dataset


@pytest.fixture(scope="package")
def forks() -> Iterator[Forks]:
    """A process that has imported Apache Beam."""
    assert PYTHON.exists(), "make test makes .venv-backfill"
    with forking(PYTHON, servers.isolated(os.environ), IMPORTED) as forks:
        yield forks


@pytest.fixture
def site(storage_url: str, bigquery_url: str, dataset: Dataset, forks: Forks) -> Iterator[Site]:
    """Fresh buckets, with Cloud Storage behind a proxy."""
    with Proxy(storage_url).running() as proxy, LoadingBigQuery(bigquery_url).running() as bigquery:
        yield Site(proxy, storage_url, bigquery.url, dataset, forks)


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether --long was given."""
    return bool(request.config.getoption("--long"))
