"""A bad object affects no other; an outage costs time, but no row."""

import json
import re
import shlex
import sys

import pytest

from dcm2bq import cli
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.errors import JobFailedError, QuotaExceededError, ServiceError
from dcm2bq.tools.backfill.launch import Backfill
from dcm2bq.tools.backfill.run_records import (
    FAILURE,
    QUOTA,
    DataflowSubmission,
    Run,
    RunRecords,
    new_id,
)
from dcm2bq.tools.backfill.status import RUNNING, read
from dcm2bq.tools.prices import read_prices
from tests.support.backfill_site import CT_SMALL, MR_SMALL, Site
from tests.support.patience import scaled
from tests.support.proxy import Fault, Proxy

RUN = ["gs://bucket", "--staging", "gs://staging"]


def test_an_unreadable_object_becomes_a_dead_letter(site: Site) -> None:
    site.overrides["limits"] = {"deadlineSeconds": scaled(2)}
    for number in range(12):
        site.upload(f"{number:02}.dcm", MR_SMALL)
    site.storage.faults = [Fault("/05.dcm?alt=media", 403)]
    done = site.backfill("--all")
    assert done.status == 0, done.err
    assert "11 inserted, 1 dead letter," in done.out
    assert done.err.endswith(
        "to see what was not converted and why, run: dcm2bq dead-letters list\n"
    )
    (letter,) = site.dead_letters()
    assert letter["path"] == f"gs://{site.source.name}/05.dcm"
    assert letter["reason"] == "ReadFailedError"
    assert letter["message"] == "Cloud Storage: HTTP 403"
    assert letter["message_id"].startswith(f"backfill-{done.run}-")
    site.storage.faults = []
    assert "0 inserted, 0 dead letters, 12 already present" in site.backfill().out
    again = site.backfill("--all", where="05")
    assert "1 inserted, 0 dead letters, 0 already present" in again.out
    assert site.dead_letters() == []


def resumption(err: str) -> list[str]:
    """Return the words of the command for resuming a run that stderr shows."""
    return shlex.split(err.partition("resume it with:\n")[2].splitlines()[0])


