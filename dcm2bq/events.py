"""Deliveries in either form, and the validated event that the function works with.

Eventarc wraps a change in a bucket into a CloudEvent of type
`google.cloud.storage.object.v1.KIND`. Its data is the object's resource in the JSON API after
the change, with `generation` and `size` as strings or numbers. The name is taken from the data,
because it is not documented how `ce-subject` is percent-encoded. The other form is that of
`notifications`.
"""

import base64
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from dcm2bq import notifications
from dcm2bq.delivery import NOT_JSON, Delivery, Message
from dcm2bq.errors import InvalidEventError
from dcm2bq.stored_object import StoredObject

TYPE_PREFIX = "google.cloud.storage.object.v1."

_SOURCE = "//storage.googleapis.com/projects/_/buckets/"
_SUBJECT = "objects/"
_SUBJECT_ENCODINGS = 2
"""How often a subject may be percent-encoded: once as a URI, once as an HTTP header."""

_DIGITS = re.compile(r"[0-9]{1,20}")  # 20: the longest unsigned 64-bit integer
_AHEAD_SECONDS = 24 * 60 * 60
"""How far ahead of this machine's clock an event may be: two clocks never differ by a day."""
_MICROSECONDS = 1_000_000

_STRUCTURED = "application/cloudevents"


class EventKind(StrEnum):
    """What happened to an object; the values are those of the column `event`."""

    FINALIZED = "finalized"
    DELETED = "deleted"
    ARCHIVED = "archived"
    METADATA_UPDATED = "metadataUpdated"


TYPES = frozenset(f"{TYPE_PREFIX}{kind}" for kind in EventKind)
"""The types of CloudEvents that Eventarc sends about objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEvent:
    """One change of one generation of one object.

    `time` is when the change happened. Raises `InvalidEventError` if it has no time zone.
    """

    event_id: str
    kind: EventKind
    time: datetime
    object: StoredObject

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise InvalidEventError("time: has no time zone")


def finalized(stored: StoredObject, event_id: str) -> ObjectEvent:
    """Return the event of the upload of a listed object."""
    assert stored.created is not None, "listings have it"
    return ObjectEvent(
        event_id=event_id, kind=EventKind.FINALIZED, time=stored.created, object=stored
    )


def parse(delivery: Delivery) -> ObjectEvent:
    """Return the validated event of a delivery.

    Raises `InvalidEventError`, which names the attribute or field, if the event has another
    type, if its data is not a storage object, if its attributes name another object than its
    data, or if its time or generation lies in the future.
    """
    data = delivery.decoded() if delivery.message is None else notifications.resource(delivery)
    _refuse_surrogates(delivery.attributes)
    event = ObjectEvent(
        event_id=_id(delivery),
        kind=_kind(delivery),
        time=event_time(delivery),
        object=StoredObject(
            bucket=_text(data, "bucket"),
            name=_text(data, "name"),
            generation=_integer(data, "generation"),
            size=_integer(data, "size") if data.get("size") is not None else None,
            content_type=_optional_text(data, "contentType"),
            content_encoding=_optional_text(data, "contentEncoding"),
            storage_class=_optional_text(data, "storageClass"),
            md5_hash=_optional_text(data, "md5Hash"),
            crc32c=_optional_text(data, "crc32c"),
            has_customer_key=bool(data.get("customerEncryption")),
        ),
    )
    _refuse_future(event)
    if delivery.message is None:
        _refuse_disagreement(event.object, delivery.attributes)
    return event


def received(headers: Mapping[str, str], body: bytes) -> Delivery:
    """Return the delivery in an HTTP request: a CloudEvent in either mode, or a pushed message.

    Of a request that the CloudEvents library cannot read, because it is nested too deeply, for
    instance, the attributes are kept as far as they can be read, and the data unchanged, so that
    `parse` can say what is wrong.
    """
    delivery = _cloud_event({key.lower(): value for key, value in headers.items()}, body)
    match delivery.attributes.get("ce-type"):
        case notifications.TYPE:
            return notifications.pushed(delivery.data) or delivery
        case None:
            return notifications.pushed(body) or delivery
        case _:
            return delivery


def _cloud_event(headers: Mapping[str, str], body: bytes) -> Delivery:
    attributes = {key: value for key, value in headers.items() if key.startswith("ce-")}
    if attributes and not headers.get("content-type", "").startswith(_STRUCTURED):
        return Delivery(attributes, body)
    try:
        envelope = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except NOT_JSON:
        return Delivery(attributes, body)
    data, encoded = envelope.pop("data", b""), envelope.pop("data_base64", None)
    attributes = {f"ce-{key.lower()}": _attribute_text(raw) for key, raw in envelope.items()}
    return Delivery(attributes, bytes(data) if encoded is None else _from_base64(encoded))


def deliver(event: ObjectEvent) -> Delivery:
    """Return the delivery that Eventarc would make of an event; `parse` returns the event again."""
    stored = event.object
    data = {
        "bucket": stored.bucket,
        "name": stored.name,
        "generation": str(stored.generation),
        "size": None if stored.size is None else str(stored.size),
        "contentType": stored.content_type,
        "contentEncoding": stored.content_encoding,
        "storageClass": stored.storage_class,
        "md5Hash": stored.md5_hash,
        "crc32c": stored.crc32c,
        "customerEncryption": {"encryptionAlgorithm": "AES256"}
        if stored.has_customer_key
        else None,
    }
    return Delivery(
        attributes(
            event.kind, stored.bucket, stored.name, event_id=event.event_id, time=event.time
        ),
        msgspec.json.encode({key: value for key, value in data.items() if value is not None}),
    )


def attributes(
    kind: EventKind, bucket: str, name: str, *, event_id: str, time: datetime
) -> dict[str, str]:
    """Return a CloudEvent's attributes under their HTTP names, as Eventarc sends them."""
    return {
        "ce-id": event_id,
        "ce-specversion": "1.0",
        "ce-type": f"{TYPE_PREFIX}{kind}",
        "ce-source": _SOURCE + bucket,
        "ce-subject": _SUBJECT + quote(name),
        "ce-time": time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "ce-bucket": bucket,
    }


