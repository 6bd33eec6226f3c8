"""`dcm2bq try` on a deployment that works, and on some with a planted fault each."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli, config, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.events import EventKind
from dcm2bq.tools.init import init
from dcm2bq.tools.trial import delivery_steps
from dcm2bq.tools.trial.delivery_steps import LINES
from dcm2bq.tools.trial.lines import TrialLine
from tests.support.cloud import google_error
from tests.support.datasets import CORE, borrowed_dataset, connect, dropped
from tests.support.event_source import ALL_TRIGGERS, EventSource
from tests.support.function_forks import forked_function
from tests.support.function_stack import ROOT, unique
from tests.support.patience import scaled, until
from tests.support.proxy import Fault, Proxy
from tests.trial.conftest import FAULT_SECONDS, Report, Site, Try

WITH_CORE = f"""
import sys
from dcm2bq import cli, schema
schema.NAMES = {CORE!r}
sys.exit(cli.main())
"""
"""The command for a dataset with these definitions only."""
STEPS = set(LINES) - {TrialLine.LARGE_ROW}


@contextmanager
def broken_dataset(
    bigquery_url: str, site: Site, edit: Callable[[list[dict[str, Any]]], object]
) -> Iterator[Dataset]:
    """Make a dataset whose tables are changed by `edit`, and its views."""
    settings = config.from_overrides(
        site.config(bigQuery={"datasetId": unique("broken_"), "timeoutSeconds": scaled(3)})
    )
    dataset = connect(bigquery_url, settings)
    with dropped(bigquery_url, dataset.dataset_id):
        dataset.create(None)
        tables = [copy.deepcopy(each.resource) for each in schema.load(settings, "local")[:2]]
        edit(tables)
        for table in tables:
            dataset.create_table(table)
        yield dataset


def in_dataset(dataset: Dataset) -> dict[str, Any]:
    return {"bigQuery": {"datasetId": dataset.dataset_id, "timeoutSeconds": scaled(3)}}


def assert_refuted(report: Report, line: str, detail: str, remedy: str) -> None:
    """Assert that a line is refuted with the reason, and with advice that helps."""
    assert report.done.status == 1, report.done
    refuted = report.lines[line]
    assert refuted["verdict"] == "refuted"
    assert re.search(detail, refuted["detail"]), refuted
    assert re.search(remedy, refuted["remedy"]), refuted


def test_a_working_deployment_is_confirmed(site: Site, try_it: Try) -> None:
    report = try_it()
    assert report.done.status == 0, report.done
    assert report.ids("refuted") == set()
    assert report.ids("confirmed") == {"tables", "views", "privacy-label", "admission", *STEPS}
    assert set(report.lines) == set(TrialLine)
    assert report.lines["row"]["seconds"] > 0
    assert all(line["detail"] for line in report.lines.values() if line["verdict"] == "not tried")
    assert report.document["services"] == "local"
    assert site.stack.bucket.names("dcm2bq-try/") == {}
    # The events about what it deletes at its end can still be on their way.
    condition = f"STARTS_WITH(path, '{report.document['prefix']}')"
    until(lambda: site.stack.live(condition) == [])


def test_a_report_for_people_has_a_line_for_each_id(
    site: Site, try_it: Try, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del try_it  # only its environment
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(site.config()))
    options = ("--timeout", "60", "--option", 'input.buckets=["elsewhere"]')
    assert cli.main(["try", f"gs://{site.bucket}", *options]) == 1
    out, err = capsys.readouterr()
    assert set(re.findall(r"^(?:confirmed|refuted|not tried) +(\S+)", out, re.MULTILINE)) == set(
        TrialLine
    )
    assert "show nothing about Google's" in err


def test_no_generation_stays_in_a_bucket_with_versions(site: Site, try_it: Try) -> None:
    bucket = site.stack.versioned_bucket
    report = try_it(bucket=bucket.name)
    assert report.done.status == 0, report.done
    assert report.ids("confirmed") >= STEPS
    assert bucket.names("dcm2bq-try/", versions=True) == {}
    events = {row["event"] for row in site.stack.rows("ordinary.dcm")}
    assert "archived" in events


# The planted faults: each is found, and the advice says what to do.


def test_no_trigger_for_deleted(site: Site, try_it: Try) -> None:
    site.events.triggers = ALL_TRIGGERS - {EventKind.DELETED}
    report = try_it(seconds=FAULT_SECONDS)
    assert report.ids("refuted") == {"overwrite", "marker", "dead-letter-closed"}
    assert_refuted(report, "marker", "no marker within", "trigger for deleted: .*Lost triggers")
    assert_refuted(report, "overwrite", "old generation is still live", "triggers? for deleted")


def test_no_trigger_for_finalized(site: Site, try_it: Try) -> None:
    site.events.triggers = ALL_TRIGGERS - {EventKind.FINALIZED}
    report = try_it(seconds=FAULT_SECONDS)
    assert report.ids("refuted") == {"row", "event-names", "dead-letter"}
    assert_refuted(report, "row", "though the deletion has left a marker", "trigger for finalized")
    assert report.lines["marker"]["verdict"] == "confirmed"


def test_a_function_that_writes_to_another_dataset(try_it: Try, bigquery_url: str) -> None:
    with borrowed_dataset(bigquery_url) as dataset:
        report = try_it(seconds=FAULT_SECONDS, **in_dataset(dataset))
    assert report.ids("confirmed") >= {"tables", "views"}
    assert_refuted(report, "row", "no trace of other events", "compare bigQuery.projectId, dataset")


def test_a_function_that_always_fails(site: Site, try_it: Try) -> None:
    site.stack.bigquery.faults.append(Fault("insertAll", 403, google_error(403, "accessDenied")))
    report = try_it(seconds=FAULT_SECONDS)
    assert_refuted(report, "row", "no trace of other events", "errors in the function's log")
    assert report.lines["overwrite"]["verdict"] == "not tried"


def test_a_function_that_cannot_write_dead_letters(site: Site, try_it: Try) -> None:
    site.stack.bigquery.faults.append(
        Fault("dead_letter/insertAll", 403, google_error(403, "accessDenied"))
    )
    report = try_it(seconds=FAULT_SECONDS)
    assert report.ids("refuted") == {"dead-letter"}
    assert_refuted(report, "dead-letter", "other objects have rows", "able to write to both tables")


def test_a_function_that_does_not_admit_the_bucket(
    site: Site, try_it: Try, tmp_path: Path, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "STORAGE_EMULATOR_HOST": storage_url,
        "BIGQUERY_EMULATOR_HOST": os.environ["BIGQUERY_EMULATOR_HOST"],
        "DCM2BQ_CONFIG": json.dumps(site.config(input={"buckets": ["another"]})),
        "PYTHONPATH": str(ROOT),
    }
    with (
        forked_function(tmp_path, ROOT / "main.py", environ) as url,
        EventSource(storage_url, url).running() as events,
    ):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", events.url)
        report = try_it(seconds=FAULT_SECONDS, events=events)
    assert_refuted(
        report,
        "row",
        "dead letter, InvalidEventError: data.bucket: is not one of input.buckets",
        "correct what the message names",
    )


def test_a_table_without_partitions(site: Site, try_it: Try, bigquery_url: str) -> None:
    with broken_dataset(
        bigquery_url, site, lambda tables: tables[0].pop("timePartitioning")
    ) as made:
        report = try_it(**in_dataset(made))
    assert_refuted(
        report,
        "tables",
        "instances: is not partitioned by MONTH of column ingested_at",
        "make another dataset",
    )


def test_a_missing_column(site: Site, try_it: Try, bigquery_url: str) -> None:
    """Nothing is uploaded: the function would fail."""

    def without_modality(tables: list[dict[str, Any]]) -> None:
        fields = tables[0]["schema"]["fields"]
        fields[:] = [field for field in fields if field["name"] != "Modality"]

    with broken_dataset(bigquery_url, site, without_modality) as made:
        report = try_it(**in_dataset(made))
    assert_refuted(report, "tables", "instances: column Modality is missing", "dcm2bq init")
    assert report.ids("not tried") >= STEPS


def test_a_missing_dead_letter_table(site: Site, try_it: Try, bigquery_url: str) -> None:
    with broken_dataset(bigquery_url, site, lambda tables: tables.pop()) as made:
        report = try_it(**in_dataset(made))
    assert_refuted(report, "tables", "dead_letter does not exist", "dcm2bq init")
    assert "dead_letter" in report.lines["row"]["detail"]


def test_a_view_and_a_function_of_another_release(
    site: Site, try_it: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = site.stack.dataset
    dataset.query(f"CREATE OR REPLACE VIEW `{dataset.name}.dismissed_letters` AS SELECT 1 AS a")
    monkeypatch.setattr(delivery_steps, "VERSION", "9.9.9")
    try:
        report = try_it()
    finally:
        init(dataset, site.stack.config)
    assert report.ids("refuted") == {"views", "release"}
    assert_refuted(report, "views", "dismissed_letters: another query", "dcm2bq init")
    assert_refuted(report, "release", "this is 9.9.9", "deploy this release")


def test_a_name_pattern_that_excludes_the_objects(site: Site, try_it: Try) -> None:
    options = {"input": {"namePattern": r"^scans/.*\.(dcm|ima)$"}}
    report = try_it(**options)
    assert_refuted(report, "admission", "input.namePattern excludes gs://", "gs://BUCKET/FOLDER")
    assert report.ids("not tried") >= STEPS
    report = try_it("/scans", **options)
    assert report.done.status == 0, report.done
    assert report.document["prefix"].startswith(f"gs://{site.bucket}/scans/dcm2bq-try/")


def test_a_configuration_that_does_not_admit_the_bucket(try_it: Try) -> None:
    report = try_it(input={"buckets": ["another"]})
    assert_refuted(report, "admission", "input.buckets does not name", "add the bucket")


def test_other_privacy_options(try_it: Try) -> None:
    report = try_it(privacy={"remove": ["PatientName"]})
    assert report.ids("refuted") == {"privacy-label", "row"}
    assert_refuted(
        report, "privacy-label", "is not set, not ", "the function's own privacy options"
    )
    assert_refuted(report, "row", "PatientName, metadata", "configuration of the function")


# Whatever happens, the objects are removed.


def test_objects_are_removed_if_a_service_fails(
    site: Site, try_it: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.stack.bigquery.faults.append(Fault("/queries", 403, google_error(403, "accessDenied")))
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", site.stack.bigquery.url)
    report = try_it()
    assert report.done.status == 3
    assert "dcm2bq: BigQuery: " in report.done.err
    assert site.stack.bucket.names("dcm2bq-try/") == {}


def test_objects_that_cannot_be_removed_are_named(
    site: Site, try_it: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(site.events.url).running() as proxy:
        proxy.faults.append(Fault("DELETE", 403, google_error(403, "forbidden")))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        report = try_it()
    left = site.stack.bucket.names("dcm2bq-try/")
    assert report.done.status == 3
    assert "needs roles/storage.objectUser" in report.done.err
    assert left
    for name, generation in left.items():
        assert f"gs://{site.bucket}/{name}#{generation}\n" in report.done.err
        site.stack.bucket.delete(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_objects_are_removed_on_an_interrupt(site: Site, try_it: Try, number: int) -> None:
    del try_it  # only its environment
    site.events.triggers = frozenset()
    environ = {**os.environ, "DCM2BQ_CONFIG": json.dumps(site.config())}
    with subprocess.Popen(
        [sys.executable, "-c", WITH_CORE, "try", f"gs://{site.bucket}"],
        env=environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        until(lambda: len(site.stack.bucket.names("dcm2bq-try/")) == 3)
        process.send_signal(number)
        _, err = process.communicate(timeout=scaled(60))
    assert process.returncode == 130, err
    assert site.stack.bucket.names("dcm2bq-try/") == {}
