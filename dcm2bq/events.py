"""The deliveries of Eventarc, and the validated event that the function works with.

Eventarc wraps a change in a bucket into a CloudEvent of type
`google.cloud.storage.object.v1.KIND`. Its data is the object's resource in the JSON API after
the change, with `generation` and `size` as strings or numbers. The name is taken from the data,
because it is not documented how `ce-subject` is percent-encoded.
"""

import base64
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from dcm2bq.errors import InvalidEventError
from dcm2bq.stored_object import StoredObject

TYPE_PREFIX = "google.cloud.storage.object.v1."

_SOURCE = "//storage.googleapis.com/projects/_/buckets/"
_SUBJECT = "objects/"
_SUBJECT_ENCODINGS = 2
"""How often a subject may be percent-encoded: once as a URI, once as an HTTP header."""

_DIGITS = re.compile(r"[0-9]{1,20}")  # 20: the longest unsigned 64-bit integer
_DATA_MAX_BYTES = 1024 * 1024
_ATTRIBUTES_MAX, _ATTRIBUTE_MAX_CHARS = 64, 4096
"""Bounds far above the events of Cloud Storage, and far below what a row can hold."""

_AHEAD_SECONDS = 24 * 60 * 60
"""How far ahead of this machine's clock an event may be: two clocks never differ by a day."""
_MICROSECONDS = 1_000_000

_STRUCTURED = "application/cloudevents"
_NOT_JSON = (ValueError, RecursionError)  # msgspec raises a bare ValueError for invalid UTF-8


class EventKind(StrEnum):
    """What happened to an object; the values are those of the column `event`."""

    FINALIZED = "finalized"
    DELETED = "deleted"
    ARCHIVED = "archived"
    METADATA_UPDATED = "metadataUpdated"


