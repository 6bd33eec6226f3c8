"""The real function over HTTP, with the real clients and real local servers."""

import itertools
import json
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.data import get_testdata_file

from dcm2bq.lifted import ADDED
from dcm2bq.version import VERSION
from tests.support.cloud import Event
from tests.support.function_stack import ROOT, Stack, unique

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
MR_SMALL = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()


@pytest.mark.parametrize("structured", [False, True], ids=["binary", "structured"])
def test_a_finalized_object_becomes_a_row(stack: Stack, *, structured: bool) -> None:
    name = unique("ct-") + ".dcm"
    event = stack.bucket.upload(name, CT_SMALL)
    before = datetime.now(UTC)
    assert event.post(stack.url, structured=structured).status_code == 200

    (row,) = stack.rows(name)
    assert row["event"] == "finalized"
    assert row["path"] == f"gs://{stack.bucket.name}/{name}"
    assert row["version"] == event.data["generation"]
    assert row["timestamp"] == datetime.fromisoformat(event.time)
    assert before <= row["ingested_at"] <= datetime.now(UTC)
    assert row["Modality"] == "CT"
    assert row["PatientID"] == "1CT1"
    assert row["StudyDate"].isoformat() == "2004-01-19"
    assert row["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.2"
    assert row["StudyInstanceUID"] == "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
    assert {column.keyword: row[column.keyword] for column in ADDED} == {
        "PatientName": "CompressedSamples^CT1",
        "PatientBirthDate": None,
        "PatientSex": "O",
        "StudyTime": time(7, 27, 30),
        "AccessionNumber": None,
        "StudyDescription": "e+1",
        "SeriesDescription": None,
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "RHAPSODE",
        "StationName": "CT01_OC0",
        "BodyPartExamined": None,
    }
    assert row["metadata"]["PatientName"] == "CompressedSamples^CT1"
    assert row["metadata"]["Rows"] == 128
    info = row["info"]
    assert info["event_id"] == event.id
    assert info["dcm2bq_version"] == VERSION
    assert info["transfer_syntax_uid"] == "1.2.840.10008.1.2.1"
    assert 0 < info["bytes_read"] <= len(CT_SMALL)
    assert info["input"] == event.info_input(CT_SMALL)


@pytest.mark.parametrize("kind", ["deleted", "archived"])
def test_a_gone_generation_becomes_a_marker_without_metadata(stack: Stack, kind: str) -> None:
    name = unique("gone-") + ".dcm"
    event = stack.bucket.upload(name, CT_SMALL)
    assert event.post(stack.url).status_code == 200
    assert event.as_type(kind).post(stack.url).status_code == 200

    _, marker = stack.rows(name)
    assert marker["event"] == kind
    assert marker["version"] == event.data["generation"]
    assert marker["metadata"] is None
    assert marker["StudyInstanceUID"] is None
    assert not stack.live(f"path = 'gs://{stack.bucket.name}/{name}'")


def test_a_metadata_update_is_acknowledged_and_nothing_else(stack: Stack) -> None:
    name = unique("touched-") + ".dcm"
    event = stack.bucket.upload(name, CT_SMALL).as_type("metadataUpdated")
    assert event.post(stack.url).status_code == 200
    assert stack.rows(name) == []
    (line,) = stack.log_lines(event.id)
    assert (line["severity"], line["outcome"]) == ("DEBUG", "ignored")


@pytest.mark.parametrize("kind", [str, int])
def test_generation_and_size_may_be_strings_or_numbers(
    stack: Stack, kind: type[str] | type[int]
) -> None:
    name = unique("number-") + ".dcm"
    event = stack.bucket.upload(name, CT_SMALL)
    event = event.but(generation=kind(event.data["generation"]), size=kind(event.data["size"]))
    assert event.post(stack.url).status_code == 200
    (row,) = stack.rows(name)
    assert row["version"] == str(event.data["generation"])
    assert row["info"]["input"]["size"] == len(CT_SMALL)


@pytest.mark.parametrize(
    "name",
    [
        "with some spaces.dcm",
        "ünïcode/画像 一.DCM",
        "hash#and?query&co=1.dcm",
        "percent%20and%2Fslash%.dcm",
        "quo'tes\"and`ticks.dicom",
        "back\\slash+plus;semi.dcm",
    ],
)
def test_an_object_of_any_name_is_read_and_its_name_kept(stack: Stack, name: str) -> None:
    event = stack.bucket.upload(name, MR_SMALL)
    assert event.post(stack.url).status_code == 200
    (row,) = stack.rows(name)
    assert row["path"] == f"gs://{stack.bucket.name}/{name}"
    assert row["Modality"] == "MR"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"text"),
        ("scan.dcm.tmp", CT_SMALL),
        ("gcloud/tmp/parallel_composite_uploads/see/part.dcm", CT_SMALL),
        ("empty.dcm", b""),
    ],
)
def test_temporary_and_empty_objects_and_other_names_are_ignored(
    stack: Stack, name: str, content: bytes
) -> None:
    event = stack.bucket.upload(name, content)
    assert event.post(stack.url).status_code == 200
    assert event.as_type("deleted").post(stack.url).status_code == 200
    assert stack.rows(name) == []
    (line,) = stack.log_lines(event.id)
    assert line["outcome"] == "ignored"


