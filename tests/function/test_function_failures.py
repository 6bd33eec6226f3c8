"""How the function answers each failure, and what the tables hold afterwards."""

import gzip
import io
import json
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from dcm2bq import schema
from dcm2bq.local import servers
from tests.function.conftest import THREADS
from tests.support.cloud import (
    SENTINEL,
    Event,
    google_error,
    row_error,
)
from tests.support.function_stack import (
    ROOT,
    Stack,
    function_stack,
    unique,
)
from tests.support.leaks import leaks, windows
from tests.support.patience import scaled
from tests.support.proxy import Fault

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
INSERT_ALL = "insertAll"
DOWNLOAD = "alt=media"


BROKEN = f"""
import runpy
from dcm2bq.config import Config
from dcm2bq.handler import Handler

function = runpy.run_path({str(ROOT / "main.py")!r})

class Store:
    def open(self, event, deadline):
        raise KeyError({SENTINEL!r})

function["_handlers"].append(Handler(Config(), Store(), None))
ingest = function["ingest"]
"""
"""A function with an unforeseen error."""


def upload(stack: Stack, content: bytes = CT_SMALL) -> Event:
    return stack.bucket.upload(unique("fault-") + ".dcm", content)


def rows_of(stack: Stack, event: Event) -> list[dict[str, Any]]:
    return stack.rows(event.data["name"])


def dead_letters_of(stack: Stack, event: Event) -> list[dict[str, Any]]:
    return [row for row in stack.dead_letters() if row["message_id"] == event.id]


def outcome(stack: Stack, event: Event) -> str:
    """Return the last log line of an event."""
    return str(stack.log_lines(event.id)[-1]["outcome"])


def old(event: Event) -> Event:
    """Return the event as if its deliveries had failed for longer than allowed."""
    time = datetime.now(UTC) - timedelta(seconds=43200 + 60)
    return replace(event, time=time.isoformat())


def patient() -> bytes:
    """Return a DICOM file whose texts are all the sentinel, with values that violate their VRs."""
    data = Dataset()
    data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data.SOPInstanceUID = UID("1.2.3")
    data.PatientName = data.PatientID = data.PatientComments = SENTINEL
    data.add_new(0x00080020, "LO", SENTINEL)
    data.add_new(0x00181041, "LO", SENTINEL)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    stream = io.BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    content = stream.getvalue()
    return content.replace(struct.pack("<HH", 8, 0x20) + b"LO", struct.pack("<HH", 8, 0x20) + b"DA")


WHOLE = patient()
BODIES = (WHOLE, WHOLE[:-7], SENTINEL.encode() * 50, WHOLE + SENTINEL.encode())
"""Whole, cut, no DICOM, and misread: letters of the name where an element's header should be."""

FAILURES: dict[str, dict[str, Fault]] = {
    "none": {},
    "storage: HTTP 503": {"storage": Fault(DOWNLOAD, 503, google_error(503, "backendError"))},
    "storage: HTTP 400": {"storage": Fault(DOWNLOAD, 400, google_error(400, "invalid"))},
    "storage: reset": {"storage": Fault(DOWNLOAD)},
    "bigquery: HTTP 400": {"bigquery": Fault(INSERT_ALL, 400, google_error(400, "invalid"))},
    "bigquery: HTTP 403": {"bigquery": Fault(INSERT_ALL, 403, google_error(403, SENTINEL))},
    "bigquery: row error": {"bigquery": Fault(INSERT_ALL, 200, row_error("invalid", SENTINEL))},
    "bigquery: no JSON": {"bigquery": Fault(INSERT_ALL, 200, SENTINEL.encode())},
    "bigquery: odd row errors": {
        "bigquery": Fault(INSERT_ALL, 200, b'{"insertErrors": [{"SENTINEL^PATIENT": 1}]}')
    },
    "bigquery: reset": {"bigquery": Fault("")},
}


