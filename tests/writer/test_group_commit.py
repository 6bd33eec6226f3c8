"""Rows of concurrent callers share inserts, and each caller gets the verdict on its own row."""

import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from dcm2bq import config, rows
from dcm2bq.bigquery.commit import BATCH_BYTES, BATCH_ROWS, GroupCommit
from dcm2bq.bigquery.row_sink import ROW_LIMIT_BYTES, RowSink
from dcm2bq.deadline import Deadline
from dcm2bq.errors import Dcm2BqError, RowTooLargeError, WriteFailedError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.stored_object import StoredObject
from tests.support.insertall import InsertAll

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def bigquery() -> InsertAll:
    return InsertAll()


@pytest.fixture
def writer(bigquery: InsertAll, monkeypatch: pytest.MonkeyPatch) -> Iterator[RowSink]:
    with bigquery.running() as url:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        yield RowSink(config.from_overrides({"bigQuery": {"timeoutSeconds": 300}}))


def row(number: int, metadata: str = "{}") -> rows.InstanceRow:
    event = ObjectEvent(
        event_id=str(number),
        kind=EventKind.FINALIZED,
        time=NOW,
        object=StoredObject(
            bucket="scans",
            name=f"{number}.dcm",
            generation=1,
        ),
    )
    return rows.instance_row(event, now=NOW, info=rows.info(event), metadata=metadata)


def insert(writer: RowSink, each: rows.InstanceRow, seconds: float = 300) -> Dcm2BqError | None:
    """Insert a row; return the error that its caller gets, if any."""
    try:
        writer.insert(each, Deadline.after(seconds))
    except Dcm2BqError as error:
        return error
    return None


def stored(bigquery: InsertAll) -> set[str]:
    return {row["path"] for row in bigquery.stored.values()}


def test_a_lone_caller_never_waits(writer: RowSink, bigquery: InsertAll) -> None:
    assert insert(writer, row(0)) is None
    assert insert(writer, row(1)) is None
    assert bigquery.batches == [1, 1]


def test_rows_that_arrive_during_an_insert_share_the_next_one(
    writer: RowSink, bigquery: InsertAll
) -> None:
    bigquery.seconds = 0.2
    start = threading.Barrier(32)

    def work(number: int) -> Dcm2BqError | None:
        start.wait()
        return insert(writer, row(number))

    with ThreadPoolExecutor(32) as pool:
        verdicts = list(pool.map(work, range(32)))
    assert verdicts == [None] * 32
    assert len(bigquery.stored) == 32
    assert len(bigquery.batches) <= 4


def test_callers_without_a_deadline_wait_for_their_turn(
    writer: RowSink, bigquery: InsertAll
) -> None:
    """As those that expand an archive for a command."""
    bigquery.seconds = 0.2
    with ThreadPoolExecutor(4) as pool:
        insert_one = partial(insert, writer, seconds=math.inf)
        assert list(pool.map(insert_one, map(row, range(4)))) == [None] * 4
    assert len(bigquery.stored) == 4


def test_a_bad_row_does_not_affect_its_neighbours(writer: RowSink, bigquery: InsertAll) -> None:
    bigquery.seconds = 0.1
    bigquery.is_bad = lambda each: each["path"].endswith("/7.dcm")
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda n: insert(writer, row(n)), range(16)))
    assert [n for n, verdict in enumerate(verdicts) if verdict] == [7]
    assert isinstance(verdicts[7], WriteFailedError)
    assert str(verdicts[7]) == "instances: the row was refused (invalid)"
    assert len(bigquery.stored) == 15


def test_a_request_refused_as_a_whole_is_sent_again_in_parts(
    writer: RowSink, bigquery: InsertAll
) -> None:
    def fail(_: int, batch: list[dict[str, Any]]) -> Any:
        bad = any(row["json"]["path"].endswith("/3.dcm") for row in batch)
        return (400, b'{"error": {"errors": [{"reason": "invalid"}]}}') if bad else None

    bigquery.seconds, bigquery.fail = 0.1, fail
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda n: insert(writer, row(n)), range(16)))
    assert [n for n, verdict in enumerate(verdicts) if verdict] == [3]
    assert str(verdicts[3]) == "instances: the row was refused (HTTP 400 (invalid))"
    assert len(bigquery.stored) == 15