@pytest.mark.parametrize("uri", ["gs://", "gs:///x", "gs://UPPER", "gs://a"])
def test_an_invalid_uri_is_refused(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([uri, *RUN[1:]], [*RUN[:2], uri], [uri, "--dry-run"]):
        assert cli.main(["backfill", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"dcm2bq: {uri}: gs://BUCKET or gs://BUCKET/NAME is expected; a ")


def test_a_missing_hash_key_is_reported_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"privacy": {"hash": ["PatientID"]}}')
    assert cli.main(["backfill", *RUN]) == 2
    assert "DCM2BQ_HASH_KEY" in capsys.readouterr().err


def test_unknown_beam_options_are_refused_before_any_request(site: Site) -> None:
    site.storage.faults = [Fault("")]
    done = site.backfill("--", "--no_such_option=1")
    assert done.status == 2
    assert done.err == "dcm2bq: Apache Beam has no option --no_such_option\n"


def test_the_printed_command_resumes_the_run_with_its_options(site: Site) -> None:
    site.overrides["limits"] = {"deadlineSeconds": scaled(1)}
    site.upload("it's/a.dcm", MR_SMALL)
    site.storage.faults = [Fault(f"/b/{site.source.name}/o/", 503)]
    cost = ("--classes", "STANDARD,NEARLINE", "--budget-usd", "5")
    options = ("--all", "--threads", "3", *cost, "--keep-staged", "--shard-objects", "5")
    beam = ("--", "--direct_runner_bundle_repeat=1")
    done = site.backfill(*options, *beam, where="it's")
    assert done.status == 3, done.err
    words = resumption(done.err)
    assert words[:3] == ["dcm2bq", "backfill", f"gs://{site.source.name}/it's"]
    kept = ["--staging", f"gs://{site.staging.name}/b", "--all", "--threads", "3"]
    cost = ("--classes", "NEARLINE,STANDARD", "--budget-usd", "5.0")
    assert words[3:] == [*kept, *cost, "--keep-staged", "--resume", done.run, *beam]
    site.storage.faults = []
    again = site.command(*words[1:])
    assert again.status == 0, again.err
    assert site.live() == sorted(site.objects.items())


@pytest.mark.parametrize("content", [b"{}", b'{"run": 5}', b"\xff", b"{"])
def test_records_of_another_version_are_a_configuration_error(site: Site, content: bytes) -> None:
    site.staging.upload("b/20260131_094500_1a2b3c/run.json", content)
    done = site.backfill("--resume", "20260131_094500_1a2b3c")
    assert done.status == 2
    assert done.err == (
        "dcm2bq: the run was begun by another version of dcm2bq: resume it with that version, "
        "or begin a new run\n"
    )


@pytest.mark.parametrize(("number", "options"), [(3, ()), (30, ("--all",))])
def test_a_run_that_failed_in_an_outage_can_be_resumed(
    site: Site, number: int, options: tuple[str, ...]
) -> None:
    site.overrides["limits"] = {"deadlineSeconds": scaled(1)}
    for n in range(number):
        site.upload(f"{n}.dcm", MR_SMALL)
    site.storage.faults = [Fault(f"/b/{site.source.name}/o/", 503)]
    done = site.backfill(*options)
    assert done.status == 3
    hint = f"run {done.run} did not finish; resume it with:\n  dcm2bq backfill gs://"
    assert hint in done.err
    assert resumption(done.err)[-2:] == ["--resume", done.run]
    assert done.err.endswith("dcm2bq: Cloud Storage: HTTP 503\n")
    assert (site.live(), site.dead_letters()) == ([], [])
    assert site.staged(done.run, "shards/") == []
    site.storage.faults = []
    resumed = site.backfill(*options, "--resume", done.run)
    assert resumed.status == 0, resumed.err
    assert site.live() == sorted(site.objects.items())


def test_a_quota_that_refuses_has_its_own_exit_status(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job is refused, everything stays staged, and the run can be resumed the next day."""
    site.upload("a.dcm", MR_SMALL)
    refusal = {"errors": [{"reason": "quotaExceeded", "message": "SENTINEL"}]}
    body = json.dumps({"error": {"code": 403, "message": "SENTINEL", **refusal}}).encode()
    place = "POST /bigquery/v2/projects/local/jobs"
    with Proxy(site.bigquery_url).running() as bigquery:
        bigquery.faults = [Fault(place, 403, body)]
        done = site.backfill("--all", BIGQUERY_EMULATOR_HOST=bigquery.url)
    assert done.status == 5, done.err
    assert sum(place in line for line in bigquery.requests) == 1
    assert f"run {done.run}: BigQuery's quota of load jobs is used up; resume tomorrow:" in done.err
    assert done.err.endswith("\ndcm2bq: BigQuery: instances: HTTP 403 (quotaExceeded)\n")
    assert "SENTINEL" not in done.err
    assert len(site.staged(done.run, "shards/")) == 1
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", site.bigquery_url)
    assert cli.main(["backfill", "--status", done.run, "--staging", site.staging_folder]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"run {done.run}: stopped because BigQuery's quota of load jobs is used")
    assert "1 shard: 0 loaded, 1 staged, 0 failed, 0 left\n" in out
    resumed = site.backfill("--all", "--resume", done.run)
    assert resumed.status == 0, resumed.err
    assert site.live() == sorted(site.objects.items())


def test_a_job_on_dataflow_that_failed_because_of_a_quota_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers can only record why; the command that waits for the job reads the record."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", site.bigquery_url)
    given = Run(
        id=new_id(),
        source=f"gs://{site.source.name}",
        staging=site.staging_folder,
        config=site.config,
        takes_all=True,
    )
    launch = Backfill(given, runner="DataflowRunner", is_remote=True)
    launch.begin()

    def fail(run: Run, shards: object) -> bool:
        del shards
        if run.attempt == 1:
            RunRecords(run).stop(QuotaExceededError("BigQuery: quotaExceeded"))
        raise JobFailedError("Dataflow job 1: FAILED")

    with pytest.raises(QuotaExceededError, match="BigQuery: quotaExceeded"):
        launch.go(fail)
    assert read(site.staging_folder, given.id, site.config).state == QUOTA
    launch.resume()
    with pytest.raises(JobFailedError):
        launch.go(fail)
    status = read(site.staging_folder, given.id, site.config)
    assert (status.state, status.message) == (FAILURE, "Dataflow job 1: FAILED")


def test_a_run_whose_pipeline_could_not_start_says_why(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike one that goes on on Dataflow after the command is interrupted."""
    for name in "abcde":  # five pages: only four are counted together
        site.upload(f"{name}.dcm", MR_SMALL)
    given = Run(
        id=new_id(),
        source=f"gs://{site.source.name}",
        staging=site.staging_folder,
        config=site.config,
    )

    def refuse(run: Run, shards: object) -> bool:
        del run, shards
        raise ServiceError("Dataflow: HTTP 403")

    def submit(run: Run, shards: object) -> bool:
        del shards
        RunRecords(run).submit(DataflowSubmission(job="1", page="https://console.cloud.google.com"))
        raise KeyboardInterrupt

    def ending() -> tuple[str, str]:
        status = read(site.staging_folder, given.id, site.config)
        return status.state, status.message

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    with Proxy(site.bigquery_url).running() as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.url)
        launch = Backfill(given, runner="DataflowRunner", is_remote=True)
        launch.begin(least=1)
        bigquery.faults = [Fault("POST", 403)]
        with pytest.raises(ServiceError):
            launch.prepare()
        assert ending() == (FAILURE, f"BigQuery: {site.dataset.name}: HTTP 403")
        launch.resume()
        with pytest.raises(ServiceError):
            launch.go(refuse)
        assert ending() == (FAILURE, "Dataflow: HTTP 403")
        launch.resume()
        assert len(launch.shards) > 1
        with pytest.raises(KeyboardInterrupt):
            launch.go(submit, launch.shards[:1])
        assert ending() == (RUNNING, "")
        covered = RunRecords(launch.run).folder.read("attempts/0003/covered.json")
        assert covered == b'{"last":0}'


def test_a_shard_fails_if_its_rows_cannot_be_staged(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.storage.faults = [Fault("POST /upload", 403)]
    done = site.backfill()
    assert done.status == 3
    run = done.err.rstrip().rpartition("/")[2].partition(":")[0]
    assert done.err == f"dcm2bq: Cloud Storage: gs://{site.staging.name}/b/{run}: HTTP 403\n"
    assert site.live() == []


def test_the_first_record_of_a_shard_decides_what_is_loaded(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    done = site.backfill("--all", "--keep-staged")
    assert done.status == 0
    for name in site.staged(done.run, "loaded/"):
        site.staging.delete(f"b/{done.run}/{name}")
    site.upload("b.dcm", CT_SMALL)
    resumed = site.backfill("--all", "--resume", done.run)
    assert resumed.status == 0, resumed.err
    assert resumed.out == done.out
    assert len(site.rows()) == 1
    assert "1 inserted, 0 dead letters, 1 already present" in site.backfill().out
    assert site.live() == sorted(site.objects.items())


def test_a_run_is_resumed_only_with_its_own_configuration(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    done = site.backfill("--all")
    site.overrides["jsonOutput"] = {"ignorePrivate": True}
    other = site.backfill("--all", "--resume", done.run)
    assert other.status == 2
    reason = (
        "jsonOutput.ignorePrivate was False when it began and is True now; "
        "resume it with the same value"
    )
    assert other.err == f"dcm2bq: run {done.run}: {reason}\n"
    missing = site.backfill("--resume", "never")
    assert missing.status == 2
    folder = f"gs://{site.staging.name}/b/never"
    assert missing.err == f"dcm2bq: {folder}: there is no such run; check --staging and --resume\n"


@pytest.mark.parametrize("run", ["../../other/run", "a/b", "..", "", "A", "a b", "x" * 65, "a\n"])
def test_an_invalid_run_id_is_refused_before_any_request(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a request was about to be sent")

    monkeypatch.setattr(Dataset, "__init__", connect)
    assert cli.main(["backfill", *RUN, "--resume", run]) == 2
    assert "not a run id" in capsys.readouterr().err


def test_rows_with_other_privacy_options_are_refused(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.overrides["privacy"] = {"remove": ["PatientID"]}
    done = site.backfill()
    assert done.status == 2
    table = f"{site.dataset.name}.instances"
    reason = "holds rows made with other privacy options: use those options or another dataset"
    assert done.err == f"dcm2bq: {table}: {reason}\n"
    assert site.names("b/") == []


def test_a_bucket_not_in_input_buckets_is_not_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.overrides["input"] = {"buckets": ["other-scans"]}
    refused = f"dcm2bq: gs://{site.source.name}: is not one of input.buckets\n"
    done = site.backfill()
    assert (done.status, done.err) == (2, refused)
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"input": {"buckets": ["other-scans"]}}')
    assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run"]) == 2
    assert capsys.readouterr().err == refused
    site.overrides["input"] = {"buckets": [site.source.name]}
    assert site.backfill("--all").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gs://bucket"], "Error: --staging gs://BUCKET/PREFIX is required: rows are stored there"),
        (["b"], "dcm2bq: b: gs://BUCKET or gs://BUCKET/NAME is expected"),
        ([*RUN[:2], "s"], "dcm2bq: s: gs://BUCKET or gs://BUCKET/NAME is expected"),
        (
            [*RUN, "--region", "r", "--max-workers", "3"],
            "Error: --region, --max-workers: only valid with --runner DataflowRunner",
        ),
        (
            [*RUN, "--runner", "DataflowRunner", "--processes", "1"],
            "Error: --processes: only valid with --runner local",
        ),
        (
            [*RUN, "--resume", "r", "--shard-objects", "10"],
            "Error: --shard-objects: not valid with --resume: the run has its shards",
        ),
        ([*RUN, "--no-sample"], "Error: --no-sample: only valid with --dry-run"),
        ([*RUN, "--json"], "Error: --json: only valid with --dry-run or --status"),
        (
            ["gs://bucket", "--dry-run", "--budget-usd", "5"],
            "Error: --budget-usd: not valid with --dry-run: it reads nothing to limit",
        ),
        (
            [*RUN, "--classes", "standard,glacier"],
            f"Error: --classes: GLACIER: not one of {', '.join(read_prices().storage_classes)}",
        ),
        (
            [*RUN, "--classes", ","],
            "Error: Invalid value for '--classes': names no storage class",
        ),
        (
            [*RUN, "--resume", "r", "--dry-run"],
            "Error: --dry-run: not valid with --resume: the run is already counted",
        ),
        (
            [*RUN, "--resume", "x`; DROP"],
            "Error: --resume x`; DROP: not a run id like 20260131_094500_1a2b3c",
        ),
    ],
)
def test_wrong_usage_is_explained_before_any_request(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["backfill", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()


def test_a_missing_apache_beam_is_a_configuration_error(capsys: pytest.CaptureFixture[str]) -> None:
    """tests/unit/test_extras.py holds what is suggested."""
    assert cli.main(["backfill", *RUN]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dcm2bq: backfill needs packages that are not installed (apache_beam); ")
    assert f"{sys.executable} -m pip install" not in err  # the local stack is installed there


def test_a_dry_run_estimates_without_apache_beam(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.upload("b.dcm", MR_SMALL)
    site.source.upload("c.txt", b"note")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run"]) == 0
    done = capsys.readouterr()
    size = 2 * len(MR_SMALL)
    assert done.out.startswith(f"3 objects in 1 shard; 1 ignored, 2 to convert ({size:,} bytes)\n")
    assert "cannot count what BigQuery already has" in done.err  # there is no project
    assert done.err.endswith("dry run: nothing was changed\n")
    assert site.live() == []


def test_a_dry_run_says_what_ignored_objects_begin_with(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.upload("a.dcm", MR_SMALL)
    for name in ("DOE^JOHN", "2/IM0001"):
        site.upload(name, MR_SMALL)
    site.upload("c.txt", b"note" * 99)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)

    def lines(*options: str) -> list[str]:
        assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run", *options]) == 0
        return capsys.readouterr().out.splitlines()

    assert lines()[-1] == (
        "2 of 3 objects that input.namePattern excludes begin with DICM (2 with no extension): "
        "set input.otherNames to sniff, or widen input.namePattern"
    )
    assert not [line for line in lines("--no-sample") if "DICM" in line]
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"input": {"otherNames": "sniff"}}))
    first, sniffed, *_ = lines()
    assert first.startswith("4 objects in 1 shard; 0 ignored, 4 to convert ")
    assert sniffed == (
        "3 objects to convert with names that do not match input.namePattern: "
        "1 read each, then ignored unless it is DICOM"
    )


def test_a_dry_run_counts_known_objects_separately(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in site.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(site.overrides))

    def lines(*options: str) -> list[str]:
        assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run", *options]) == 0
        done = capsys.readouterr()
        assert re.fullmatch(r"\d+ objects? counted\ndry run: nothing was changed\n", done.err)
        return done.out.splitlines()

    site.upload("a.dcm", MR_SMALL)
    site.upload("bad.dcm", b"not DICOM")
    assert "BigQuery already has 0 of them" in lines()[1]
    assert site.backfill().status == 0
    dismissal = ("--path", f"gs://{site.source.name}/*", "--because", "bad")
    assert cli.main(["dead-letters", "dismiss", *dismissal]) == 0
    capsys.readouterr()
    site.upload("c.dcm", MR_SMALL)
    first, known, *rest = lines()
    assert first.startswith("3 objects in 1 shard; 0 ignored, 3 to convert ")
    assert known == "BigQuery already has 2 of them, as rows or dead letters; 1 new"
    (reads,) = [line for line in rest if line.startswith("read STANDARD")]
    assert reads.split()[2:4] == ["1", "requests"]
    assert "BigQuery already has" not in lines("--all")[1]
    assert "1 inserted, 0 dead letters, 2 already present" in site.backfill().out
    assert site.dead_letters() == []


def test_only_objects_under_the_prefix_are_loaded(site: Site) -> None:
    for name in ("a/1.dcm", "a/2.dcm", "ab/3.dcm", "b/4.dcm"):
        site.upload(name, MR_SMALL)
    assert site.backfill("--all", where="a/").status == 0
    assert [path.rpartition("/")[2] for path, _ in site.live()] == ["1.dcm", "2.dcm"]


def test_an_overwritten_object_is_loaded_again(site: Site) -> None:
    site.upload("a'%?#\u60a3.dcm", MR_SMALL)
    assert site.backfill().status == 0
    site.upload("a'%?#\u60a3.dcm", MR_SMALL)
    assert "1 inserted, 0 dead letters, 0 already present" in site.backfill().out
    assert site.live() == sorted(site.objects.items())
    assert len(site.rows()) == 2
