"""The function at its highest concurrency: every event is served, and memory stays flat."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.reliability.state_machine import CONTENTS
from tests.reliability.test_crash import start
from tests.support.cloud import Event
from tests.support.function_process import resident_bytes
from tests.support.function_stack import Stack, unique

Report = Callable[[str], None]

CONCURRENT = 64
"""Four times as many as the function has threads: the others queue, as in a burst."""
LONG_SECONDS, SHORT_SECONDS = 180, 4
GROWTH_BYTES = 24 * 2**20


class Burst:
    """Delivers events about one object, each a separate change, from many threads."""

    def __init__(self, event: Event, url: str) -> None:
        self.seconds: list[float] = []
        self.refused: list[int] = []
        self._event = event
        self._url = url
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Deliver without a pause for that long."""
        give_up = time.monotonic() + seconds
        with ThreadPoolExecutor(CONCURRENT) as pool:
            for future in [pool.submit(self._work, give_up) for _ in range(CONCURRENT)]:
                future.result()

    def percentile(self, share: float) -> int:
        """Return the milliseconds within which that share of the events was answered."""
        ordered = sorted(self.seconds)
        return round(1000 * ordered[int(share * (len(ordered) - 1))])

    def _work(self, give_up: float) -> None:
        while time.monotonic() < give_up:
            now = datetime.now(UTC).isoformat()
            event = replace(self._event, id=unique("load-"), time=now)
            started = time.monotonic()
            status = event.post(self._url).status_code
            with self._lock:
                self.seconds.append(time.monotonic() - started)
                if status != 200:
                    self.refused.append(status)


@pytest.mark.timeout(1800)
def test_under_load_every_event_is_served_and_memory_is_flat(
    stack: Stack, report: Report, *, is_long: bool
) -> None:
    seconds = LONG_SECONDS if is_long else SHORT_SECONDS
    with start(stack) as (port, pid):
        report(load(stack, f"http://127.0.0.1:{port}", pid, seconds))


def load(stack: Stack, url: str, pid: int, seconds: float) -> str:
    """Warm the function up, load it for that long, and return the figures."""
    event = stack.bucket.upload(unique("load-") + ".dcm", CONTENTS["one instance"])
    Burst(event, url).run(seconds / 3)
    before = resident_bytes(pid)
    run = Burst(event, url)
    run.run(seconds)
    after = resident_bytes(pid)
    assert run.refused == []
    assert after - before < GROWTH_BYTES
    assert len(stack.live(f"ENDS_WITH(path, '{event.data['name']}')")) == 1
    served = len(run.seconds)
    return (
        f"{served} events in {seconds:.0f} s by {CONCURRENT} at once, "
        f"{served / seconds:.0f} a second; answered within {run.percentile(0.5)} ms (50 %), "
        f"{run.percentile(0.95)} ms (95 %), {run.percentile(0.99)} ms (99 %); "
        f"memory {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after"
    )
