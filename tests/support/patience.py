"""How long things may take on the machine as it is: other work on it must fail no test.

TEST_PATIENCE, 1 by default, makes every limit longer.
"""

import math
import os
import time
from collections.abc import Callable

MOST_SCALED = 4


def patience() -> float:
    """Return how many times longer than on an idle machine things may take."""
    load = max(os.getloadavg()[0], _runnable())
    factor = float(os.environ.get("TEST_PATIENCE", "1"))
    return factor * max(1.0, load / (os.cpu_count() or 1))


def scaled(seconds: float) -> int:
    """Return a time limit that tests wait for, longer on a busy machine, but not much longer."""
    return math.ceil(seconds * min(patience(), MOST_SCALED))


def _runnable() -> float:
    """Return how many threads want a processor at the moment: proc_loadavg(5)."""
    try:
        with open("/proc/loadavg") as file:  # noqa: PTH123
            return float(file.read().split()[3].partition("/")[0])
    except OSError:
        return 0.0


def until(is_so: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is so; fail after `seconds` of an idle machine."""
    give_up = time.monotonic() + seconds * patience()
    while not is_so():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
