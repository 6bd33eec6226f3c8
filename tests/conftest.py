"""The real local servers, one of each for the whole run, and a clean environment."""

import atexit
import gc
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dcm2bq.dicom import privacy_rules
from dcm2bq.local import servers
from tests.support.environment import kept_environment
from tests.support.function_forks import ended_function_forks

# At exit, Python looks at each object of all modules that tests import: 0.8 s of CPU per worker.
atexit.register(gc.freeze)

if importlib.util.find_spec("apache_beam") is None:
    collect_ignore = ["beam"]  # run from the environment that has Apache Beam


if importlib.util.find_spec("hypothesis"):  # Apache Beam's environment has none
    from hypothesis import HealthCheck, settings

    # No limit on the time of an example: it would measure what else the machine does.
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")

# The heaviest first, so that no worker is left alone with one of them at the end.
HEAVY = (
    "reliability",
    "backfill",
    "local",
    "function",
    "trial",
    "tools",
    "schema",
    "analysis",
    "deploy",
)
FIGURES = "figures"
WORKERS = pytest.StashKey[list[int]]()
TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="run the long versions")


def pytest_configure(config: pytest.Config) -> None:
    """End in order when terminated, as when interrupted: every fixture ends what it started."""
    workers = config.stash.setdefault(WORKERS, [])

    def end(number: int, frame: FrameType | None) -> None:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, end)
    # A shell lets its background jobs ignore interrupts, and what they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    """Note the process of a worker of pytest-xdist."""
    node.config.stash[WORKERS].append(node.gateway._rinfo().pid)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage during imports, nor later among the imported objects: saves 2 s of CPU."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the heavy packages first."""
    ranks = {name: rank for rank, name in enumerate(HEAVY)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(TESTS).parts[0], len(HEAVY)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests reported."""
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for name, line in report.user_properties:
                if name == FIGURES:
                    terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    """No variable of the caller's steers a test."""
    for name in list(os.environ):
        steers = name.startswith(("DCM2BQ_", "GOOGLE_", "CLOUDSDK_"))
        if (steers or name.endswith("_EMULATOR_HOST")) and name != "DCM2BQ_CORPUS":
            del os.environ[name]


@pytest.fixture(autouse=True)
def no_known_key() -> Iterator[None]:
    """Rules that a test made with its key are not those of the next."""
    privacy_rules.cache_clear()
    yield
    privacy_rules.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def no_forks_left() -> Iterator[None]:
    """The process that functions are forked from ends with the tests."""
    with ended_function_forks():
        yield


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers keep their data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def bigquery_url(core_bigquery_url: str) -> str:
    """A running BigQuery, whose load jobs read from the running Cloud Storage."""
    return core_bigquery_url


@pytest.fixture(scope="session")
def core_bigquery_url(server_folder: Path, storage_url: str) -> Iterator[str]:
    """The BigQuery whose datasets have few views; see `tests.support.datasets`."""
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the local BigQuery runs on Python 3.13 only")
    from tests.support.datasets import server_with_dataset  # noqa: PLC0415 - slow

    with server_with_dataset(server_folder, storage_url) as url:
        yield url


@pytest.fixture(scope="session")
def complete_bigquery_url(server_folder: Path, storage_url: str) -> Iterator[str]:
    """Another running BigQuery, whose datasets have every view; see `tests.support.datasets`."""
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the local BigQuery runs on Python 3.13 only")
    from dcm2bq import schema  # noqa: PLC0415 - slow
    from tests.support.datasets import server_with_dataset  # noqa: PLC0415 - slow

    with server_with_dataset(server_folder / "complete", storage_url, schema.NAMES) as url:
        yield url


@pytest.fixture(scope="session")
def storage_url(server_folder: Path) -> Iterator[str]:
    """A running Cloud Storage."""
    with servers.storage_server(server_folder) as url:
        yield url


@pytest.fixture(scope="session")
def bare_python() -> Path:
    """The Python of an environment with what Google installs, and nothing else."""
    return kept_environment(TESTS.parent / ".work")
