"""What the targets of the Makefile would do."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def plan(*args: str, folder: Path = ROOT) -> str:
    """Return the commands that `make` would run, without running any."""
    done = subprocess.run(
        ["make", "--dry-run", *args], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_lock_is_audited() -> None:
    locks = {each.stem for each in ROOT.glob("requirements*.txt")}
    assert len(locks) == 3
    (loop,) = (line for line in plan("audit").splitlines() if " for each in " in line)
    assert set(loop.partition(" in ")[2].partition(";")[0].split()) == locks
    assert "|| status=1" in plan("audit")  # one lock's findings do not hide the next one's
