"""Datasets of the local BigQuery, which live no longer than the tests that need them.

Each statement costs the local BigQuery more the more tables and views there are: with ten
datasets of ours a statement takes three times as long as with one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from dcm2bq import config
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.tools.init import init

_TIMEOUT_SECONDS = 300


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
        url = f"{bigquery_url}/bigquery/v2/projects/local/datasets/{dataset_id}"
        requests.delete(url, params={"deleteContents": "true"}, timeout=_TIMEOUT_SECONDS)


@contextmanager
def fresh_dataset(bigquery_url: str, settings: config.Config) -> Iterator[Dataset]:
    """Make the tables and views by `init`; drop them when the block ends."""
    dataset = connect(bigquery_url, settings)
    with dropped(bigquery_url, dataset.dataset_id):
        init(dataset, settings)
        yield dataset
