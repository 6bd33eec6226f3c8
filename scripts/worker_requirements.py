"""Write the packages that a Dataflow worker installs beside Apache Beam, with hashes."""

import re
import sys
from pathlib import Path

from dcm2bq.tools.backfill.runners.worker_package import PINNED, REQUIREMENTS

LOCK = Path(__file__).parents[1] / "requirements-backfill.txt"
_HEAD = (
    "# Written by make lock from requirements-backfill.txt; Beam expects one line per package.\n"
)


def lines(lock: str) -> str:
    """Return the packages in `PINNED`, each with its version and hashes in the lock on one line."""
    result = _HEAD
    for name in PINNED:
        (entry,) = re.findall(rf"^{name}==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
        result += " ".join(entry.replace("\\\n", " ").split()) + "\n"
    return result


if __name__ == "__main__":
    content = lines(LOCK.read_text())
    if "--check" not in sys.argv:
        REQUIREMENTS.write_text(content)
    elif content != REQUIREMENTS.read_text():
        sys.exit(f"{REQUIREMENTS.name} does not match {LOCK.name}: run make lock")
