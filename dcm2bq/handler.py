"""Decide what becomes of an event: a row or several, a marker, a dead letter, or nothing.

The handler knows its store and its sink only as the Protocols of `endpoints`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, partial
from typing import TYPE_CHECKING

from dcm2bq import dicom, events, rows
from dcm2bq.config import Config
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.delivery import Delivery
from dcm2bq.endpoints import ObjectStore, Sink
from dcm2bq.errors import (
    ConfigError,
    InvalidEventError,
    NeverFinishedError,
    RejectedEventError,
    SupersededError,
    describe,
)
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.header_row import header_row
from dcm2bq.ignored import Ignored, is_archive, is_sniffed, why_ignored
from dcm2bq.row_names import row_names

if TYPE_CHECKING:
    from dcm2bq.expansion import Expander

DEAD_LETTER_GRACE_SECONDS = 8
"""Least time for writing a dead letter, even if the event has used up its own."""
_CONVERT_SHARE = 0.9
"""Part of an event's time for reading and converting; the rest, 5 of 50 s, is for the insert."""
_LAST_ATTEMPTS = 95
"""From this delivery on an event becomes a dead letter untried; Pub/Sub gives up after 100.

An event that fails becomes a dead letter by its age, long before. One that is delivered this
often has never finished: the process ended each time, because of this event or one beside it.
"""


