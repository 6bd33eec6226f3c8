"""Decide what becomes of an event: a row, a marker, a dead letter, or nothing.

The handler knows its store and its sink only as the Protocols below. In the function they are
those of `gcs` and `bigquery`; the tools may pass others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Protocol

from dcm2bq import dicom, events, rows
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.delivery import Delivery
from dcm2bq.errors import (
    ConfigError,
    InvalidEventError,
    NeverFinishedError,
    RejectedEventError,
    SupersededError,
    describe,
)
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.ignored import Ignored, is_sniffed, why_ignored
from dcm2bq.stored_object import StoredObject

DEAD_LETTER_GRACE_SECONDS = 8
"""Least time for writing a dead letter, even if the event has used up its own."""
_CONVERT_SHARE = 0.9
"""Part of an event's time for reading and converting; the rest, 5 of 50 s, is for the insert."""
_LAST_ATTEMPTS = 95
"""From this delivery on an event becomes a dead letter untried; Pub/Sub gives up after 100.

An event that fails becomes a dead letter by its age, long before. One that is delivered this
often has never finished: the process ended each time, because of this event or one beside it.
"""


class ObjectContent(Protocol):
    """The content of one generation, for random access; sizes are in bytes."""

    @property
    def size(self) -> int:
        """Length of the content."""

    @property
    def bytes_read(self) -> int:
        """How much has been fetched so far."""

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`; fewer only at the object's end."""


class ObjectStore(Protocol):
    """A place to read objects from."""

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:
        """Return the object with its size, type, encoding and check sums."""

    def open(self, stored: StoredObject, deadline: Deadline) -> ObjectContent:
        """Return the content of exactly that generation, whose size is known."""


class Sink(Protocol):
    """A place for rows; a method returns when its row is durable, and raises otherwise."""

    def insert(self, row: rows.InstanceRow, deadline: Deadline) -> None:
        """Insert a row into `instances`."""

    def insert_dead_letter(self, row: rows.DeadLetterRow, deadline: Deadline) -> None:
        """Insert a row into `dead_letter`."""


class Result(StrEnum):
    """What became of an acknowledged event; its values are those of `outcome` in the log."""

    INSERTED = "inserted"
    MARKED = "marked"
    IGNORED = "ignored"
    SUPERSEDED = "superseded"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an event, and the fields of its log line; `bytes_read` is in bytes."""

    result: Result
    event: ObjectEvent | None = None
    ignored: Ignored | None = None
    bytes_read: int | None = None
    warnings: int | None = None
    error: Exception | None = None


class Handler:
    """Handles events; made once per process, used by all its threads.

    `memory` is the budget that its conversions share, by default that of the process.
    `on_large` is called with the event and its memory in bytes before a conversion becomes
    unusually large. Raises `ConfigError` for limits that the memory cannot satisfy.
    """

    def __init__(
        self,
        config: Config,
        store: ObjectStore,
        sink: Sink,
        *,
        memory: dicom.Budget | None = None,
        on_large: Callable[[ObjectEvent, int], object] | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._sink = sink
        self._memory = memory or dicom.budget_of(config.limits)
        self._on_large = on_large

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
            self._dead_letter(delivery, error, deadline)
            return Outcome(result=Result.DEAD_LETTERED, event=event, error=error)

    def apply(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Do what a valid event asks for; raise any error of the taxonomy if it fails."""
        if not self._config.input.admits(event.object.bucket):
            raise InvalidEventError("data.bucket: is not one of input.buckets")
        if ignored := self._why_ignored(event):
            return Outcome(result=Result.IGNORED, event=event, ignored=ignored)
        if event.kind in {EventKind.DELETED, EventKind.ARCHIVED}:
            return self.mark(event, deadline)
        return self._index(event, deadline)

    def mark(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Insert the marker of a generation that is gone, without reading anything."""
        self._sink.insert(rows.instance_row(event, now=_now(), info=rows.info(event)), deadline)
        return Outcome(result=Result.MARKED, event=event)

    def _why_ignored(self, event: ObjectEvent) -> Ignored | None:
        """Return why nothing is recorded of an event, or None if something is."""
        if (
            event.kind is EventKind.METADATA_UPDATED
            and not self._config.events.reindex_on_metadata_update
        ):
            return Ignored.METADATA
        return why_ignored(self._config, event.object)

    def _index(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Insert the row of a generation, with its header."""
        if event.object.size is None:
            event = replace(event, object=self._store.described(event.object, deadline))
            if ignored := self._why_ignored(event):
                return Outcome(result=Result.IGNORED, event=event, ignored=ignored)
        on_large = self._on_large and partial(self._on_large, event)
        with self._memory.claim(deadline.share(_CONVERT_SHARE), on_large) as claim:
            return self._insert(event, deadline, claim)

    def _insert(self, event: ObjectEvent, deadline: Deadline, claim: dicom.Claim) -> Outcome:
        reader = self._store.open(event.object, deadline)
        try:
            conversion = dicom.convert_within(
                claim,
                reader,
                self._config,
                bulk_data_root=event.object.bulk_data_root,
                sniff=is_sniffed(self._config, event.object),
            )
        except dicom.UnlikeDicomError:
            return Outcome(
                result=Result.IGNORED,
                event=event,
                ignored=Ignored.CONTENT,
                bytes_read=reader.bytes_read,
            )
        info = rows.info(
            event,
            bytes_read=reader.bytes_read,
            transfer_syntax_uid=conversion.transfer_syntax_uid,
            warnings=conversion.warnings,
            dropped_tags=conversion.dropped_tags,
        )
        row = rows.instance_row(
            event,
            now=_now(),
            info=info,
            columns=conversion.columns,
            metadata=conversion.text,
        )
        self._sink.insert(row, deadline)
        return Outcome(
            result=Result.INSERTED,
            event=event,
            bytes_read=reader.bytes_read,
            warnings=len(conversion.warnings),
        )

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
