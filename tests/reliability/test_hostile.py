"""Hostile and enormous objects beside ordinary ones, in little memory and on one core."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dcm2bq.local import servers
from tests.support.cloud import Bucket, Event
from tests.support.function_process import descendants
from tests.support.function_stack import ROOT, unique
from tests.support.hostile import MIB, Content, hostile
from tests.support.insertall import InsertAll
from tests.support.limited import Limited, limited
from tests.support.patience import patience, scaled, until
from tests.support.processes import guarded

MEMORY = 512 * MIB
CONCURRENT = 8
SHORT = ("single US", "arrays of IS", "empty, distinct", "empty items", "deflated, empty",
         "RTSTRUCT 1.0", "RTSTRUCT.gz", "references")  # fmt: skip
SHORT_SHARE = 0.4
SHORT_SHARE_OF_A_CORE = 0.2
"""Takes that core up to 2 s for an object."""
ORDINARY = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()

Report = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """The answer to a delivery, and the seconds until it came."""

    event: Event
    status: int
    seconds: float


@dataclass(frozen=True)
class Function:
    """A running function."""

    url: str
    pid: int
    limit: Limited
    log: Path

    @property
    def peak_mib(self) -> int:
        """Its peak memory."""
        if (peak := self.limit.peak_bytes) is not None:
            return peak // MIB
        statuses = [
            Path(f"/proc/{process_id}/status").read_text() for process_id in descendants(self.pid)
        ]
        return sum(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) // 1024

    def deliver(self, event: Event) -> Answer:
        """Deliver an event."""
        start = time.monotonic()
        status = event.post(self.url).status_code
        return Answer(event, status, time.monotonic() - start)


@contextmanager
def function(
    folder: Path, storage: str, bigquery: str, *, prefix: tuple[str, ...] = (), **limits: int
) -> Iterator[Function]:
    """Run the function as deployed, in a control group of at most `MEMORY`."""
    port, log = servers.free_port(), folder / "log"
    script = Path(sys.executable).with_name("functions-framework")
    with limited(MEMORY) as limit, log.open("wb") as output:
        if limit.kind != "cgroup":  # the function sees a control group by itself
            limits["memoryBytes"] = int(MEMORY * 0.7) - 70 * MIB
        command = [
            *(*limit.prefix, *prefix, str(script), "--target=ingest"),
            *(f"--source={ROOT / 'main.py'}", "--host=127.0.0.1", f"--port={port}"),
        ]
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "THREADS": str(CONCURRENT),
            "STORAGE_EMULATOR_HOST": storage,
            "BIGQUERY_EMULATOR_HOST": bigquery,
            "DCM2BQ_CONFIG": json.dumps({"limits": limits}),
        }
        process = subprocess.Popen(guarded(command), env=environ, stdout=output, stderr=output)
        try:
            url = servers.url(port)
            until(lambda: process.poll() is not None or servers.answers(port, "/"))
            assert process.poll() is None, log.read_text()
            yield Function(url, process.pid, limit, log)
        finally:
            process.terminate()
            process.wait()


def objects(share: float = SHORT_SHARE, *, is_long: bool) -> list[tuple[str, Content]]:
    """Return the objects: all in full size, or a few of that share of it."""
    if is_long:
        return list(hostile())
    return [(name, make) for name, make in hostile(share) if name in SHORT]


def upload(bucket: Bucket, name: str, make: Content) -> Event:
    """Store a hostile object; return its event."""
    encoding = {"content_encoding": "gzip"} if name.endswith(".gz") else {}
    return bucket.upload(f"{name}.dcm", make(), **encoding)


def outcomes(stored: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return by generation what became of each object: a row, or the reason of a dead letter."""
    found = {}
    for row in stored.values():
        if "attributes" in row:
            reason = json.loads(row["attributes"])
            data = json.loads(_decoded(row["data"]))
            found[str(data["generation"])] = f"{reason['error_type']}: {reason['error']}"
        else:
            found[row["version"]] = "row"
    return found


def _decoded(data: str) -> bytes:
    import base64  # noqa: PLC0415

    return base64.b64decode(data)


