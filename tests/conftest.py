"""The real local servers, one of each for the whole run, and a clean environment."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.bench_cold_start import make_environment
from dcm2bq.local import servers

if importlib.util.find_spec("apache_beam") is None:
    collect_ignore = ["beam"]  # run from the environment that has Apache Beam


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="run the long versions")


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    """No variable of the caller's steers a test."""
    for name in list(os.environ):
        steers = name.startswith(("DCM2BQ_", "GOOGLE_", "CLOUDSDK_"))
        if (steers or name.endswith("_EMULATOR_HOST")) and name != "DCM2BQ_CORPUS":
            del os.environ[name]


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers keep their data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def bigquery_url(server_folder: Path, storage_url: str) -> Iterator[str]:
    """A running BigQuery, whose load jobs read from the running Cloud Storage."""
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the local BigQuery runs on Python 3.13 only")
    with servers.bigquery_server(server_folder, storage=storage_url) as url:
        yield url


@pytest.fixture(scope="session")
def storage_url(server_folder: Path) -> Iterator[str]:
    """A running Cloud Storage."""
    with servers.storage_server(server_folder) as url:
        yield url


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what Google installs, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("environment"))
