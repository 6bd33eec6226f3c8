"""The specification of the Dataflow job is complete, and its package runs elsewhere."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from dcm2bq.errors import ServiceError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.tools.backfill.runners import worker_package
from tests.support.backfill_site import (
    MR_SMALL,
    PYTHON,
    Site,
    finish,
)
from tests.support.commands import Done
from tests.support.http_server import Exchange, serving
from tests.support.proxy import Fault

WORKER = "worker@my-project.iam.gserviceaccount.com"
FLAGS = (
    *("--runner", "DataflowRunner", "--project", "my-project", "--region", "europe-west1"),
    *("--service-account", WORKER, "--max-workers", "7"),
)
RUN_A_SHARD = """
import json, sys
import apache_beam as beam
import dcm2bq, pydicom
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from dcm2bq.tools.backfill.runners import pipeline
from dcm2bq.tools.backfill.run_records import Run, RunRecords

import msgspec
content = msgspec.json.decode(open(sys.argv[1], "rb").read())
run = msgspec.convert(content["run"], Run)
shards, _ = RunRecords(run).resume(run)
with beam.Pipeline(runner=FnApiRunner()) as graph:
    pipeline.build(graph, run, shards)
print(json.dumps([dcm2bq.__file__, pydicom.__file__, beam.__file__]))
"""

pytestmark = pytest.mark.timeout(1800)


def exchange_token(exchange: Exchange) -> None:
    """Exchange any token: Beam will not stage files without credentials."""
    exchange.answer_json(
        {
            "access_token": "none",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
    )


@contextmanager
def credentials(folder: Path) -> Iterator[Path]:
    """Run a token server on this machine; yield a file of credentials that asks it."""
    folder = Path(mkdtemp(dir=folder))
    token, file = folder / "token", folder / "credentials.json"
    token.write_text("none")
    with serving(exchange_token) as url:
        content = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/token",
            "credential_source": {"file": str(token)},
        }
        file.write_text(json.dumps(content))
        yield file


@dataclass(frozen=True)
class Specified:
    """A job's specification, and the contents of the files staged with it, by name."""

    job: dict[str, Any]
    staged: dict[str, bytes]
    run: dict[str, Any]
    done: Done


def specify(site: Site, folder: Path, *beam_options: str) -> Done:
    """Write the specification instead of submitting a job."""
    template = f"--template_location=gs://{site.staging.name}/job.json"
    with credentials(folder) as file:
        return site.backfill(
            *FLAGS, "--", template, *beam_options, GOOGLE_APPLICATION_CREDENTIALS=str(file)
        )


@pytest.fixture
def specified(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specified:
    for number in range(3):
        site.upload(f"{number}.dcm", MR_SMALL)
    site.upload("bad.dcm", b"not DICOM")
    done = specify(site, tmp_path)
    assert done.status == 0, done.err
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    bucket = RunFolder(f"gs://{site.staging.name}", site.config)
    content = {name: bucket.read(name) or b"" for name in bucket.names("")}
    staged = {
        name.rpartition("/")[2]: each for name, each in content.items() if "/staging/" in name
    }
    return Specified(
        json.loads(content["job.json"]),
        staged,
        json.loads(content[f"b/{done.run}/run.json"]),
        done,
    )


def test_the_jobs_specification_is_complete_and_its_package_runs(
    site: Site, specified: Specified, tmp_path: Path
) -> None:
    environment = specified.job["environment"]
    options = environment["sdkPipelineOptions"]["options"]
    assert specified.done.err.endswith(
        f"wrote the job's specification to gs://{site.staging.name}/job.json; "
        "no job was submitted\n"
    )
    folder = f"{site.staging.name}/b/{specified.done.run}"
    assert specified.job["type"] == "JOB_TYPE_BATCH"
    assert environment["serviceAccountEmail"] == WORKER
    assert environment["tempStoragePrefix"].startswith(
        f"storage.googleapis.com/{folder}/dataflow/tmp/"
    )
    assert (options["project"], options["region"]) == ("my-project", "europe-west1")
    (pool,) = environment["workerPools"]
    assert pool["autoscalingSettings"] == {
        "algorithm": "AUTOSCALING_ALGORITHM_BASIC",
        "maxNumWorkers": 7,
    }
    packages = {package["name"]: package["location"] for package in pool["packages"]}
    assert all(
        package.startswith(f"storage.googleapis.com/{folder}/dataflow/staging/")
        for package in packages.values()
    )
    assert packages.keys() <= specified.staged.keys()
    wheels = sorted(name for name in packages if name.endswith(".whl"))
    assert [wheel.partition("-")[0] for wheel in wheels] == ["dcm2bq", "msgspec", "pydicom"]
    assert packages.keys() >= {"requirements.txt", "extra_packages.txt"}
    installed = specified.staged["extra_packages.txt"].decode().split()
    assert [package.partition("-")[0] for package in installed] == ["msgspec", "pydicom", "dcm2bq"]
    requirements = specified.staged["requirements.txt"].decode()
    for wheel in wheels[1:]:
        digest = hashlib.sha256(specified.staged[wheel]).hexdigest()
        (line,) = (line for line in requirements.splitlines() if line.startswith(wheel[:5]))
        assert f" --hash=sha256:{digest}" in line
    work_elsewhere(site, specified, wheels, tmp_path)


def work_elsewhere(site: Site, specified: Specified, wheels: list[str], folder: Path) -> None:
    """Install the staged files beside nothing but Apache Beam, and run the pipeline there."""
    clean = folder / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clean)], check=True)
    python = clean / "bin" / "python"
    for name in wheels:
        (folder / name).write_bytes(specified.staged[name])
    files = [str(folder / name) for name in wheels]
    # As Beam's container does: first the requirements from the staged files, then ours.
    (folder / "requirements.txt").write_bytes(specified.staged["requirements.txt"])
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-compile"]  # Python compiles what is imported
    staged = ["--no-index", "--find-links", str(folder), "-r", str(folder / "requirements.txt")]
    subprocess.run([*install, *staged], check=True)
    subprocess.run([*install, "--no-index", "--no-deps", *files], check=True)
    # Beam's own packages are visible, as in its container. Editable installs of that environment
    # are not, since Python ignores .pth files in folders that a .pth file adds.
    (beam,) = PYTHON.parents[1].glob("lib/python3.*/site-packages")
    (place,) = clean.glob("lib/python3.*/site-packages")
    (place / "beam.pth").write_text(f"{beam}\n")
    manifest = folder / "run.json"
    manifest.write_text(json.dumps(specified.run))
    done = finish(site.run([str(python), "-P", "-c", RUN_A_SHARD, str(manifest)]))
    assert done.status == 0, done.err
    dcm2bq, pydicom, apache_beam = json.loads(done.out)
    assert Path(dcm2bq).is_relative_to(place)
    assert Path(pydicom).is_relative_to(place)
    assert Path(apache_beam).is_relative_to(beam)
    good = {path: version for path, version in site.objects.items() if "bad" not in path}
    assert site.live() == sorted(good.items())
    assert [letter["reason"] for letter in site.dead_letters()] == ["NotDicomError"]


