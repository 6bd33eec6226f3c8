"""The pipeline: shards are staged and loaded, on whatever runner.

    shards ──> Stage ──> Start load jobs ──> (all staged) ──> Finish load jobs ──> Loaded

A shard's element carries which files count: what a failed bundle left behind is never loaded.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from dcm2bq.errors import ConfigError, RetryableError, describe
from dcm2bq.tools.backfill.loading import ShardLoader
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.progress import Meter
from dcm2bq.tools.backfill.run_records import Loaded, Run, Staged
from dcm2bq.tools.backfill.staging import ShardStager

NAMESPACE = "dcm2bq"
"""Of the pipeline's counters: one for each result, `inserted` for instance."""

_made: dict[tuple[type, str], Any] = {}
_making = threading.Lock()


def build(root: Any, run: Run, shards: Sequence[Shard], progress: str | None = None) -> Any:
    """Put the pipeline behind `root`, and return its collection of `Loaded`.

    `progress` is a folder of this machine, for runners that stay on it.
    """
    return (
        root
        | "Shards" >> beam.Create(list(shards))
        | "Spread" >> beam.Reshuffle()
        | "Stage" >> beam.ParDo(StageShard(run, progress))
        | "Start load jobs" >> beam.ParDo(StartLoad(run, progress))
        | "Wait for all" >> beam.Reshuffle()
        | "Finish load jobs" >> beam.ParDo(FinishLoad(run, progress))
    )


class _PipelineStep(beam.DoFn):
    """What the steps share: clients made once per process, and failures told without values."""

    def __init__(self, run: Run, progress: str | None) -> None:
        super().__init__()
        self._run = run
        self._progress = progress

    def setup(self) -> None:
        """Open the meter; clients are made for the first element."""
        self._meter = Meter(self._progress)

    def process(self, element: Any) -> Iterator[Any]:
        """Do the step, so that nothing but our own text leaves it when it fails."""
        try:
            yield from self._do(element)
        except Exception as error:
            self._meter.fail(error)
            if isinstance(error, RetryableError | ConfigError):
                raise
            raise RuntimeError(describe(error)) from None

    def _do(self, element: Any) -> Iterator[Any]:
        raise NotImplementedError

    def _once[T](self, kind: type[T]) -> T:
        """Return this process's one object of a kind."""
        with _making:
            key = kind, self._run.id
            if key not in _made:
                _made[key] = kind(self._run)  # type: ignore[call-arg]
            made: T = _made[key]
            return made


class StageShard(_PipelineStep):
    """`Shard` -> `Staged`."""

    def _do(self, element: Shard) -> Iterator[Staged]:
        counters = {}

        def listen(result: str) -> None:
            if result not in counters:
                counters[result] = Metrics.counter(NAMESPACE, result)
            counters[result].inc()
            self._meter.count(result)

        yield self._once(ShardStager).stage(element, listen)
        self._meter.write()


class StartLoad(_PipelineStep):
    """`Staged` -> the same, its load jobs under way."""

    def _do(self, element: Staged) -> Iterator[Staged]:
        self._once(ShardLoader).start(element)
        yield element


class FinishLoad(_PipelineStep):
    """`Staged` -> `Loaded`."""

    def _do(self, element: Staged) -> Iterator[Loaded]:
        loaded = self._once(ShardLoader).finish(element)
        for table, count in loaded.rows.items():
            Metrics.counter(NAMESPACE, f"{table}_rows").inc(count)
            self._meter.count(f"{table} rows", count)
        self._meter.write()
        yield loaded
