"""Group commit: the rows of concurrent events share one insert.

A caller that finds no insert in progress sends its row at once. Callers that arrive in the
meantime queue, and when the insert is done, one of them sends all queued rows. There is no timer:
a lone caller never waits.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from dcm2bq.deadline import Deadline
from dcm2bq.errors import Dcm2BqError, WriteFailedError

BATCH_ROWS = 500
BATCH_BYTES = 5_000_000
"""Bounds of one insert, as BigQuery recommends; a larger row is sent alone."""

ENOUGH_SECONDS = 5.0
"""Time that a caller must have left to send for others, to whom its deadline then applies."""

type Verdict = Dcm2BqError | None
"""Why a row was not stored, or None if it was."""
type Send = Callable[[Sequence[bytes], Deadline], Sequence[Verdict]]
"""Inserts encoded rows before a deadline and returns a verdict for each."""


class _Caller:
    """A thread with rows, which waits for verdicts or for its turn to send.

    `leads` is set when it must send the next batch, `is_done` when its verdicts are final;
    `woken` is set after either.
    """

    __slots__ = ("deadline", "is_done", "leads", "rows", "size", "verdicts", "woken")

    def __init__(self, rows: Sequence[bytes], deadline: Deadline) -> None:
        self.rows = rows
        self.size = sum(map(len, rows))
        self.deadline = deadline
        self.verdicts: Sequence[Verdict] = _all_fail(rows, "the insert was not finished")
        self.is_done = False
        self.leads = False
        self.woken = threading.Event()


class GroupCommit:
    """Combines the inserts of concurrent callers into one table."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._queue: deque[_Caller] = deque()
        self._is_busy = False

    def insert(self, row: bytes, deadline: Deadline) -> None:
        """Return when the row is stored; otherwise raise its own verdict.

        Raises `WriteFailedError` if the deadline passes first. The row may still be stored
        later, but an event is acknowledged only when that is certain.
        """
        (verdict,) = self.insert_all((row,), deadline)
        if verdict is not None:
            raise verdict

    def insert_all(self, rows: Sequence[bytes], deadline: Deadline) -> Sequence[Verdict]:
        """Return the verdict of each row, as `insert` would raise it.

        The rows stay together, so they must fit one insert: see `batches`.
        """
        caller = _Caller(rows, deadline)
        with self._lock:
            self._queue.append(caller)
            caller.leads = not self._is_busy
            self._is_busy = True
        try:
            if not caller.leads:
                caller.woken.wait(min(max(deadline.left, 0), threading.TIMEOUT_MAX))
            if caller.leads and not deadline.has_passed:
                self._send_batch(deadline)
        finally:
            self._leave(caller)
        return caller.verdicts

    def _leave(self, caller: _Caller) -> None:
        """Remove a caller from the queue because its time is up or its thread ends."""
        with self._lock:
            if caller.is_done:
                return
            caller.is_done = True
            caller.verdicts = _all_fail(caller.rows, "no time left to insert the row")
            if caller in self._queue:
                self._queue.remove(caller)
            if caller.leads:
                self._hand_over()

    def _send_batch(self, deadline: Deadline) -> None:
        with self._lock:
            batch = self._take()
        verdicts = [verdict for caller in batch for verdict in caller.verdicts]
        try:
            answers = self._send([row for caller in batch for row in caller.rows], deadline)
            assert len(answers) == len(verdicts)
            verdicts = list(answers)
        finally:
            with self._lock:
                begin = 0
                for caller in batch:
                    end = begin + len(caller.rows)
                    if not caller.is_done:
                        caller.verdicts, caller.is_done = verdicts[begin:end], True
                    caller.woken.set()
                    begin = end
                self._hand_over()

    def _take(self) -> list[_Caller]:
        """Remove the rows of one insert from the queue and return their callers."""
        batch = [self._queue.popleft()]
        count, size = len(batch[0].rows), batch[0].size
        while self._queue:
            count, size = count + len(self._queue[0].rows), size + self._queue[0].size
            if count > BATCH_ROWS or size > BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
        return batch

    def _hand_over(self) -> None:
        """Make the first caller with enough time send the next batch, its own rows first."""
        if self._queue:
            latest = max(self._queue, key=lambda caller: caller.deadline.at)
            ready = (caller for caller in self._queue if caller.deadline.left > ENOUGH_SECONDS)
            leader = next(ready, latest)
            self._queue.remove(leader)
            self._queue.appendleft(leader)
            leader.leads = True
            leader.woken.set()
        else:
            self._is_busy = False


def batches(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the rows in groups that fit one insert each."""
    batch: list[bytes] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or size + len(row) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row)
    if batch:
        yield batch


def _all_fail(rows: Sequence[bytes], reason: str) -> list[Verdict]:
    return [WriteFailedError(reason) for _ in rows]
