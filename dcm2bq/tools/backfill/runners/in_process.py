"""Run the pipeline on this machine, by Beam's in-process runner.

It is named: the default direct runner downloads a program.
"""

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from dcm2bq.errors import Dcm2BqError, describe
from dcm2bq.tools.backfill import progress
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run
from dcm2bq.tools.backfill.runners import pipeline

_LOOK_SECONDS = 0.5


def run(
    what: Run,
    shards: Sequence[Shard],
    *,
    processes: int = 1,
    beam_options: Sequence[str] = (),
    show: Callable[[Counter[str]], object] = lambda _: None,
) -> None:
    """Run the pipeline to its end; `show` hears now and then what was counted.

    Raises what made a step fail, as `RetryableError` where another attempt may succeed.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it quotes what steps raise
    mode = "in_memory" if processes == 1 else "multi_processing"
    options = PipelineOptions(
        [*beam_options, f"--direct_num_workers={processes}", f"--direct_running_mode={mode}"]
    )
    with tempfile.TemporaryDirectory(prefix="dcm2bq-backfill-") as folder:
        graph = beam.Pipeline(runner=FnApiRunner(), options=options)
        pipeline.build(graph, what, shards, folder)
        work = _PipelineThread(graph)
        work.start()
        while work.is_alive():
            work.join(_LOOK_SECONDS)
            show(progress.counted(Path(folder)))
        if work.error:
            raise progress.failure(Path(folder)) or Dcm2BqError(describe(work.error))


class _PipelineThread(threading.Thread):
    """The pipeline in a thread of its own, so that this one can watch it and be interrupted."""

    def __init__(self, graph: beam.Pipeline) -> None:
        super().__init__(daemon=True)
        self._graph = graph
        self.error: Exception | None = None

    def run(self) -> None:
        """Run the pipeline."""
        try:
            self._graph.run().wait_until_finish()
        except Exception as error:
            self.error = error