class Result(StrEnum):
    """What became of an acknowledged event; its values are those of `outcome` in the log."""

    INSERTED = "inserted"
    EXPANDED = "expanded"
    MARKED = "marked"
    IGNORED = "ignored"
    SUPERSEDED = "superseded"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an event, and the fields of its log line; `bytes_read` is in bytes.

    `archive` counts the members of an archive that was expanded.
    """

    result: Result
    event: ObjectEvent | None = None
    ignored: Ignored | None = None
    bytes_read: int | None = None
    warnings: int | None = None
    archive: rows.ArchiveInfo | None = None
    error: Exception | None = None


class Handler:
    """Handles events; made once per process, used by all its threads.

    `memory` is the budget that its conversions share, by default that of the process.
    `on_large` is called with the event and its memory in bytes before a conversion becomes
    unusually large. Without `bounds_archives`, archives may take longer than the deadline of an
    event. Raises `ConfigError` for limits that the memory cannot satisfy, and for a missing key.
    """

    def __init__(
        self,
        config: Config,
        store: ObjectStore,
        sink: Sink,
        *,
        memory: dicom.Budget | None = None,
        on_large: Callable[[ObjectEvent, int], object] | None = None,
        bounds_archives: bool = True,
    ) -> None:
        self._config = config
        self._names = row_names(config.privacy)
        self._store = store
        self._sink = sink
        self._memory = memory or dicom.budget_of(config.limits)
        self._on_large = on_large
        self._bounds_archives = bounds_archives

    def handle(self, delivery: Delivery, *, is_last: bool | None = None) -> Outcome:
        """Do what the event asks for; return its outcome if it may be acknowledged.

        Raises `RetryableError`, or any unforeseen exception, for an event that must be
        delivered again. If this is the last delivery (`is_last`), it becomes a dead letter
        instead; by default its age decides. `ConfigError` is always raised, since no event
        is to blame for it.
        """
        deadline = Deadline.after(self._config.limits.deadline_seconds)
        event = None
        try:
            event = events.parse(delivery)
            _refuse_endless(delivery)
            return self.apply(event, deadline)
        except SupersededError as error:
            return Outcome(result=Result.SUPERSEDED, event=event, error=error)
        except ConfigError:
            raise
        except Exception as error:
            if not isinstance(error, RejectedEventError):
                # Only here: a rejected event may not have a valid time.
                if is_last is None:
                    is_last = self._is_too_old(delivery)
                if not is_last:
                    raise
            self._dead_letter(self._names.delivery(delivery, event), error, deadline)
            return Outcome(result=Result.DEAD_LETTERED, event=event, error=error)

    def apply(
        self, event: ObjectEvent, deadline: Deadline, *, member: str | None = None
    ) -> Outcome:
        """Do what a valid event asks for; raise any error of the taxonomy if it fails.

        If the object is an archive that is read, this can be restricted to one `member`.
        """
        self._refuse_other_buckets(event)
        if ignored := self._why_ignored(event):
            return Outcome(result=Result.IGNORED, event=event, ignored=ignored)
        if event.kind in {EventKind.DELETED, EventKind.ARCHIVED}:
            return self.mark(event, deadline)
        return self._index(event, deadline, member)

    def mark(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Insert the marker of a generation that is gone, without reading anything."""
        self.mark_as(self._names.event(event), deadline)
        return Outcome(result=Result.MARKED, event=event)

    def mark_as(self, event: ObjectEvent, deadline: Deadline) -> None:
        """Insert the marker of an event whose object already has the name that rows have."""
        self._refuse_other_buckets(event)
        self._sink.insert(rows.instance_row(event, now=_now(), info=rows.info(event)), deadline)

    def _refuse_other_buckets(self, event: ObjectEvent) -> None:
        if not self._config.input.admits(event.object.bucket):
            raise InvalidEventError("data.bucket: is not one of input.buckets")

    def _why_ignored(self, event: ObjectEvent) -> Ignored | None:
        """Return why nothing is recorded of an event, or None if something is."""
        if (
            event.kind is EventKind.METADATA_UPDATED
            and not self._config.events.reindex_on_metadata_update
        ):
            return Ignored.METADATA
        return why_ignored(self._config, event.object)

    def _index(self, event: ObjectEvent, deadline: Deadline, member: str | None) -> Outcome:
        """Insert the row of a generation, with its header, or the rows of an archive."""
        if event.object.size is None:
            event = replace(event, object=self._store.described(event.object, deadline))
            if ignored := self._why_ignored(event):
                return Outcome(result=Result.IGNORED, event=event, ignored=ignored)
        if is_archive(self._config, event.object.name):
            return self._expand(event, deadline if self._bounds_archives else NO_DEADLINE, member)
        on_large = self._on_large and partial(self._on_large, event)
        with self._memory.claim(deadline.share(_CONVERT_SHARE), on_large) as claim:
            return self._insert(event, deadline, claim)

    def _insert(self, event: ObjectEvent, deadline: Deadline, claim: dicom.Claim) -> Outcome:
        reader = self._store.open(event.object, deadline)
        try:
            row = header_row(
                self._names.event(event),
                reader,
                claim,
                self._config,
                sniff=is_sniffed(self._config, event.object),
            )
        except dicom.UnlikeDicomError:
            return Outcome(
                result=Result.IGNORED,
                event=event,
                ignored=Ignored.CONTENT,
                bytes_read=reader.bytes_read,
            )
        self._sink.insert(row, deadline)
        return Outcome(
            result=Result.INSERTED,
            event=event,
            bytes_read=reader.bytes_read,
            warnings=len(row.info.warnings),
        )

    def _expand(self, event: ObjectEvent, deadline: Deadline, member: str | None) -> Outcome:
        """Insert the rows of an archive's members, or of one of them."""
        content = self._store.open(event.object, deadline)
        if member is not None:
            row = self._expander.index_member(event, content, member, deadline)
            if row is None:
                return Outcome(result=Result.IGNORED, event=event, ignored=Ignored.CONTENT)
            return Outcome(
                result=Result.INSERTED,
                event=event,
                bytes_read=content.bytes_read,
                warnings=len(row.info.warnings),
            )
        expansion = self._expander.expand(event, content, deadline)
        return Outcome(
            result=Result.EXPANDED,
            event=event,
            bytes_read=expansion.bytes_read,
            warnings=expansion.warnings,
            archive=expansion.counts,
        )

    @cached_property
    def _expander(self) -> "Expander":
        # Imported here: most deployments read no archives.
        from dcm2bq.expansion import Expander  # noqa: PLC0415

        return Expander(self._config, self._sink, self._memory, self._on_large)

    def _is_too_old(self, delivery: Delivery) -> bool:
        age = _now() - events.sent_time(delivery)
        return age.total_seconds() > self._config.retry.max_age_seconds

    def _dead_letter(self, delivery: Delivery, error: Exception, deadline: Deadline) -> None:
        """Insert a dead letter; if the event has used up its time, take a little more."""
        row = rows.dead_letter_row(
            delivery, now=_now(), error_type=type(error).__name__, error=describe(error)
        )
        self._sink.insert_dead_letter(row, deadline.at_least(DEAD_LETTER_GRACE_SECONDS))


def _refuse_endless(delivery: Delivery) -> None:
    """Raise `NeverFinishedError` for an event that was started many times and never finished."""
    attempt = delivery.message.attempt if delivery.message else None
    if attempt is not None and attempt >= _LAST_ATTEMPTS:
        raise NeverFinishedError(
            f"delivered {attempt} times and never finished: it may be what ends the process"
        )


def _now() -> datetime:
    return datetime.now(UTC)
