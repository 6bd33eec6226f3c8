"""The pipeline that stages and loads shards, for any runner.

    shards ──> Stage ──> Start load jobs ──> (all staged) ──> Finish load jobs ──> Loaded

The element of a staged shard names the files that count: those of a failed bundle are never
loaded.
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
"""Namespace of the pipeline's counters, one for each result, such as `inserted`."""

_made: dict[tuple[type, str], Any] = {}
_making = threading.Lock()


def build(root: Any, run: Run, shards: Sequence[Shard], progress: str | None = None) -> Any:
    """Append the pipeline to `root`; return its collection of `Loaded`.

    `progress` is a local folder for counts, for runners on this machine.
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
    """Base of the steps: clients made once per process, errors without values of headers."""

    def __init__(self, run: Run, progress: str | None) -> None:
        super().__init__()
        self._run = run
        self._progress = progress

    def setup(self) -> None:
        """Create the meter; clients are created for the first element."""
        self._meter = Meter(self._progress)

    def process(self, element: Any) -> Iterator[Any]:
        """Run the step; if it fails, raise only text of our own."""
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
        """Return this process's only object of a class for the run."""
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

        def count(result: str) -> None:
            if result not in counters:
                counters[result] = Metrics.counter(NAMESPACE, result)
            counters[result].inc()
            self._meter.count(result)

        yield self._once(ShardStager).stage(element, count)
        self._meter.write()


class StartLoad(_PipelineStep):
    """`Staged` -> the same, with its load jobs started."""

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
