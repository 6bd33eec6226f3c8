"""One function for all tests of this folder; faults are cleared after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.function_stack import Stack, function_stack
from tests.support.patience import scaled

OVERRIDES = {
    "bigQuery": {"timeoutSeconds": scaled(3)},
    "limits": {"deadlineSeconds": scaled(4)},
    "log": {"level": "DEBUG"},
}


@pytest.fixture(scope="package")
def running_stack(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("function")
    with function_stack(folder, bigquery_url, storage_url, OVERRIDES) as stack:
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
