"""A run from its start, or from where an earlier one ended, to its summary."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.gcs.store import Store
from dcm2bq.ignored import is_ignored
from dcm2bq.tools import indexing
from dcm2bq.tools.backfill import known
from dcm2bq.tools.backfill.plan import SHARD_OBJECTS, Census, Shard
from dcm2bq.tools.backfill.run_records import Loaded, Records, Run

type Runner = Callable[[Run, Sequence[Shard]], bool]
"""Runs the pipeline for the shards; returns whether it was waited for until its end."""


@dataclass(frozen=True, slots=True)
class Count:
    """What a bucket holds: its `shards`, and how many `requests` listed them."""

    shards: Sequence[Shard]
    requests: int
    seconds: float

    @property
    def listed(self) -> int:
        """All objects."""
        return sum(each.listed for each in self.shards)

    @property
    def objects(self) -> int:
        """Those that are to be handled."""
        return sum(each.objects for each in self.shards)

    @property
    def bytes(self) -> int:
        """The size of those that are to be handled."""
        return sum(each.bytes for each in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run has done by now, in all its attempts: `results` by object, `rows` by table."""

    run: Run
    shards: int
    loaded: int
    results: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether everything is in BigQuery."""
        return self.loaded == self.shards


class Backfill:
    """One run; raises `ConfigError` where the table takes no rows of this configuration."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.dataset = Dataset(run.config)
        indexing.require_table(self.dataset, run.config)
        self._records = Records(run)
        self.shards: Sequence[Shard] = ()
        self.done: dict[int, Loaded] = {}

    def begin(
        self, *, least: int = SHARD_OBJECTS, on_page: Callable[[int], object] = lambda _: None
    ) -> None:
        """Count the bucket, and write down what is to be done."""
        self.shards = count(
            self.run.config, self.run.bucket, self.run.prefix, least=least, on_page=on_page
        ).shards
        self._records.begin(self.run, self.shards)

    def resume(self) -> None:
        """Take up an earlier run; what it has loaded is done."""
        self.shards = self._records.resume(self.run)
        self.done = self._records.loaded()

    @property
    def total(self) -> int:
        """How many objects the shards hold."""
        return sum(each.listed for each in self.shards)

    @property
    def before(self) -> int:
        """How many of them an earlier attempt has dealt with."""
        return sum(each.listed for each in self.shards if each.number in self.done)

    def go(self, runner: Runner) -> Summary | None:
        """Run the pipeline for what is left to do; return what all attempts have done.

        Return None where nobody waited for the end.
        """
        left = [each for each in self.shards if each.number not in self.done]
        if left and not self.run.takes_all:
            known.prepare(self.dataset, self.run, self.shards)
        if left and not runner(self.run, left):
            return None
        self.done = self._records.loaded()
        summary = self._summary()
        if summary.is_complete:
            known.forget(self.dataset, self.run)
        return summary

    def _summary(self) -> Summary:
        results: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for each in self.done.values():
            results.update(each.results)
            rows.update(each.rows)
        return Summary(
            run=self.run,
            shards=len(self.shards),
            loaded=len(self.done),
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
) -> Count:
    """Count what is under a prefix; raises `ReadFailedError`."""
    indexing.require_bucket(bucket, config)
    started = time.monotonic()
    census = Census(Store(config), bucket, prefix, partial(is_ignored, config), on_page)
    shards = census.shards(least=least)
    return Count(shards, census.requests, time.monotonic() - started)
