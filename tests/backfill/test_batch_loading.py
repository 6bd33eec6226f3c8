"""Each staged file is loaded once, by few jobs: whoever is killed, and whatever a quota refuses."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dcm2bq import config, emulators
from dcm2bq.bigquery.load import Done, Loader, LoadJob
from dcm2bq.errors import LoadFailedError, QuotaExceededError, ServiceError
from dcm2bq.local import servers
from dcm2bq.local.bucket import Bucket
from dcm2bq.tools.backfill import batches, loading
from dcm2bq.tools.backfill.loading import AT_ONCE, BatchLoader
from dcm2bq.tools.backfill.run_records import Loaded, Run, RunRecords, Staged, new_id
from tests.support.function_stack import ROOT, unique
from tests.support.http_server import Exchange, serving
from tests.support.load_jobs import LoadJobs
from tests.support.processes import guarded
from tests.support.proxy import Proxy

SHARDS = 6
LOAD = """
import sys
from pathlib import Path
import msgspec
from dcm2bq.tools.backfill.loading import BatchLoader
from dcm2bq.tools.backfill.run_records import Run

list(BatchLoader(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Run)).finish_all())
"""


@pytest.fixture
def bigquery(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadJobs]:
    jobs = LoadJobs()
    with serving(jobs.serve) as url:
        monkeypatch.setenv(emulators.BIGQUERY, url)
        yield jobs


@pytest.fixture(scope="module")
def bucket(storage_url: str) -> Bucket:
    bucket = Bucket(storage_url, unique("staging-"), connections=8)
    bucket.create()
    return bucket


@pytest.fixture
def run(bucket: Bucket, storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose shards are staged: each has two files of rows, and the first a dead letter."""
    monkeypatch.setenv(emulators.STORAGE, storage_url)
    made = Run(
        id=new_id(),
        source="gs://scans",
        staging=f"gs://{bucket.name}/b",
        config=config.from_overrides({"bigQuery": {"datasetId": "dicom"}}),
    )
    for number in range(SHARDS):
        stage(made, number)
    return made


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard for each job, and no pause between jobs."""
    monkeypatch.setattr(batches, "URIS_MAX", 2)
    monkeypatch.setattr(batches, "GAP_SECONDS", 0)
    monkeypatch.setattr(loading, "FILLED_SECONDS", 0)


def stage(run: Run, shard: int) -> None:
    names = [f"rows/{shard:06}/{letter}" for letter in "ab"]
    letters = [f"rows/{shard:06}/letters"] if shard == 0 else []
    RunRecords(run).stage(
        Staged(
            shard=shard,
            files={"instances": names, **({"dead_letter": letters} if letters else {})},
            sizes=dict.fromkeys([*names, *letters], 100),
            results={"inserted": 2},
        )
    )


def files(run: Run) -> dict[str, int]:
    """Return the URIs of all staged files, each of which must be loaded once."""
    names = [f"rows/{shard:06}/{letter}" for shard in range(SHARDS) for letter in "ab"]
    return dict.fromkeys([f"{run.folder}/{name}" for name in [*names, "rows/000000/letters"]], 1)


def load(run: Run) -> list[Loaded]:
    """Load all shards, as a process that has read nothing before."""
    return list(BatchLoader(run).finish_all())


def resumed(run: Run) -> Run:
    """Return the run with the next attempt."""
    return msgspec.structs.replace(run, attempt=run.attempt + 1)


def test_many_shards_need_one_job_for_each_table(run: Run, bigquery: LoadJobs) -> None:
    (loaded,) = load(run)
    assert loaded.rows == {"instances": 2 * SHARDS, "dead_letter": 1}
    assert sorted(bigquery.jobs) == sorted(loaded.jobs)
    assert sorted(loaded.jobs) == [
        f"dcm2bq-backfill-{run.id}-000000-{table}-0-1" for table in ("dead_letter", "instances")
    ]
    assert bigquery.loaded == files(run)
    assert load(run) == [loaded]
    assert len(bigquery.jobs) == 2


class DeletesMeet(Proxy):
    """A Cloud Storage that deletes nothing before that many requests to delete are under way."""

    def __init__(self, upstream: str, deletes: int) -> None:
        super().__init__(upstream)
        self._barrier = threading.Barrier(deletes)

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        if exchange.command == "DELETE":
            self._barrier.wait(60)
        return super()._forward(exchange)


@pytest.mark.usefixtures("bigquery")
def test_the_files_of_a_batch_are_listed_once_and_deleted_at_the_same_time(
    run: Run, bucket: Bucket, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in files(run):
        bucket.upload(uri.removeprefix(f"gs://{bucket.name}/"), b"rows")
    with DeletesMeet(storage_url, len(files(run))).running() as storage:
        monkeypatch.setenv(emulators.STORAGE, storage.url)
        load(run)
        assert sum("GET" in line and "rows%2F" in line for line in storage.requests) == 1
        assert list(RunRecords(run).folder.names("rows/")) == []


@pytest.mark.usefixtures("small_batches")
def test_full_batches_start_while_other_shards_are_staged(run: Run, bigquery: LoadJobs) -> None:
    loader = BatchLoader(run)
    loader.start_full()
    loader.start_full()
    assert len(bigquery.jobs) == 3
    assert [batch.shards for batch in RunRecords(run).batches()] == [[0], [1]]
    load(run)
    assert bigquery.loaded == files(run)


@pytest.mark.usefixtures("small_batches")
def test_a_job_that_started_early_and_was_refused_late_is_not_tried_again(
    run: Run, bigquery: LoadJobs
) -> None:
    bigquery.quota, bigquery.fails_late = 0, True
    BatchLoader(run).start_full()
    refused = bigquery.refused
    with pytest.raises(QuotaExceededError):
        load(run)
    assert all(job_id.endswith("-1") for job_id in bigquery.jobs)
    assert bigquery.refused <= refused + AT_ONCE
    bigquery.quota = 1500
    load(resumed(run))
    assert bigquery.loaded == files(run)


def test_nothing_starts_before_a_batch_is_full(
    run: Run, bigquery: LoadJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FILLED_SECONDS", 0)
    BatchLoader(run).start_full()
    assert bigquery.jobs == {}
    assert RunRecords(run).batches() == ()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("fails_late", [False, True])
def test_a_quota_that_refuses_is_not_tried_again_until_the_run_is_resumed(
    run: Run,
    bigquery: LoadJobs,
    fails_late: bool,  # noqa: FBT001 - a parameter
) -> None:
    bigquery.quota, bigquery.fails_late = 3, fails_late
    with pytest.raises(QuotaExceededError, match=r"^BigQuery: instances: .*quotaExceeded\)$"):
        load(run)
    assert 1 <= bigquery.refused <= (AT_ONCE if fails_late else 1)
    before, refused = bigquery.requests, bigquery.refused
    for _ in range(3):  # as Dataflow repeats a bundle that failed
        with pytest.raises(QuotaExceededError):
            load(run)
        BatchLoader(run).start_full()
    assert bigquery.refused == refused
    assert bigquery.requests == before + 6  # the dataset, for each loader
    bigquery.quota = 1500
    load(resumed(run))
    assert bigquery.loaded == files(run)
    assert bigquery.refused == refused


@pytest.mark.usefixtures("small_batches")
def test_a_quota_that_refuses_early_does_not_end_the_staging(run: Run, bigquery: LoadJobs) -> None:
    bigquery.quota = 0
    loader = BatchLoader(run)
    for _ in range(5):
        loader.start_full()
    assert bigquery.refused == 1
    with pytest.raises(QuotaExceededError):
        load(run)
    bigquery.quota = 1500
    load(resumed(run))
    assert bigquery.loaded == files(run)


@pytest.mark.usefixtures("small_batches")
def test_a_refusal_that_is_no_quota_may_pass(run: Run, bigquery: LoadJobs) -> None:
    """A missing role for instance: the staging goes on, and a repeated bundle tries again."""
    loader = BatchLoader(run)
    bigquery.denied = "/jobs"
    loader.start_full()
    with pytest.raises(ServiceError, match="HTTP 403"):
        load(run)
    bigquery.denied = ""
    assert RunRecords(run).stopped() is None
    assert b"HTTP 403" in (RunRecords(run).folder.read("attempts/0001/unloaded.json") or b"")
    load(run)
    assert bigquery.loaded == files(run)


@pytest.mark.parametrize(
    "held",
    ["GET /bigquery/v2/projects/local/datasets", "POST", "GET /bigquery/v2/projects/local/jobs"],
)
def test_a_loader_that_was_killed_leaves_nothing_to_load_twice(
    run: Run, bigquery: LoadJobs, tmp_path: Path, held: str
) -> None:
    """Before the first job, between the start of a job and its answer, and before the record."""
    bigquery.held = held
    manifest = tmp_path / "run.json"
    manifest.write_bytes(msgspec.json.encode(run))
    command = guarded([sys.executable, "-P", "-c", LOAD, str(manifest)])
    variables = {name: os.environ[name] for name in (emulators.BIGQUERY, emulators.STORAGE)}
    environ = {**servers.isolated(os.environ), **variables}
    with subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True) as process:
        assert bigquery.is_holding.wait(60)
        os.killpg(process.pid, signal.SIGKILL)
    bigquery.held = ""
    started = set(bigquery.jobs)
    (loaded,) = load(resumed(run))
    assert bigquery.loaded == files(run)
    assert started <= set(bigquery.jobs) == set(loaded.jobs)


@pytest.mark.usefixtures("small_batches")
def test_two_loaders_at_once_load_nothing_twice(run: Run, bigquery: LoadJobs) -> None:
    """Also while further shards are staged, which either may put into a batch."""
    barrier = threading.Barrier(3)
    done: list[list[Loaded]] = []

    def work() -> None:
        loader = BatchLoader(run)
        barrier.wait()
        loader.start_full()
        done.append(sorted(loader.finish_all(), key=lambda loaded: loaded.batch))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bigquery.loaded == files(run)
    assert done[0] == done[1] == done[2]
    assert sorted(shard for batch in RunRecords(run).batches() for shard in batch.shards) == list(
        range(SHARDS)
    )


def a_job() -> LoadJob:
    return LoadJob(unique("job-") + "-", "instances", ["gs://staging/rows.gz"])


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("reason", ["rateLimitExceeded", "backendError", "jobInternalError"])
def test_a_job_that_failed_for_a_passing_reason_is_tried_again(
    bigquery: LoadJobs, reason: str
) -> None:
    bigquery.failures = [reason] * 3
    loader, job = Loader(config.from_overrides({})), a_job()
    assert loader.finish(job, pause=0) == Done(f"{job.name}4", 1)
    bigquery.failures = [reason] * 4
    with pytest.raises(LoadFailedError, match=rf"-4 failed \({reason}\)$"):
        loader.finish(a_job(), pause=0)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("reason", ["invalid", "notFound", "accessDenied", "quotaExceeded"])
def test_a_job_that_failed_for_another_reason_is_not_tried_again(
    bigquery: LoadJobs, reason: str
) -> None:
    bigquery.failures = [reason]
    loader, job = Loader(config.from_overrides({})), a_job()
    with pytest.raises(LoadFailedError, match=rf"^BigQuery: .*-1 failed \({reason}\)$") as caught:
        loader.finish(job)
    assert isinstance(caught.value, QuotaExceededError) == (reason == "quotaExceeded")
    assert len(bigquery.jobs) == 1
    assert loader.state(job) == (f"{job.name}1", f"failed ({reason})")
    assert loader.finish(job) == Done(f"{job.name}2", 1)
    assert loader.state(job) == (f"{job.name}2", "done")