@pytest.mark.timeout(1800)
def test_in_little_memory_every_object_finishes_and_ordinary_ones_are_served(
    tmp_path: Path, storage_url: str, *, is_long: bool, report: Report
) -> None:
    """Under a hard limit at full concurrency no process dies and no event needs redelivery."""
    state = InsertAll()
    bucket = Bucket(storage_url, unique("hostile-"))
    events = [upload(bucket, name, make) for name, make in objects(is_long=is_long)]
    ordinary = [bucket.upload(f"ordinary {n}.dcm", ORDINARY) for n in range(8)]
    served: list[Answer] = []
    is_over = threading.Event()
    with (
        state.running() as bigquery,
        # The other test is about time; this one must not depend on the load of the machine.
        function(tmp_path, storage_url, bigquery, deadlineSeconds=scaled(90)) as running,
    ):
        workers = descendants(running.pid)

        def serve() -> None:
            for n in range(1_000_000):
                if is_over.is_set():
                    break
                event = ordinary[n % len(ordinary)]
                served.append(running.deliver(event))
                is_over.wait(0.2)

        with ThreadPoolExecutor(CONCURRENT) as pool:
            beside = pool.submit(serve)
            answers = list(pool.map(running.deliver, events, chunksize=1))
            is_over.set()
            beside.result()
        assert descendants(running.pid) == workers, "the process was killed"
        peak = running.peak_mib
        kind = running.limit.kind
    found = outcomes(state.stored)
    ends = {
        answer.event.data["name"]: (answer.status, found.get(answer.event.data["generation"]))
        for answer in answers
    }
    assert all(status == 200 and end for status, end in ends.values()), ends
    assert {answer.status for answer in served} == {200}
    slowest = max(answer.seconds for answer in served)
    rows = sum(end == "row" for _, end in ends.values())
    report(
        f"{len(ends)} objects at {CONCURRENT} concurrent under {kind} of {MEMORY // MIB} MiB: "
        f"{rows} rows, {len(ends) - rows} dead letters, peak {peak} MiB; {len(served)} ordinary "
        f"events beside them, all served, the slowest within {slowest:.1f} s"
    )
    if is_long:
        for name, (_, end) in ends.items():
            report(f"  {name}: {end}")


@pytest.mark.timeout(1800)
def test_the_deadline_holds_within_a_second_on_one_core(
    tmp_path: Path, storage_url: str, *, is_long: bool, report: Report
) -> None:
    """Every object is answered in time, and one that is too slow becomes a dead letter."""
    state, seconds = InsertAll(), scaled(5 if is_long else 3)
    bucket = Bucket(storage_url, unique("slow-"))
    hard = objects(SHORT_SHARE_OF_A_CORE, is_long=is_long)
    events = [upload(bucket, name, make) for name, make in hard]
    core = str(min(os.sched_getaffinity(0)))
    with (
        state.running() as bigquery,
        function(
            tmp_path,
            storage_url,
            bigquery,
            prefix=("taskset", "-c", core),
            deadlineSeconds=seconds,
        ) as running,
    ):
        answers = [running.deliver(event) for event in events]
        # If others use that core too, an object may not have had its share of the time.
        again = [running.deliver(answer.event) for answer in answers if answer.status != 200]
    found = outcomes(state.stored)
    late = [
        (answer.event.data["name"], answer.seconds)
        for answer in answers
        if answer.seconds > seconds + patience()
    ]
    assert not late
    ends = {
        answer.event.data["name"]: (answer.status, found.get(answer.event.data["generation"]))
        for answer in answers + again
    }
    assert all(status == 200 and end for status, end in ends.values()), ends
    out_of_time = sum("deadlineSeconds" in str(end) for _, end in ends.values())
    slowest = max(answer.seconds for answer in answers)
    report(
        f"{len(ends)} objects, deadline {seconds} s, one core: the slowest answer after "
        f"{slowest:.2f} s; {out_of_time} were out of time, and are dead letters; "
        f"{len(again)} were delivered again"
    )
