"""`make` finds a Python of a supported version, the preferred one first."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "find_python.sh"


def find(folder: Path, *versions: str, **environ: str) -> tuple[int, str]:
    """Run the script where only a folder's programs and the system's are on PATH."""
    environment = {"PATH": f"{folder}:/usr/bin:/bin", **environ}
    done = subprocess.run(
        [SCRIPT, *versions], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def python(folder: Path, name: str, version: str) -> str:
    """Write a stand-in for a Python of a version; return its path."""
    program = folder / name
    program.write_text(
        f'#!/bin/sh\ncase "$2" in *print*) echo {program};; *) test "$3" = {version};; esac\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def two(tmp_path: Path) -> dict[str, str]:
    """Stand-ins for Pythons 8.1, which is `python3`, and 8.2."""
    return {
        "8.1": python(tmp_path, "python3", "8.1"),
        "8.2": python(tmp_path, "python8.2", "8.2"),
    }


def test_the_first_installed_version_is_used(tmp_path: Path, two: dict[str, str]) -> None:
    assert find(tmp_path, "8.2", "8.1") == (0, two["8.2"])
    assert find(tmp_path, "8.1", "8.2") == (0, two["8.1"])
    assert find(tmp_path, "8.3", "8.1") == (0, two["8.1"])


def test_a_real_python_is_found_by_its_path(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    status, path = find(tmp_path, version, PYTHON=sys.executable)
    assert status == 0
    assert Path(path).samefile(sys.executable)


def test_a_named_python_is_used_or_refused(tmp_path: Path, two: dict[str, str]) -> None:
    assert find(tmp_path, "8.2", "8.1", PYTHON=two["8.1"]) == (0, two["8.1"])
    status, message = find(tmp_path, "8.3", "8.2", PYTHON=two["8.1"])
    assert status == 1
    assert message == (
        f"PYTHON={two['8.1']} is not a Python of version 8.3 or 8.2: set it to one that is"
    )


def test_without_any_python_the_message_says_what_to_install(tmp_path: Path) -> None:
    status, message = find(tmp_path, "8.3", "8.2")
    assert status == 1
    assert message.startswith("Python 8.3 is not installed: install it from https://")
