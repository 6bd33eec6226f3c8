"""Notifications through Pub/Sub, as its requests bring them to the real function."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.data import get_testdata_file

from tests.support.cloud import SENTINEL, Bucket
from tests.support.function_stack import Stack, unique
from tests.support.proxy import Fault
from tests.support.pubsub import Notification

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()

Send = Callable[[Notification, str], requests.Response]
WAYS: dict[str, Send] = {
    "pushed": Notification.push,
    "by Eventarc": Notification.trigger,
    "by Eventarc, structured": lambda it, url: it.trigger(url, structured=True),
}


@pytest.fixture
def stack(guarded: tuple[Stack, Bucket]) -> Iterator[Stack]:
    yield guarded[0]
    guarded[0].storage.faults.clear()
    guarded[0].bigquery.faults.clear()


@pytest.fixture
def bucket(guarded: tuple[Stack, Bucket]) -> Bucket:
    return guarded[1]


def letters(stack: Stack, *ids: str) -> dict[str, dict[str, Any]]:
    """Return the dead letters of messages, by the messages' ids."""
    return {row["message_id"]: row for row in stack.dead_letters() if row["message_id"] in ids}


@pytest.mark.parametrize("way", WAYS)
def test_a_notification_becomes_a_row_and_its_deletion_a_marker(
    stack: Stack, bucket: Bucket, way: str
) -> None:
    """With the object's resource as the payload, and without any."""
    folder = unique("way-")
    for has_payload in (True, False):
        name = f"{folder}/ü #{has_payload}.dcm"
        event = bucket.upload(name, CT_SMALL)
        before = len(stack.storage.requests)
        sent = Notification(event=event, has_payload=has_payload)
        answer = WAYS[way](sent, stack.url)
        assert (answer.status_code, answer.text) == (200, "OK")
        assert len(stack.storage.requests) - before == (1 if has_payload else 2)
        (row,) = stack.rows(name)
        assert (row["event"], row["Modality"]) == ("finalized", "CT")
        assert row["version"] == event.data["generation"]
        assert row["timestamp"] == datetime.fromisoformat(event.time)
        assert row["info"]["event_id"] == event.id
        assert row["info"]["input"] == event.info_input(CT_SMALL)
        line = stack.log_lines(event.id)[-1]
        assert (line["outcome"], line["event_type"]) == ("inserted", "OBJECT_FINALIZE")
        gone = replace(sent, event=event.as_type("deleted"))
        assert WAYS[way](gone, stack.url).status_code == 200
    assert stack.live(f"STRPOS(path, '{folder}') > 0") == []


def test_a_message_without_the_field_data_is_handled_too(stack: Stack, bucket: Bucket) -> None:
    """The functions framework refuses one."""
    event = bucket.upload(unique("bare-") + ".dcm", CT_SMALL)
    body = Notification(event=event, has_payload=False).body
    del body["message"]["data"]
    stack.bigquery.faults = [Fault("insertAll", 403)]
    assert requests.post(stack.url, json=body, timeout=60).status_code == 500
    stack.bigquery.faults = []
    answer = requests.post(stack.url, json=body, timeout=60)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert len(stack.rows(event.data["name"])) == 1


def test_a_change_that_both_ways_deliver_has_one_live_row(stack: Stack, bucket: Bucket) -> None:
    """Their times differ, so that BigQuery stores both rows."""
    name = unique("both-") + ".dcm"
    event = bucket.upload(name, CT_SMALL)
    later = replace(event, time=datetime.now(UTC).isoformat(), id=unique("message-"))
    for has_payload in (True, False):
        sent = Notification(event=later, has_payload=has_payload)
        assert sent.push(stack.url).status_code == 200
    assert event.post(stack.url).status_code == 200
    assert {row["timestamp"] for row in stack.rows(name)} == {
        datetime.fromisoformat(moment) for moment in (event.time, later.time)
    }
    (row,) = stack.live(f"ENDS_WITH(path, '{name}')")
    assert row["timestamp"] == datetime.fromisoformat(later.time)
    assert event.as_type("deleted").post(stack.url).status_code == 200
    assert stack.live(f"ENDS_WITH(path, '{name}')") == []


