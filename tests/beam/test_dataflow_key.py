"""Dataflow workers can read the hash key by its name; otherwise a job that needs it is refused."""

from pathlib import Path
from typing import Any

import pytest

from dcm2bq import config
from dcm2bq.errors import ConfigError
from dcm2bq.tools.backfill.run_records import Run
from dcm2bq.tools.backfill.runners.dataflow import DataflowJob


def run_of(privacy: dict[str, Any]) -> Run:
    options = config.from_overrides({"privacy": privacy})
    return Run(id="r", source="gs://scans", staging="gs://staging/b", config=options)


@pytest.mark.parametrize(
    ("privacy", "option"),
    [
        ({"profile": "basic"}, "privacy.profile"),
        ({"hash": ["PatientID"]}, "privacy.hash"),
        ({"hash": ["PatientID"], "profile": "basic"}, "privacy.hash"),
    ],
)
def test_a_configuration_that_needs_a_key_is_refused(
    tmp_path: Path, privacy: dict[str, Any], option: str
) -> None:
    """Unless the workers run a custom container, whose environment may hold the key."""
    run = run_of({**privacy, "hashKeyVariable": "MY_KEY"})
    with pytest.raises(ConfigError, match=f"{option}: the workers have no MY_KEY"):
        DataflowJob(project="p", region="r").options(run, tmp_path)
    container = ["--sdk_container_image=europe-docker.pkg.dev/p/r/i"]
    assert DataflowJob(project="p", region="r", beam_options=container).options(run, tmp_path)


def test_the_name_of_a_secret_is_enough() -> None:
    """The workers read it; the job's specification has its name only."""
    secret = "projects/p/secrets/s/versions/1"
    run = run_of({"profile": "basic", "hashKeySecret": secret})
    DataflowJob(project="p", region="r").check(run.config)
