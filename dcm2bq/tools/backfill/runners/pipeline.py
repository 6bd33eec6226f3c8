"""The pipeline that stages and loads shards, for any runner.

    shards ──> Stage ──> Start load jobs ──> (all staged) ──> Finish load jobs ──> Loaded

A load job takes the files of many shards. A job starts early if enough of them are staged for it;
the last step, which one process runs, starts the others and waits for all.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from dcm2bq.errors import ConfigError, RetryableError, describe
from dcm2bq.tools.backfill.loading import BatchLoader
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.progress import Meter
from dcm2bq.tools.backfill.run_records import Loaded, Run, Staged
from dcm2bq.tools.backfill.staging import ShardStager

NAMESPACE = "dcm2bq"
"""Namespace of the pipeline's counters, one for each result, such as `inserted`."""

_made: dict[tuple[type, str, int], Any] = {}
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
        | "Wait for all" >> beam.GroupByKey()
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
        """Return this process's only object of a class for the attempt."""
        with _making:
            key = kind, self._run.id, self._run.attempt
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
    """`Staged` -> its number under the only key, with the load jobs of full batches started."""

    def _do(self, element: Staged) -> Iterator[tuple[str, int]]:
        self._once(BatchLoader).start_full()
        yield "", element.shard


class FinishLoad(_PipelineStep):
    """All staged shards -> `Loaded` of each batch."""

    def _do(self, element: tuple[str, Iterable[int]]) -> Iterator[Loaded]:
        del element  # the records are read instead: they include shards staged by earlier attempts
        for loaded in self._once(BatchLoader).finish_all():
            for table, count in loaded.rows.items():
                Metrics.counter(NAMESPACE, f"{table}_rows").inc(count)
                self._meter.count(f"{table} rows", count)
            self._meter.write()
            yield loaded
