"""Load staged shards: batches of them by few load jobs, none of which runs twice.

Several processes may do that at the same time. A record that is written once decides which shards
a batch has, and BigQuery accepts the id of a job only once.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from dcm2bq.bigquery.load import Loader, LoadJob
from dcm2bq.errors import LoadFailedError, RetryableError, describe
from dcm2bq.tools.backfill import batches
from dcm2bq.tools.backfill.run_records import Batch, Loaded, Run, RunRecords, Staged
from dcm2bq.tools.backfill.signs import SignOfLife
from dcm2bq.tools.backfill.staged_files import DEAD_LETTER, INSTANCES

AT_ONCE = 4
"""Batches that are loaded at the same time, and lost at most if the quota is used up by others."""

FILLED_SECONDS = 60.0
"""Least pause between two looks for a full batch, which takes minutes; each costs a listing."""
_LOOK_SECONDS = 10.0  # while the next batch must wait: a sign of life is due every minute


class BatchLoader:
    """Loads staged shards; made once per process, used by all its threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loader = Loader(run.config)
        self._records = RunRecords(run)
        self._staged: dict[int, Staged] = {}
        self._lock = threading.Lock()
        self._looked = time.monotonic()

    def start_full(self) -> None:
        """Start the load jobs of a batch if enough shards are staged for one, and it may start.

        A failure is left to `finish_all`, which meets it again or finds its record: staging can go
        on without BigQuery.
        """
        if not self._lock.acquire(blocking=False):
            return  # another thread does it
        try:
            if time.monotonic() - self._looked < FILLED_SECONDS or self._records.stopped():
                return
            self._looked = time.monotonic()
            batch = self._next(is_last=False)
            if batch and self._records.form(batch):
                self._start(batch)
        except LoadFailedError as error:
            self._records.stop(error)
        except RetryableError:
            pass
        finally:
            self._lock.release()

    def finish_all(self) -> Iterator[Loaded]:
        """Load all shards that are staged; yield the record of each batch.

        Raises `LoadFailedError` if a job failed for a reason that stays. From then on no job is
        started, whatever process repeats this step of the attempt: `--resume` begins another one.
        """
        if earlier := self._records.stopped():
            raise earlier.error
        running: deque[tuple[Batch, Sequence[str]]] = deque()
        try:
            for batch in self._all():
                if loaded := self._records.loaded(batch.number):
                    yield loaded
                    continue
                running.append((batch, self._start(batch)))
                if len(running) == AT_ONCE:
                    yield self._finish(*running.popleft())
            while running:
                yield self._finish(*running.popleft())
        except LoadFailedError as error:
            self._records.stop(error)
            raise
        except Exception as error:
            self._records.fail_to_load(describe(error))
            raise

    def _all(self) -> Iterator[Batch]:
        """Yield the batches that were formed before, then those of the other staged shards."""
        number = 0
        while True:
            for batch in self._records.batches()[number:]:
                yield batch
                number += 1
            following = self._next(is_last=True)
            if following:
                self._records.form(following)  # if another process is faster, its batch is yielded
            elif len(self._records.batches()) == number:
                return

    def _next(self, *, is_last: bool) -> Batch | None:
        """Return the next batch to form, if any, at a time when its jobs may start.

        Waits for that time if `is_last`, and returns None otherwise.
        """
        formed = self._records.batches()
        group = next(batches.full(self._open(formed), is_last=is_last), None)
        if group is None:
            return None
        start = batches.next_start(formed)
        if start is not None and start > datetime.now(UTC):
            if not is_last:
                return None
            self._wait_until(start)
        return batches.batch_of(len(formed), self._run.attempt, datetime.now(UTC), group)

    def _open(self, formed: Sequence[Batch]) -> list[Staged]:
        """Return the staged shards that are in no batch; each is read only once."""
        in_batch = {shard for batch in formed for shard in batch.shards}
        shards = [shard for shard in self._records.staged_shards() if shard not in in_batch]
        self._staged = {shard: self._staged.get(shard) or self._read(shard) for shard in shards}
        return list(self._staged.values())

    def _read(self, shard: int) -> Staged:
        staged = self._records.staged(shard)
        assert staged is not None
        return staged

    def _wait_until(self, start: datetime) -> None:
        sign = SignOfLife(self._records)
        while (seconds := (start - datetime.now(UTC)).total_seconds()) > 0:
            sign.show()
            time.sleep(min(seconds, _LOOK_SECONDS))

    def _start(self, batch: Batch) -> Sequence[str]:
        """Return the ids of a batch's jobs; a job that failed in this attempt is not started."""
        is_again = batch.attempt != self._run.attempt
        return [self._loader.start(job, is_again=is_again) for _, job in jobs(self._run, batch)]

    def _finish(self, batch: Batch, started: Sequence[str]) -> Loaded:
        """Wait until a batch is in BigQuery, record that, and delete its staged files."""
        sign = SignOfLife(self._records)
        rows: Counter[str] = Counter()
        ids = []
        for job_id, (table, job) in zip(started, jobs(self._run, batch), strict=True):
            done = self._loader.finish(job, job_id, on_wait=sign.show)
            rows[table] += done.rows
            ids.append(done.job_id)
        loaded = Loaded(batch=batch.number, rows=rows, jobs=ids)
        self._records.finish(loaded)
        if not self._run.keeps_files:
            self._records.clear(set(batch.shards))
        return loaded


def jobs(run: Run, batch: Batch) -> Iterator[tuple[str, LoadJob]]:
    """Yield the load jobs of a batch, each with its table."""
    options = run.config.big_query
    table_ids = {INSTANCES: options.instances_table_id, DEAD_LETTER: options.dead_letter_table_id}
    parts: Counter[str] = Counter()
    for job in batch.jobs:
        uris = [f"{run.folder}/{name}" for name in job.files]
        name = run.job_id(batch.number, job.table, parts[job.table])
        yield job.table, LoadJob(name, table_ids[job.table], uris)
        parts[job.table] += 1
