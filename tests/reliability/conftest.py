"""The function with many threads, and the figures of the runs under faults."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli
from tests.conftest import FIGURES
from tests.support.function_stack import ROOT, Stack, function_stack
from tests.support.patience import scaled

THREADS = 16
OVERRIDES: dict[str, Any] = {
    "bigQuery": {"timeoutSeconds": scaled(3)},
    "limits": {"deadlineSeconds": scaled(4)},
    "input": {"archives": "read"},
}

MakeStack = Callable[..., AbstractContextManager[Stack]]


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long versions were requested."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show a line of figures at the end of the run."""
    lines = request.node.user_properties
    return lambda line: lines.append((FIGURES, f"{request.node.name}: {line}"))


@pytest.fixture(scope="session")
def make_stack(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> MakeStack:
    """Run the function of a source folder with its own dataset."""

    def make(
        source: Path = ROOT, *, threads: int = THREADS, **overrides: Any
    ) -> AbstractContextManager[Stack]:
        folder = tmp_path_factory.mktemp("reliability")
        return function_stack(
            folder,
            bigquery_url,
            storage_url,
            {**OVERRIDES, **overrides},
            source=source,
            threads=threads,
        )

    return make


@pytest.fixture(scope="package")
def running_stack(make_stack: MakeStack) -> Iterator[Stack]:
    with make_stack() as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The function, without faults."""
    yield running_stack
    running_stack.storage.faults = []
    running_stack.bigquery.faults = []


def retry_dead_letters(stack: Stack, pattern: str) -> int:
    """Run `dcm2bq dead-letters retry` on the stack; return its exit status."""
    overrides = {
        **OVERRIDES,
        "bigQuery": {"datasetId": stack.dataset.dataset_id},
        "input": {"archives": "read", "otherNames": stack.config.input.other_names},
        "privacy": {"path": stack.config.privacy.path},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
        patch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
        patch.setenv("DCM2BQ_CONFIG", json.dumps(overrides))
        return cli.main(["dead-letters", "retry", "--path", pattern])