def test_a_package_with_another_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "requirements.txt"
    other.write_text(
        re.sub(r"sha256:\w{4}", "sha256:0000", worker_package.REQUIREMENTS.read_text())
    )
    monkeypatch.setattr(worker_package, "REQUIREMENTS", other)
    with pytest.raises(ServiceError, match="DO NOT MATCH THE HASHES"):
        worker_package.locked_wheels(tmp_path)


def jobs(end: str) -> Callable[[Exchange], None]:
    """Return a Dataflow that takes any job, and whose jobs end so; none is taken without an end."""

    def serve(exchange: Exchange) -> None:
        content: dict[str, Any] = {"id": "job-1", "currentState": end}
        if exchange.command == "POST":
            content["currentState"] = "JOB_STATE_RUNNING"
        elif "/messages" in exchange.path:
            text = "SENTINEL^PATIENT: Traceback"
            message = {"id": "1", "time": "2026-01-01T00:00:00Z", "messageText": text}
            content = {"jobMessages": [{**message, "messageImportance": "JOB_MESSAGE_ERROR"}]}
        exchange.answer_json(content, 200 if end else 403)

    return serve


def submit(site: Site, folder: Path, end: str) -> Done:
    """Submit a job to a Dataflow on this machine, and wait for its end.

    The workers have a container, so that no packages are downloaded for them.
    """
    with serving(jobs(end)) as url, credentials(folder) as file:
        endpoint = f"--dataflow_endpoint={url.replace('127.0.0.1', 'localhost')}"
        options = ("--all", "--", endpoint, "--sdk_container_image=image")
        return site.backfill(*FLAGS, *options, GOOGLE_APPLICATION_CREDENTIALS=str(file))


def test_a_failed_job_has_its_own_exit_status(site: Site, tmp_path: Path) -> None:
    site.upload("a.dcm", MR_SMALL)
    states = ("FAILED", "CANCELLED")
    with ThreadPoolExecutor(len(states)) as pool:  # Beam waits 5 s and more to look at a job
        runs = [pool.submit(submit, site, tmp_path, f"JOB_STATE_{state}") for state in states]
    for state, run in zip(states, runs, strict=True):
        done = run.result()
        assert done.status == 4, done.err
        assert done.err.endswith(
            f"dcm2bq: Dataflow job job-1: {state}; see its log for the reason\n"
        )
        assert (
            f"run {done.run} did not finish; resume it with:\n  dcm2bq backfill gs://" in done.err
        )
        assert "--runner DataflowRunner --project my-project --region europe-west1" in done.err
        assert "SENTINEL" not in done.err


def test_a_refusal_by_dataflow_is_a_service_error(site: Site, tmp_path: Path) -> None:
    site.upload("a.dcm", MR_SMALL)
    done = submit(site, tmp_path, "")
    assert done.status == 3, done.err
    assert done.err.endswith("dcm2bq: Dataflow: HTTP 403\n")


def test_wrong_dataflow_options_are_refused_before_any_request(site: Site, tmp_path: Path) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.storage.faults = [Fault("")]
    unknown = specify(site, tmp_path, "--no_such_option=1")
    assert unknown.status == 2
    assert unknown.err.endswith("dcm2bq: Apache Beam has no option --no_such_option\n")
    missing = site.backfill("--runner", "DataflowRunner", "--project", "p")
    assert missing.status == 2
    assert missing.err.endswith(
        "dcm2bq: --region is required: it says where Dataflow runs the job\n"
    )
