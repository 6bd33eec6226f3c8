"""Run the pipeline on Dataflow: the job's options, and the package that its workers install."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import (
    DataflowPipelineResult,
    DataflowRuntimeException,
)
from apache_beam.runners.runner import PipelineState

from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, JobFailedError
from dcm2bq.google_errors import mapped
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run
from dcm2bq.tools.backfill.runners import pipeline, worker_package

RUNNER = "DataflowRunner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How the job is to run; `beam_options` come last, and may change everything else."""

    project: str | None = None
    region: str | None = None
    service_account: str | None = None
    max_workers: int | None = None
    no_wait: bool = False
    beam_options: Sequence[str] = ()

    def run(
        self, run: Run, shards: Sequence[Shard], tell: Callable[..., object], *, again: str
    ) -> bool:
        """Submit the job; return whether it was waited for, and came to its end.

        With the Beam option `template_location` the job's specification is written there, and
        nothing is submitted. `again` is the command that resumes the run. Raises `ConfigError`
        for options that Beam does not take, and `JobFailedError` where the job ended without
        success.
        """
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it quotes what steps raise
        with tempfile.TemporaryDirectory(prefix="dcm2bq-backfill-") as folder:
            options = self.options(run, Path(folder))
            graph = beam.Pipeline(options=options)
            pipeline.build(graph, run, shards)
            with mapped("Dataflow"):
                result = graph.run()
        if template := options.get_all_options()["template_location"]:
            tell(f"the job's specification is at {template}; nothing was submitted")
            return False
        job_id = result.job_id()
        tell(f"Dataflow job {job_id}: {_page(options, job_id)}")
        if self.no_wait:
            tell("when it has ended, this shows the summary:", f"  {again}")
            return False
        with mapped("Dataflow"):
            state = _wait(result)
        if state != PipelineState.DONE:
            raise JobFailedError(f"Dataflow job {job_id}: {state}; its log says why")
        return True

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for what can be refused before anything is asked of the network."""
        given = parse_options(self.beam_options)
        _refuse_lost_key(config, given)
        for name in ("project", "region"):
            if not (getattr(self, name) or given.get(name)):
                raise ConfigError(f"--{name} is needed: Dataflow runs a job there")

    def options(self, run: Run, folder: Path) -> PipelineOptions:
        """Return the pipeline's options; the package is made in `folder`."""
        self.check(run.config)
        given = parse_options(self.beam_options)
        ours: dict[str, Any] = {
            "runner": RUNNER,
            "project": self.project,
            "region": self.region,
            "job_name": f"dcm2bq-backfill-{run.id.replace('_', '-')}",
            "temp_location": f"{run.folder}/dataflow/tmp",
            "staging_location": f"{run.folder}/dataflow/staging",
            "service_account_email": self.service_account,
            "autoscaling_algorithm": "THROUGHPUT_BASED",
            "max_num_workers": self.max_workers,
            "save_main_session": False,
        }
        if not given.get("sdk_container_image"):
            # In the order in which workers install them: ours needs the others.
            wheels = [*worker_package.locked_wheels(folder), worker_package.wheel(folder)]
            ours["extra_packages"] = [str(each) for each in wheels]
            ours["requirements_file"] = str(worker_package.requirements(folder))
            ours["requirements_cache"] = "skip"  # Beam's own download takes no hashes
        values = {name: value for name, value in ours.items() if value is not None} | given
        return PipelineOptions(flags=[], **values)


def _wait(result: DataflowPipelineResult) -> str:
    """Return the state in which the job ended."""
    try:
        return str(result.wait_until_finish())
    except DataflowRuntimeException:  # its text quotes what steps raise
        return str(result.state)


def parse_options(beam_options: Sequence[str]) -> dict[str, Any]:
    """Return what is given of Beam's options; raise `ConfigError` for what is none."""
    logging.getLogger("apache_beam.options").setLevel(logging.CRITICAL)
    options = PipelineOptions(list(beam_options))
    known: dict[str, Any] = options.get_all_options(drop_default=True)
    everything = options.get_all_options(drop_default=True, retain_unknown_options=True)
    if unknown := everything.keys() - known.keys():
        raise ConfigError(f"Apache Beam has no option {', '.join(sorted(unknown))}")
    return known


def _refuse_lost_key(config: Config, given: dict[str, Any]) -> None:
    """Raise where the workers could not hash: a key must not travel in a job's specification."""
    if config.privacy.needs_key and not given.get("sdk_container_image"):
        option = "privacy.hash" if config.privacy.hash else "privacy.profile"
        raise ConfigError(
            f"{option}: the workers have no {config.privacy.hash_key_variable}; "
            "give them a container (--sdk_container_image) whose environment holds it"
        )


def _page(options: PipelineOptions, job_id: str) -> str:
    found = options.get_all_options()
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{found['region']}/{job_id}"
        f"?project={found['project']}"
    )
