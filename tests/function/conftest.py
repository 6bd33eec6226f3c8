"""The functions that the tests of this folder share; faults are cleared after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud import Bucket
from tests.support.function_stack import Stack, function_stack, unique
from tests.support.patience import scaled

OVERRIDES = {
    "bigQuery": {"timeoutSeconds": scaled(3)},
    "limits": {"deadlineSeconds": scaled(4)},
    "log": {"level": "DEBUG"},
}
THREADS = 16
"""As many events as tests send at once, so that none waits for another's deadline."""


@pytest.fixture(scope="package")
def running_stack(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("function")
    with function_stack(folder, bigquery_url, storage_url, OVERRIDES, threads=THREADS) as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The function, without faults."""
    yield running_stack
    running_stack.storage.faults.clear()
    running_stack.bigquery.faults.clear()


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for servers that a test starts."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[tuple[Stack, Bucket]]:
    """A function that accepts events of one bucket."""
    name = unique("guarded-")
    overrides = {**OVERRIDES, "input": {"buckets": [name]}}
    folder = tmp_path_factory.mktemp("guarded")
    with function_stack(folder, bigquery_url, storage_url, overrides) as stack:
        yield stack, Bucket(storage_url, name)
