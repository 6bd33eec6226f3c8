"""Acknowledged events are stored, however the function ends."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
import requests

from tests.reliability.conftest import THREADS
from tests.reliability.state_machine import CONTENTS
from tests.support.archive_files import zip_of
from tests.support.cloud import Event
from tests.support.forks import Forks
from tests.support.function_forks import function_forks
from tests.support.function_process import OURS, descendants, function
from tests.support.function_stack import Stack, unique
from tests.support.patience import until
from tests.support.proxy import Fault

Report = Callable[[str], None]

ENOUGH, LONG_ENOUGH = 80, 120
"""Waiting events: the function must never be idle when it is killed."""


@dataclass
class EventQueue:
    """Delivers events like a trigger, again and again until they are acknowledged."""

    pending: list[Event]
    acknowledged: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self, url: str) -> Iterator[None]:
        """Deliver to the function at `url` until the block ends."""
        is_over = threading.Event()
        with ThreadPoolExecutor(THREADS) as pool:
            workers = [pool.submit(self._work, url, is_over) for _ in range(THREADS)]
            try:
                yield
            finally:
                is_over.set()
            for worker in workers:
                worker.result()

    def _work(self, url: str, is_over: threading.Event) -> None:
        while not is_over.is_set():
            with self.lock:
                event = self.pending.pop() if self.pending else None
                self.under_way += event is not None
            if event is None:
                time.sleep(0.01)
                continue
            try:
                self._deliver(url, event)
            finally:
                with self.lock:
                    self.under_way -= 1

    def _deliver(self, url: str, event: Event) -> None:
        is_acknowledged = self._is_acknowledged(url, event)
        with self.lock:
            self.acknowledged += is_acknowledged
            if not is_acknowledged:
                self.pending.insert(0, event)

    @property
    def is_done(self) -> bool:
        """Whether every event has been acknowledged."""
        with self.lock:
            return not self.pending and not self.under_way

    @staticmethod
    def _is_acknowledged(url: str, event: Event) -> bool:
        with suppress(requests.RequestException):
            return event.post(url).status_code == 200
        return False


class History:
    """Objects that are created, overwritten and deleted; `live` are those that must remain."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self.folder = unique("crash-")
        self.live: dict[str, str] = {}
        self._stack = stack
        self._chance = chance

    def events(self, count: int) -> list[Event]:
        """Return at least that many events of new objects, in any order."""
        events: list[Event] = []
        while len(events) < count:
            name = f"{self.folder}/{unique('')}.dcm"
            events.append(self._upload(name, "one instance"))
            if self._chance.random() < 1 / 3:
                old = events[-1]
                events.append(self._upload(name, "another instance"))
                events.append(replace(old.as_type("deleted"), time=events[-1].time))
            if self._chance.random() < 1 / 3:
                events.append(self._stack.bucket.delete(name))
                del self.live[self._path(name)]
        self._chance.shuffle(events)
        return events

    def _upload(self, name: str, content: str) -> Event:
        event = self._stack.bucket.upload(name, CONTENTS[content])
        self.live[self._path(name)] = event.data["generation"]
        return event

    def _path(self, name: str) -> str:
        return f"gs://{self._stack.bucket.name}/{name}"


def start(stack: Stack, forks: Forks | None = None) -> AbstractContextManager[tuple[int, int]]:
    """Run another function on the stack; yield its port and its process id."""
    environ = {
        "BIGQUERY_EMULATOR_HOST": stack.bigquery.url,
        "STORAGE_EMULATOR_HOST": stack.storage.url,
        "DCM2BQ_CONFIG": json.dumps(
            {
                "bigQuery": {"datasetId": stack.dataset.dataset_id},
                "input": {"archives": "read"},
            }
        ),
    }
    return function(OURS, 0, THREADS, environ=environ, forks=forks)


def kill(stack: Stack, pid: int, number: signal.Signals, chance: random.Random) -> bool:
    """Kill the function while it inserts; return whether an insert was in progress."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up and not stack.bigquery.is_under_way("insertAll"):
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.03))
    victims = descendants(pid) if number is signal.SIGKILL else [pid]
    is_inserting = stack.bigquery.is_under_way("insertAll")
    for victim in victims:
        os.kill(victim, number)
    return is_inserting


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_stored(
    stack: Stack, report: Report, number: signal.Signals, *, is_long: bool
) -> None:
    wanted = 200 if is_long and number is signal.SIGKILL else 2
    report(crash(stack, number, wanted, LONG_ENOUGH if is_long else ENOUGH))


def crash(stack: Stack, number: signal.Signals, wanted: int, waiting: int) -> str:
    """Kill the function until that many kills fell into inserts; return the figures."""
    chance = random.Random(20260103)
    history, load = History(stack, chance), EventQueue([])
    kills = during_inserts = 0
    while during_inserts < wanted:
        load.pending += history.events(waiting - len(load.pending))
        with (
            start(stack, function_forks()) as (port, pid),
            load.running(f"http://127.0.0.1:{port}"),
        ):
            time.sleep(chance.uniform(0, 0.3))
            during_inserts += kill(stack, pid, number, chance)
            kills += 1
            time.sleep(0.2)
    with start(stack, function_forks()) as (port, _), load.running(f"http://127.0.0.1:{port}"):
        until(lambda: load.is_done)
    live = stack.dataset.query(
        "SELECT path, version FROM instances_live WHERE STARTS_WITH(path, @prefix)",
        {"prefix": f"gs://{stack.bucket.name}/{history.folder}/"},
    )
    assert sorted((row["path"], row["version"]) for row in live) == sorted(history.live.items())
    assert not stack.dead_letters()
    return (
        f"{kills} times ended, {during_inserts} of them during inserts, "
        f"{load.acknowledged} events acknowledged, {len(live)} objects live, 0 lost"
    )


@pytest.mark.timeout(600)
def test_an_archive_is_expanded_again_after_its_process_was_killed(stack: Stack) -> None:
    """Killed between its rows and their end; in the end, each member has one live row."""
    members = {str(number): CONTENTS["one instance"] for number in range(40)}
    event = stack.bucket.upload(f"{unique('crash-')}/a.zip", zip_of(members))
    events = (
        "SELECT event, COUNT(*) AS n FROM {} WHERE path = @path GROUP BY event ORDER BY event",
        {"path": f"gs://{stack.bucket.name}/{event.data['name']}"},
    )
    stack.bigquery.faults = [Fault("instances/insertAll", how="stall")]
    with start(stack, function_forks()) as (port, pid), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(event.post, f"http://127.0.0.1:{port}")
        until(lambda: bool(stack.dataset.query(events[0].format("instances"), events[1])))
        for victim in descendants(pid):
            os.kill(victim, signal.SIGKILL)
        assert isinstance(answer.exception(), requests.RequestException)
    stack.bigquery.faults = []
    (stored,) = stack.dataset.query(events[0].format("instances"), events[1])
    assert stored["event"] == "finalized"
    with start(stack, function_forks()) as (port, _):
        assert event.post(f"http://127.0.0.1:{port}").status_code == 200
    expanded, _ = stack.dataset.query(events[0].format("instances"), events[1])
    assert (expanded["event"], expanded["n"]) == ("expanded", 1)
    live = stack.dataset.query(events[0].format("instances_live"), events[1])
    assert live == [{"event": "finalized", "n": 40}]