@dataclass(frozen=True)
class Delivery:
    """An event, and how the function answered it."""

    event: Event
    answer: requests.Response


def deliver(stack: Stack, events: Mapping[str, Sequence[Event]]) -> dict[str, list[Delivery]]:
    """Deliver events all at once, and remove the faults, each of which they must have met."""
    with ThreadPoolExecutor(THREADS) as pool:
        answers = {
            name: [(event, pool.submit(event.post, stack.url)) for event in group]
            for name, group in events.items()
        }
    for proxy in (stack.storage, stack.bigquery):
        assert all(fault.met for fault in proxy.faults), "a fault was not met"
        proxy.faults = []
    return {
        name: [Delivery(event, answer.result()) for event, answer in group]
        for name, group in answers.items()
    }


@pytest.fixture(scope="module")
def failed(running_stack: Stack) -> dict[str, list[Delivery]]:
    """Deliveries that fail, many at once, since most wait for their deadlines."""
    stack = running_stack
    events = {name: [upload(stack, body) for body in BODIES] for name in FAILURES}
    unread, unwritten, expired = upload(stack), upload(stack), old(upload(stack))

    of_storage = {name: events[name] for name in FAILURES if "storage" in FAILURES[name]}
    stack.storage.faults = [
        replace(fault, name=event.data["name"])
        for name, group in of_storage.items()
        for fault in FAILURES[name].values()
        for event in group
    ]
    stack.storage.faults += [
        Fault(unread.data["name"]),
        Fault(DOWNLOAD, 503, name=expired.data["name"]),
    ]
    failed = deliver(stack, {**of_storage, "unread": [unread], "expired": [expired]})

    stack.bigquery.faults = [replace(FAILURES["bigquery: reset"]["bigquery"])]
    failed |= deliver(
        stack,
        {
            "bigquery: reset": events["bigquery: reset"],
            "unwritten": [unwritten, unwritten.as_type("deleted"), upload(stack, b"no DICOM")],
        },
    )
    for name in FAILURES.keys() - failed.keys():  # these are answered at once
        stack.bigquery.faults = [replace(fault) for fault in FAILURES[name].values()]
        failed |= deliver(stack, {name: events[name]})
    return failed


@pytest.mark.parametrize(
    ("content", "error_type"),
    [
        (b"plain text, and no DICOM " * 40, "NotDicomError"),
        (CT_SMALL[:1000], "UnreadableDicomError"),
    ],
)
def test_a_bad_file_becomes_a_dead_letter_with_its_reason(
    stack: Stack, content: bytes, error_type: str
) -> None:
    event = upload(stack, content)
    assert event.post(stack.url).status_code == 200
    assert rows_of(stack, event) == []
    (letter,) = dead_letters_of(stack, event)
    assert letter["attributes"]["error_type"] == error_type
    assert letter["attributes"]["error"]
    assert letter["attributes"]["ce-type"] == event.type
    assert json.loads(letter["data"]) == event.data
    (shown,) = stack.dataset.query(
        "SELECT * FROM dead_letters WHERE path = @path",
        {"path": f"gs://{stack.bucket.name}/{event.data['name']}"},
    )
    assert shown["reason"] == error_type
    assert shown["version"] == event.data["generation"]
    assert shown["event"] == "finalized"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            Event(id="", type="com.example.other", time="2026-01-01T00:00:00Z", data={}),
            "type: is not one of google.cloud.storage.object.v1.*",
        ),
        (
            Event(
                id="",
                type="google.cloud.storage.object.v1.finalized",
                time="2026-01-01T00:00:00Z",
                data={"bucket": "scans", "generation": "1"},
            ),
            "data.name: is missing",
        ),
        (
            Event(
                id="",
                type="google.cloud.storage.object.v1.finalized",
                time="2026-01-01T00:00:00Z",
                data=[SENTINEL],
            ),
            "data: is not a JSON object",
        ),
    ],
)
def test_an_event_that_is_not_a_storage_event_becomes_a_dead_letter(
    stack: Stack, event: Event, message: str
) -> None:
    event = replace(event, id=unique("invalid-"))
    assert event.post(stack.url).status_code == 200
    (letter,) = dead_letters_of(stack, event)
    assert letter["attributes"]["error_type"] == "InvalidEventError"
    assert letter["attributes"]["error"] == message


