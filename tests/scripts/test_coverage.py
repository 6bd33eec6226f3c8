"""`make coverage` measures every process, and fails for the whole suite alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "coverage.sh"


def program(file: Path, script: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Environments whose programs note their calls; the tests pass."""
    log = tmp_path / "calls"
    for name in ("here", "beam"):
        program(tmp_path / name / "pytest", f'echo "$COVERAGE_PROCESS_START" >> {log}')
        program(tmp_path / name / "coverage", f'echo "$@" >> {log}')
    return {
        **os.environ,
        "BIN": str(tmp_path / "here"),
        "BEAM_BIN": str(tmp_path / "beam"),
        "COVERAGE_FOLDER": str(tmp_path / "data"),
    }


def calls(environ: dict[str, str], *arguments: str, status: int = 0) -> list[str]:
    done = subprocess.run([SCRIPT, *arguments], env=environ, check=False)
    assert done.returncode == status
    return (Path(environ["BIN"]).parent / "calls").read_text().splitlines()


def test_both_environments_are_measured_and_the_floor_holds(environ: dict[str, str]) -> None:
    started = str(ROOT / "pyproject.toml")
    assert calls(environ) == [started, started, "combine --quiet", "report"]


def test_a_selection_of_tests_has_no_least_coverage(environ: dict[str, str]) -> None:
    assert calls(environ, "tests/unit", "-x")[1:] == ["combine --quiet", "report --fail-under=0"]


def test_a_run_with_a_failed_test_is_reported_and_fails(environ: dict[str, str]) -> None:
    program(Path(environ["BIN"]) / "pytest", f"echo failed >> {environ['BIN']}/../calls; exit 3")
    report = ["combine --quiet", "report --fail-under=0"]
    assert calls(environ, "tests/unit", status=3) == ["failed", *report]


def test_a_process_that_ends_by_exit_is_measured(tmp_path: Path) -> None:
    """As gunicorn's workers do: forked, and ended without Python's own clean-up."""
    child = (
        "import os, sys\nif os.fork() == 0:\n    import dcm2bq.errors\n    os._exit(0)\nos.wait()"
    )
    environ = {
        # Under `make coverage`, coverage has set variables of its own run.
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"),
        "COVERAGE_FILE": str(tmp_path / "data"),
    }
    subprocess.run([sys.executable, "-c", child], cwd=ROOT, env=environ, check=True)
    coverage = [sys.executable, "-m", "coverage"]
    measured = {k: v for k, v in environ.items() if k != "COVERAGE_PROCESS_START"}
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, env=measured, check=True)
    report = [*coverage, "report", "--fail-under=0", "--include=dcm2bq/errors.py"]
    done = subprocess.run(
        report, cwd=ROOT, env=measured, capture_output=True, text=True, check=True
    )
    assert "100%" not in done.stdout.splitlines()[-1]
    assert " 0%" not in done.stdout.splitlines()[-1]
