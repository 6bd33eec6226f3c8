"""Messages of Pub/Sub become validated events, or errors that name the attribute."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq.delivery import Delivery, Message
from dcm2bq.errors import InvalidEventError
from dcm2bq.events import EventKind, event_type, parse, received, recorded
from dcm2bq.notifications import TYPE, pushed

SENTINEL = "SENTINEL^PATIENT"

ATTRIBUTES = {
    "notificationConfig": "projects/_/buckets/scans/notificationConfigs/1",
    "eventType": "OBJECT_FINALIZE",
    "payloadFormat": "JSON_API_V1",
    "bucketId": "scans",
    "objectId": "ü/b.dcm",
    "objectGeneration": "12",
    "eventTime": "2026-01-02T03:04:05.678Z",
    "overwroteGeneration": "11",
    "site": "a custom attribute",
}
DATA = {
    "kind": "storage#object",
    "bucket": "scans",
    "name": "ü/b.dcm",
    "generation": "12",
    "size": "34",
    "contentEncoding": "gzip",
    "storageClass": "STANDARD",
}
PUBLISHED = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
MESSAGE = Message(id="7", published=PUBLISHED, attempt=3)


def notification(data: Any = None, **changes: str | None) -> Delivery:
    """Return the delivery with other data or attributes; None removes an attribute."""
    merged = {key: value for key, value in {**ATTRIBUTES, **changes}.items() if value is not None}
    content = (
        data if isinstance(data, bytes) else json.dumps(DATA if data is None else data).encode()
    )
    return Delivery(merged, content, MESSAGE)


def push(delivery: Delivery) -> dict[str, Any]:
    """Return the body of the push request that delivers a notification."""
    return {
        "deliveryAttempt": 3,
        "message": {
            "attributes": delivery.attributes,
            "data": base64.b64encode(delivery.data).decode(),
            "messageId": "7",
            "message_id": "7",
            "orderingKey": "",
            "publishTime": "2026-01-02T03:04:06Z",
            "publish_time": "2026-01-02T03:04:06Z",
        },
        "subscription": "projects/p/subscriptions/s",
    }


@pytest.mark.parametrize("event_type", [*EventKind])
def test_a_notification_is_the_event_that_eventarc_would_have_sent(event_type: EventKind) -> None:
    """But for the id."""
    types = dict(zip(EventKind, ("FINALIZE", "DELETE", "ARCHIVE", "METADATA_UPDATE"), strict=True))
    cloud_event = Delivery(
        {
            "ce-id": "7",
            "ce-type": f"google.cloud.storage.object.v1.{event_type}",
            "ce-time": ATTRIBUTES["eventTime"],
        },
        json.dumps(DATA).encode(),
    )
    assert parse(notification(eventType=f"OBJECT_{types[event_type]}")) == parse(cloud_event)


def test_without_data_the_attributes_name_the_object() -> None:
    event = parse(notification(b"", payloadFormat="NONE"))
    assert (event.object.path, event.object.generation) == ("gs://scans/ü/b.dcm", 12)
    assert (event.object.size, event.object.content_encoding) == (None, None)
    assert (event.kind, event.event_id) == (EventKind.FINALIZED, "7")


def test_a_pushed_message_is_read_whatever_delivers_it() -> None:
    """By a subscription, or by a trigger of Eventarc in either mode."""
    expected = notification()
    body = json.dumps(push(expected)).encode()
    ce = {"specversion": "1.0", "id": "9", "type": TYPE, "source": "//pubsub.googleapis.com/x"}
    binary = {f"Ce-{name}": value for name, value in ce.items()}
    structured = json.dumps({**ce, "data": push(expected)}).encode()
    assert pushed(body) == expected
    assert received({"Content-Type": "application/json"}, body) == expected
    assert received({"Content-Type": "application/json", **binary}, body) == expected
    assert received({"Content-Type": "application/cloudevents+json"}, structured) == expected


def test_data_attributes_and_count_of_a_message_may_be_missing() -> None:
    body = json.dumps({"message": {"messageId": "7"}, "subscription": "s"}).encode()
    assert pushed(body) == Delivery({}, b"", Message(id="7"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 200_000,
        b"\xff",
        json.dumps(DATA).encode(),
        json.dumps({"message": None, "subscription": "s"}).encode(),
        json.dumps({"message": {"messageId": "7", "data": "!"}, "subscription": "s"}).encode(),
        json.dumps({"message": {"messageId": "7"}}).encode(),
        json.dumps({**push(notification()), "message": {"attributes": {"a": 1}}}).encode(),
    ],
)
def test_a_body_that_pub_sub_never_sends_is_not_a_message(body: bytes) -> None:
    assert pushed(body) is None


def test_an_event_of_cloud_storage_is_never_read_as_a_message() -> None:
    """Even if its data has the form of one, as only a forged event's has."""
    headers = {"ce-type": "google.cloud.storage.object.v1.deleted", "ce-id": "1"}
    body = json.dumps(push(notification())).encode()
    assert received(headers, body) == Delivery(headers, body)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            notification(b"MSH|^~\\&|", **dict.fromkeys(ATTRIBUTES)),
            "eventType: is missing",
        ),
        (
            notification(eventType=SENTINEL, bucketId=None),
            "eventType: is not one of OBJECT_FINALIZE, OBJECT_DELETE, OBJECT_ARCHIVE",
        ),
        (notification(bucketId=None), "bucketId: is missing"),
        (notification(objectId=""), "objectId: is missing"),
        (notification(objectGeneration=None), "objectGeneration: is missing"),
        (notification(eventTime=None), "eventTime: is missing"),
        (notification(eventTime=SENTINEL), "eventTime: is not an RFC 3339 time"),
        (notification(bucketId=SENTINEL), "data.bucket: differs from the attribute bucketId"),
        (notification(objectId=SENTINEL), "data.name: differs from the attribute objectId"),
        (
            notification(objectGeneration="13"),
            "data.generation: differs from the attribute objectGeneration",
        ),
        (notification(objectId="x" * 5000), "objectId: exceeds 4096 characters"),
        (notification(SENTINEL.encode()), "data: is not JSON"),
        (notification([SENTINEL]), "data: is not a JSON object"),
        (notification({**DATA, "generation": None}), "data.generation: is missing"),
        (notification({"bucket": "scans"}), "data.name: is missing"),
        (notification(b"", objectGeneration=SENTINEL), "objectGeneration: is not an integer"),
        (notification(b"", bucketId="-"), "data.bucket: is not a bucket name"),
        (notification({**DATA, "size": [SENTINEL]}), "data.size: is not an integer"),
    ],
)
def test_a_wrong_attribute_is_named_without_its_value(wrong: Delivery, message: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        parse(wrong)
    assert str(error.value).startswith(message)
    assert SENTINEL not in str(error.value)


def test_a_notification_from_the_future_is_refused() -> None:
    later = datetime.now(UTC) + timedelta(days=1.1)
    generation = str(int(later.timestamp() * 1_000_000))
    with pytest.raises(InvalidEventError, match=r"^time: is more than a day in the future$"):
        parse(notification(eventTime=later.isoformat()))
    with pytest.raises(InvalidEventError, match=r"^data\.generation: is more than a day"):
        parse(notification(b"", objectGeneration=generation))


def test_a_recorded_notification_is_the_same_event_again() -> None:
    reason = {"error_type": "ReadFailedError", "error": "x", "resolved": True}
    kept = notification()
    assert parse(recorded({**kept.attributes, **reason}, kept.data, "7")) == parse(kept)


def test_the_type_for_the_log_is_one_of_a_fixed_list() -> None:
    assert event_type(notification()) == "OBJECT_FINALIZE"
    assert event_type(notification(eventType=SENTINEL)) == TYPE
    assert event_type(notification(eventType=None)) == TYPE


def test_an_excerpt_keeps_what_pub_sub_says_of_the_message() -> None:
    assert notification().excerpt == notification()
    excerpt = Delivery({}, b"", Message(id="x" * 9999)).excerpt
    assert excerpt.id == "x" * 4096
