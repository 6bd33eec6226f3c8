"""A running function, and the commands on its dataset."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli
from tests.support.commands import Done, Output
from tests.support.function_stack import Stack, function_stack
from tests.support.patience import scaled


@pytest.fixture(scope="package")
def running_stack(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tools")
    overrides = {
        "bigQuery": {"timeoutSeconds": scaled(3)},
        "limits": {"deadlineSeconds": scaled(4)},
        "input": {"archives": "read"},
    }
    with function_stack(folder, bigquery_url, storage_url, overrides) as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The running function; faults injected by a test are removed after it."""
    yield running_stack
    running_stack.storage.faults.clear()
    running_stack.bigquery.faults.clear()


class Command:
    """Runs commands in this process, on the stack's dataset and through its proxies."""

    def __init__(self, stack: Stack, patch: pytest.MonkeyPatch, output: Output) -> None:
        patch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
        patch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
        self._patch = patch
        self._output = output
        self.configure(stack)

    def configure(self, stack: Stack, **overrides: Any) -> None:
        """Use the function's configuration, overridden by `overrides`."""
        options = {
            "bigQuery": {"datasetId": stack.dataset.dataset_id, "timeoutSeconds": scaled(3)},
            "limits": {"deadlineSeconds": scaled(4)},
            "input": {"archives": "read"},
            **overrides,
        }
        self._patch.setenv("DCM2BQ_CONFIG", json.dumps(options))

    def __call__(self, *args: str) -> Done:
        status = cli.main(args)
        return Done(status, *self._output.readouterr())


@pytest.fixture
def command(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs commands on the stack."""
    return Command(stack, monkeypatch, capsys)


@pytest.fixture(scope="session")
def ct_small() -> bytes:
    """A DICOM file."""
    from pydicom.data import get_testdata_file  # noqa: PLC0415

    return Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
