"""The function behind Google's emulator of Pub/Sub: push, redelivery, dead-letter policy.

The emulator has no BigQuery subscriptions, so the test itself writes what reaches the dead-letter
topic, in the columns that such a subscription writes.
"""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.deadline import Deadline
from dcm2bq.rows import DeadLetterRow
from dcm2bq.tools import dead_letters
from tests.support.cloud import Event
from tests.support.function_stack import Stack, unique
from tests.support.patience import until
from tests.support.proxy import Fault
from tests.support.pubsub import Emulator, Notification, emulator, emulator_program

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
ATTEMPTS = 5
"""The fewest that a dead-letter policy allows."""
DEAD = "projects/local/subscriptions/dead"


@pytest.fixture(scope="module")
def pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    program = emulator_program()
    if program is None:
        pytest.skip("gcloud's component pubsub-emulator is not installed")
    with emulator(program, tmp_path_factory.mktemp("pubsub")) as running:
        yield running


@pytest.fixture(scope="module")
def subscribed(pubsub: Emulator, running_stack: Stack) -> Emulator:
    """Topics and subscriptions as docs/DEPLOY.md creates them, but for fewer attempts."""
    for topic in ("changes", "dead"):
        pubsub.call("PUT", f"topics/{topic}")
    pubsub.call("PUT", "subscriptions/dead", topic="projects/local/topics/dead")
    pubsub.call(
        "PUT",
        "subscriptions/changes",
        topic="projects/local/topics/changes",
        ackDeadlineSeconds=600,
        pushConfig={"pushEndpoint": running_stack.url},
        retryPolicy={"minimumBackoff": "1s", "maximumBackoff": "2s"},
        deadLetterPolicy={
            "deadLetterTopic": "projects/local/topics/dead",
            "maxDeliveryAttempts": ATTEMPTS,
        },
    )
    return pubsub


def publish(pubsub: Emulator, *notifications: Notification) -> list[str]:
    """Publish messages as Cloud Storage does; return their ids."""
    messages = [
        {"attributes": sent.attributes, "data": base64.b64encode(sent.payload).decode()}
        for sent in notifications
    ]
    ids: list[str] = pubsub.call("POST", "topics/changes:publish", messages=messages)["messageIds"]
    return ids


def outcomes(stack: Stack, message_id: str) -> list[str]:
    return [line["outcome"] for line in stack.log_lines(message_id)]


def forwarded(pubsub: Emulator) -> dict[str, Any]:
    """Return the one message that the dead-letter topic receives."""
    received: list[dict[str, Any]] = []

    def pull() -> bool:
        answer = pubsub.call(
            "POST", "subscriptions/dead:pull", maxMessages=10, returnImmediately=True
        )
        received.extend(answer.get("receivedMessages", []))
        return bool(received)

    until(pull)
    (only,) = received
    pubsub.call("POST", "subscriptions/dead:acknowledge", ackIds=[only["ackId"]])
    message: dict[str, Any] = only["message"]
    return message


def path_of(event: Event) -> str:
    return f"gs://{event.data['bucket']}/{event.data['name']}"


def test_messages_are_pushed_repeated_and_given_up(
    subscribed: Emulator, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unique("pubsub-")
    names = ("ü #1.dcm", "bare.dcm", "broken.dcm", "again.dcm", "poison.dcm")
    events = [
        stack.bucket.upload(f"{folder}/{name}", b"no DICOM" * 99 if "broken" in name else CT_SMALL)
        for name in names
    ]
    full, bare, broken, again, poison = (
        Notification(event=event, has_payload="bare" not in event.data["name"]) for event in events
    )

    # Rows, with and without a payload, and a dead letter of the function's own.
    ids = publish(subscribed, full, bare, broken)
    until(lambda: all(outcomes(stack, it) for it in ids))
    assert [outcomes(stack, it) for it in ids] == [["inserted"]] * 2 + [["dead_lettered"]]

    # A message that fails once is delivered again.
    stack.bigquery.faults = [Fault("instances/insertAll", 403, times=1)]
    (it,) = publish(subscribed, again)
    until(lambda: "inserted" in outcomes(stack, it))
    assert outcomes(stack, it) == ["failed", "inserted"]

    # One that always fails reaches the dead-letter topic, and from there the table.
    stack.storage.faults = [Fault("alt=media", 403)]
    (it,) = publish(subscribed, poison)
    message = forwarded(subscribed)
    assert outcomes(stack, it) == ["failed"] * ATTEMPTS
    stack.storage.faults = []
    row = DeadLetterRow(
        subscription_name=DEAD,
        message_id=message["messageId"],
        publish_time=datetime.fromisoformat(message["publishTime"]),
        attributes=json.dumps(message["attributes"]),
        data=base64.b64decode(message.get("data", "")),
    )
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    RowSink(stack.config).insert_dead_letter(row, Deadline.after(60))

    chosen = dead_letters.Filter(path=f"gs://{stack.bucket.name}/{folder}/*")
    entries = {entry.path: entry for entry in dead_letters.find(stack.dataset, chosen)}
    assert {path: entry.reason for path, entry in entries.items()} == {
        path_of(broken.event): "NotDicomError",
        path_of(poison.event): "DeliveryExhausted",
    }
    assert entries[path_of(poison.event)].message == (
        f"{ATTEMPTS} deliveries failed; subscription changes"
    )
    attempts = list(dead_letters.retry(stack.dataset, stack.config, chosen))
    assert {attempt.entry.path: attempt.result for attempt in attempts} == {
        path_of(broken.event): None,
        path_of(poison.event): "inserted",
    }
    live = stack.live(f"STARTS_WITH(path, 'gs://{stack.bucket.name}/{folder}/')")
    rest = {path_of(sent.event) for sent in (full, bare, again, poison)}
    assert {row["path"] for row in live} == rest
    (left,) = dead_letters.find(stack.dataset, chosen)
    assert left.path == path_of(broken.event)
