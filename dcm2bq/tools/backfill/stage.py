"""Stage a shard: each object through the function's own handler, its rows into files."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dcm2bq import events
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.dicom import budget_of
from dcm2bq.errors import ConfigError, RetryableError
from dcm2bq.events import ObjectEvent
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler, Outcome, Result
from dcm2bq.ignored import is_ignored
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill import known
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Records, Run, Staged
from dcm2bq.tools.backfill.staged_files import Files
from dcm2bq.tools.parallel import in_parallel

OUTAGE = 8
"""So many failures in a row that may pass by themselves mean that a service is down."""

SKIPPED = "skipped"
"""What became of an object that BigQuery has already."""

_AGAIN_AT_ONCE = 1000
_PAUSE_SECONDS = 1.0

type Listener = Callable[[str], object]
"""Hears what became of each object."""


class Stager:
    """Stages shards; made once per process, used by all its threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._store = Store(run.config)
        # Here as on Dataflow there is a process for each core.
        self._memory = budget_of(run.config.limits, processes=os.cpu_count() or 1)
        self._dataset = None if run.takes_all else Dataset(run.config)
        self._pool = ThreadPoolExecutor(run.threads, thread_name_prefix="backfill")
        self.records = Records(run)

    def stage(self, shard: Shard, listener: Listener = lambda _: None) -> Staged:
        """Return what is staged of a shard, by an earlier attempt or by this one.

        What is wrong with an object becomes a dead letter, and costs no other one anything.
        Raises `RetryableError` where a service is down; then nothing of the shard counts.
        """
        if earlier := self.records.staged(shard.number):
            return earlier
        files = Files(self.records.folder, shard.number)
        handler = Handler(self._run.config, self._store, files, memory=self._memory)
        work = _Work(handler, self._pool, self._run.threads, listener)
        work.do(self._events(shard, work))
        files.close()
        return self.records.stage(
            Staged(
                shard=shard.number,
                files=files.files,
                sizes=files.sizes,
                results=work.results,
                bytes_read=work.bytes_read,
            )
        )

    def _events(self, shard: Shard, work: "_Work") -> Iterator[ObjectEvent]:
        """Yield the events of the objects that are to be handled."""
        run = self._run
        listed = self._store.list(run.bucket, run.prefix, start=shard.start, end=shard.end)
        found = work.wanted(run.config, listed)
        if self._dataset is not None:
            found = known.missing(self._dataset, run, shard, found, work.skip)
        for stored in found:
            yield events.finalized(stored, event_id(run, stored))


class _Work:
    """The objects of one shard; those that fail are tried once more."""

    def __init__(
        self, handler: Handler, pool: ThreadPoolExecutor, threads: int, listener: Listener
    ) -> None:
        self._handler = handler
        self._pool = pool
        self._ahead = 2 * threads
        self._listener = listener
        self._failures = 0
        self.results: Counter[str] = Counter()
        self.bytes_read = 0

    def do(self, found: Iterator[ObjectEvent]) -> None:
        """Handle the events; raises when they fail one after the other."""
        failed: list[ObjectEvent] = []
        for event, error in self._handle_all(found, is_last=False):
            if error:
                failed.append(event)
            if len(failed) == _AGAIN_AT_ONCE:
                self._again(failed)
        self._again(failed)

    def wanted(self, config: Config, listed: Iterator[StoredObject]) -> Iterator[StoredObject]:
        """Yield the objects that are not ignored."""
        for stored in listed:
            if is_ignored(config, stored):
                self._count(Result.IGNORED)
            else:
                yield stored

    def skip(self) -> None:
        """Count an object that BigQuery has already."""
        self._count(SKIPPED)

    def _again(self, failed: list[ObjectEvent]) -> None:
        """Try events a last time: who fails now becomes a dead letter, unless nobody succeeds."""
        if not failed:
            return
        time.sleep(_PAUSE_SECONDS)
        before = self._handled
        last = None
        for _, error in self._handle_all(iter(failed), is_last=True):
            last = error or last
        if last and not before:
            raise last
        failed.clear()

    @property
    def _handled(self) -> int:
        """How many objects were read, whatever they held."""
        return self.results[Result.INSERTED] + self.results[Result.DEAD_LETTERED]

    def _handle_all(
        self, found: Iterator[ObjectEvent], *, is_last: bool
    ) -> Iterator[tuple[ObjectEvent, Exception | None]]:
        """Yield each event and the error that may pass, if it met one."""
        handle = partial(self._handle, is_last=is_last)
        for event, outcome in in_parallel(self._pool, handle, found, self._ahead):
            error: Exception | None
            if isinstance(outcome, Outcome):
                is_passing = isinstance(outcome.error, RetryableError)
                error = outcome.error if is_passing else None
                self._count(outcome.result)
                self.bytes_read += outcome.bytes_read or 0
            else:
                error = outcome
                if isinstance(error, ConfigError):
                    raise error
            self._failures = self._failures + 1 if isinstance(error, RetryableError) else 0
            if error and self._failures == OUTAGE:
                raise error
            yield event, error

    def _handle(
        self, event: ObjectEvent, *, is_last: bool
    ) -> tuple[ObjectEvent, Outcome | Exception]:
        try:
            return event, self._handler.handle(events.deliver(event), is_last=is_last)
        except Exception as error:
            return event, error

    def _count(self, result: str) -> None:
        self.results[result] += 1
        self._listener(result)


def event_id(run: Run, stored: StoredObject) -> str:
    """Return what stands for an event's id: it names the run, and is the object's own."""
    digest = hashlib.sha256(f"{stored.path}#{stored.generation}".encode()).hexdigest()
    return f"backfill-{run.id}-{digest[:16]}"
