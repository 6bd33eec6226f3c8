"""What becomes of an event: a row, a marker, a dead letter, or nothing.

The handler sees its store and its sink as the Protocols below; `gcs` and `bigquery` fill
them in the function, and the tools may fill in others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Protocol

from dcm2bq import dicom, events, rows
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import (
    ConfigError,
    InvalidEventError,
    NeverFinishedError,
    RejectedEventError,
    SupersededError,
    describe,
)
from dcm2bq.events import Delivery, Kind, ObjectEvent
from dcm2bq.ignored import Ignored, why_ignored
from dcm2bq.stored_object import StoredObject

DEAD_LETTER_GRACE_SECONDS = 8
"""Least time for writing a dead letter, even if the event has used up its own."""
_CONVERT_SHARE = 0.9
"""Of an event's time, for reading and converting; the rest is for the insert."""
_LAST_ATTEMPTS = 95
"""From this delivery on, of the 100 after which Pub/Sub gives an event up, it is not tried.

An event that fails is given up by its age, long before; one that comes this often has never
come to an end: it, or what stood beside it, ends the process.
"""


class ObjectContent(Protocol):
    """One generation of one object, for random access; sizes are in bytes."""

    @property
    def size(self) -> int:
        """Length of the object."""

    @property
    def bytes_read(self) -> int:
        """How much was fetched so far."""

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`; fewer only at the object's end."""


class ObjectStore(Protocol):
    """Where objects are read."""

    def open(self, stored: StoredObject, deadline: Deadline) -> ObjectContent:
        """Return the content of exactly that generation."""


class Sink(Protocol):
    """Where rows go; each method returns when its row is durable, or raises."""

    def insert(self, row: rows.InstanceRow, deadline: Deadline) -> None:
        """Insert a row into `instances`."""

    def insert_dead_letter(self, row: rows.DeadLetterRow, deadline: Deadline) -> None:
        """Insert a row into `dead_letter`."""


class Result(StrEnum):
    """What became of an event that is acknowledged."""

    INSERTED = "inserted"
    MARKED = "marked"
    IGNORED = "ignored"
    SUPERSEDED = "superseded"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an event, and what its log line tells; `bytes_read` is in bytes."""

    result: Result
    event: ObjectEvent | None = None
    ignored: Ignored | None = None
    bytes_read: int | None = None
    warnings: int | None = None
    error: Exception | None = None


class Handler:
    """Handles events; made once per process, used by all its threads.

    `memory` is what its conversions share, by default with all others of the process.
    `on_large` is called before an unusually large one goes on, with the event and the bytes
    of memory so far. Raises `ConfigError` for limits that the memory cannot satisfy.
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
        """Do what the event asks for; an outcome means: acknowledge it.

        Raises `RetryableError`, or whatever was not foreseen, for an event that must be
        delivered again. One that `is_last`, for which nobody will, becomes a dead letter
        instead; by default its age decides. Raises `ConfigError` too: no event is to blame.
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
                # Not before: the time of an event that is rejected may be none.
                if is_last is None:
                    is_last = self._is_too_old(delivery)
                if not is_last:
                    raise
            self._dead_letter(delivery, error, deadline)
            return Outcome(result=Result.DEAD_LETTERED, event=event, error=error)

    def apply(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Do what a valid event asks for, before `deadline`.

        Raises each error of the taxonomy.
        """
        if not self._config.input.admits(event.object.bucket):
            raise InvalidEventError("data.bucket: is not one of input.buckets")
        if ignored := self._why_ignored(event):
            return Outcome(result=Result.IGNORED, event=event, ignored=ignored)
        if event.kind in {Kind.DELETED, Kind.ARCHIVED}:
            return self.mark(event, deadline)
        return self._index(event, deadline)

    def _why_ignored(self, event: ObjectEvent) -> Ignored | None:
        """Return why nothing is recorded of such a change, or None if something is."""
        if (
            event.kind is Kind.METADATA_UPDATED
            and not self._config.events.reindex_on_metadata_update
        ):
            return Ignored.METADATA
        return why_ignored(self._config, event.object)

    def mark(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Record that a generation is gone; nothing is read."""
        self._sink.insert(rows.instance_row(event, now=_now(), info=rows.info(event)), deadline)
        return Outcome(result=Result.MARKED, event=event)

    def _index(self, event: ObjectEvent, deadline: Deadline) -> Outcome:
        """Record what a generation's header holds."""
        on_large = self._on_large and partial(self._on_large, event)
        with self._memory.claim(deadline.share(_CONVERT_SHARE), on_large) as claim:
            return self._insert(event, deadline, claim)

    def _insert(self, event: ObjectEvent, deadline: Deadline, claim: dicom.Claim) -> Outcome:
        reader = self._store.open(event.object, deadline)
        if event.object.size is None and reader.size == 0:  # else `ignored` has seen to it
            return Outcome(result=Result.IGNORED, event=event, ignored=Ignored.EMPTY)
        conversion = dicom.convert_within(
            claim, reader, self._config, bulk_data_root=event.object.bulk_data_root
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
            attributes=conversion.columns,
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
        age = _now() - events.event_time(delivery)
        return age.total_seconds() > self._config.retry.max_age_seconds

    def _dead_letter(self, delivery: Delivery, error: Exception, deadline: Deadline) -> None:
        """Write the dead letter, if need be with time beyond what the event has used up."""
        row = rows.dead_letter_row(
            delivery, now=_now(), error_type=type(error).__name__, error=describe(error)
        )
        self._sink.insert_dead_letter(row, deadline.at_least(DEAD_LETTER_GRACE_SECONDS))


def _refuse_endless(delivery: Delivery) -> None:
    """Raise `NeverFinishedError` for what was begun again and again, and never ended."""
    attempt = events.attempt(delivery)
    if attempt is not None and attempt >= _LAST_ATTEMPTS:
        raise NeverFinishedError(
            f"delivered {attempt} times and never finished: is the process killed by it?"
        )


def _now() -> datetime:
    return datetime.now(UTC)
