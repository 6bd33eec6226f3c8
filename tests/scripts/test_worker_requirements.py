"""What a Dataflow worker installs is what the lock file holds."""

import subprocess
import sys
from pathlib import Path

from dcm2bq.tools.backfill.runners.worker_package import PINNED, REQUIREMENTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "worker_requirements.py"


def test_the_file_follows_from_the_lock() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_each_package_is_on_one_line_with_its_hashes() -> None:
    entries = [line for line in REQUIREMENTS.read_text().splitlines() if line[0] != "#"]
    assert [entry.partition("==")[0] for entry in entries] == list(PINNED)
    assert all(" --hash=sha256:" in entry for entry in entries)