def test_a_gzipped_object_is_inflated(stack: Stack) -> None:
    import gzip  # noqa: PLC0415

    name = unique("gzip-") + ".dcm"
    event = stack.bucket.upload(name, gzip.compress(CT_SMALL), content_encoding="gzip")
    assert event.data["contentEncoding"] == "gzip"
    assert event.post(stack.url).status_code == 200
    (row,) = stack.rows(name)
    assert row["PatientID"] == "1CT1"


def history(stack: Stack, name: str) -> list[Event]:
    """Upload, overwrite and delete an object whose generations stay readable."""
    first = stack.versioned_bucket.upload(name, CT_SMALL)
    second = stack.versioned_bucket.upload(name, MR_SMALL)
    gone = stack.versioned_bucket.delete(name)
    assert gone.data["generation"] == second.data["generation"]
    return [first, first.as_type("archived"), second, gone]


def test_in_every_order_of_four_events_the_live_view_equals_the_bucket(stack: Stack) -> None:
    control = stack.versioned_bucket.upload("orders/control.dcm", CT_SMALL)
    stale = stack.versioned_bucket.upload("orders/overwritten.dcm", CT_SMALL)
    current = stack.versioned_bucket.upload("orders/overwritten.dcm", CT_SMALL)
    deliveries = [[current, control, stale.as_type("archived"), stale]]
    for number, order in enumerate(itertools.permutations(range(4))):
        events = history(stack, f"orders/{number}.dcm")
        deliveries.append([events[index] for index in order])

    def deliver(events: list[Event]) -> list[int]:
        return [event.post(stack.url).status_code for event in events]

    with ThreadPoolExecutor(4) as pool:
        assert {code for codes in pool.map(deliver, deliveries) for code in codes} == {200}

    prefix = f"gs://{stack.versioned_bucket.name}/"
    live = stack.live(f"STARTS_WITH(path, '{prefix}orders/')")
    bucket = stack.versioned_bucket.names()
    assert set(bucket) >= {"orders/control.dcm", "orders/overwritten.dcm"}
    assert {row["path"].removeprefix(prefix): int(row["version"]) for row in live} == {
        name: generation for name, generation in bucket.items() if name.startswith("orders/")
    }
    markers = stack.dataset.query("SELECT COUNT(*) n FROM instances WHERE event = 'archived'")
    assert markers[0]["n"] >= 24


def test_concurrent_events_each_get_their_row(stack: Stack) -> None:
    prefix = unique("parallel-")
    events = [stack.bucket.upload(f"{prefix}/{n}.dcm", CT_SMALL) for n in range(32)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda event: event.post(stack.url).status_code, events))
    assert answers == [200] * 32
    live = stack.live(f"path LIKE '%/{prefix}/%'")
    assert {row["version"] for row in live} == {event.data["generation"] for event in events}


