"""The rows of the two tables, field for field as `schema/` declares them.

A row has an insert id: BigQuery drops a row whose id it has seen within about a minute, which
mostly avoids a second row when an insert is repeated. This is best effort; the views are right
without it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from dcm2bq.delivery import Delivery
from dcm2bq.events import ObjectEvent
from dcm2bq.lifted import LIFTED
from dcm2bq.version import VERSION

EXPANDED = "expanded"
"""The column `event` of the row that says that all members of an archive have been handled."""


class InputInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The object as the event describes it; `size` is in bytes."""

    size: int | None
    type: str
    storage_class: str | None
    content_type: str | None
    md5_hash: str | None
    crc32c: str | None


class ArchiveInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How many members an archive has, and how many of them became rows or dead letters.

    `others` are the members that are not DICOM.
    """

    members: int
    instances: int
    dead_letters: int
    others: int


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """How a row came about; `bytes_read` is None if nothing was read.

    `deidentification` holds the codes of CID 7050 (PS3.16), none without a privacy profile.
    """

    event_id: str
    input: InputInfo
    bytes_read: int | None
    transfer_syntax_uid: str | None
    warnings: Sequence[str]
    dropped_tags: Sequence[str]
    dcm2bq_version: str
    archive: ArchiveInfo | None = None
    deidentification: Sequence[str] = ()


_Lifted: Any = msgspec.defstruct(
    "_Lifted",
    [(column.keyword, str | None, None) for column in LIFTED],
    module=__name__,
    frozen=True,
    kw_only=True,
)
"""The columns filled from the header, by DICOM keyword; None if the header has no value."""


class InstanceRow(_Lifted, frozen=True, kw_only=True):  # type: ignore[misc, call-arg]
    """A row of `instances`; `metadata` is JSON text, and None in delete markers.

    `member` is the name of the member if the object is an archive.
    """

    timestamp: datetime
    ingested_at: datetime
    event: str
    path: str
    version: str
    info: Info
    metadata: str | None = None
    member: str | None = None

    @property
    def insert_id(self) -> str:
        """The same for each delivery of the same change, and for the same member."""
        change = (self.event, self.path, self.version, self.timestamp.isoformat())
        if self.member is None:
            return _digest(*change)
        return _digest(*change, quote(self.member))


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `dead_letter`, in the form that Pub/Sub's BigQuery subscriptions write.

    `attributes` is JSON text, `data` the event's JSON.
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
    """Return whether a text is the path of a column in any case, such as `info.warnings[2]`."""
    parts = _INDEX.sub("", location).casefold().split(".")
    return all(part in _COLUMNS for part in parts)


def instance_row(
    event: ObjectEvent,
    *,
    now: datetime,
    info: Info,
    columns: Mapping[str, str | None] | None = None,
    metadata: str | None = None,
    member: str | None = None,
) -> InstanceRow:
    """Return the row of an event, or its delete marker if there are no `columns` and `metadata`.

    `columns` are those filled from the header, by DICOM keyword. `member` is the member of the
    event's archive that the row describes.
    """
    return InstanceRow(
        timestamp=event.time,
        ingested_at=now,
        event=event.kind.value,
        path=event.object.path,
        version=str(event.object.generation),
        info=info,
        metadata=metadata,
        member=member,
        **(columns or {}),
    )


def expanded_row(event: ObjectEvent, counts: ArchiveInfo, *, now: datetime) -> InstanceRow:
    """Return the row that says that all members of the event's archive have been handled."""
    about = msgspec.structs.replace(info(event), archive=counts)
    return msgspec.structs.replace(instance_row(event, now=now, info=about), event=EXPANDED)


def info(
    event: ObjectEvent,
    *,
    bytes_read: int | None = None,
    transfer_syntax_uid: str | None = None,
    warnings: Sequence[str] = (),
    dropped_tags: Sequence[str] = (),
    deidentification: Sequence[str] = (),
    member_size: int | None = None,
) -> Info:
    """Return the column `info` of an event's row; `member_size` is that of its member, in bytes."""
    return Info(
        event_id=event.event_id,
        input=InputInfo(
            size=event.object.size if member_size is None else member_size,
            type=event.object.place,
            storage_class=event.object.storage_class,
            content_type=event.object.content_type,
            md5_hash=event.object.md5_hash,
            crc32c=event.object.crc32c,
        ),
        bytes_read=bytes_read,
        transfer_syntax_uid=transfer_syntax_uid,
        warnings=warnings,
        dropped_tags=dropped_tags,
        dcm2bq_version=VERSION,
        deidentification=deidentification,
    )


def dead_letter_row(
    delivery: Delivery, *, now: datetime, error_type: str, error: str, member: str | None = None
) -> DeadLetterRow:
    """Return the dead letter of a delivery, with the reason as two more attributes.

    A third attribute names the member if only one member of an archive has failed. The attributes
    of a message may have any name, so those with a name of ours are left out.
    """
    kept = delivery.excerpt
    received = {key: value for key, value in kept.attributes.items() if key not in _OURS}
    reason = {"error_type": error_type, "error": error}
    if member is not None:
        reason["member"] = member
    return DeadLetterRow(
        message_id=kept.id,
        publish_time=now,
        attributes=msgspec.json.encode({**received, **reason}).decode(),
        data=kept.data,
    )


def resolution_row(
    *, message_id: str | None, attributes: Mapping[str, Any], data: bytes, now: datetime
) -> DeadLetterRow:
    """Return the row that removes such dead letters, up to `now`, from the view."""
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
    member: str | None = None,
) -> DeadLetterRow:
    """Return a resolution as a dismissal, which names its entry and says why it is closed."""
    attributes = msgspec.json.decode(resolution.attributes)
    dismissed = {
        "path": path,
        "member": member,
        "version": version,
        "event": event,
        "because": because,
    }
    text = msgspec.json.encode({**attributes, "dismissed": dismissed}).decode()
    return msgspec.structs.replace(resolution, attributes=text)


_OURS = frozenset({"member", "resolved", "resolved_at", "dismissed"})
"""Attributes of dead letters, resolutions and dismissals that no delivery brings."""

_INDEX = re.compile(r"\[\d{1,4}\]")
_COLUMNS = frozenset(
    field.encode_name.casefold()
    for row in (InstanceRow, DeadLetterRow, Info, InputInfo, ArchiveInfo)
    for field in msgspec.structs.fields(row)
)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