@pytest.mark.parametrize("status", [413, 400, 200])
def test_a_row_that_bigquery_can_never_store_is_too_large(
    writer: RowSink, bigquery: InsertAll, status: int
) -> None:
    large = row(0, "x" * ROW_LIMIT_BYTES)
    if status == 200:
        bigquery.is_bad = lambda each: len(each["metadata"]) > 1000
    else:
        bigquery.fail = lambda _n, _rows: (status, b"")
    assert isinstance(insert(writer, large), RowTooLargeError)
    assert isinstance(insert(writer, row(1)), WriteFailedError | None)


def test_a_row_that_waits_too_long_is_answered_in_time(
    writer: RowSink, bigquery: InsertAll
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold(_: int, _rows: list[dict[str, Any]]) -> None:
        begun.set()
        gate.wait()

    bigquery.fail = hold
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(insert, writer, row(0))
        begun.wait()
        try:
            assert str(insert(writer, row(1), seconds=0.3)) == "no time left to insert the row"
            assert not first.done()
        finally:
            gate.set()
        assert first.result() is None
    assert stored(bigquery) == {"gs://scans/0.dcm"}
    assert insert(writer, row(2)) is None


def test_under_64_threads_with_faults_every_caller_gets_its_own_verdict(
    writer: RowSink, bigquery: InsertAll
) -> None:
    chance = random.Random(20260102)
    large, bad = {row(n).path for n in (5, 205)}, {row(n).path for n in range(0, 400, 37)}

    def fail(_: int, batch: list[dict[str, Any]]) -> Any:
        if any(row["json"]["path"] in large for row in batch):
            return 413, b""
        return chance.choice([None, None, None, "reset", (503, b""), (200, b"no JSON")])

    bigquery.seconds, bigquery.fail = 0.005, fail
    bigquery.is_bad = lambda each: each["path"] in bad

    def attempt(number: int) -> Dcm2BqError | None:
        content = "x" * ROW_LIMIT_BYTES if row(number).path in large else "{}"
        return insert(writer, row(number, content), seconds=300)

    with ThreadPoolExecutor(64) as pool:
        verdicts = list(pool.map(attempt, range(400)))
    held = stored(bigquery)
    assert {row(n).path for n in range(400) if verdicts[n] is None} <= held
    for number, verdict in enumerate(verdicts):
        path = row(number).path
        if path in large:
            assert isinstance(verdict, RowTooLargeError)
        elif path in bad:
            assert isinstance(verdict, WriteFailedError)
            assert path not in held
    assert sum(verdict is None for verdict in verdicts) > 50
    assert len(bigquery.batches) < 400
    bigquery.fail = lambda _n, _rows: None
    for number, verdict in enumerate(verdicts):
        if isinstance(verdict, WriteFailedError) and row(number).path not in bad:
            assert insert(writer, row(number)) is None
    assert stored(bigquery) == {row(n).path for n in range(400)} - large - bad


def test_a_batch_has_at_most_500_rows_or_5_mb_and_a_larger_row_is_sent_alone() -> None:
    sent: list[list[int]] = []
    gate = threading.Event()

    def send(batch: Any, _: Deadline) -> list[None]:
        gate.wait()
        sent.append([len(row) for row in batch])
        return [None] * len(batch)

    commit = GroupCommit(send)
    sizes = [1] + [2] * 600 + [BATCH_BYTES - 2000, 2001, BATCH_BYTES + 1, 3]
    with ThreadPoolExecutor(len(sizes)) as pool:
        waiting = []
        for size in sizes:
            waiting.append(pool.submit(commit.insert, b"x" * size, Deadline.after(3000)))
            while len(commit._queue) + 1 < len(waiting):
                time.sleep(0.001)
        gate.set()
        for caller in waiting:
            caller.result()
    assert [len(batch) for batch in sent[:2]] == [1, BATCH_ROWS]
    assert all(sum(batch) <= BATCH_BYTES or len(batch) == 1 for batch in sent)
    assert [BATCH_BYTES + 1] in sent
    assert sum(len(batch) for batch in sent) == len(sizes)


def test_an_unforeseen_error_reaches_the_sender_and_acknowledges_nobody() -> None:
    started, gate = threading.Event(), threading.Event()
    batches: list[int] = []

    def send(batch: Any, _: Deadline) -> list[None]:
        batches.append(len(batch))
        started.set()
        gate.wait()
        if len(batches) == 2:
            raise KeyError("unforeseen")
        return [None] * len(batch)

    commit = GroupCommit(send)

    def attempt() -> str:
        try:
            commit.insert(b"x", Deadline.after(1000))
        except Exception as error:
            return type(error).__name__
        return "stored"

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(attempt)
        assert started.wait()
        others = [pool.submit(attempt) for _ in range(3)]
        while len(commit._queue) < 3:
            time.sleep(0.001)
        gate.set()
        assert first.result() == "stored"
        results = sorted(other.result() for other in others)
    assert results == ["KeyError", "WriteFailedError", "WriteFailedError"]
    assert attempt() == "stored"


def test_a_caller_with_little_time_left_does_not_send_for_others() -> None:
    deadlines: list[float] = []
    gate, now = threading.Event(), time.monotonic()

    def send(batch: Any, deadline: Deadline) -> list[None]:
        deadlines.append(round(deadline.at - now))
        gate.wait()
        return [None] * len(batch)

    commit = GroupCommit(send)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(commit.insert, b"x", Deadline(now + 30))]
        while not deadlines:
            time.sleep(0.001)
        for seconds in (4, 60, 40):
            waiting.append(pool.submit(commit.insert, b"x", Deadline(now + seconds)))
            while len(commit._queue) + 1 < len(waiting):
                time.sleep(0.001)
        gate.set()
        for caller in waiting:
            caller.result()
    assert deadlines == [30, 60]


