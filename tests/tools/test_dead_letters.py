"""`dcm2bq dead-letters` lists, shows, retries and dismisses open entries."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.deadline import Deadline
from dcm2bq.rows import DeadLetterRow
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import zip_of
from tests.support.cloud import Event
from tests.support.function_stack import Stack, unique
from tests.support.leaping import leaping
from tests.support.proxy import Fault
from tests.tools.conftest import Command

DOWNLOAD = "alt=media"


@pytest.fixture
def folder(stack: Stack) -> Iterator[str]:
    """A folder of the bucket for one test, whose entries no later query of the view has to read."""
    yield unique("it's [1] 100% ")
    stack.dataset.query("TRUNCATE TABLE dead_letter")


def old(event: Event) -> Event:
    """Return the event with a time that is beyond `retry.maxAgeSeconds`."""
    time = datetime.now(UTC) - timedelta(days=2)
    return replace(event, time=time.isoformat())


def exhaust(stack: Stack, *events: Event) -> None:
    """Let the function give up events because of their age."""
    stack.storage.faults = [Fault(DOWNLOAD, 403)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda event: old(event).post(stack.url), events)
        assert {answer.status_code for answer in answers} == {200}
    stack.storage.faults = []


def path_of(stack: Stack, event: Event) -> str:
    return f"gs://{stack.bucket.name}/{event.data['name']}"


def open_entries(command: Command, pattern: str) -> list[dict[str, Any]]:
    done = command("dead-letters", "list", "--path", pattern, "--json")
    assert done.status == 0, done.err
    entries: list[dict[str, Any]] = json.loads(done.out)
    assert bool(done.err) == (not entries)  # a message only if no entry matches
    return entries


def rows_below(stack: Stack, folder: str, table: str = "instances") -> list[dict[str, Any]]:
    sql = f"SELECT path, event, version, timestamp FROM {table} WHERE STRPOS(path, @folder) > 0"
    return stack.dataset.query(sql, {"folder": f"/{folder}/"})


def write(stack: Stack, **letter: Any) -> None:
    """Write a dead letter as Pub/Sub's BigQuery subscription does."""
    row = DeadLetterRow(
        subscription_name="projects/p/subscriptions/dead",
        publish_time=datetime.now(UTC),
        **letter,
    )
    RowSink(stack.config).insert_dead_letter(row, Deadline.after(5))