def test_an_event_is_logged_in_one_line(stack: Stack) -> None:
    event = stack.bucket.upload(unique("logged-") + ".dcm", CT_SMALL)
    headers = {f"ce-{k}": v for k, v in event.attributes.items()}
    headers["Content-Type"] = "application/json"
    headers["X-Cloud-Trace-Context"] = "0123456789abcdef0123456789abcdef/1;o=1"
    answer = requests.post(stack.url, json.dumps(event.data), headers=headers, timeout=600)
    assert answer.status_code == 200

    (line,) = stack.log_lines(event.id)
    assert datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert 0 <= line.pop("milliseconds") < 10_000
    assert 0 < line.pop("bytes_read") <= len(CT_SMALL)
    assert line == {
        "severity": "INFO",
        "message": "event inserted",
        "outcome": "inserted",
        "event_id": event.id,
        "event_type": "google.cloud.storage.object.v1.finalized",
        "path": f"gs://{stack.bucket.name}/{event.data['name']}",
        "generation": event.data["generation"],
        "warnings": 0,
        "logging.googleapis.com/trace": "0123456789abcdef0123456789abcdef",
    }


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("{", "dcm2bq: DCM2BQ_CONFIG is not JSON: Input data was truncated"),
        (
            '{"bigQuery": {"dataset": "x"}}',
            "dcm2bq: bigQuery.dataset: no such option (did you mean bigQuery.datasetId?)",
        ),
    ],
)
def test_an_invalid_configuration_prevents_the_start(configuration: str, message: str) -> None:
    result = start(DCM2BQ_CONFIG=configuration)
    assert result.returncode != 0
    assert result.stderr.splitlines() == [message]


@pytest.mark.parametrize(
    "name",
    [
        *("DEBUG", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"),
        "DCM2BQ_SECRET_MANAGER_EMULATOR_HOST",
    ],
)
def test_a_developer_setting_prevents_the_start_in_the_cloud(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K_SERVICE", "dcm2bq")
    monkeypatch.setenv(name, "1")
    assert refusal() == (f"dcm2bq: {name} is set, but is for a developer's machine only: unset it")


@pytest.mark.parametrize(
    "name",
    ["STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "DCM2BQ_SECRET_MANAGER_EMULATOR_HOST"],
)
def test_an_emulator_variable_that_is_not_a_url_prevents_the_start(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "localhost:9050")
    assert refusal() == f"dcm2bq: {name}: must begin with http:// or https://, or be unset"


def test_a_developer_setting_elsewhere_or_an_empty_one_prevents_nothing() -> None:
    program = (
        "import json, os, runpy, sys\n"
        "for environ in json.loads(sys.argv[2]):\n"
        "    os.environ.clear()\n"
        "    os.environ.update(environ)\n"
        "    runpy.run_path(sys.argv[1])\n"
    )
    environs = [{"DEBUG": "1"}, {"K_SERVICE": "dcm2bq", "DEBUG": ""}, {"K_SERVICE": "dcm2bq"}]
    command = [sys.executable, "-c", program, str(ROOT / "main.py"), json.dumps(environs)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, timeout=600, check=True)


def refusal() -> str:
    """Load the function in this process; return the message with which it ends it."""
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "main.py"))
    return str(ended.value.code)


def start(**environ: str) -> subprocess.CompletedProcess[str]:
    """Start the function, which is expected to stop at once."""
    command = [str(Path(sys.executable).with_name("functions-framework")), "--target=ingest"]
    return subprocess.run(
        [*command, f"--source={ROOT / 'main.py'}", "--port=0"],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_metadata_update_is_indexed_if_the_option_is_on(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, name = handle(stack, monkeypatch, {"events": {"reindexOnMetadataUpdate": True}})
    assert outcome.result == "inserted"
    (row,) = stack.rows(name)
    assert row["event"] == "metadataUpdated"
    assert row["Modality"] == "CT"
    assert len(stack.live(f"ENDS_WITH(path, '{name}')")) == 1


def handle(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]
) -> tuple[Any, str]:
    """Handle a `metadataUpdated` event in this process, with other options."""
    from dcm2bq import config  # noqa: PLC0415
    from dcm2bq.bigquery.row_sink import RowSink  # noqa: PLC0415
    from dcm2bq.delivery import Delivery  # noqa: PLC0415
    from dcm2bq.gcs.store import Store  # noqa: PLC0415
    from dcm2bq.handler import Handler  # noqa: PLC0415

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    big_query = {"bigQuery": {"datasetId": stack.config.big_query.dataset_id}}
    settings = config.from_overrides({**overrides, **big_query})
    name = unique("handled-") + ".dcm"
    event = stack.bucket.upload(name, CT_SMALL).as_type("metadataUpdated")
    attributes = {f"ce-{k}": v for k, v in event.attributes.items()}
    delivery = Delivery(attributes, json.dumps(event.data).encode())
    return Handler(settings, Store(settings), RowSink(settings)).handle(delivery), name
