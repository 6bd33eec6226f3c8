"""What Eventarc delivers, and the validated event that the function works with.

Eventarc wraps a change in a bucket into a CloudEvent of type
`google.cloud.storage.object.v1.KIND`. Its data is the object's resource in the JSON API, as
it was after the change, in which `generation` and `size` come as strings or numbers.
`ce-subject` is percent-encoded and never decoded, so the name is taken from the data.
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

from dcm2bq.bucket_names import is_bucket_name
from dcm2bq.errors import InvalidEventError

TYPE_PREFIX = "google.cloud.storage.object.v1."

_SOURCE = "//storage.googleapis.com/projects/_/buckets/"
_SUBJECT = "objects/"
_SUBJECT_ENCODINGS = 2
"""How often a subject may be percent-encoded: as a URI, and as the value of an HTTP header."""

_DIGITS = re.compile(r"[0-9]{1,20}")
_INT64_MAX = 2**63 - 1
NAME_MAX_BYTES = 1024
"""Of an object's name, in UTF-8: Cloud Storage's own limit."""
_DATA_MAX_BYTES = 1024 * 1024
_ATTRIBUTES_MAX, _ATTRIBUTE_MAX_CHARS = 64, 4096
"""Bounds far above what Cloud Storage sends, and far below what a row can hold."""

_AHEAD_SECONDS = 24 * 60 * 60
"""How far ahead of this machine's clock an event may be: no two clocks differ by a day."""
_MICROSECONDS = 1_000_000

_STRUCTURED = "application/cloudevents"
_NOT_JSON = (ValueError, RecursionError)  # invalid UTF-8 is no DecodeError


class Kind(StrEnum):
    """What happened to the object; the values are those of the column `event`."""

    FINALIZED = "finalized"
    DELETED = "deleted"
    ARCHIVED = "archived"
    METADATA_UPDATED = "metadataUpdated"


