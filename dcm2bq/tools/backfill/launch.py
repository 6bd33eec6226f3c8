"""Launch a run, or resume one, and sum up what it did."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import JobFailedError, describe
from dcm2bq.gcs.bucket_settings import BucketSettings
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.ignored import Ignored, is_archive, is_sniffed, why_ignored
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import indexing
from dcm2bq.tools.backfill import costs, known
from dcm2bq.tools.backfill.costs import Terms, Work
from dcm2bq.tools.backfill.plan import SHARD_OBJECTS, Census, Shard
from dcm2bq.tools.backfill.read_sample import SAMPLE, UNMEASURED, measure
from dcm2bq.tools.backfill.run_records import (
    BUDGET,
    FAILURE,
    INTERRUPT,
    Batch,
    Coverage,
    Ending,
    Loaded,
    Run,
    RunRecords,
)
from dcm2bq.tools.backfill.storage_classes import STANDARD, class_of
from dcm2bq.tools.ignored_names import IgnoredNames, SampleFindings, read_from
from dcm2bq.tools.sampling import Sample

type Runner = Callable[[Run, Sequence[Shard]], bool]
"""Runs the pipeline for the shards; returns whether it waited for the end."""


@dataclass(frozen=True, slots=True)
class BucketCount:
    """The objects of a bucket by shard, and the listing's `requests` and `seconds`.

    `sniffed` counts the objects that the function reads only because of `input.otherNames`, and
    `archives` the archives that it reads. `sample` holds some of the objects in Standard storage.
    """

    shards: Sequence[Shard]
    requests: int
    seconds: float
    sniffed: int = 0
    archives: int = 0
    ignored_names: IgnoredNames[StoredObject] = field(default_factory=IgnoredNames)
    sample: Sequence[StoredObject] = ()

    @property
    def listed(self) -> int:
        """Number of objects."""
        return sum(shard.listed for shard in self.shards)

    @property
    def objects(self) -> int:
        """Number of objects that the function does not ignore."""
        return sum(shard.objects for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Total size of the objects that the function does not ignore."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What all attempts of a run have done: `results` of objects, `rows` by table."""

    run: Run
    shards: int
    loaded: int
    results: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every shard is in BigQuery."""
        return self.loaded == self.shards


class Backfill:
    """A run; raises `ConfigError` if the table does not accept rows of its configuration.

    `runner` is for people who ask for the run's status. With `is_remote`, the run goes on when
    this process ends.
    """

    def __init__(self, run: Run, *, runner: str = "local", is_remote: bool = False) -> None:
        self.run = run
        self.dataset = Dataset(run.config)
        indexing.require_table(self.dataset, run.config)
        self._records = RunRecords(run)
        self._runner = runner
        self._is_remote = is_remote
        self.shards: Sequence[Shard] = ()
        self.rate = UNMEASURED
        self._staged: frozenset[int] = frozenset()
        self._loaded: Sequence[tuple[Batch, Loaded]] = ()

    def settings(self) -> tuple[BucketSettings | None, BucketSettings | None]:
        """Return the settings of the bucket and of the staging bucket, as far as they are known."""
        indexing.require_bucket(self.run.bucket, self.run.config)
        store = Store(self.run.config)
        return store.settings(self.run.bucket), store.settings(GsUri.parse(self.run.staging).bucket)

    def begin(
        self,
        *,
        least: int = SHARD_OBJECTS,
        on_page: Callable[[int], object] = lambda _: None,
        check: Callable[[BucketCount], object] = lambda _: None,
        samples: bool = False,
    ) -> BucketCount:
        """Count the objects and record the shards, each of at least `least` objects.

        `check` is called before any object is read and anything is recorded, and may raise. With
        `samples`, a sample shows how much of an object is read.
        """
        counted = count(
            self.run.config, self.run.bucket, self.run.prefix, least=least, on_page=on_page
        )
        check(counted)
        self.shards = counted.shards
        if samples:
            self.rate = measure(self.run.config, counted.sample)
        self._records.begin(self.run, self.shards, self.rate)
        self._begin_attempt()
        return counted

    def resume(self, *, check: Callable[[BucketCount], object] = lambda _: None) -> BucketCount:
        """Read the records of an earlier run; return the count of what must still be read.

        Shards that it has loaded are done, and staged ones are only to be loaded. `check` is called
        before the attempt is recorded, and may raise.
        """
        self.shards, self.rate = self._records.resume(self.run)
        self._loaded = self._read_loaded()
        self._staged = frozenset(self._records.staged_shards())
        counted = BucketCount(self._unread, requests=0, seconds=0)
        check(counted)
        self._begin_attempt()
        return counted

    @property
    def remaining(self) -> Sequence[Shard]:
        """The shards that are not loaded."""
        done = self._done()
        return [shard for shard in self.shards if shard.number not in done]

    @property
    def _unread(self) -> Sequence[Shard]:
        """The shards that no earlier attempt has loaded or staged."""
        return [shard for shard in self.remaining if shard.number not in self._staged]

    def prepare(self) -> int | None:
        """Store the generations that BigQuery has; return how many objects to be read have one.

        Returns None if it is not needed. The keys of all rows are read the first time only.
        """
        unread = self._unread
        if self.run.takes_all or not unread:
            return None
        with self._recording_end():
            known.prepare(self.dataset, self.run, self.shards)
            by_shard = known.by_shard(self.dataset, self.run)
        return sum(by_shard.get(shard.number, 0) for shard in unread)

    def afford(self, terms: Terms, budget: float) -> tuple[Sequence[Shard], float, float]:
        """Return the first remaining shards that a budget covers, their cost, and that of the rest.

        `prepare` is called first. Shards that an earlier attempt has staged are not read again.
        """
        unread = self._unread
        is_prepared = unread and not self.run.takes_all
        with self._recording_end():
            by_shard = known.by_shard(self.dataset, self.run) if is_prepared else {}
        works = {shard.number: Work(reads={}, shards=1) for shard in self.remaining}
        works |= {
            shard.number: costs.shard_work(shard, self.run.classes, by_shard.get(shard.number))
            for shard in unread
        }
        shards, cost = costs.within_budget(terms, budget, self.remaining, works)
        rest = self.remaining[len(shards) :]
        return shards, cost, sum(costs.cost_of(terms, works[shard.number]) for shard in rest)

    @property
    def total(self) -> int:
        """Number of objects in all shards."""
        return sum(shard.listed for shard in self.shards)

    @property
    def before(self) -> int:
        """Number of objects in shards that an earlier attempt has loaded."""
        done = self._done()
        return sum(shard.listed for shard in self.shards if shard.number in done)

    def go(self, runner: Runner, shards: Sequence[Shard] | None = None) -> RunSummary | None:
        """Run the pipeline for the remaining shards; return the summary of all attempts.

        `shards` are the first of them if the budget does not cover the others. `prepare` is called
        first. Returns None if the runner did not wait for the end. Raises `QuotaExceededError` if
        BigQuery refused load jobs because of a quota, and `LoadFailedError` if one failed.
        """
        remaining = self.remaining if shards is None else shards
        if remaining and len(remaining) < len(self.remaining):
            self._records.cover(Coverage(last=remaining[-1].number))
        with self._recording_end():
            if remaining and not runner(self.run, remaining):
                return None
        self._loaded = self._read_loaded()
        if not self.run.keeps_files:
            self._records.clear(self._done())
        summary = self._summary()
        if summary.is_complete:
            known.forget(self.dataset, self.run)
        else:
            self._records.end(Ending(why=BUDGET, message="the budget is spent"))
        return summary

    def _begin_attempt(self) -> None:
        attempt = self._records.begin_attempt(self._runner)
        self.run = msgspec.structs.replace(self.run, attempt=attempt)

    @contextmanager
    def _recording_end(self) -> Iterator[None]:
        """Record the end of the attempt if an error ends it."""
        try:
            yield
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException) -> None:
        """Record the end of the attempt; raise the failure of a load job if it failed a job."""
        if isinstance(error, JobFailedError) and (stopped := self._records.stopped()):
            self._records.end(stopped)
            raise stopped.error from None
        is_over = not self._is_remote or isinstance(error, JobFailedError)
        if not is_over and self._records.is_submitted():
            return
        if not isinstance(error, Exception):
            ending = Ending(why=INTERRUPT, message="interrupted")
        else:
            ending = Ending(why=FAILURE, message=describe(error))
        self._records.end(ending)

    def _read_loaded(self) -> Sequence[tuple[Batch, Loaded]]:
        """Return the batches that are in BigQuery."""
        pairs = [(batch, self._records.loaded(batch.number)) for batch in self._records.batches()]
        return [(batch, loaded) for batch, loaded in pairs if loaded is not None]

    def _done(self) -> set[int]:
        """Return the numbers of the shards that are in BigQuery."""
        return {shard for batch, _ in self._loaded for shard in batch.shards}

    def _summary(self) -> RunSummary:
        results: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for batch, loaded in self._loaded:
            results.update(batch.results)
            rows.update(loaded.rows)
        return RunSummary(
            run=self.run,
            shards=len(self.shards),
            loaded=len(self._done()),
            results=results,
            rows=rows,
        )


def count(
    config: Config,
    bucket: str,
    prefix: str,
    *,
    least: int = SHARD_OBJECTS,
    on_page: Callable[[int], object] = lambda _: None,
) -> BucketCount:
    """Count the objects under a prefix; raise `ReadFailedError` if they cannot be listed.

    `on_page` is called with the number of objects of each page of the listing.
    """
    indexing.require_bucket(bucket, config)
    started = time.monotonic()
    names = _Names(config)
    census = Census(Store(config), bucket, prefix, names.is_ignored, on_page)
    shards = census.shards(least=least)
    seconds = time.monotonic() - started
    return BucketCount(
        shards,
        census.requests,
        seconds,
        names.sniffed,
        names.archives,
        names.ignored,
        [stored for _, stored in names.standard],
    )


def examine_ignored(config: Config, count: BucketCount) -> SampleFindings:
    """Read a sample of the objects that the function ignores because of their names."""
    findings, _ = count.ignored_names.examine(read_from(Store(config)))
    return findings


class _Names:
    """What the names of listed objects say; a census asks about one object at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.sniffed = self.archives = 0
        self.ignored: IgnoredNames[StoredObject] = IgnoredNames()
        self.standard: Sample[StoredObject] = Sample(SAMPLE)

    def is_ignored(self, stored: StoredObject) -> bool:
        """Return whether nothing is recorded of an object, and count it by its name."""
        ignored = why_ignored(self._config, stored)
        if ignored is Ignored.NAME:
            self.ignored.add(stored.name, stored, storage_class=stored.storage_class)
        elif ignored is None:
            self.sniffed += is_sniffed(self._config, stored)
            is_read_whole = is_archive(self._config, stored.name)
            self.archives += is_read_whole
            if class_of(stored) == STANDARD and not is_read_whole:
                self.standard.add(stored.name, stored)
        return ignored is not None
