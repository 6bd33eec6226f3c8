"""Whoever ends a run of the tests ends everything that it started."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.function_stack import ROOT
from tests.support.patience import until
from tests.support.processes import guarded, marked, processes

ENDLESS = "tests/support/endless.py"
PYTEST = [str(Path(sys.executable).with_name("pytest")), ENDLESS, "-p", "no:cacheprovider"]
RUNS = {
    "pytest with workers, killed": ([*PYTEST, "-n", "2"], signal.SIGKILL),
    "make, terminated": (["make", "test", f"PYTEST_ARGS={ENDLESS}"], signal.SIGTERM),
    "pytest, terminated": (PYTEST, signal.SIGTERM),
}


def end(run: str, ready: Path) -> str:
    """Start a run, and end it once its test has made `ready`; return its mark."""
    command, number = RUNS[run]
    mark = uuid.uuid4().hex
    environ = {**os.environ, **marked(mark), "TEST_READY": str(ready), "TEST_WORKERS": "1"}
    with subprocess.Popen(
        guarded(command), cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        until(lambda: ready.exists() or process.poll() is not None)
        running = " ".join(processes(mark).values())
        for program in ("bigquery_program", "fake-gcs-server", "forks.py", "backfill"):
            assert program in running
        process.send_signal(number)
    return mark


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The marks of the runs, each ended before the next is started.

    A worker interrupts its test 5 s after its run was killed: in the meantime, others run.
    """
    return {run: end(run, tmp_path_factory.mktemp("run") / "ready") for run in RUNS}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_is_ended_leaves_no_process_behind(marks: dict[str, str], run: str) -> None:
    until(lambda: not processes(marks[run]))