def test_data_that_is_not_json_becomes_a_dead_letter_byte_for_byte(stack: Stack) -> None:
    event = upload(stack)
    headers = {f"ce-{k}": v for k, v in event.attributes.items()}
    headers["Content-Type"] = "application/json"
    body = b'{"name": "half'
    assert requests.post(stack.url, body, headers=headers, timeout=60).status_code == 200
    (letter,) = dead_letters_of(stack, event)
    assert letter["data"] == body


def test_an_event_that_is_too_large_becomes_a_dead_letter_that_fits(stack: Stack) -> None:
    event = replace(upload(stack), time="2" * 1_000_000)
    event = event.but(contentType=SENTINEL * 200_000)
    assert event.post(stack.url, structured=True).status_code == 200
    (letter,) = dead_letters_of(stack, event)
    assert letter["attributes"]["error"] == "data: exceeds 1048576 bytes"
    assert len(letter["attributes"]["ce-time"]) == 4096
    assert len(letter["data"]) == 1_048_576
    (line,) = stack.log_lines(event.id)
    assert len(str(line)) < 10_000


def test_a_request_that_is_not_a_cloud_event_is_refused_unquoted(stack: Stack) -> None:
    answer = requests.post(stack.url, json={"PatientName": SENTINEL}, timeout=60)
    assert answer.status_code == 400
    assert answer.text == "not a CloudEvent\n"


def test_a_generation_that_is_gone_is_acknowledged_without_a_row(stack: Stack) -> None:
    event = upload(stack)
    stack.bucket.delete(event.data["name"])
    assert event.post(stack.url).status_code == 200
    assert rows_of(stack, event) == []
    assert dead_letters_of(stack, event) == []
    assert outcome(stack, event) == "superseded"


def test_a_transient_503_needs_no_second_delivery(stack: Stack) -> None:
    event = upload(stack)
    stack.storage.faults = [Fault(DOWNLOAD, 503, b"", times=1)]
    assert event.post(stack.url).status_code == 200
    assert len(rows_of(stack, event)) == 1


ENCRYPTION = {"customerEncryption": {"encryptionAlgorithm": "AES256", "keySha256": SENTINEL}}
KEY_REFUSAL = google_error(
    400,
    "resourceIsEncryptedWithCustomerEncryptionKey",
    "The target object is encrypted by a customer-supplied encryption key.",
)


@pytest.mark.parametrize("told_by", ["event", "metadata", "text"])
def test_an_object_under_a_customers_key_becomes_a_dead_letter(stack: Stack, told_by: str) -> None:
    event = upload(stack)
    if told_by == "event":
        event = event.but(**ENCRYPTION)
    stack.storage.faults = [Fault(DOWNLOAD, 400, google_error(400, "x"))]
    if told_by == "metadata":
        resource = json.dumps(ENCRYPTION).encode()
        stack.storage.faults.append(Fault("fields=customerEncryption", 200, resource))
    if told_by == "text":
        stack.storage.faults = [Fault(DOWNLOAD, 400, KEY_REFUSAL)]
    before = len(stack.storage.requests)
    assert event.post(stack.url).status_code == 200
    (letter,) = dead_letters_of(stack, event)
    assert letter["attributes"]["error_type"] == "RejectedEventError"
    assert "customer-supplied key" in letter["attributes"]["error"]
    assert len(stack.storage.requests) - before == (0 if told_by == "event" else 2)


