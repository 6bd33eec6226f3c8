"""A run's status follows from its records: on any machine, at any time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from dcm2bq import cli, config, emulators
from dcm2bq.errors import LoadFailedError, QuotaExceededError
from dcm2bq.local.bucket import Bucket
from dcm2bq.tools.backfill import status_lines
from dcm2bq.tools.backfill.loading import BatchLoader
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import (
    BUDGET,
    FAILURE,
    INTERRUPT,
    QUOTA,
    Batch,
    BatchJob,
    Coverage,
    DataflowSubmission,
    Ending,
    Loaded,
    Manifest,
    Run,
    RunAttempt,
    RunRecords,
    ShardFailure,
    Sign,
    Staged,
)
from dcm2bq.tools.backfill.snapshot import RunSnapshot
from dcm2bq.tools.backfill.status import COMPLETE, RUNNING, SILENT, SILENT_AFTER, status_of
from tests.support.function_stack import unique
from tests.support.http_server import serving
from tests.support.load_jobs import LoadJobs

START = datetime(2026, 1, 31, 9, 45, tzinfo=UTC)
ID = "20260131_094500_1a2b3c"
SHARDS = [
    Shard(number=number, start=str(number), end="", listed=100, objects=90, bytes=0)
    for number in range(5)
]
BATCH = Batch(
    number=0,
    attempt=1,
    formed=START,
    shards=[0, 1],
    jobs=[BatchJob(table="instances", files=["a", "b"], bytes=500)],
    results={"inserted": 180, "ignored": 20},
    bytes_read=70,
)
JOB = f"dcm2bq-backfill-{ID}-000000-instances-0-"
LOADED = {0: Loaded(batch=0, rows={}, jobs=[f"{JOB}1"])}
REFUSED, FAILED = Ending(why=QUOTA, message="quota"), Ending(why=FAILURE, message="HTTP 503")
FAILED_SHARD = ShardFailure(shard=4, reason="HTTP 503")
JOB_PAGE = DataflowSubmission(job="job", page="https://console.cloud.google.com/dataflow")


def run_in(staging: str, run_id: str = ID) -> Run:
    return Run(
        id=run_id,
        source="gs://scans/2019/",
        staging=staging,
        config=config.from_overrides({"bigQuery": {"datasetId": "dicom"}}),
    )


def staged(shard: int) -> Staged:
    return Staged(
        shard=shard,
        files={"instances": [f"rows/{shard:06}/a"]},
        sizes={f"rows/{shard:06}/a": 200},
        results={"inserted": 95, "dead_lettered": 5},
        bytes_read=30,
    )


def snapshot(**records: Any) -> RunSnapshot:
    """Return records of a run that began at START, and has staged shards 0 to 2 in 50 s."""
    attempt = RunAttempt(
        number=1, began=START, user="ada", host="host-7", runner="local", version="1.0.0"
    )
    given: dict[str, Any] = {
        "manifest": Manifest(run=run_in("gs://staging/b"), shards=SHARDS),
        "written": {
            "attempts/0001/began.json": START,
            "shards/000000.json": START + timedelta(seconds=10),
            "shards/000001.json": START + timedelta(seconds=20),
            "shards/000002.json": START + timedelta(seconds=50),
            "alive/000003.json": START + timedelta(seconds=40),
        },
        "attempts": [attempt],
        "staged": [staged(2)],
        "batches": [BATCH],
        "loaded": {},
    }
    return RunSnapshot(**{**given, **records})


def test_the_counts_cover_loaded_staged_and_unfinished_shards() -> None:
    loaded = Loaded(batch=0, rows={"instances": 180}, jobs=[f"{JOB}2"])
    signs = [Sign(host="worker-1", shard=3, objects=50), Sign(host="w", shard=None, objects=0)]
    failures = [ShardFailure(shard=4, reason="HTTP 503"), ShardFailure(shard=2, reason="HTTP 503")]
    records = snapshot(loaded={0: loaded}, signs=signs, failures=failures)
    status = status_of(records, {}, START + timedelta(seconds=60))
    assert msgspec.to_builtins(status.shards) == {
        "total": 5, "loaded": 2, "staged": 1, "failed": 1, "left": 1
    }  # fmt: skip
    assert [failure.shard for failure in status.failures] == [4]
    assert (status.objects, status.objects_done) == (500, 350)
    assert status.results == {"inserted": 275, "dead_lettered": 5, "ignored": 20}
    assert status.rows == {"instances": 180}
    assert (status.bytes_read, status.bytes_staged) == (100, 700)
    assert status.objects_per_second == pytest.approx(7)
    assert status.seconds_left == pytest.approx(150 / 7)
    assert (status.state, status.last_sign) == (RUNNING, START + timedelta(seconds=50))
    (job,) = status.jobs
    assert (job.job, job.files, job.bytes, job.state) == (f"{JOB}2", 2, 500, "loaded")


def test_what_an_earlier_attempt_did_does_not_count_towards_the_rate() -> None:
    records = snapshot()
    written = dict(records.written)
    written["attempts/0002/began.json"] = START + timedelta(seconds=40)
    again = snapshot(written=written, attempts=[*records.attempts] * 2)
    status = status_of(again, {}, START + timedelta(seconds=60))
    assert status.objects_per_second == pytest.approx(100 / 10)
    assert status.objects_done == 300


@pytest.mark.parametrize(
    ("records", "age", "state"),
    [
        ({}, SILENT_AFTER, RUNNING),
        ({}, SILENT_AFTER + timedelta(seconds=1), SILENT),
        ({"ending": REFUSED}, timedelta(), QUOTA),
        ({"ending": FAILED}, timedelta(days=1), FAILURE),
        ({"ending": Ending(why=INTERRUPT, message="interrupted")}, timedelta(), INTERRUPT),
        ({"stopped": REFUSED, "ending": FAILED}, timedelta(), QUOTA),
        ({"stopped": REFUSED}, SILENT_AFTER, RUNNING),
        ({"stopped": REFUSED}, SILENT_AFTER + timedelta(seconds=1), QUOTA),
        ({"stopped": REFUSED, "coverage": Coverage(last=2)}, timedelta(), QUOTA),
        ({"loaded": LOADED, "coverage": Coverage(last=2)}, timedelta(), RUNNING),
        ({"loaded": LOADED, "coverage": Coverage(last=1)}, timedelta(), BUDGET),
        ({"dataflow": JOB_PAGE, "failures": [FAILED_SHARD]}, SILENT_AFTER, RUNNING),
        ({"dataflow": JOB_PAGE, "failures": [FAILED_SHARD]}, timedelta(days=1), FAILURE),
        ({"dataflow": JOB_PAGE, "unloaded": FAILED}, timedelta(days=1), FAILURE),
        ({"dataflow": JOB_PAGE}, timedelta(days=1), SILENT),
        ({"failures": [FAILED_SHARD], "unloaded": FAILED}, timedelta(days=1), SILENT),
    ],
)
def test_the_state_is_that_of_the_last_attempt(
    records: dict[str, Any], age: timedelta, state: str
) -> None:
    now = START + timedelta(seconds=50) + age
    status = status_of(snapshot(**records), {}, now)
    assert status.state == state
    assert (status.seconds_left is not None) == (state == RUNNING)
    lines = list(status_lines.lines(status, now))
    assert any("--resume" in line for line in lines) == (state != RUNNING)
    if state in {QUOTA, FAILURE}:
        assert status.message in lines
    is_refused = "stopped" in records and state == RUNNING
    assert ("staging goes on, but no more load jobs start: quota" in lines) == is_refused


def test_a_run_is_complete_once_every_shard_is_loaded() -> None:
    batch = msgspec.structs.replace(BATCH, shards=range(5))
    loaded = {0: Loaded(batch=0, rows={}, jobs=[f"{JOB}1"])}
    ending = Ending(why=INTERRUPT, message="after the last record")
    records = snapshot(batches=[batch], staged=[], loaded=loaded, ending=ending)
    assert status_of(records, {}, START + timedelta(days=9)).state == COMPLETE


def test_the_lines_are_complete() -> None:
    records = snapshot(failures=[ShardFailure(shard=4, reason="Cloud Storage: HTTP 503")])
    now = START + timedelta(seconds=62)
    status = status_of(records, {JOB: (f"{JOB}1", "running")}, now)
    assert list(status_lines.lines(status, now)) == [
        f"run {ID}: running",
        "gs://scans/2019/, staged in gs://staging/b",
        "attempt 1: began 2026-01-31 09:45:00 UTC by ada@host-7, runner local, dcm2bq 1.0.0",
        "last sign of life: 12 s ago",
        "5 shards: 0 loaded, 3 staged, 1 failed, 1 left",
        "  shard 4: Cloud Storage: HTTP 503",
        "300 of 500 objects handled, 6 objects/s, 33 s left",
        "275 inserted, 5 dead letters, 0 already present, 20 ignored; 100 bytes read, 700 staged",
        "0 rows loaded into instances, 0 into dead_letter",
        f"load job {JOB}1: 2 files, 500 bytes: running",
    ]
    assert status_lines.line(status, now) == (
        f"{ID}  running by ada@host-7, 12 s ago: gs://scans/2019/, 0 of 5 shards loaded, "
        "300 of 500 objects handled"
    )


@pytest.fixture
def staging(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty staging folder that this process uses."""
    bucket = Bucket(storage_url, unique("staging-"), connections=1)
    bucket.create()
    monkeypatch.setenv(emulators.STORAGE, storage_url)
    monkeypatch.delenv(emulators.BIGQUERY, raising=False)
    return f"gs://{bucket.name}/b"


