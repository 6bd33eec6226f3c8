"""Write what a Dataflow worker installs beside Apache Beam, with hashes, out of the lock file."""

import re
import sys
from pathlib import Path

from dcm2bq.tools.backfill.runners.worker_package import PINNED, REQUIREMENTS

LOCK = Path(__file__).parents[1] / "requirements-backfill.txt"
_HEAD = "# By make lock, from requirements-backfill.txt: one line per package, as Beam reads it.\n"


def lines(lock: str) -> str:
    """Return the packages of `PINNED` in a lock file, each with its hashes on one line."""
    content = _HEAD
    for name in PINNED:
        (entry,) = re.findall(rf"^{name}==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
        content += " ".join(entry.replace("\\\n", " ").split()) + "\n"
    return content


if __name__ == "__main__":
    made = lines(LOCK.read_text())
    if "--check" not in sys.argv:
        REQUIREMENTS.write_text(made)
    elif made != REQUIREMENTS.read_text():
        sys.exit(f"{REQUIREMENTS.name} does not follow from {LOCK.name}: make lock")