def test_a_requester_pays_bucket_names_the_missing_option(stack: Stack) -> None:
    event = upload(stack)
    text = "Bucket is a requester pays bucket but no user project provided."
    stack.storage.faults = [Fault(DOWNLOAD, 400, google_error(400, "required", text))]
    assert event.post(stack.url).status_code == 500
    assert dead_letters_of(stack, event) == []
    line = stack.log_lines(event.id)[-1]
    assert line["error_type"] == "ReadFailedError"
    assert "input.userProject" in line["error"]


def test_a_size_missing_from_the_event_is_read_from_the_metadata(stack: Stack) -> None:
    """A notification without data has no size; an empty object is ignored even then."""
    bare = ["size", "contentEncoding", "contentType"]
    stored = gzip.compress(CT_SMALL)
    name = unique("bare-") + ".dcm"
    event = stack.bucket.upload(name, stored, content_encoding="GZIP").but(**dict.fromkeys(bare))
    before = len(stack.storage.requests)
    assert event.post(stack.url).status_code == 200
    assert len(rows_of(stack, event)) == 1
    assert len(stack.storage.requests) - before == 2
    empty = upload(stack, b"").but(**dict.fromkeys(bare))
    assert empty.post(stack.url).status_code == 200
    assert rows_of(stack, empty) == dead_letters_of(stack, empty) == []


def test_a_lost_answer_leaves_one_live_row(stack: Stack) -> None:
    event = upload(stack)
    stack.bigquery.faults = [Fault(INSERT_ALL, after=True, times=1)]
    assert event.post(stack.url).status_code == 200
    assert len(stack.live(f"ENDS_WITH(path, '{event.data['name']}')")) == 1


def test_a_missing_table_means_redelivery_until_it_exists(
    tmp_path: Path, bigquery_url: str, storage_url: str
) -> None:
    overrides = {
        "bigQuery": {"timeoutSeconds": scaled(3)},
        "limits": {"deadlineSeconds": scaled(4)},
    }
    with function_stack(tmp_path, bigquery_url, storage_url, overrides, has_tables=False) as stack:
        tables = {
            definition.name: definition.resource
            for definition in schema.load(stack.config, "local")
        }
        stack.dataset.create(None)
        stack.dataset.create_table(tables["dead_letter"])
        event = upload(stack)
        assert event.post(stack.url).status_code == 500
        assert dead_letters_of(stack, event) == []
        stack.dataset.create_table(tables["instances"])
        assert event.post(stack.url).status_code == 200
        assert len(rows_of(stack, event)) == 1


def test_stopped_servers_mean_redelivery(
    stack: Stack, failed: Mapping[str, list[Delivery]]
) -> None:
    (first,), (second, deleted, _) = failed["unread"], failed["unwritten"]
    for delivery in (first, second, deleted):
        assert delivery.answer.status_code == 500
    for delivery in (first, second, deleted):
        assert delivery.event.post(stack.url).status_code == 200
    assert len(rows_of(stack, first.event)) == 1
    assert [row["event"] for row in rows_of(stack, second.event)] == ["finalized", "deleted"]


def test_an_event_that_fails_for_too_long_becomes_a_dead_letter(
    stack: Stack, failed: Mapping[str, list[Delivery]]
) -> None:
    (expired,) = failed["expired"]
    assert expired.answer.status_code == 200
    (letter,) = dead_letters_of(stack, expired.event)
    assert letter["attributes"]["error_type"] == "ReadFailedError"
    assert letter["attributes"]["error"] == "Cloud Storage: HTTP 503"


def test_an_old_event_that_succeeds_becomes_a_row(stack: Stack) -> None:
    event = old(upload(stack))
    assert event.post(stack.url).status_code == 200
    assert len(rows_of(stack, event)) == 1


def test_a_dead_letter_that_is_not_stored_means_redelivery(
    stack: Stack, failed: Mapping[str, list[Delivery]]
) -> None:
    unreadable = failed["unwritten"][-1]
    assert unreadable.answer.status_code == 500
    assert unreadable.event.post(stack.url).status_code == 200
    assert len(dead_letters_of(stack, unreadable.event)) == 1


