"""The rows of the two tables, field for field as `schema/` declares them.

A row knows its insert id: BigQuery drops a row whose id it has seen within about a minute,
which spares a second row when an insert is repeated. It is best effort; the views are right
without it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from dcm2bq.events import Delivery, ObjectEvent
from dcm2bq.lifted import LIFTED
from dcm2bq.version import VERSION


class InputInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The object as the event describes it; `size` is in bytes."""

    size: int | None
    type: str = "GCS"
    storage_class: str | None
    content_type: str | None
    md5_hash: str | None
    crc32c: str | None


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """How the row came about; `bytes_read` is None where nothing was read."""

    event_id: str
    input: InputInfo
    bytes_read: int | None
    transfer_syntax_uid: str | None
    warnings: Sequence[str]
    dropped_tags: Sequence[str]
    dcm2bq_version: str


_Lifted: Any = msgspec.defstruct(
    "_Lifted",
    [(each.keyword, str | None, None) for each in LIFTED],
    module=__name__,
    frozen=True,
    kw_only=True,
)
"""The columns lifted from the header, by DICOM keyword; None where it has nothing for one."""


class InstanceRow(_Lifted, frozen=True, kw_only=True):  # type: ignore[misc, call-arg]
    """A row of `instances`; `metadata` is JSON text, and None on delete markers."""

    timestamp: datetime
    ingested_at: datetime
    event: str
    path: str
    version: str
    info: Info
    metadata: str | None = None

    @property
    def insert_id(self) -> str:
        """The same for each delivery of the same change."""
        return _digest(self.event, self.path, self.version, self.timestamp.isoformat())


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `dead_letter`, in the shape that Pub/Sub's BigQuery subscriptions write.

    `attributes` is JSON text; `data` is the event's JSON.
    """

    subscription_name: str | None = None
    message_id: str | None
    publish_time: datetime
    attributes: str
    data: bytes

    @property
    def insert_id(self) -> str:
        """The same for each failure of the same delivery for the same reason."""
        return _digest(self.message_id or "", self.attributes, self.data.hex())


def names_column(location: str) -> bool:
    """Return whether a text is the path of a column, such as `info.warnings[2]`, in any case."""
    parts = _INDEX.sub("", location).casefold().split(".")
    return all(part in _COLUMNS for part in parts)


def instance_row(
    event: ObjectEvent,
    *,
    now: datetime,
    info: Info,
    attributes: Mapping[str, str | None] | None = None,
    metadata: str | None = None,
) -> InstanceRow:
    """Return the row of an event: with the header's `attributes` and `metadata`, or a marker.

    `attributes` are the lifted ones, by DICOM keyword.
    """
    return InstanceRow(
        timestamp=event.time,
        ingested_at=now,
        event=event.kind.value,
        path=event.path,
        version=str(event.generation),
        info=info,
        metadata=metadata,
        **(attributes or {}),
    )


def info(
    event: ObjectEvent,
    *,
    bytes_read: int | None = None,
    transfer_syntax_uid: str | None = None,
    warnings: Sequence[str] = (),
    dropped_tags: Sequence[str] = (),
) -> Info:
    """Return how the row of an event came about."""
    return Info(
        event_id=event.event_id,
        input=InputInfo(
            size=event.size,
            storage_class=event.storage_class,
            content_type=event.content_type,
            md5_hash=event.md5_hash,
            crc32c=event.crc32c,
        ),
        bytes_read=bytes_read,
        transfer_syntax_uid=transfer_syntax_uid,
        warnings=warnings,
        dropped_tags=dropped_tags,
        dcm2bq_version=VERSION,
    )


def dead_letter_row(
    delivery: Delivery, *, now: datetime, error_type: str, error: str
) -> DeadLetterRow:
    """Return the dead letter of a delivery, with the reason beside the CloudEvent's attributes."""
    kept = delivery.excerpt
    reason = {"error_type": error_type, "error": error}
    return DeadLetterRow(
        message_id=kept.attributes.get("ce-id"),
        publish_time=now,
        attributes=msgspec.json.encode({**kept.attributes, **reason}).decode(),
        data=kept.data,
    )


def resolution_row(
    *, message_id: str | None, attributes: Mapping[str, Any], data: bytes, now: datetime
) -> DeadLetterRow:
    """Return the row that takes dead letters like this one, until `now`, out of the view."""
    resolved = {"resolved": True, "resolved_at": now.isoformat()}
    return DeadLetterRow(
        message_id=message_id,
        publish_time=now,
        attributes=msgspec.json.encode({**attributes, **resolved}).decode(),
        data=data,
    )


def dismissal_row(
    resolution: DeadLetterRow,
    *,
    path: str | None,
    version: str | None,
    event: str | None,
    because: str,
) -> DeadLetterRow:
    """Return a resolution as a dismissal: it names its entry, and says why it stays as it is."""
    attributes = msgspec.json.decode(resolution.attributes)
    dismissed = {"path": path, "version": version, "event": event, "because": because}
    text = msgspec.json.encode({**attributes, "dismissed": dismissed}).decode()
    return msgspec.structs.replace(resolution, attributes=text)


_INDEX = re.compile(r"\[\d{1,4}\]")
_COLUMNS = frozenset(
    each.encode_name.casefold()
    for row in (InstanceRow, DeadLetterRow, Info, InputInfo)
    for each in msgspec.structs.fields(row)
)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
