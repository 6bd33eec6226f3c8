"""A bad object costs no other one anything; a service that is down costs time, and no row."""

import json
import shlex
import sys

import pytest

from dcm2bq import cli
from dcm2bq.bigquery.dataset import Dataset
from tests.support.backfill_site import (
    CT_SMALL,
    DCM2BQ,
    MR_SMALL,
    Site,
    finish,
)
from tests.support.proxy import Fault

RUN = ["gs://bucket", "--staging", "gs://staging"]


def test_an_object_that_nobody_may_read_becomes_a_dead_letter(site: Site) -> None:
    site.overrides["limits"] = {"deadlineSeconds": 2}
    for number in range(12):
        site.upload(f"{number:02}.dcm", MR_SMALL)
    site.storage.faults = [Fault("/05.dcm?alt=media", 403)]
    done = site.backfill()
    assert done.status == 0, done.err
    assert "11 inserted, 1 dead letters" in done.out
    assert done.err.endswith("what could not be converted, and why: dcm2bq dead-letters list\n")
    (letter,) = site.dead_letters()
    assert letter["path"] == f"gs://{site.source.name}/05.dcm"
    assert letter["reason"] == "ReadFailedError"
    assert letter["message"] == "Cloud Storage: HTTP 403"
    assert letter["message_id"].startswith(f"backfill-{done.run}-")
    site.storage.faults = []
    assert "0 inserted, 0 dead letters, 12 were there" in site.backfill().out
    again = site.backfill("--all", where="05")
    assert "1 inserted, 0 dead letters, 0 were there" in again.out
    assert site.dead_letters() == []


def resumption(err: str) -> list[str]:
    """Return the words of the command that resumes a run, as stderr shows it."""
    return shlex.split(err.partition("resume it with:\n")[2].splitlines()[0])