def test_a_failed_message_is_delivered_again_until_it_is_too_old_or_never_finishes(
    stack: Stack, bucket: Bucket
) -> None:
    """Its dead letter has the shape of the message."""
    fresh = Notification(event=bucket.upload(unique("again-") + ".dcm", CT_SMALL))
    old = (datetime.now(UTC) - timedelta(hours=12, minutes=1)).isoformat()
    aged = replace(fresh, event=replace(fresh.event, id=unique("aged-"), time=old))
    endless = replace(fresh, event=replace(fresh.event, id=unique("endless-")), attempt=95)
    stack.storage.faults = [Fault("alt=media", 403)]
    assert fresh.push(stack.url).status_code == 500
    assert aged.push(stack.url).status_code == 200
    stack.storage.faults = []
    for send in WAYS.values():
        assert send(endless, stack.url).status_code == 200
    assert fresh.push(stack.url).status_code == 200
    ids = [sent.event.id for sent in (fresh, aged, endless)]
    outcomes = [[line["outcome"] for line in stack.log_lines(it)] for it in ids]
    assert outcomes == [["failed", "inserted"], ["dead_lettered"], ["dead_lettered"] * len(WAYS)]
    found = letters(stack, *ids)
    types = {it: row["attributes"].pop("error_type") for it, row in found.items()}
    assert types == {aged.event.id: "ReadFailedError", endless.event.id: "NeverFinishedError"}
    for sent in (aged, endless):
        row = found[sent.event.id]
        assert row["attributes"].pop("error")
        assert row["attributes"] == sent.attributes
        assert row["data"] == sent.payload
        assert row["subscription_name"] is None


def test_messages_that_are_not_genuine_notifications_become_dead_letters(
    stack: Stack, bucket: Bucket
) -> None:
    """Each names the attribute; none hides a row."""
    name = unique("victim-") + ".dcm"
    event = bucket.upload(name, CT_SMALL)
    assert event.post(stack.url).status_code == 200
    deleted = event.as_type("deleted")
    ahead = str(int((datetime.now(UTC) + timedelta(days=2)).timestamp() * 1_000_000))
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    other = deleted.but(bucket="other-scans")
    forgeries: dict[str, Notification] = {
        "eventType: is missing": Notification(
            event=deleted, changes=dict.fromkeys(Notification(event=deleted).attributes)
        ),
        "eventType: is not one of OBJECT_FINALIZE, OBJECT_DELETE, OBJECT_ARCHIVE, "
        "OBJECT_METADATA_UPDATE": Notification(event=deleted, changes={"eventType": SENTINEL}),
        "data.bucket: is not one of input.buckets": Notification(event=other, has_payload=False),
        "data.bucket: differs from the attribute bucketId": Notification(
            event=deleted, changes={"bucketId": "other-scans"}
        ),
        "data.name: differs from the attribute objectId": Notification(
            event=deleted, changes={"objectId": "other.dcm", "resolved": "true"}
        ),
        "data.generation: differs from the attribute objectGeneration": Notification(
            event=deleted, changes={"objectGeneration": "1"}
        ),
        "data.generation: is more than a day in the future": Notification(
            event=deleted.but(generation=ahead), has_payload=False
        ),
        "time: is more than a day in the future": Notification(
            event=deleted, changes={"eventTime": tomorrow}
        ),
        "objectGeneration: is missing": Notification(
            event=deleted, has_payload=False, changes={"objectGeneration": None}
        ),
    }
    expected = {}
    for number, (error, sent) in enumerate(forgeries.items()):
        it = unique("forged-")
        send = list(WAYS.values())[number % len(WAYS)]
        answer = send(replace(sent, event=replace(sent.event, id=it)), stack.url)
        assert (answer.status_code, answer.text) == (200, "OK")
        assert stack.log_lines(it)[-1]["outcome"] == "dead_lettered"
        expected[it] = error
    found = letters(stack, *expected)
    assert {it: row["attributes"]["error"] for it, row in found.items()} == expected
    assert not [row for row in found.values() if "resolved" in row["attributes"]]
    assert [row["version"] for row in stack.live(f"ENDS_WITH(path, '{name}')")] == [
        event.data["generation"]
    ]
    shown = stack.dataset.query("SELECT message_id, reason FROM dead_letters")
    assert {row["message_id"] for row in shown} & expected.keys()
    assert {row["reason"] for row in shown} >= {"InvalidEventError"}
    assert SENTINEL not in stack.log_file.read_text()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps({"kind": "storage#object", "name": "a.dcm"}), id="unwrapped"),
        pytest.param("", id="unwrapped, without data"),
        pytest.param(json.dumps({"message": None, "subscription": "s"}), id="no message"),
    ],
)
def test_a_push_without_its_wrapper_is_refused_and_so_delivered_again(
    stack: Stack, body: str
) -> None:
    """It lacks the attributes; once the subscription wraps its messages, none is lost."""
    answer = requests.post(
        stack.url, body, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert (answer.status_code, answer.text) == (400, "not a CloudEvent\n")
