"""What the targets of the Makefile would do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def plan(*args: str, folder: Path = ROOT) -> str:
    """Return the commands that `make` would run, without running any."""
    done = subprocess.run(
        ["make", "--dry-run", *args], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_lock_is_audited() -> None:
    locks = {path.stem for path in ROOT.glob("requirements*.txt")}
    assert len(locks) == 3
    (loop,) = (line for line in plan("audit").splitlines() if " for lock in " in line)
    assert set(loop.partition(" in ")[2].partition(";")[0].split()) == locks
    assert "|| status=1" in plan("audit")  # one lock's findings do not hide the next one's


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environments are ready, as far as make can see."""
    for name in ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("require*.txt"))):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in (".venv", ".venv-backfill"):
        bin_ = tmp_path / name / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "python").symlink_to(sys.executable)
        (bin_ / "dcm2bq").write_text(f"#!{bin_}/python\n")
        (ready,) = re.findall(rf"touch ({name}/\S+)", plan("test", folder=tmp_path))
        (tmp_path / ready).touch()
    assert "setting up" not in plan("test", folder=tmp_path)
    return tmp_path


def test_an_environment_whose_python_is_gone_is_recreated(checkout: Path) -> None:
    python = checkout / ".venv-backfill" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.13")
    assert plan("test", folder=checkout).count("setting up .venv-backfill") == 1
    assert "setting up" not in plan("run", folder=checkout)


def test_an_environment_that_was_moved_is_recreated(checkout: Path) -> None:
    moved = checkout.rename(checkout.with_name("moved"))
    assert "setting up .venv " in plan("run", folder=moved)


WORKERS = "-n 3 --dist loadfile --no-loadscope-reorder"


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ([], ["beam tests/beam", f"here {WORKERS} tests"]),
        (
            ["-x", "-k", "a or b"],
            ["beam tests/beam -x -k a or b", f"here {WORKERS} tests -x -k a or b"],
        ),
        (["tests/unit", "-x"], [f"here {WORKERS} tests/unit -x"]),
        (["tests/beam/test_pipeline.py::test_a"], ["beam tests/beam/test_pipeline.py::test_a"]),
        (["tests/beam", "tests/cli"], ["beam tests/beam", f"here {WORKERS} tests/cli"]),
        (["tests"], ["beam tests/beam", f"here {WORKERS} tests"]),
    ],
)
def test_tests_run_in_the_environments_that_they_need(
    arguments: list[str], calls: list[str], tmp_path: Path
) -> None:
    assert run_tests(tmp_path, arguments) == (0, calls)


@pytest.mark.parametrize(
    ("here", "beam", "status"), [(5, 0, 0), (0, 5, 0), (5, 5, 5), (1, 0, 1), (0, 1, 1), (5, 2, 2)]
)
def test_a_selection_may_match_nothing_in_one_environment(
    here: int, beam: int, status: int, tmp_path: Path
) -> None:
    assert run_tests(tmp_path, ["-k", "x"], here=here, beam=beam)[0] == status


def run_tests(folder: Path, arguments: list[str], **statuses: int) -> tuple[int, list[str]]:
    """Run the script with stand-ins for pytest; return its status and their calls, in order."""
    for name in ("here", "beam"):
        (folder / name).mkdir()
        program = folder / name / "pytest"
        log = folder / "calls"
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\nexit {statuses.get(name, 0)}\n')
        program.chmod(0o755)
    environ = {
        **os.environ,
        "TEST_WORKERS": "3",
        "BIN": str(folder / "here"),
        "BEAM_BIN": str(folder / "beam"),
    }
    script = [str(ROOT / "scripts" / "run_tests.sh"), *arguments]
    done = subprocess.run(script, env=environ, check=False)
    return done.returncode, sorted((folder / "calls").read_text().splitlines())