@pytest.mark.parametrize("uri", ["gs://", "gs:///x", "gs://UPPER", "gs://a"])
def test_a_uri_that_cannot_be_is_refused(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([uri, *RUN[1:]], [*RUN[:2], uri], [uri, "--dry-run"]):
        assert cli.main(["backfill", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"dcm2bq: {uri}: gs://BUCKET or gs://BUCKET/NAME is expected; a ")


def test_a_key_that_is_missing_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"privacy": {"hash": ["PatientID"]}}')
    assert cli.main(["backfill", *RUN]) == 2
    assert "DCM2BQ_HASH_KEY" in capsys.readouterr().err


def test_options_that_beam_does_not_take_are_refused_first(site: Site) -> None:
    site.storage.faults = [Fault("")]
    done = site.backfill("--", "--no_such_option=1")
    assert done.status == 2
    assert done.err == "dcm2bq: Apache Beam has no option no_such_option\n"


def test_the_hint_repeats_what_the_run_was_begun_with(site: Site) -> None:
    site.overrides["limits"] = {"deadlineSeconds": 1}
    site.upload("it's/a.dcm", MR_SMALL)
    site.storage.faults = [Fault(f"/b/{site.source.name}/o/", 503)]
    options = ("--all", "--threads", "3", "--keep-staged", "--shard-objects", "5")
    beam = ("--", "--direct_runner_bundle_repeat=1")
    done = site.backfill(*options, *beam, where="it's")
    assert done.status == 3, done.err
    words = resumption(done.err)
    assert words[:3] == ["dcm2bq", "backfill", f"gs://{site.source.name}/it's"]
    kept = ["--staging", f"gs://{site.staging.name}/b", "--all", "--threads", "3", "--keep-staged"]
    assert words[3:] == [*kept, "--resume", done.run, *beam]
    site.storage.faults = []
    again = finish(site.run([str(DCM2BQ), *words[1:]]))
    assert again.status == 0, again.err
    assert site.live() == sorted(site.objects.items())


@pytest.mark.parametrize("content", [b"{}", b'{"run": 5}', b"\xff", b"{"])
def test_records_of_another_version_are_no_outage(site: Site, content: bytes) -> None:
    site.staging.upload("b/20260131_094500_1a2b3c/run.json", content)
    done = site.backfill("--resume", "20260131_094500_1a2b3c")
    assert done.status == 2
    assert done.err == (
        "dcm2bq: the run's records are not of this version of dcm2bq: resume the run with the "
        "version that began it, or begin a new one\n"
    )


@pytest.mark.parametrize("number", [3, 30])
def test_an_outage_fails_the_run_and_loses_nothing(site: Site, number: int) -> None:
    site.overrides["limits"] = {"deadlineSeconds": 1}
    for each in range(number):
        site.upload(f"{each}.dcm", MR_SMALL)
    site.storage.faults = [Fault(f"/b/{site.source.name}/o/", 503)]
    done = site.backfill()
    assert done.status == 3
    hint = f"run {done.run} did not finish; resume it with:\n  dcm2bq backfill gs://"
    assert hint in done.err
    assert resumption(done.err)[-2:] == ["--resume", done.run]
    assert done.err.endswith("dcm2bq: Cloud Storage: HTTP 503\n")
    assert (site.live(), site.dead_letters()) == ([], [])
    assert site.staged(done.run, "shards/") == []
    site.storage.faults = []
    resumed = site.backfill("--resume", done.run)
    assert resumed.status == 0, resumed.err
    assert site.live() == sorted(site.objects.items())


def test_staged_rows_that_cannot_be_written_fail_the_shard(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.storage.faults = [Fault("POST /upload", 403)]
    done = site.backfill()
    assert done.status == 3
    run = done.err.rstrip().rpartition("/")[2].partition(":")[0]
    assert done.err.endswith(f"dcm2bq: gs://{site.staging.name}/b/{run}: HTTP 403\n")
    assert site.live() == []


def test_whoever_stages_a_shard_first_decides_what_is_loaded(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    done = site.backfill("--keep-staged")
    assert done.status == 0
    for name in site.staged(done.run, "loaded/"):
        site.staging.delete(f"b/{done.run}/{name}")
    site.upload("b.dcm", CT_SMALL)
    resumed = site.backfill("--resume", done.run)
    assert resumed.status == 0, resumed.err
    assert resumed.out == done.out
    assert len(site.rows()) == 1
    assert "1 inserted, 0 dead letters, 1 were there" in site.backfill().out
    assert site.live() == sorted(site.objects.items())


def test_a_run_is_gone_on_with_as_it_was_begun(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    done = site.backfill()
    site.overrides["jsonOutput"] = {"ignorePrivate": True}
    other = site.backfill("--resume", done.run)
    assert other.status == 2
    reason = "its jsonOutput.ignorePrivate was False, not True"
    assert other.err == f"dcm2bq: run {done.run}: {reason}\n"
    missing = site.backfill("--resume", "never")
    assert missing.status == 2
    folder = f"gs://{site.staging.name}/b/never"
    assert missing.err == f"dcm2bq: {folder}: there is no such run\n"


@pytest.mark.parametrize("run", ["../../other/run", "a/b", "..", "", "A", "a b", "x" * 65, "a\n"])
def test_what_cannot_be_the_id_of_a_run_is_refused_before_anything_is_asked(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> None:
        pytest.fail("a service was asked")

    monkeypatch.setattr(Dataset, "__init__", ask)
    assert cli.main(["backfill", *RUN, "--resume", run]) == 2
    assert "not the id of a run" in capsys.readouterr().err


def test_rows_of_other_privacy_options_are_refused(site: Site) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.overrides["privacy"] = {"remove": ["PatientID"]}
    done = site.backfill()
    assert done.status == 2
    table = f"{site.dataset.name}.instances"
    reason = "holds rows made with other privacy options: use those options or another dataset"
    assert done.err == f"dcm2bq: {table}: {reason}\n"
    assert site.names("b/") == []


def test_a_bucket_whose_events_the_function_refuses_is_not_brought_in(
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
    assert site.backfill().status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gs://bucket"], "Error: --staging is needed: gs://BUCKET/PREFIX, where rows may wait"),
        (["b"], "dcm2bq: b: gs://BUCKET or gs://BUCKET/NAME is expected"),
        ([*RUN[:2], "s"], "dcm2bq: s: gs://BUCKET or gs://BUCKET/NAME is expected"),
        (
            [*RUN, "--region", "r", "--max-workers", "3"],
            "Error: --region, --max-workers: for --runner DataflowRunner alone",
        ),
        (
            [*RUN, "--runner", "DataflowRunner", "--processes", "1"],
            "Error: --processes: for --runner local alone",
        ),
        (
            [*RUN, "--resume", "r", "--shard-objects", "10"],
            "Error: --shard-objects: a run that is resumed has its shards already",
        ),
        (
            [*RUN, "--resume", "r", "--dry-run"],
            "Error: --dry-run: a run that is resumed was counted when it began",
        ),
        (
            [*RUN, "--resume", "x`; DROP"],
            "Error: --resume x`; DROP: is not the id of a run, 20260131_094500_1a2b3c",
        ),
    ],
)
def test_usage_is_explained_before_anything_is_asked(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["backfill", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()


def test_a_missing_beam_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """What is suggested: tests/unit/test_extras.py."""
    assert cli.main(["backfill", *RUN]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dcm2bq: backfill needs packages that are not installed (apache_beam); ")
    assert f"{sys.executable} -m pip install" not in err  # the local stack is installed there


def test_a_dry_run_counts_and_estimates_and_needs_no_beam(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.upload("a.dcm", MR_SMALL)
    site.upload("b.dcm", MR_SMALL)
    site.source.upload("c.txt", b"note")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run"]) == 0
    done = capsys.readouterr()
    size = 2 * len(MR_SMALL)
    assert done.out.startswith(
        f"3 objects, of which 2 ({size:,} bytes) are to be handled, in 1 shards\n"
    )
    assert "cannot be counted" in done.err  # no BigQuery was named
    assert done.err.endswith("dry run: nothing was changed\n")
    assert site.live() == []


def test_a_dry_run_counts_apart_what_is_known(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in site.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(site.overrides))

    def lines(*options: str) -> list[str]:
        assert cli.main(["backfill", f"gs://{site.source.name}", "--dry-run", *options]) == 0
        done = capsys.readouterr()
        assert done.err == "1 objects counted\n".replace("1", done.err.partition(" ")[0]) + (
            "dry run: nothing was changed\n"
        )
        return done.out.splitlines()

    site.upload("a.dcm", MR_SMALL)
    site.upload("bad.dcm", b"no DICOM")
    assert "BigQuery has 0 of them already" in lines()[1]
    assert site.backfill().status == 0
    dismissal = ("--path", f"gs://{site.source.name}/*", "--because", "bad")
    assert cli.main(["dead-letters", "dismiss", *dismissal]) == 0
    capsys.readouterr()
    site.upload("c.dcm", MR_SMALL)
    first, known, requests, *_ = lines()
    assert first.startswith("3 objects, of which 3 ")
    assert known == "BigQuery has 2 of them already, as rows or open dead letters: 1 are new"
    assert ", 1 reads (" in requests
    assert "BigQuery has" not in lines("--all")[1]
    assert "1 inserted, 0 dead letters, 2 were there" in site.backfill().out
    assert site.dead_letters() == []


def test_a_prefix_is_all_that_is_brought_in(site: Site) -> None:
    for name in ("a/1.dcm", "a/2.dcm", "ab/3.dcm", "b/4.dcm"):
        site.upload(name, MR_SMALL)
    assert site.backfill(where="a/").status == 0
    assert [path.rpartition("/")[2] for path, _ in site.live()] == ["1.dcm", "2.dcm"]


def test_an_object_that_was_replaced_comes_in_again(site: Site) -> None:
    site.upload("a'%?#\u60a3.dcm", MR_SMALL)
    assert site.backfill().status == 0
    site.upload("a'%?#\u60a3.dcm", MR_SMALL)
    assert "1 inserted, 0 dead letters, 0 were there" in site.backfill().out
    assert site.live() == sorted(site.objects.items())
    assert len(site.rows()) == 2