def recorded(attributes: Mapping[str, Any], data: bytes, message_id: str | None) -> Delivery:
    """Return the delivery that a row of `dead_letter` keeps.

    `attributes` are those of a CloudEvent or of a notification, possibly with others: of a
    CloudEvent, these are left out.
    """
    texts = {key: str(value) for key, value in attributes.items()}
    if "ce-type" in texts or "eventType" not in texts:
        return Delivery({k: v for k, v in texts.items() if k.startswith("ce-")}, data)
    return Delivery(texts, data, Message(id=message_id))


def event_type(delivery: Delivery) -> str | None:
    """Return the type of a CloudEvent or notification; of other messages, Eventarc's type."""
    if delivery.message is None:
        return delivery.attributes.get("ce-type")
    named = delivery.attributes.get("eventType")
    return named if named in notifications.KINDS else notifications.TYPE


def event_time(delivery: Delivery) -> datetime:
    """Return when the change happened, in UTC; raise `InvalidEventError` if that is unclear."""
    key = "eventTime" if delivery.message else "ce-time"
    try:
        changed = datetime.fromisoformat(delivery.attribute(key))
        return changed.astimezone(UTC) if changed.tzinfo else changed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        name = key.removeprefix("ce-")
        raise InvalidEventError(f"{name}: is not an RFC 3339 time") from None


def sent_time(delivery: Delivery) -> datetime:
    """Return since when the event is delivered: the retention of a message counts from then.

    Eventarc does not give this time, so that it is the event's own.
    """
    message = delivery.message
    return message.published if message and message.published else event_time(delivery)