_NOTIFIED = {
    "OBJECT_FINALIZE": Kind.FINALIZED,
    "OBJECT_DELETE": Kind.DELETED,
    "OBJECT_ARCHIVE": Kind.ARCHIVED,
    "OBJECT_METADATA_UPDATE": Kind.METADATA_UPDATED,
}
"""The `eventType` of Cloud Storage's own Pub/Sub notifications."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it came: what a dead letter must keep to be tried again.

    `attributes` are the CloudEvent's under their HTTP names (`ce-id`, `ce-type` ...), `data`
    is its JSON.
    """

    attributes: Mapping[str, str]
    data: bytes

    @property
    def excerpt(self) -> "Delivery":
        """The delivery, cut where it is larger than any that Cloud Storage sends.

        Lone surrogates, which UTF-8 cannot hold, stand in the attributes as escapes.
        """
        kept = islice(self.attributes.items(), _ATTRIBUTES_MAX)
        attributes = {_excerpt(key): _excerpt(value) for key, value in kept}
        return Delivery(attributes, self.data[:_DATA_MAX_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEvent:
    """One change of one generation of one object.

    `size` is in bytes, and None where the event does not tell. `md5_hash` and `crc32c` are
    base64, as in the JSON API. `has_customer_key` tells that the object is encrypted with a
    customer-supplied key, which Cloud Storage does not keep (`customerEncryption`). Raises
    `InvalidEventError`, naming the field, for a value that Cloud Storage cannot have sent.
    """

    event_id: str
    kind: Kind
    time: datetime
    bucket: str
    name: str
    generation: int
    size: int | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None
    md5_hash: str | None = None
    crc32c: str | None = None
    has_customer_key: bool = False

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise InvalidEventError("time: has no time zone")
        if not is_bucket_name(self.bucket):
            raise InvalidEventError("data.bucket: is not a bucket name")
        if not 0 < len(_utf8(self.name, "data.name")) <= NAME_MAX_BYTES:
            raise InvalidEventError(f"data.name: is empty or above {NAME_MAX_BYTES} bytes")
        if not 0 < self.generation <= _INT64_MAX:
            raise InvalidEventError("data.generation: is not a generation")
        if self.size is not None and not 0 <= self.size <= _INT64_MAX:
            raise InvalidEventError("data.size: is not a size in bytes")

    @property
    def path(self) -> str:
        """The object's `gs://` URI as people write it: nothing is encoded."""
        return f"gs://{self.bucket}/{self.name}"

    @property
    def bulk_data_root(self) -> str:
        """The start of a BulkDataURI that names this generation; `&offset=` follows.

        `%`, `?` and `#` of the name are percent-encoded, so that the query can be told apart.
        """
        name = self.name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        return f"gs://{self.bucket}/{name}?generation={self.generation}"


def parse(delivery: Delivery) -> ObjectEvent:
    """Return the event that a CloudEvent delivers.

    Raises `InvalidEventError`, naming the attribute or field, for any other type of event,
    for data that is not a storage object, for attributes that speak of another object than
    the data, and for what lies in the future.
    """
    data = _decode(delivery.data)
    _refuse_surrogates(delivery.attributes)
    event = ObjectEvent(
        event_id=_attribute(delivery, "id"),
        kind=_kind(_attribute(delivery, "type")),
        time=event_time(delivery),
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
    )
    _refuse_future(event)
    _refuse_disagreement(event, delivery.attributes)
    return event


def received(headers: Mapping[str, str], body: bytes) -> Delivery:
    """Return the delivery that an HTTP request holds, in binary or in structured mode.

    Takes requests that a CloudEvents library cannot read (nested too deeply, say): what can be
    told of the attributes is kept, and the data as it came, so that `parse` can judge it.
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
    """Return the delivery that Eventarc makes of an event: `parse` gives the event again."""
    data = {
        "bucket": event.bucket,
        "name": event.name,
        "generation": str(event.generation),
        "size": None if event.size is None else str(event.size),
        "contentType": event.content_type,
        "contentEncoding": event.content_encoding,
        "storageClass": event.storage_class,
        "md5Hash": event.md5_hash,
        "crc32c": event.crc32c,
        "customerEncryption": {"encryptionAlgorithm": "AES256"} if event.has_customer_key else None,
    }
    return Delivery(
        attributes(event.kind, event.bucket, event.name, event_id=event.event_id, time=event.time),
        msgspec.json.encode({key: value for key, value in data.items() if value is not None}),
    )


def attributes(
    kind: Kind, bucket: str, name: str, *, event_id: str, time: datetime
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

    `attributes` are those of a CloudEvent, what else stands beside them is left out; or those
    of a notification that Cloud Storage itself sent to Pub/Sub, which may have no data. What
    such a notification names in its attributes becomes a CloudEvent's, so that `parse` can hold
    the data against it.
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
    """Return when the change happened, in UTC; raises `InvalidEventError`."""
    try:
        when = datetime.fromisoformat(_attribute(delivery, "time"))
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidEventError("time: is not an RFC 3339 time") from None


def decode(data: bytes | str) -> Any:
    """Return what JSON says; raises `InvalidEventError`, also for what is nested too deeply."""
    try:
        return msgspec.json.decode(data)
    except _NOT_JSON:
        raise InvalidEventError("data: is not JSON") from None


def _refuse_future(event: ObjectEvent) -> None:
    """Raise `InvalidEventError` for what cannot have happened yet.

    Markers hide by generation: one of a generation that is never reached would hide each later
    upload of its path for ever. Cloud Storage promises no more of generations than that they
    are unique 64-bit integers; in practice they count microseconds since 1970. Only those
    beyond that are refused: smaller ones do no such harm. Should Cloud Storage ever count
    otherwise, its events become dead letters, which a release that knows can retry.
    """
    latest = time.time() + _AHEAD_SECONDS
    if event.time.timestamp() > latest:
        raise InvalidEventError("time: is more than a day ahead")
    if event.generation > latest * _MICROSECONDS:
        raise InvalidEventError("data.generation: is more than a day ahead")


def _refuse_disagreement(event: ObjectEvent, attributes: Mapping[str, str]) -> None:
    """Raise `InvalidEventError` where an attribute that is there names another object."""
    if attributes.get("ce-bucket", event.bucket) != event.bucket:
        raise InvalidEventError("data.bucket: is not that of the attribute bucket")
    source = attributes.get("ce-source")
    # Converted events of older kinds name the object behind the bucket.
    if source is not None and not f"{source}/".startswith(f"{_SOURCE}{event.bucket}/"):
        raise InvalidEventError("data.bucket: is not that of the attribute source")
    subject = attributes.get("ce-subject")
    if subject is not None and not _is_subject(subject, event.name):
        raise InvalidEventError("data.name: is not that of the attribute subject")
    if attributes.get("ce-generation", str(event.generation)) != str(event.generation):
        raise InvalidEventError("data.generation: is not that of the attribute generation")


def _is_subject(subject: str, name: str) -> bool:
    """Whether a subject names an object, however it was encoded on its way.

    CloudEvents' HTTP binding (3.1.3.2) percent-encodes a URI that may be encoded already; a
    sender that encodes nothing leaves UTF-8, which HTTP servers read as Latin-1.
    """
    expected = _SUBJECT + name
    if subject == expected:
        return True
    with suppress(UnicodeError):  # it is text already
        subject = subject.encode("latin-1").decode()
    for _ in range(_SUBJECT_ENCODINGS):
        if subject == expected:
            return True
        subject = unquote(subject)
    return subject == expected


def _refuse_surrogates(attributes: Mapping[str, str]) -> None:
    text = "".join((*attributes, *attributes.values()))
    if not text.isascii():
        _utf8(text, "attributes")


def _excerpt(text: str) -> str:
    text = text[:_ATTRIBUTE_MAX_CHARS]
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _attribute_text(raw: bytes) -> str:
    """Return an attribute of a structured CloudEvent; what is not text as it is written."""
    try:
        return msgspec.json.decode(raw, type=str)
    except _NOT_JSON:
        return bytes(raw).decode(errors="replace")


def _from_base64(raw: bytes) -> bytes:
    try:
        return base64.b64decode(_attribute_text(raw))
    except ValueError:
        return bytes(raw)


def attempt(delivery: Delivery) -> int | None:
    """Return how often Pub/Sub has delivered the event; None where it does not tell.

    It tells in the body of the events that it delivers itself, not in those of Eventarc.
    """
    if b'"deliveryAttempt"' not in delivery.data:
        return None
    count = _decode(delivery.data).get("deliveryAttempt")
    return count if isinstance(count, int) else None


def _kind(event_type: str) -> Kind:
    if not event_type.startswith(TYPE_PREFIX):
        raise InvalidEventError(f"type: is not one of {TYPE_PREFIX}*")
    try:
        return Kind(event_type.removeprefix(TYPE_PREFIX))
    except ValueError:
        raise InvalidEventError(f"type: is not one of {', '.join(Kind)}") from None


def _attribute(delivery: Delivery, name: str) -> str:
    value = delivery.attributes.get(f"ce-{name}")
    if not value:
        raise InvalidEventError(f"{name}: is missing")
    if len(value) > _ATTRIBUTE_MAX_CHARS:
        raise InvalidEventError(f"{name}: is above {_ATTRIBUTE_MAX_CHARS} characters")
    return value


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > _DATA_MAX_BYTES:
        raise InvalidEventError(f"data: is above {_DATA_MAX_BYTES} bytes")
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


def _utf8(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(f"{where}: is not valid Unicode") from None
