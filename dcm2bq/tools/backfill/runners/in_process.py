"""Run the pipeline on this machine, with Beam's in-process runner.

It is named explicitly: the default DirectRunner would download a program.
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

_SHOW_SECONDS = 0.5


def run(
    backfill: Run,
    shards: Sequence[Shard],
    *,
    processes: int = 1,
    beam_options: Sequence[str] = (),
    show: Callable[[Counter[str]], object] = lambda _: None,
) -> None:
    """Run the pipeline to its end; call `show` with the counts every half second.

    Raises the error of a failed step, a `RetryableError` if another attempt may succeed.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it quotes errors of steps
    mode = "in_memory" if processes == 1 else "multi_processing"
    options = PipelineOptions(
        [*beam_options, f"--direct_num_workers={processes}", f"--direct_running_mode={mode}"]
    )
    # An interrupt leaves this block while the pipeline still writes into the folder.
    with tempfile.TemporaryDirectory(
        prefix="dcm2bq-backfill-", ignore_cleanup_errors=True
    ) as folder:
        graph = beam.Pipeline(runner=FnApiRunner(), options=options)
        pipeline.build(graph, backfill, shards, folder)
        thread = _PipelineThread(graph)
        thread.start()
        while thread.is_alive():
            thread.join(_SHOW_SECONDS)
            show(progress.totals(Path(folder)))
        if thread.error:
            raise progress.failure(Path(folder)) or Dcm2BqError(describe(thread.error))


class _PipelineThread(threading.Thread):
    """Runs the pipeline, so that the main thread can show progress and be interrupted."""

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
