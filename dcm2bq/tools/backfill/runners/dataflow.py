"""Run the pipeline on Dataflow: options of the job, submission, waiting for the end."""

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
from dcm2bq.tools.backfill.run_records import DataflowSubmission, Run, RunRecords
from dcm2bq.tools.backfill.runners import pipeline, worker_package

RUNNER = "DataflowRunner"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataflowJob:
    """A job's settings; `beam_options` override everything else."""

    project: str | None = None
    region: str | None = None
    service_account: str | None = None
    max_workers: int | None = None
    no_wait: bool = False
    beam_options: Sequence[str] = ()

    def run(
        self, run: Run, shards: Sequence[Shard], tell: Callable[..., object], *, again: str
    ) -> bool:
        """Submit the job; return whether it was waited for and succeeded.

        With the Beam option `template_location`, the job's specification is written there and
        nothing is submitted. `again` is the command that resumes the run. Raises `ConfigError`
        for options that Beam does not know, and `JobFailedError` if the job failed.
        """
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it quotes errors of steps
        with tempfile.TemporaryDirectory(prefix="dcm2bq-backfill-") as folder:
            options = self.options(run, Path(folder))
            graph = beam.Pipeline(options=options)
            pipeline.build(graph, run, shards)
            with mapped("Dataflow"):
                result = graph.run()
        if template := options.get_all_options()["template_location"]:
            tell(f"wrote the job's specification to {template}; no job was submitted")
            return False
        job_id = result.job_id()
        page = _page(options, job_id)
        RunRecords(run).submit(DataflowSubmission(job=job_id, page=page))
        tell(f"Dataflow job {job_id}: {page}")
        if self.no_wait:
            tell("once it has finished, show the summary with:", f"  {again}")
            return False
        with mapped("Dataflow"):
            state = _wait(result)
        if state != PipelineState.DONE:
            raise JobFailedError(f"Dataflow job {job_id}: {state}; see its log for the reason")
        return True

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for mistakes that can be found without the network."""
        given = parse_options(self.beam_options)
        _refuse_lost_key(config, given)
        for name in ("project", "region"):
            if not (getattr(self, name) or given.get(name)):
                raise ConfigError(f"--{name} is required: it says where Dataflow runs the job")

    def options(self, run: Run, folder: Path) -> PipelineOptions:
        """Return the pipeline's options; write the workers' packages to `folder`."""
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
            # Workers install them in this order: ours needs the others.
            wheels = [*worker_package.locked_wheels(folder), worker_package.wheel(folder)]
            ours["extra_packages"] = [str(wheel) for wheel in wheels]
            ours["requirements_file"] = str(worker_package.requirements(folder))
            ours["requirements_cache"] = "skip"  # Beam's own download checks no hashes
        values = {name: value for name, value in ours.items() if value is not None} | given
        return PipelineOptions(flags=[], **values)


def _wait(result: DataflowPipelineResult) -> str:
    """Return the final state of the job."""
    try:
        return str(result.wait_until_finish())
    except DataflowRuntimeException:  # its text quotes errors of steps
        return str(result.state)


def parse_options(beam_options: Sequence[str]) -> dict[str, Any]:
    """Return the values of Beam's options; raise `ConfigError` for an unknown one."""
    logging.getLogger("apache_beam.options").setLevel(logging.CRITICAL)
    options = PipelineOptions(list(beam_options))
    known: dict[str, Any] = options.get_all_options(drop_default=True)
    everything = options.get_all_options(drop_default=True, retain_unknown_options=True)
    if unknown := everything.keys() - known.keys():
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise ConfigError(f"Apache Beam has no option {names}")
    return known


def _refuse_lost_key(config: Config, given: dict[str, Any]) -> None:
    """Raise if workers would lack the key: it must not be part of a job's specification."""
    privacy = config.privacy
    if not privacy.needs_key or privacy.hash_key_secret or given.get("sdk_container_image"):
        return
    option = "privacy.hash" if privacy.hash else "privacy.profile"
    raise ConfigError(
        f"{option}: the workers have no {privacy.hash_key_variable}; name the key's secret in "
        "privacy.hashKeySecret, or give them a container (--sdk_container_image) with the key in "
        "its environment"
    )


def _page(options: PipelineOptions, job_id: str) -> str:
    values = options.get_all_options()
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{values['region']}/{job_id}"
        f"?project={values['project']}"
    )
