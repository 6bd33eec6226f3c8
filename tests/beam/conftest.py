"""The local servers, run from .venv: the environment of Apache Beam does not have them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.function_stack import ROOT

PYTHON = ROOT / ".venv" / "bin" / "python"


@pytest.fixture(scope="session")
def urls(server_folder: Path) -> Iterator[list[str]]:
    """The URLs of a running Cloud Storage and a running BigQuery."""
    command = [str(PYTHON), "-m", "tests.support.serve", str(server_folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().split()
        process.stdin.close()


@pytest.fixture(scope="session")
def storage_url(urls: list[str]) -> str:
    """A running Cloud Storage."""
    return urls[0]


@pytest.fixture(scope="session")
def bigquery_url(urls: list[str]) -> str:
    """A running BigQuery, whose load jobs read from the running Cloud Storage."""
    return urls[1]
