"""Stage a shard: each object goes through the function's handler, its rows into files."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from dcm2bq import events
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.dicom import budget_of
from dcm2bq.errors import RetryableError, describe
from dcm2bq.events import ObjectEvent
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler, Outcome, Result
from dcm2bq.ignored import Ignored, is_ignored
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import attempts, indexing
from dcm2bq.tools.backfill import known
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run, RunRecords, ShardFailure, Staged
from dcm2bq.tools.backfill.signs import SignOfLife
from dcm2bq.tools.backfill.staged_files import StagedFiles
from dcm2bq.tools.backfill.storage_classes import class_of

SKIPPED = "skipped"
"""The result of an object that BigQuery already has."""
LEFT_OUT = "left_out"
"""The result of an object in a storage class that is not to be loaded."""

type ResultListener = Callable[[str], object]
"""Called with the result of each object."""


class ShardStager:
    """Stages shards; made once per process, used by all its threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._store = Store(run.config)
        # There is one process per core, here and on Dataflow; they share the machine's memory.
        self._memory = budget_of(run.config.limits, processes=os.cpu_count() or 1)
        if run.config.privacy.needs_key:
            # On another machine than the launcher's, the key may be another one.
            indexing.require_table(Dataset(run.config), run.config)
        self._dataset = None if run.takes_all else Dataset(run.config)
        self._pool = ThreadPoolExecutor(run.threads, thread_name_prefix="backfill")
        self.records = RunRecords(run)

    def stage(self, shard: Shard, on_result: ResultListener = lambda _: None) -> Staged:
        """Return what is staged of a shard, by an earlier attempt or by this one.

        An object that cannot be converted becomes a dead letter and does not affect the others.
        Raises `RetryableError` if a service is down; nothing of the shard counts then.
        """
        if earlier := self.records.staged(shard.number):
            return earlier
        try:
            return self._stage(shard, on_result)
        except Exception as error:
            self.records.fail(ShardFailure(shard=shard.number, reason=describe(error)))
            raise

    def _stage(self, shard: Shard, on_result: ResultListener) -> Staged:
        sign = SignOfLife(self.records, shard.number)

        def listen(result: str) -> None:
            sign.count()
            on_result(result)

        files = StagedFiles(self.records.folder, shard.number)
        handler = Handler(
            self._run.config, self._store, files, memory=self._memory, bounds_archives=False
        )
        objects = ShardObjects(handler, listen)
        objects.handle(self._events(shard, objects), self._pool, self._run.threads)
        files.close()
        return self.records.stage(
            Staged(
                shard=shard.number,
                files=files.files,
                sizes=files.sizes,
                results=objects.results,
                bytes_read=objects.bytes_read,
            )
        )

    def _events(self, shard: Shard, objects: "ShardObjects") -> Iterator[ObjectEvent]:
        """Yield an event for each object that must be handled."""
        run = self._run
        listed = self._store.list(run.bucket, run.prefix, start=shard.start, end=shard.end)
        chosen = self._chosen(listed, objects)
        if self._dataset is not None:
            chosen = known.missing(
                self._dataset, run, shard, chosen, lambda: objects.count(SKIPPED)
            )
        for stored in chosen:
            yield events.finalized(stored, event_id(run, stored))

    def _chosen(
        self, listed: Iterator[StoredObject], objects: "ShardObjects"
    ) -> Iterator[StoredObject]:
        """Yield the objects that the function does not ignore, of the run's storage classes.

        Count the others.
        """
        classes = self._run.classes
        for stored in listed:
            if is_ignored(self._run.config, stored):
                objects.count(Result.IGNORED)
            elif classes and class_of(stored) not in classes:
                objects.count(LEFT_OUT)
            else:
                yield stored


@dataclass(frozen=True, slots=True)
class ObjectAttempt:
    """An attempt to handle an object; `error` is why it may be worth another one."""

    outcome: Outcome | None
    error: Exception | None

    @property
    def proves_service(self) -> bool:
        """Whether the object was read, whatever it contained."""
        return self.outcome is not None and (
            self.outcome.result in {Result.INSERTED, Result.EXPANDED, Result.DEAD_LETTERED}
            or self.outcome.ignored is Ignored.CONTENT
        )


class ShardObjects:
    """Handles the objects of one shard and counts their results."""

    def __init__(self, handler: Handler, on_result: ResultListener) -> None:
        self._handler = handler
        self._on_result = on_result
        self.results: Counter[str] = Counter()
        self.bytes_read = 0

    def handle(self, chosen: Iterator[ObjectEvent], pool: ThreadPoolExecutor, threads: int) -> None:
        """Handle the events, and those that fail once more at the end.

        An event that fails the second time becomes a dead letter. Raises the error of an outage.
        """
        tried = attempts.attempt_twice(
            partial(self._attempt, is_last=False),
            partial(self._attempt, is_last=True),
            chosen,
            pool=pool,
            threads=threads,
        )
        for attempt in tried:
            if attempt.outcome is None:  # not even its dead letter could be written
                assert attempt.error
                raise attempt.error
            self.bytes_read += attempt.outcome.bytes_read or 0
            self.count(attempt.outcome.result)

    def count(self, result: str) -> None:
        """Count an object's result."""
        self.results[result] += 1
        self._on_result(result)

    def _attempt(self, event: ObjectEvent, *, is_last: bool) -> ObjectAttempt:
        try:
            outcome = self._handler.handle(events.deliver(event), is_last=is_last)
        except Exception as error:
            return ObjectAttempt(None, error)
        # A dead letter for a retryable error is still a sign of an outage.
        is_retryable = isinstance(outcome.error, RetryableError)
        return ObjectAttempt(outcome, outcome.error if is_retryable else None)


def event_id(run: Run, stored: StoredObject) -> str:
    """Return an id for the event of a listed object: its run, and a digest of its generation."""
    path = row_names(run.config.privacy).path(stored.path)
    digest = hashlib.sha256(f"{path}#{stored.generation}".encode()).hexdigest()
    return f"backfill-{run.id}-{digest[:16]}"