def test_an_answer_about_rows_that_were_not_sent_is_a_failure(
    writer: RowSink, bigquery: InsertAll
) -> None:
    body = b'{"insertErrors": [{"index": 5, "errors": [{"reason": "invalid"}]}]}'
    bigquery.fail = lambda _n, _rows: (200, body)
    assert str(insert(writer, row(0))) == "instances: the answer names rows that were not sent"
    assert len(bigquery.batches) == 1


@pytest.mark.parametrize(
    ("reason", "location", "told"),
    [
        ("invalid", "info.warnings[2]", "invalid info.warnings[2]"),
        ("invalid", "patientid", "invalid patientid"),
        ("invalid", "SENTINEL", "invalid"),
        ("invalid", "metadata.SENTINEL", "invalid"),
        ("SENTINEL", "metadata", "no reason"),
    ],
)
def test_a_refusal_quotes_only_reasons_and_columns(
    writer: RowSink, bigquery: InsertAll, reason: str, location: str, told: str
) -> None:
    error = f'{{"reason": "{reason}", "location": "{location}", "message": "SENTINEL"}}'
    body = f'{{"insertErrors": [{{"index": 0, "errors": [{error}]}}]}}'.encode()
    bigquery.fail = lambda _n, _rows: (200, body)
    assert str(insert(writer, row(0))) == f"instances: the row was refused ({told})"


def test_many_rows_are_inserted_in_batches_and_each_has_a_verdict(
    writer: RowSink, bigquery: InsertAll
) -> None:
    """Rows of other callers fit in between; a bad row does not affect the others of its batch."""
    bigquery.is_bad = lambda each: each["path"].endswith("/7.dcm")
    many = [row(number) for number in range(BATCH_ROWS + 20)]
    large = [row(-number, "x" * 2_000_000) for number in range(1, 4)]
    with ThreadPoolExecutor(4) as pool:
        lone = pool.submit(insert, writer, row(9999))
        verdicts = writer.insert_all([*many, *large], Deadline.after(300))
    assert lone.result() is None
    assert [n for n, verdict in enumerate(verdicts) if verdict] == [7]
    assert isinstance(verdicts[7], WriteFailedError)
    assert len(bigquery.stored) == BATCH_ROWS + 20 + 3
    assert max(bigquery.batches) <= BATCH_ROWS


def test_many_rows_without_time_all_fail(writer: RowSink) -> None:
    verdicts = writer.insert_all([row(1), row(2)], Deadline.after(-1))
    assert [type(verdict) for verdict in verdicts] == [WriteFailedError] * 2
