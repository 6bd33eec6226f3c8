"""Open dead letters: list them, handle their events again, or dismiss them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from dcm2bq import events, rows
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.delivery import decode
from dcm2bq.errors import (
    InvalidEventError,
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    WriteFailedError,
)
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler, Result
from dcm2bq.row_names import row_names
from dcm2bq.rows import DeadLetterRow
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import attempts, indexing
from dcm2bq.tools.hashed_names import find_objects

REASONS = (
    "DeliveryExhausted",  # given by the view to what Pub/Sub gave up on
    RejectedEventError.__name__,
    *(error.__name__ for error in RejectedEventError.__subclasses__()),
    *(ReadFailedError.__name__, WriteFailedError.__name__),
)
"""The reasons that are designed for; any other is the name of an unforeseen exception."""

FUNCTION = "function"
"""The column `source` of what the function wrote."""

_LITERAL = re.compile(r"[A-Za-z0-9/_-]")
_WILDCARDS = {"*": ".*", "?": "."}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `dead_letters`: one change of one object that could not be handled.

    `member` is the member of an archive that alone could not be handled.
    """

    path: str | None
    version: str | None
    event: str | None
    reason: str
    message: str | None
    first_seen: datetime | None
    last_seen: datetime | None
    attempts: int
    source: str
    message_id: str | None
    member: str | None = None

    @property
    def name(self) -> str:
        """The object and the change; the message if the dead letter names no object."""
        if self.path is None:
            return f"message {self.message_id}"
        change = f"{self.path}#{self.version} {self.event}"
        return change if self.member is None else f"{change}, member {self.member}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry with its last row in the table: the `attributes` and `data` received."""

    entry: Entry
    attributes: Mapping[str, Any]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Selects the entries that meet every condition given.

    In `path`, `*` matches any characters, including `/`, and `?` matches one. `message_id`
    finds dead letters that name no object. `reason` ignores case. `since` is compared with
    `last_seen`.
    """

    path: str | None = None
    message_id: str | None = None
    event: str | None = None
    reason: str | None = None
    source: str | None = None
    since: datetime | None = None

    @property
    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition on rows of the view, with its query parameters."""
        conditions = {
            "path": "REGEXP_CONTAINS(entry.path, @path)",
            "message_id": "entry.message_id = @message_id",
            "event": "entry.event = @event",
            "reason": "LOWER(entry.reason) = LOWER(@reason)",
            "source": "entry.source = @source",
            "since": "entry.last_seen >= @since",
        }
        given = {name: getattr(self, name) for name in conditions}
        given["path"] = None if self.path is None else _pattern(self.path)
        parameters = {name: value for name, value in given.items() if value is not None}
        return " AND ".join(["TRUE", *(conditions[name] for name in parameters)]), parameters


@dataclass(frozen=True, slots=True)
class ClosingAttempt:
    """An attempt to close an entry; `error` is None if it was resolved or dismissed."""

    entry: Entry
    result: str | None
    error: Exception | None = None


def find(dataset: Dataset, chosen: Filter, *, limit: int | None = None) -> Iterator[Entry]:
    """Yield at most `limit` entries, the latest failure first."""
    where, parameters = chosen.where
    end = "" if limit is None else f"LIMIT {limit:d}"
    sql = f"""
        SELECT * FROM dead_letters AS entry
        WHERE {where}
        ORDER BY last_seen DESC, path, member, version, event {end}
    """  # noqa: S608 - the condition consists of the texts above
    for row in dataset.stream(sql, parameters):
        yield msgspec.convert(row, Entry)


def count(dataset: Dataset, chosen: Filter) -> int:
    """Return the number of entries."""
    where, parameters = chosen.where
    sql = f"SELECT COUNT(*) AS entries FROM dead_letters AS entry WHERE {where}"  # noqa: S608
    (row,) = dataset.query(sql, parameters)
    return int(row["entries"])


def reasons(dataset: Dataset) -> list[str]:
    """Return `REASONS` and any others that open entries have."""
    rows = dataset.query("SELECT DISTINCT reason FROM dead_letters")
    return [*REASONS, *sorted({row["reason"] for row in rows} - set(REASONS))]


def read(dataset: Dataset, config: Config, chosen: Filter) -> Iterator[DeadLetter]:
    """Yield the entries with their last rows, in no particular order."""
    where, parameters = chosen.where
    table = config.big_query.dead_letter_table_id
    # An entry's last row has its message id and time, either of which may be null, and its member.
    sql = f"""
        SELECT entry.*, letter.attributes AS attributes, letter.data AS data
        FROM dead_letters AS entry
        JOIN `{table}` AS letter
          ON COALESCE(letter.message_id, '') = COALESCE(entry.message_id, '')
          AND COALESCE(letter.publish_time, TIMESTAMP '1970-01-01 00:00:00+00:00')
            = COALESCE(entry.last_seen, TIMESTAMP '1970-01-01 00:00:00+00:00')
          AND COALESCE(
            JSON_VALUE(SAFE.PARSE_JSON(letter.attributes, wide_number_mode => 'round'), '$.member'),
            ''
          ) = COALESCE(entry.member, '')
        WHERE {where}
        QUALIFY ROW_NUMBER() OVER (
          PARTITION BY entry.path, entry.member, entry.version, entry.event, entry.message_id
        ) = 1
    """  # noqa: S608 - the configuration restricts the characters of a table's id
    for row in dataset.stream(sql, parameters):
        attributes, data = row.pop("attributes"), row.pop("data")
        yield DeadLetter(msgspec.convert(row, Entry), _attributes(attributes), data or b"")