def test_entries_are_listed_with_path_and_reason(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/no dicom.dcm", b"not DICOM")
    assert event.post(stack.url).status_code == 200
    done = command("dead-letters", "list", "--path", f"gs://*/{folder}/*")
    assert (done.status, done.err) == (0, "1 open\n")
    columns = done.out.split(maxsplit=4)
    assert columns[2:4] == ["1x", "NotDicomError"]
    name = f"{path_of(stack, event)}#{event.data['generation']} finalized"
    assert columns[4] == f"{name}: no DICM prefix and no data set at the start\n"


def test_names_inject_neither_terminal_controls_nor_sql(
    stack: Stack, command: Command, folder: str
) -> None:
    name = f"{folder}/\x1b[31m' OR TRUE -- \\.*\n.dcm"
    event = stack.bucket.upload(f"{folder}/plain.dcm", b"not DICOM").but(name=name, size="9")
    stack.storage.faults = [Fault(DOWNLOAD, 200, b"not DICO!")]
    assert event.post(stack.url).status_code == 200
    stack.storage.faults = []
    (entry,) = open_entries(command, f"gs://{stack.bucket.name}/{name}")
    assert entry["path"] == f"gs://{stack.bucket.name}/{name}"
    shown = command("dead-letters", "list", "--path", f"*{folder}/*").out
    assert "\x1b" not in shown
    assert shown.count("\n") == 1
    assert json.loads(command("dead-letters", "show", entry["path"]).out)["path"] == entry["path"]
    assert open_entries(command, "x' OR TRUE --") == []
    assert open_entries(command, f"*{folder}/.*lain.dcm") == []


def test_filters_select_entries(stack: Stack, command: Command, folder: str) -> None:
    not_dicom = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    not_dicom.post(stack.url)
    exhaust(stack, stack.bucket.upload(f"{folder}/b.dcm", b"whatever"))

    def names(*filters: str) -> list[str]:
        done = command("dead-letters", "list", "--path", f"*/{folder}/?.dcm", "--json", *filters)
        assert done.status == 0, done.err
        return [entry["path"][-5:] for entry in json.loads(done.out)]

    assert names() == ["b.dcm", "a.dcm"]
    assert names("--limit", "1") == ["b.dcm"]
    assert names("--reason", "NotDicomError") == ["a.dcm"]
    assert names("--reason", "ReadFailedError", "--event", "finalized") == ["b.dcm"]
    assert names("--event", "deleted") == []
    assert names("--source", "subscription") == []
    assert names("--source", "function", "--since", "2026-01-01") == ["b.dcm", "a.dcm"]
    assert names("--since", "2999-01-01T00:00") == []


def test_a_filter_without_a_match_is_reported(stack: Stack, command: Command, folder: str) -> None:
    stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM").post(stack.url)
    message = re.compile(r"no open entry matches \([1-9]\d* open\)\n")
    for filters in (("--path", "gs://none/*"), ("--since", "2999-01-01"), ("--event", "archived")):
        listed = command("dead-letters", "list", *filters)
        assert (listed.status, listed.out) == (0, "")
        assert message.fullmatch(listed.err)
    as_json = command("dead-letters", "list", "--json", *filters)
    assert (as_json.status, as_json.out) == (0, "[]\n")
    assert message.fullmatch(as_json.err)
    retried = command("dead-letters", "retry", *filters)
    assert (retried.status, retried.err) == (0, "")
    assert message.fullmatch(retried.out)


def test_an_unknown_reason_is_refused_and_case_is_ignored(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    event.post(stack.url)
    path = ("--path", path_of(stack, event))
    for reason in ("notdicomerror", "NOTDICOMERROR", "NotDicomError"):
        assert "1 open" in command("dead-letters", "list", *path, "--reason", reason).err
    for name in ("list", "retry"):
        done = command("dead-letters", name, *path, "--reason", "NotDicom")
        assert (done.status, done.out) == (2, "")
        assert "--reason NotDicom: no such reason; use one of DeliveryExhausted, " in done.err
        assert "NotDicomError" in done.err


def test_an_unforeseen_exception_is_a_reason_if_an_entry_has_it(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"x")
    attributes = {f"ce-{key}": value for key, value in event.attributes.items()}
    attributes |= {"error_type": "OddlyNamedError", "error": "odd"}
    data = json.dumps(event.data).encode()
    write(stack, message_id=folder, attributes=json.dumps(attributes), data=data)
    done = command("dead-letters", "list", "--reason", "oddlynamederror", "--json")
    assert [entry["path"] for entry in json.loads(done.out)] == [path_of(stack, event)]


def test_an_entry_is_shown_with_its_recorded_event(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    event.post(stack.url)
    for name in (path_of(stack, event), event.id):
        done = command("dead-letters", "show", name)
        assert (done.status, done.err) == (0, "")
        shown = json.loads(done.out)
        assert shown["reason"] == "NotDicomError"
        assert shown["attributes"]["ce-type"] == event.type
        assert shown["data"] == event.data


def test_an_object_without_an_open_entry_is_reported(command: Command) -> None:
    done = command("dead-letters", "show", "gs://none/none.dcm")
    assert (done.status, done.out) == (1, "")
    assert done.err == "gs://none/none.dcm: there is no open entry\n"


def test_retry_handles_an_event_of_any_age(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    events = [stack.bucket.upload(f"{folder}/{n}.dcm", ct_small) for n in range(8)]
    exhaust(stack, *events)
    assert len(open_entries(command, f"*/{folder}/*")) == 8
    done = command("dead-letters", "retry", "--path", f"*/{folder}/*")
    assert (done.status, done.out, done.err) == (0, "8 inserted\n", "")
    assert open_entries(command, f"*/{folder}/*") == []
    for table in ("instances", "instances_live"):
        paths = [row["path"] for row in rows_below(stack, folder, table)]
        assert sorted(paths) == sorted(path_of(stack, event) for event in events)
    done = command("dead-letters", "retry", "--path", f"*/{folder}/*")
    assert done.status == 0
    assert re.fullmatch(
        r"no open entry matches \(\d+ open\)\n|there are no open entries\n", done.out
    )


KINDS = {"finalized": "FINALIZE", "deleted": "DELETE", "archived": "ARCHIVE"}
SHAPES = ("CloudEvent", "notification", "notification without data")


def write_exhausted(stack: Stack, event: Event, shape: str, kind: str) -> None:
    """Write an event as Pub/Sub records it once it has been delivered too often."""
    if shape == "CloudEvent":
        attributes = {f"ce-{key}": value for key, value in event.as_type(kind).attributes.items()}
    else:
        attributes = {
            "eventType": f"OBJECT_{KINDS[kind]}",
            "eventTime": event.time,
            "bucketId": stack.bucket.name,
            "objectId": event.data["name"],
            "objectGeneration": event.data["generation"],
        }
    attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "100"
    data = b"" if shape.endswith("without data") else json.dumps(event.data).encode()
    write(stack, message_id=unique("shape-"), attributes=json.dumps(attributes), data=data)


def test_retry_handles_every_shape_that_pubsub_records(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    events = {
        (shape, kind): stack.bucket.upload(f"{folder}/{shape} {kind}.dcm", ct_small)
        for shape in SHAPES
        for kind in KINDS
    }
    for (shape, kind), event in events.items():
        write_exhausted(stack, event, shape, kind)
    pattern = f"*/{folder}/*"
    recorded = {
        entry["path"]: (entry["reason"], entry["event"]) for entry in open_entries(command, pattern)
    }
    assert recorded == {
        path_of(stack, event): ("DeliveryExhausted", kind) for (_, kind), event in events.items()
    }
    done = command("dead-letters", "retry", "--path", pattern)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.strip().split(", ")) == ["3 inserted", "6 marked"]
    rows = rows_below(stack, folder)
    assert len(rows) == len(events)
    assert {tuple(row.values()) for row in rows} == {
        (
            path_of(stack, event),
            kind,
            event.data["generation"],
            datetime.fromisoformat(event.time),
        )
        for (_, kind), event in events.items()
    }
    assert open_entries(command, pattern) == []


def test_an_event_that_fails_again_stays_open(stack: Stack, command: Command, folder: str) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"SENTINEL^PATIENT")
    event.post(stack.url)
    before = open_entries(command, path_of(stack, event))
    done = command("dead-letters", "retry", "--path", path_of(stack, event))
    assert (done.status, done.out) == (1, "1 still open\n")
    assert done.err == (
        f"{path_of(stack, event)}#{event.data['generation']} finalized: "
        "no DICM prefix and no data set at the start\n"
    )
    assert open_entries(command, path_of(stack, event)) == before


def test_retry_closes_the_entry_of_a_deleted_object(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    event.post(stack.url)
    stack.bucket.delete(event.data["name"])
    done = command("dead-letters", "retry", "--path", path_of(stack, event))
    assert (done.status, done.out) == (0, "1 superseded\n")
    assert open_entries(command, path_of(stack, event)) == []
    assert stack.rows(event.data["name"]) == []


def test_a_dead_letter_without_an_event_stays_open(stack: Stack, command: Command) -> None:
    message_id = unique("garbage-")
    write(stack, message_id=message_id, attributes="[1]", data=b"\xff\0")
    shown = json.loads(command("dead-letters", "show", message_id).out)
    assert (shown["path"], shown["attributes"], shown["data"]) == (None, {}, "/wA=")
    done = command("dead-letters", "retry", "--all")
    assert done.status == 1
    assert f"message {message_id}: data: is not JSON\n" in done.err


INVALID_UTF8 = {
    "a byte that starts no character": b"\xff",
    "a truncated character": b"\xe2\x82",
    "a lone continuation byte": b"\x80",
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


def test_data_that_is_not_utf8_is_shown_as_base64(
    stack: Stack, command: Command, folder: str
) -> None:
    recorded = {}
    for what, invalid in INVALID_UTF8.items():
        message_id = f"{folder} {what}"
        data = b'{"bucket": "scans", "name": "x' + invalid + b'.dcm", "generation": "1"}'
        attributes = {"ce-id": message_id, "error_type": "InvalidEventError", "error": "-"}
        write(stack, message_id=message_id, attributes=json.dumps(attributes), data=data)
        recorded[message_id] = data
    for message_id, data in recorded.items():
        done = command("dead-letters", "show", message_id)
        assert done.status == 0
        assert base64.b64decode(json.loads(done.out)["data"]) == data


def dismissed(stack: Stack, event: Event) -> list[dict[str, Any]]:
    return stack.dataset.query(
        "SELECT * FROM dismissed_letters WHERE path = @path", {"path": path_of(stack, event)}
    )


def test_a_dismissed_entry_leaves_the_view_and_keeps_its_rows(
    stack: Stack, command: Command, folder: str
) -> None:
    events = [stack.bucket.upload(f"{folder}/{n}.dcm", b"not DICOM") for n in range(2)]
    for event in events:
        event.post(stack.url)
    path = path_of(stack, events[0])
    before = [row for row in stack.dead_letters() if row["message_id"] == events[0].id]
    done = command("dead-letters", "dismiss", "--path", path, "--because", "it's not a scan")
    assert (done.status, done.out, done.err) == (0, "1 dismissed\n", "")
    assert open_entries(command, path) == []
    assert len(open_entries(command, f"*/{folder}/*")) == 1
    rows = [row for row in stack.dead_letters() if row["message_id"] == events[0].id]
    assert rows[: len(before)] == before
    assert len(rows) == len(before) + 1
    (entry,) = dismissed(stack, events[0])
    assert (entry["because"], entry["event"]) == ("it's not a scan", "finalized")
    assert entry["version"] == events[0].data["generation"]
    assert dismissed(stack, events[1]) == []
    again = command("dead-letters", "dismiss", "--path", path, "--because", "once more")
    assert again.status == 0
    assert re.fullmatch(r"no open entry matches \(\d+ open\)\n", again.out)


def test_a_later_failure_reopens_a_dismissed_entry(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    path = path_of(stack, event)
    event.post(stack.url)
    command("dead-letters", "dismiss", "--path", path, "--because", "bad")
    event.as_type("finalized").post(stack.url)
    (entry,) = open_entries(command, path)
    assert entry["attempts"] == 1
    assert dismissed(stack, event) == []
    command("dead-letters", "dismiss", "--path", path, "--because", "still bad")
    assert open_entries(command, path) == []
    assert [letter["because"] for letter in dismissed(stack, event)] == ["still bad"]


def test_a_success_or_a_delete_ends_a_dismissal(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    events = {
        kind: stack.bucket.upload(f"{folder}/{kind}.dcm", ct_small)
        for kind in ("finalized", "deleted")
    }
    exhaust(stack, *events.values())
    pattern = f"*/{folder}/*"
    done = command("dead-letters", "dismiss", "--path", pattern, "--because", "unreadable")
    assert done.out == "2 dismissed\n"
    for kind, event in events.items():
        assert len(dismissed(stack, event)) == 1
        event.as_type(kind).post(stack.url)
        assert dismissed(stack, event) == []
    assert open_entries(command, pattern) == []


def test_a_dead_letter_that_names_no_object_can_be_dismissed(
    stack: Stack, command: Command
) -> None:
    message_id = unique("garbage-")
    write(stack, message_id=message_id, attributes="[1]", data=b"\xff\0")
    command("dead-letters", "dismiss", "--all", "--because", "garbage")
    assert command("dead-letters", "show", message_id).status == 1
    sql = f"SELECT because FROM dismissed_letters WHERE message_id = '{message_id}'"
    assert stack.dataset.query(sql) == [{"because": "garbage"}]
    write(stack, message_id=message_id, attributes="[2]", data=b"\xff\0")
    assert stack.dataset.query(sql) == []
    command("dead-letters", "dismiss", "--all", "--because", "garbage")


@pytest.mark.parametrize(
    "args",
    [
        ("--all",),
        ("--because", "x"),
        ("--all", "--because", " "),
        ("--all", "--because", "x" * 1001),
        ("--all", "--reason", "NotDicomError", "--because", "x"),
    ],
)
def test_dismiss_requires_a_selection_and_a_reason(
    stack: Stack, command: Command, args: tuple[str, ...]
) -> None:
    stack.bigquery.faults = [Fault("")]
    done = command("dead-letters", "dismiss", *args)
    assert (done.status, done.out) == (2, "")
    assert "Usage: dcm2bq dead-letters dismiss" in done.err


def test_an_entry_stays_open_if_its_dismissal_is_not_stored(
    stack: Stack, command: Command, folder: str
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", b"not DICOM")
    event.post(stack.url)
    stack.bigquery.faults = [Fault("tables/dead_letter/insertAll", 403)]
    done = command("dead-letters", "dismiss", "--path", path_of(stack, event), "--because", "x")
    assert (done.status, done.out) == (1, "1 still open\n")
    assert "HTTP 403" in done.err
    stack.bigquery.faults = []
    assert len(open_entries(command, path_of(stack, event))) == 1


FORGED: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "a generation to come": (
        {},
        {"generation": str(2**63 - 1)},
        "data.generation: is more than a day in the future",
    ),
    "another bucket": (
        {"ce-bucket": "other"},
        {},
        "data.bucket: differs from the attribute bucket",
    ),
    "a time to come": (
        {"ce-time": "2999-01-01T00:00:00Z"},
        {},
        "time: is more than a day in the future",
    ),
    "not admitted": ({}, {}, "data.bucket: is not one of input.buckets"),
}
"""Attributes and data of deletions that did not happen, and why they are refused."""


def test_a_forged_dead_letter_hides_no_object(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    """Whoever can write to the table or the topic must not be able to hide objects."""
    lines = {}
    for name, (attributes, changes, why) in FORGED.items():
        event = stack.bucket.upload(f"{folder}/{name}.dcm", ct_small)
        assert event.post(stack.url).status_code == 200
        deleted = {f"ce-{key}": value for key, value in event.as_type("deleted").attributes.items()}
        data = event.data | changes
        write(
            stack,
            message_id=unique("forged-"),
            attributes=json.dumps(deleted | attributes),
            data=json.dumps(data).encode(),
        )
        lines[name] = f"{path_of(stack, event)}#{data['generation']} deleted: {why}"
    for initial, buckets in (("a", []), ("n", ["other-scans"])):
        command.configure(stack, input={"buckets": buckets})
        done = command("dead-letters", "retry", "--path", f"*/{folder}/{initial}*")
        expected = {line for name, line in lines.items() if name.startswith(initial)}
        assert (done.status, done.out) == (1, f"{len(expected)} still open\n")
        assert set(done.err.splitlines()) == expected
    rows, live = rows_below(stack, folder), rows_below(stack, folder, "instances_live")
    assert [row["event"] for row in rows] == ["finalized"] * len(FORGED)
    assert len(live) == len(FORGED)


def test_deeply_nested_data_is_shown_and_stays_open(stack: Stack, command: Command) -> None:
    message_id = unique("nested-")
    nested = b"[" * 200_000 + b"]" * 200_000
    write(stack, message_id=message_id, attributes="{}", data=nested)
    shown = json.loads(command("dead-letters", "show", message_id).out)
    assert shown["data"] == base64.b64encode(nested).decode()
    done = command("dead-letters", "retry", "--all")
    assert done.status == 1
    assert f"message {message_id}: data: is not JSON\n" in done.err
    # Every query of the view would parse it, which later tests have no time for.
    stack.dataset.query("DELETE FROM dead_letter WHERE message_id = @id", {"id": message_id})


def test_a_retry_stopped_by_an_outage_can_be_repeated(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    events = [stack.bucket.upload(f"{folder}/{n:02}.dcm", ct_small) for n in range(20)]
    exhaust(stack, *events)
    # However 19 failures and 1 success are ordered, 8 failures are in a row.
    stack.storage.faults = [Fault(f"{n:02}.dcm", 403) for n in range(1, 20)]
    done = command("dead-letters", "retry", "--path", f"*/{folder}/*")
    assert done.status == 3
    assert "still open" in done.out
    assert done.err.splitlines()[-1] == "dcm2bq: Cloud Storage: HTTP 403"
    left = len(open_entries(command, f"*/{folder}/*"))
    assert 19 <= left <= 20
    stack.storage.faults = []
    done = command("dead-letters", "retry", "--path", f"*/{folder}/*")
    assert (done.status, done.out) == (0, f"{left} inserted\n")


def test_an_entry_stays_open_if_its_resolution_is_not_stored(
    stack: Stack, command: Command, folder: str, ct_small: bytes
) -> None:
    event = stack.bucket.upload(f"{folder}/a.dcm", ct_small).as_type("deleted")
    stack.bigquery.faults = [Fault("tables/instances/insertAll", 403)]
    assert old(event).post(stack.url).status_code == 200
    stack.bigquery.faults = [Fault("tables/dead_letter/insertAll", 403)]
    done = command("dead-letters", "retry", "--path", path_of(stack, event))
    assert (done.status, done.out) == (1, "1 still open\n")
    assert "dead_letter: HTTP 403" in done.err


@pytest.mark.parametrize("args", [(), ("--all", "--reason", "NotDicomError"), ("--event", "x")])
def test_retry_requires_a_selection(command: Command, args: tuple[str, ...]) -> None:
    done = command("dead-letters", "retry", *args)
    assert (done.status, done.out) == (2, "")
    assert "Usage: dcm2bq dead-letters retry" in done.err


@pytest.mark.parametrize("uri", ["gs://", "gs:///a", "gs://UPPER/a", "gs://a", "GS://bucket/a"])
def test_an_invalid_uri_is_refused_before_any_request(
    stack: Stack, command: Command, uri: str
) -> None:
    stack.bigquery.faults = [Fault("")]
    done = command("dead-letters", "show", uri)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"dcm2bq: {uri}: gs://BUCKET or gs://BUCKET/NAME is expected")


def test_retry_without_the_hash_key_is_refused_before_any_request(
    stack: Stack, command: Command
) -> None:
    stack.bigquery.faults = [Fault("")]
    command.configure(stack, privacy={"hash": ["PatientID"]})
    done = command("dead-letters", "retry", "--all")
    assert (done.status, done.out) == (2, "")
    assert "DCM2BQ_HASH_KEY" in done.err


@pytest.mark.parametrize("args", [("list",), ("show", "x"), ("retry", "--all")])
def test_a_missing_dataset_is_reported(
    stack: Stack, command: Command, args: tuple[str, ...]
) -> None:
    command.configure(stack, bigQuery={"datasetId": unique("none_")})
    done = command("dead-letters", *args)
    assert (done.status, done.out) == (2, "")
    assert "none_" in done.err


def test_rows_with_other_privacy_options_are_not_added(stack: Stack, command: Command) -> None:
    command.configure(stack, privacy={"remove": ["PatientID"]})
    done = command("dead-letters", "retry", "--all")
    assert (done.status, done.out) == (2, "")
    assert "instances: holds rows made with other privacy options" in done.err


@pytest.mark.parametrize("privacy", [{"hash": ["PatientID"]}, {"profile": "basic"}])
def test_retry_without_the_hash_key_names_the_variable(
    stack: Stack, command: Command, privacy: dict[str, Any]
) -> None:
    command.configure(stack, privacy=privacy)
    done = command("dead-letters", "retry", "--all")
    assert (done.status, done.out) == (2, "")
    assert "DCM2BQ_HASH_KEY is not set: it must hold 16 bytes" in done.err


@pytest.mark.parametrize("args", [("list",), ("show", "x"), ("retry", "--all")])
def test_an_unreachable_bigquery_is_reported(
    stack: Stack, command: Command, args: tuple[str, ...]
) -> None:
    command.configure(stack, bigQuery={"datasetId": stack.dataset.dataset_id, "timeoutSeconds": 1})
    stack.bigquery.faults = [Fault("")]
    with leaping():
        done = command("dead-letters", *args)
    assert (done.status, done.out) == (3, "")
    assert stack.dataset.dataset_id in done.err


def test_the_entry_of_a_member_is_retried_and_dismissed_by_itself(
    stack: Stack, command: Command, folder: str
) -> None:
    """A dead letter of the archive as a whole is closed by its expansion."""
    long = dicom(identity(), element(0x00091010, "LT", b"x" * 9000))
    members = {"a/ok": dicom(identity()), "b": long, "c": long, "d.dcm": b"cut"}
    event = stack.bucket.upload(f"{folder}/study.zip", zip_of(members))
    path = path_of(stack, event)
    exhaust(stack, event)
    command.configure(stack, limits={"headerBytes": 5000})
    (whole,) = open_entries(command, path)
    assert (whole["member"], whole["reason"]) == (None, "ReadFailedError")
    assert command("dead-letters", "retry", "--path", path).out == "1 expanded\n"
    entries = open_entries(command, path)
    assert {entry["member"] for entry in entries} == {"b", "c"}
    shown = command("dead-letters", "list", "--path", path).out
    assert f"{path}#{event.data['generation']} finalized, member b: " in shown
    done = command("dead-letters", "retry", "--path", path)
    assert (done.status, done.out) == (1, "2 still open\n")
    because = ("--path", path, "--because", "known")
    assert command("dead-letters", "dismiss", *because).out == "2 dismissed\n"
    assert open_entries(command, path) == []
    command.configure(stack)
    assert event.post(stack.url).status_code == 200
    members_of = "SELECT member FROM {} WHERE path = @path ORDER BY member"
    live = stack.dataset.query(members_of.format("instances_live"), {"path": path})
    assert [row["member"] for row in live] == ["a/ok", "b", "c"]
    assert stack.dataset.query(members_of.format("dismissed_letters"), {"path": path}) == []
    (line,) = stack.log_lines(event.id)[-1:]
    assert line["outcome"] == "expanded"
    assert line["archive"] == {"members": 4, "instances": 3, "dead_letters": 0, "others": 1}
