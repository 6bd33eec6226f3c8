"""Time limits that allow for the load of the machine, so that other work on it fails no test.

TEST_PATIENCE, 1 by default, makes every limit longer.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

MOST_SCALED = 4
"""Most times by which a limit that is waited for is extended: tests must still end."""


def patience() -> float:
    """Return how many times longer than on an idle machine things may take."""
    load = max(os.getloadavg()[0], _runnable())
    factor = float(os.environ.get("TEST_PATIENCE", "1"))
    return factor * max(1.0, load / (os.cpu_count() or 1))


def scaled(seconds: float) -> int:
    """Return a limit that tests wait for: on a busy machine up to `MOST_SCALED` times as long."""
    return math.ceil(seconds * min(patience(), MOST_SCALED))


@contextmanager
def own_clock() -> Iterator[None]:
    """Let deadlines go by this thread's CPU time, as on a machine that has nothing else to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", time.thread_time)
        yield


def _runnable() -> float:
    """Return how many threads can run at the moment, by proc_loadavg(5)."""
    try:
        with open("/proc/loadavg") as file:  # noqa: PTH123
            return float(file.read().split()[3].partition("/")[0])
    except OSError:
        return 0.0


def until(is_so: Callable[[], object], seconds: float = 300) -> None:
    """Wait until `is_so` returns true; fail after `seconds`, or longer on a busy machine."""
    give_up = time.monotonic() + seconds * patience()
    while not is_so():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