@pytest.fixture
def bigquery(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadJobs]:
    jobs = LoadJobs()
    with serving(jobs.serve) as url:
        monkeypatch.setenv(emulators.BIGQUERY, url)
        yield jobs


def test_a_run_is_followed_from_its_records_to_its_end(
    staging: str, bigquery: LoadJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Staging, a shard that fails, a quota that refuses, and the day after."""
    run = run_in(staging)
    records = RunRecords(run)

    def status() -> dict[str, Any]:
        assert cli.main(["backfill", "--status", ID, "--staging", staging, "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    records.begin(run, SHARDS)
    assert status()["state"] == RUNNING
    assert records.begin_attempt("local") == 1
    assert status()["attempts"][0]["runner"] == "local"
    for shard in range(4):
        records.stage(staged(shard))
    records.fail(ShardFailure(shard=4, reason="Cloud Storage: HTTP 503"))
    records.sign(Sign(host="worker", shard=4, objects=25))
    assert status()["shards"] == {"total": 5, "loaded": 0, "staged": 4, "failed": 1, "left": 0}
    assert status()["objects_done"] == 425
    records.stage(staged(4))
    bigquery.quota, bigquery.fails_late = 0, True
    with pytest.raises(QuotaExceededError):
        list(BatchLoader(run).finish_all())
    stopped = status()
    assert (stopped["state"], stopped["jobs"][0]["state"]) == (QUOTA, "failed (quotaExceeded)")
    assert "SENTINEL" not in json.dumps(stopped)
    assert records.begin_attempt("DataflowRunner") == 2
    assert status()["state"] == RUNNING
    bigquery.quota = 1
    list(BatchLoader(msgspec.structs.replace(run, attempt=2)).finish_all())
    done = status()
    assert (done["state"], done["rows"]) == (COMPLETE, {"instances": 5})
    assert [job["job"][-2:] for job in done["jobs"]] == ["-2"]
    assert [attempt["number"] for attempt in done["attempts"]] == [1, 2]


def test_the_states_of_jobs_are_those_of_the_records_if_bigquery_does_not_show_them(
    staging: str, bigquery: LoadJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most identities may not look up the jobs of another one."""
    run = run_in(staging)
    RunRecords(run).begin(run, SHARDS)
    RunRecords(run).form(BATCH)
    for bigquery.denied in ("", "/jobs", "/datasets"):
        before = bigquery.requests
        assert cli.main(["backfill", "--status", ID, "--staging", staging]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"load job {JOB}1: 2 files, 500 bytes: started" in lines
        assert bigquery.requests > before


def test_the_last_runs_are_listed(staging: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"20260131_0945{second:02}_1a2b3c" for second in range(13)]
    for run_id in ids:
        run = run_in(staging, run_id)
        RunRecords(run).begin(run, SHARDS)
    bucket, _, _ = staging.removeprefix("gs://").partition("/")
    RunRecords(run_in(f"gs://{bucket}/b2")).begin(run, SHARDS)
    RunRecords(run_in(staging, "99990101_000000_ffffff")).folder.create("run.json", b"{}")
    assert cli.main(["backfill", "--status", "--staging", staging]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ids[:2:-1]
    assert cli.main(["backfill", "--status", "--json", "--staging", f"{staging}/"]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)] == ids[:2:-1]


def test_an_unknown_run_is_a_usage_error(staging: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backfill", "--status", ID, "--staging", staging]) == 2
    assert capsys.readouterr().err == (
        f"dcm2bq: {staging}/{ID}: there is no such run; check --staging and --status\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--status"], "--staging gs://BUCKET/PREFIX is required: it holds the records"),
        (["--status", "x/y", "--staging", "gs://staging"], "--status x/y: not a run id like "),
        (["gs://scans", "--status", "r", "--staging", "gs://s"], "source: not valid with --status"),
        (["--status", "r", "--all"], "--all: not valid with --status"),
        (
            ["gs://scans", "--staging", "gs://staging", "--json"],
            "--json: only valid with --dry-run or --status",
        ),
        ([], "gs://BUCKET[/PREFIX] is required: the objects to load"),
    ],
)
def test_wrong_usage_of_status_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["backfill", *arguments]) == 2
    assert f"Error: {message}" in capsys.readouterr().err


def test_the_recorded_reason_names_the_error_in_another_process() -> None:
    assert isinstance(Ending(why=QUOTA, message="m").error, QuotaExceededError)
    error = Ending(why=FAILURE, message="m").error
    assert (type(error), str(error)) == (LoadFailedError, "m")