def retry(
    dataset: Dataset,
    config: Config,
    chosen: Filter,
    on_listed: Callable[[int], object] = lambda _: None,
) -> Iterator[ClosingAttempt]:
    """Handle the events of the entries again, whatever their age; yield each attempt.

    An entry that succeeds is resolved and leaves the view, so an interrupted run can simply be
    repeated. If names are hashed, the buckets are listed first to find the objects of the entries;
    `on_listed` is called for each object listed, with the number of those that are sought. Raises
    what `attempts.attempt_each` raises in an outage, and `ConfigError` if the table does not accept
    rows of this configuration.
    """
    sink = RowSink(config)
    handler = indexing.handler(dataset, config, sink)
    names, objects = row_names(config.privacy), None
    if names.are_hashed:
        paths = _hashed_paths(dataset, chosen)
        objects = find_objects(Store(config), names, paths, partial(on_listed, len(paths)))
    retrier = _Retrier(handler, sink, config, objects)
    return attempts.attempt_each(retrier.retry, read(dataset, config, chosen))


def dismiss(
    dataset: Dataset, config: Config, chosen: Filter, because: str
) -> Iterator[ClosingAttempt]:
    """Close the entries without handling them; yield each attempt.

    `because` is stored. The rows in the table stay, and the next failure of the same event opens
    the entry again. Raises what `attempts.attempt_each` raises in an outage.
    """
    sink = RowSink(config)

    def close(letter: DeadLetter) -> ClosingAttempt:
        entry = letter.entry
        row = rows.dismissal_row(
            _resolution(letter),
            path=entry.path,
            member=entry.member,
            version=entry.version,
            event=entry.event,
            because=because,
        )
        try:
            sink.insert_dead_letter(row, Deadline.after(config.limits.deadline_seconds))
        except Exception as error:
            return ClosingAttempt(entry, None, error)
        return ClosingAttempt(entry, "dismissed")

    return attempts.attempt_each(close, read(dataset, config, chosen))


class _Retrier:
    """Handles the events of dead letters again; used by several threads.

    `objects` are the live ones by their paths in rows, if names are hashed.
    """

    def __init__(
        self,
        handler: Handler,
        sink: RowSink,
        config: Config,
        objects: Mapping[str, StoredObject] | None,
    ) -> None:
        self._handler = handler
        self._sink = sink
        self._objects = objects
        self._seconds = config.limits.deadline_seconds

    def retry(self, letter: DeadLetter) -> ClosingAttempt:
        """Handle an event again, and resolve its entry if that succeeds."""
        try:
            result = self._handle(letter)
            self._resolve(letter)
        except Exception as error:
            return ClosingAttempt(letter.entry, None, error)
        return ClosingAttempt(letter.entry, result)

    def _handle(self, letter: DeadLetter) -> Result:
        delivery = events.recorded(letter.attributes, letter.data, letter.entry.message_id)
        try:
            event, member = events.parse(delivery), letter.entry.member
            if self._objects is not None and letter.entry.source == FUNCTION:
                if event.kind in {EventKind.DELETED, EventKind.ARCHIVED}:
                    self._handler.mark_as(event, self._deadline)
                    return Result.MARKED
                event = _named(event, self._objects)
            return self._handler.apply(event, self._deadline, member=member).result
        except SupersededError:
            return Result.SUPERSEDED

    def _resolve(self, letter: DeadLetter) -> None:
        self._sink.insert_dead_letter(_resolution(letter), self._deadline)

    @property
    def _deadline(self) -> Deadline:
        return Deadline.after(self._seconds)


def _hashed_paths(dataset: Dataset, chosen: Filter) -> list[str]:
    """Return the paths of the entries whose objects must be read; the function wrote hashed ones.

    Pub/Sub itself writes events as they are, with the name.
    """
    where, parameters = chosen.where
    sql = f"""
        SELECT DISTINCT path FROM dead_letters AS entry
        WHERE {where} AND path IS NOT NULL AND source = '{FUNCTION}'
          AND event IN ('finalized', 'metadataUpdated')
    """  # noqa: S608 - the condition consists of the texts above
    return [row["path"] for row in dataset.stream(sql, parameters)]


def _named(event: ObjectEvent, objects: Mapping[str, StoredObject]) -> ObjectEvent:
    """Return an event with the name of its object instead of the hash.

    Raises `SupersededError` if the object is not there any more, or has another generation.
    """
    stored = objects.get(event.object.path)
    if stored is None or stored.generation != event.object.generation:
        raise SupersededError("no live object has this hash and generation")
    return replace(event, object=replace(event.object, name=stored.name))


def _resolution(letter: DeadLetter) -> DeadLetterRow:
    """Return the row that closes an entry."""
    now = datetime.now(UTC)
    return rows.resolution_row(
        message_id=letter.entry.message_id,
        attributes=letter.attributes,
        data=letter.data,
        now=max(now, letter.entry.last_seen or now),  # this machine's clock may be slow
    )


def _attributes(text: str | None) -> dict[str, Any]:
    """Return the attributes; an empty dict if the column does not contain a JSON object."""
    try:
        decoded = decode(text or "")
    except InvalidEventError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _pattern(glob: str) -> str:
    """Return an RE2 pattern that matches like a glob: only `*` and `?` are special."""
    parts = (
        _WILDCARDS.get(char) or (char if _LITERAL.match(char) else f"\\x{{{ord(char):x}}}")
        for char in glob
    )
    return f"^(?s:{''.join(parts)})$"