def test_an_unforeseen_error_means_redelivery_and_is_logged_with_its_frames(
    stack: Stack, tmp_path: Path
) -> None:
    event = upload(stack)
    source = tmp_path / "main.py"
    source.write_text(BROKEN)
    with servers.function_server(tmp_path, source, {"PYTHONPATH": str(ROOT)}) as url:
        answer = event.post(url)
    assert answer.status_code == 500
    assert SENTINEL not in answer.text
    (line,) = (tmp_path / "function" / "log").read_text().splitlines()
    told = json.loads(line)
    assert told["severity"] == "ERROR"
    assert told["event_id"] == event.id
    assert told["error_type"] == "KeyError"
    assert told["error"].startswith("KeyError < main.py:10 open < handler.py:")
    assert SENTINEL not in line


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_shows_patient_data(
    stack: Stack, failed: Mapping[str, list[Delivery]], failure: str
) -> None:
    """Of an object that is whole, cut, no DICOM, or misread."""
    assert "SENTINEL" not in stack.log_file.read_text()
    ids = {delivery.event.id for delivery in failed[failure]}
    letters = [row for row in stack.dead_letters() if row["message_id"] in ids]
    told = [letter["attributes"]["error"] for letter in letters]
    for delivery in failed[failure]:
        (line,) = stack.log_lines(delivery.event.id)
        told += [delivery.answer.text, str(delivery.answer.headers), str(line.get("error"))]
    assert leaks(told, windows(SENTINEL.encode())) == []


INVALID_UTF8 = {
    "a byte that begins nothing": b"\xff",
    "a character that is cut": b"\xe2\x82",
    "a continuation alone": b"\x80",
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("place", ["name", "key", "alone"])
def test_an_event_that_is_not_utf8_becomes_a_dead_letter(stack: Stack, place: str) -> None:
    """It is answered at once, and its log line has its id."""
    events = {invalid: upload(stack) for invalid in INVALID_UTF8.values()}
    for invalid, event in events.items():
        data = json.dumps(event.data).encode()
        data = {
            "name": data.replace(b'"name": "', b'"name": "' + invalid),
            "key": data.replace(b'"name"', b'"' + invalid + b'": 1, "name"'),
            "alone": invalid,
        }[place]
        headers = {f"ce-{name}": value for name, value in event.attributes.items()}
        headers["Content-Type"] = "application/json"
        assert requests.post(stack.url, data, headers=headers, timeout=100).status_code == 200
    letters = stack.dead_letters()
    for event in events.values():
        (told,) = [row["attributes"] for row in letters if row["message_id"] == event.id]
        assert told["error_type"] == "InvalidEventError"
        assert told["error"].startswith("data")
        (line,) = stack.log_lines(event.id)
        assert (line["outcome"], line["error_type"]) == ("dead_lettered", "InvalidEventError")
    paths = {row["path"] for row in stack.dataset.query("SELECT path FROM instances")}
    assert not paths & {f"gs://{stack.bucket.name}/{e.data['name']}" for e in events.values()}


def test_a_structured_event_whose_data_is_not_utf8_becomes_a_dead_letter(stack: Stack) -> None:
    """The framework cannot read it, but its attributes can be read."""
    event = upload(stack)
    body = json.dumps({**event.attributes, "data": event.data}).encode()
    headers = {"Content-Type": "application/cloudevents+json"}
    answer = requests.post(
        stack.url, body.replace(b'"name": "', b'"name": "\xff'), headers=headers, timeout=100
    )
    assert answer.status_code == 200
    (letter,) = dead_letters_of(stack, event)
    assert letter["attributes"]["error_type"] == "InvalidEventError"
    (line,) = stack.log_lines(event.id)
    assert (line["outcome"], line["error_type"]) == ("dead_lettered", "InvalidEventError")
    assert rows_of(stack, event) == []