def _refuse_future(event: ObjectEvent) -> None:
    """Raise `InvalidEventError` for an event that cannot have happened yet.

    Markers hide rows by generation, so a marker with a generation that is never reached would
    hide every later upload of its path. Cloud Storage only promises that generations are unique
    64-bit integers; in practice they count microseconds since 1970. Generations ahead of that
    are refused; smaller ones do no such harm. Should Cloud Storage ever count differently, its
    events become dead letters, which a release that knows about it can retry.
    """
    latest = time.time() + _AHEAD_SECONDS
    if event.time.timestamp() > latest:
        raise InvalidEventError("time: is more than a day in the future")
    if event.object.generation > latest * _MICROSECONDS:
        raise InvalidEventError("data.generation: is more than a day in the future")


def _refuse_disagreement(stored: StoredObject, attributes: Mapping[str, str]) -> None:
    """Raise `InvalidEventError` if an attribute that is present names another object."""
    if attributes.get("ce-bucket", stored.bucket) != stored.bucket:
        raise InvalidEventError("data.bucket: differs from the attribute bucket")
    source = attributes.get("ce-source")
    # Converted events of older kinds name the object after the bucket.
    if source is not None and not f"{source}/".startswith(f"{_SOURCE}{stored.bucket}/"):
        raise InvalidEventError("data.bucket: differs from the attribute source")
    subject = attributes.get("ce-subject")
    if subject is not None and not _is_subject(subject, stored.name):
        raise InvalidEventError("data.name: differs from the attribute subject")
    if attributes.get("ce-generation", str(stored.generation)) != str(stored.generation):
        raise InvalidEventError("data.generation: differs from the attribute generation")


def _is_subject(subject: str, name: str) -> bool:
    """Return whether a subject names an object, however it was encoded on the way.

    The HTTP binding of CloudEvents (3.1.3.2) percent-encodes a URI that may already be encoded.
    A sender that encodes nothing sends UTF-8, which HTTP servers read as Latin-1.
    """
    expected = _SUBJECT + name
    if subject == expected:
        return True
    with suppress(UnicodeError):  # then it is not UTF-8 read as Latin-1
        subject = subject.encode("latin-1").decode()
    for _ in range(_SUBJECT_ENCODINGS):
        if subject == expected:
            return True
        subject = unquote(subject)
    return subject == expected


def _refuse_surrogates(attributes: Mapping[str, str]) -> None:
    text = "".join((*attributes, *attributes.values()))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError("attributes: is not valid Unicode") from None


def _attribute_text(raw: bytes) -> str:
    """Return an attribute of a structured CloudEvent: its text, or the JSON of any other value."""
    try:
        return msgspec.json.decode(raw, type=str)
    except NOT_JSON:
        return bytes(raw).decode(errors="replace")


def _from_base64(raw: bytes) -> bytes:
    try:
        return base64.b64decode(_attribute_text(raw))
    except ValueError:
        return bytes(raw)


def _id(delivery: Delivery) -> str:
    if delivery.message is None:
        return delivery.attribute("ce-id")
    if not delivery.message.id:
        raise InvalidEventError("messageId: is missing")
    return delivery.message.id


def _kind(delivery: Delivery) -> EventKind:
    if delivery.message is not None:
        return EventKind(notifications.kind(delivery))
    event_type = delivery.attribute("ce-type")
    if not event_type.startswith(TYPE_PREFIX):
        raise InvalidEventError(f"type: is not one of {TYPE_PREFIX}*")
    try:
        return EventKind(event_type.removeprefix(TYPE_PREFIX))
    except ValueError:
        raise InvalidEventError(f"type: is not one of {', '.join(EventKind)}") from None


def _text(data: Mapping[str, Any], field: str) -> str:
    value = data.get(field)
    if not isinstance(value, str):
        raise InvalidEventError(f"data.{field}: is {'missing' if value is None else 'not text'}")
    return value


def _optional_text(data: Mapping[str, Any], field: str) -> str | None:
    return None if data.get(field) is None else _text(data, field)


def _integer(data: Mapping[str, Any], field: str) -> int:
    value = data.get(field)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidEventError(f"data.{field}: is {'missing' if value is None else 'not an integer'}")
