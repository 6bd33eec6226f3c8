"""How an object and its rows can differ, and the event that would remove the difference."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter

from dcm2bq import events
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.key_layout import KeyRow
from dcm2bq.tools.wording import counted


class Finding(StrEnum):
    """How an object and its rows differ; `dcm2bq verify --help` explains each value."""

    MISSING = "missing"
    DEAD_LETTERED = "dead-lettered"
    HIDDEN = "hidden"
    STALE = "stale"
    SUPERSEDED = "superseded"
    DISMISSED = "dismissed"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketDifference:
    """An object without its row, or a row without its object; `path` is that of the rows.

    `event` would remove the difference: the object's `finalized` event, or the `deleted` event
    of a generation that is not in the bucket. `reason` is the reason of a dead letter, or why the
    difference must not be repaired.
    """

    finding: Finding
    path: str
    event: ObjectEvent
    reason: str | None = None

    @property
    def object(self) -> StoredObject:
        """The object, or the generation that is no longer in the bucket."""
        return self.event.object

    @property
    def is_repairable(self) -> bool:
        """Whether `Repairer.repair` can remove it."""
        return self.reason is None


def lacks_row(
    finding: Finding, stored: StoredObject, path: str, reason: str | None = None
) -> BucketDifference:
    """Return the difference of an object that has no live row."""
    event = events.finalized(stored, _event_id())
    return BucketDifference(finding=finding, path=path, event=event, reason=reason)


def dead_lettered(stored: StoredObject, path: str, letters: Sequence[KeyRow]) -> BucketDifference:
    """Return the difference of an object, or of members of it, with dead letters."""
    letter = min(letters, key=attrgetter("dismissed"))  # open ones come first
    finding = Finding.DISMISSED if letter.dismissed else Finding.DEAD_LETTERED
    members = f"{counted(letter.members, 'member')}: " if letter.members else ""
    return lacks_row(finding, stored, path, f"{members}{letter.reason}")


def lacks_object(gone: StoredObject, current: StoredObject | None) -> BucketDifference:
    """Return the difference of a live row whose generation is not in the bucket.

    `current` is the generation of that path that is.
    """
    deleted = ObjectEvent(
        event_id=_event_id(), kind=EventKind.DELETED, time=datetime.now(UTC), object=gone
    )
    if current is None:
        return BucketDifference(finding=Finding.STALE, path=gone.path, event=deleted)
    if gone.generation < current.generation:
        return BucketDifference(finding=Finding.SUPERSEDED, path=gone.path, event=deleted)
    # A marker would also hide the row of the lower generation, the one in the bucket.
    return BucketDifference(
        finding=Finding.STALE,
        path=gone.path,
        event=deleted,
        reason="the object has a lower generation",
    )


def _event_id() -> str:
    return f"verify-{uuid.uuid4()}"
