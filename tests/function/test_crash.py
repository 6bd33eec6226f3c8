"""What the function has acknowledged is stored, however it ends."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from function import OURS, descendants, event, function, stubs
from support.insertall import InsertAll

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))
THREADS = 16


@dataclass
class Load:
    """Delivers events until told to stop, as a trigger does: again what was not acknowledged."""

    port: int
    pending: set[int]
    acknowledged: set[int] = field(default_factory=set)
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        while not self.is_over.is_set():
            with self.lock:
                if not self.pending:
                    return
                number = self.pending.pop()
            is_acknowledged = self._deliver(number)
            with self.lock:
                (self.acknowledged if is_acknowledged else self.pending).add(number)

    def _deliver(self, number: int) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/", *event(number, CT_SMALL.stat().st_size, ""))
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(THREADS) as pool:
            workers = [pool.submit(self.work) for _ in range(THREADS)]
            try:
                yield
            finally:
                self.is_over.set()
            for each in workers:
                each.result()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_stored(number: signal.Signals) -> None:
    chance, bigquery = random.Random(20260103), InsertAll()
    bigquery.seconds = 0.005
    acknowledged: set[int] = set()
    pending = set(range(1000))
    with stubs(CT_SMALL) as stub, bigquery.running() as url:
        for _ in range(3):
            environ = {"BIGQUERY_EMULATOR_HOST": url}
            with function(OURS, stub, THREADS, environ=environ) as (port, pid):
                load = Load(port, pending)
                with load.running():
                    time.sleep(chance.uniform(0.1, 0.5))
                    victims = descendants(pid) if number == signal.SIGKILL else [pid]
                    for each in victims:
                        os.kill(each, number)
                    time.sleep(0.3)
                acknowledged |= load.acknowledged
        with function(OURS, stub, THREADS, environ={"BIGQUERY_EMULATOR_HOST": url}) as (port, _):
            load = Load(port, pending)
            with load.running():
                while load.pending:
                    time.sleep(0.05)
            acknowledged |= load.acknowledged
    stored = {row["path"] for row in bigquery.stored.values()}
    assert {f"gs://scans/{each}.dcm" for each in acknowledged} <= stored
    assert len(acknowledged) == 1000
