"""Group commit: the rows of concurrent events share one insert.

Whoever finds the writer idle sends; those who come meanwhile queue, and when the insert is
done, one of them sends all that is queued. There is no timer: who is alone waits for
nobody.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from dcm2bq.deadline import Deadline
from dcm2bq.errors import Dcm2BqError, WriteFailedError

BATCH_ROWS = 500
BATCH_BYTES = 5_000_000
"""Bounds of one insert, as BigQuery advises; a larger row goes alone."""

ENOUGH_SECONDS = 5.0
"""Who has less time left does not send for others: its deadline would be theirs."""

type Verdict = Dcm2BqError | None
"""Why a row is not stored; None when it is."""
type Send = Callable[[Sequence[bytes], Deadline], Sequence[Verdict]]
"""Inserts encoded rows before a deadline, and returns a verdict for each."""


class _Caller:
    """A thread with a row: it waits for a verdict, or until it is its turn to send."""

    __slots__ = ("deadline", "is_done", "leads", "row", "verdict", "woken")

    def __init__(self, row: bytes, deadline: Deadline) -> None:
        self.row = row
        self.deadline = deadline
        self.verdict: Verdict = WriteFailedError("the insert was not finished")
        self.is_done = False
        self.leads = False
        self.woken = threading.Event()


class GroupCommit:
    """Joins the inserts of concurrent callers into one table."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._queue: deque[_Caller] = deque()
        self._is_busy = False

    def insert(self, row: bytes, deadline: Deadline) -> None:
        """Return when the row is stored; otherwise raise its own verdict.

        When `deadline` passes first, that is `WriteFailedError`, though
        the row may yet be stored: an event is acknowledged only when that is certain.
        """
        caller = _Caller(row, deadline)
        with self._lock:
            self._queue.append(caller)
            caller.leads = not self._is_busy
            self._is_busy = True
        try:
            if not caller.leads:
                caller.woken.wait(max(deadline.left, 0))
            if caller.leads and not deadline.has_passed:
                self._send_batch(deadline)
        finally:
            self._leave(caller)
        if caller.verdict is not None:
            raise caller.verdict

    def _leave(self, caller: _Caller) -> None:
        """Take a caller whose time is up, or whose thread ends, out of the queue."""
        with self._lock:
            if caller.is_done:
                return
            caller.is_done = True
            caller.verdict = WriteFailedError("no time left to insert the row")
            if caller in self._queue:
                self._queue.remove(caller)
            if caller.leads:
                self._hand_over()

    def _send_batch(self, deadline: Deadline) -> None:
        with self._lock:
            batch = self._take()
        verdicts: Sequence[Verdict] = [each.verdict for each in batch]
        try:
            answered = self._send([each.row for each in batch], deadline)
            assert len(answered) == len(batch)
            verdicts = answered
        finally:
            with self._lock:
                for each, verdict in zip(batch, verdicts, strict=True):
                    if not each.is_done:
                        each.verdict, each.is_done = verdict, True
                    each.woken.set()
                self._hand_over()

    def _take(self) -> list[_Caller]:
        """Take the rows of one insert off the queue."""
        batch = [self._queue.popleft()]
        room = BATCH_BYTES - len(batch[0].row)
        while self._queue and len(batch) < BATCH_ROWS and len(self._queue[0].row) <= room:
            batch.append(self._queue.popleft())
            room -= len(batch[-1].row)
        return batch

    def _hand_over(self) -> None:
        """Let the first in the queue who has time enough send the next batch, its row first."""
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