_NOTIFIED = {
    "OBJECT_FINALIZE": EventKind.FINALIZED,
    "OBJECT_DELETE": EventKind.DELETED,
    "OBJECT_ARCHIVE": EventKind.ARCHIVED,
    "OBJECT_METADATA_UPDATE": EventKind.METADATA_UPDATED,
}
"""The `eventType` of Cloud Storage's own Pub/Sub notifications."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a CloudEvent, unchanged: a dead letter keeps it for another attempt.

    `attributes` have their HTTP names (`ce-id`, `ce-type` ...). `data` is JSON.
    """

    attributes: Mapping[str, str]
    data: bytes

    @property
    def excerpt(self) -> "Delivery":
        """The delivery, cut to a size that fits a row; genuine events are never that large.

        Lone surrogates in attributes, which UTF-8 cannot encode, are escaped.
        """
        kept = islice(self.attributes.items(), _ATTRIBUTES_MAX)
        attributes = {_excerpt(key): _excerpt(value) for key, value in kept}
        return Delivery(attributes, self.data[:_DATA_MAX_BYTES])


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
    data = _decode(delivery.data)
    _refuse_surrogates(delivery.attributes)
    event = ObjectEvent(
        event_id=_attribute(delivery, "id"),
        kind=_kind(_attribute(delivery, "type")),
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
    _refuse_disagreement(event.object, delivery.attributes)
    return event


def received(headers: Mapping[str, str], body: bytes) -> Delivery:
    """Return the delivery in an HTTP request, in binary or structured mode.

    For requests that the CloudEvents library cannot read, because they are nested too deeply,
    for instance: the attributes are kept as far as they can be read, and the data unchanged, so
    that `parse` can say what is wrong.
    """
    named = {key.lower(): value for key, value in headers.items()}
    attributes = {key: value for key, value in named.items() if key.startswith("ce-")}
    if attributes and not named.get("content-type", "").startswith(_STRUCTURED):
        return Delivery(attributes, body)
    try:
        envelope = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _NOT_JSON:
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

    `attributes` are those of a CloudEvent, possibly with others, which are left out. Or they are
    those of a notification that Cloud Storage itself sent to Pub/Sub, which may have no data. A
    notification becomes a CloudEvent, whose attributes name the same object, so that `parse` can
    compare them with the data.
    """
    texts = {key: str(value) for key, value in attributes.items()}
    kind = _NOTIFIED.get(texts.get("eventType", ""))
    if "ce-type" in texts or kind is None:
        return Delivery({k: v for k, v in texts.items() if k.startswith("ce-")}, data)
    cloud_event = {
        "ce-id": message_id or "",
        "ce-type": f"{TYPE_PREFIX}{kind}",
        "ce-time": texts.get("eventTime", ""),
    }
    if "bucketId" in texts:
        cloud_event["ce-bucket"] = texts["bucketId"]
    if "objectId" in texts:
        cloud_event["ce-subject"] = _SUBJECT + quote(texts["objectId"], errors="replace")
    if "objectGeneration" in texts:
        cloud_event["ce-generation"] = texts["objectGeneration"]
    names = {"bucketId": "bucket", "objectId": "name", "objectGeneration": "generation"}
    named = {field: texts[key] for key, field in names.items() if key in texts}
    return Delivery(cloud_event, data or msgspec.json.encode(named))


def event_time(delivery: Delivery) -> datetime:
    """Return when the change happened, in UTC; raise `InvalidEventError` if that is unclear."""
    try:
        changed = datetime.fromisoformat(_attribute(delivery, "time"))
        return changed.astimezone(UTC) if changed.tzinfo else changed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidEventError("time: is not an RFC 3339 time") from None


def attempt(delivery: Delivery) -> int | None:
    """Return the number of this delivery, counted by Pub/Sub; None if it is unknown.

    Messages that Pub/Sub pushes itself contain the count, those of Eventarc do not.
    """
    if b'"deliveryAttempt"' not in delivery.data:  # saves decoding nearly every event twice
        return None
    count = _decode(delivery.data).get("deliveryAttempt")
    return count if isinstance(count, int) else None


def decode(data: bytes | str) -> Any:
    """Decode JSON; raise `InvalidEventError` if it is invalid or nested too deeply."""
    try:
        return msgspec.json.decode(data)
    except _NOT_JSON:
        raise InvalidEventError("data: is not JSON") from None


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


def _excerpt(text: str) -> str:
    text = text[:_ATTRIBUTE_MAX_CHARS]
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _attribute_text(raw: bytes) -> str:
    """Return an attribute of a structured CloudEvent: its text, or the JSON of any other value."""
    try:
        return msgspec.json.decode(raw, type=str)
    except _NOT_JSON:
        return bytes(raw).decode(errors="replace")


def _from_base64(raw: bytes) -> bytes:
    try:
        return base64.b64decode(_attribute_text(raw))
    except ValueError:
        return bytes(raw)


def _kind(event_type: str) -> EventKind:
    if not event_type.startswith(TYPE_PREFIX):
        raise InvalidEventError(f"type: is not one of {TYPE_PREFIX}*")
    try:
        return EventKind(event_type.removeprefix(TYPE_PREFIX))
    except ValueError:
        raise InvalidEventError(f"type: is not one of {', '.join(EventKind)}") from None


def _attribute(delivery: Delivery, name: str) -> str:
    value = delivery.attributes.get(f"ce-{name}")
    if not value:
        raise InvalidEventError(f"{name}: is missing")
    if len(value) > _ATTRIBUTE_MAX_CHARS:
        raise InvalidEventError(f"{name}: exceeds {_ATTRIBUTE_MAX_CHARS} characters")
    return value


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > _DATA_MAX_BYTES:
        raise InvalidEventError(f"data: exceeds {_DATA_MAX_BYTES} bytes")
    decoded = decode(data)
    if not isinstance(decoded, dict):
        raise InvalidEventError("data: is not a JSON object")
    return decoded


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
