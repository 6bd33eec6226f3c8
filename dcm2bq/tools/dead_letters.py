"""The dead letters that are open: find them, handle their events once more, or dismiss them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from dcm2bq import events, rows
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import (
    InvalidEventError,
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    WriteFailedError,
)
from dcm2bq.handler import Handler, Result
from dcm2bq.rows import DeadLetterRow
from dcm2bq.tools import indexing

REASONS = (
    "DeliveryExhausted",  # the platform's, by the view
    RejectedEventError.__name__,
    *(each.__name__ for each in RejectedEventError.__subclasses__()),
    *(ReadFailedError.__name__, WriteFailedError.__name__),
)
"""What entries fail for by design; whatever nobody foresaw has the name of its exception."""

_PLAIN = re.compile(r"[A-Za-z0-9/_-]")
_WILD = {"*": ".*", "?": "."}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `dead_letters`: what failed for one change of one object."""

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

    @property
    def name(self) -> str:
        """The object and the change, or the message where the letter names no object."""
        if self.path is None:
            return f"message {self.message_id}"
        return f"{self.path}#{self.version} {self.event}"


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry with its last letter: `attributes` and `data` as they came."""

    entry: Entry
    attributes: Mapping[str, Any]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are meant: those that fit everything that is given.

    In `path`, `*` stands for any characters, `/` too, and `?` for one. `message_id` finds
    letters that name no object. Reasons are the same in any case. Times are compared with
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
        """The condition on the view's rows, and its parameters."""
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
class Attempt:
    """What became of an entry; `error` is None when it is resolved or dismissed."""

    entry: Entry
    result: str | None
    error: Exception | None = None


def find(dataset: Dataset, chosen: Filter, *, limit: int | None = None) -> Iterator[Entry]:
    """Yield the entries, the one that failed last first, `limit` of them at most."""
    where, parameters = chosen.where
    end = "" if limit is None else f"LIMIT {limit:d}"
    sql = f"""
        SELECT * FROM dead_letters AS entry
        WHERE {where}
        ORDER BY last_seen DESC, path, version, event {end}
    """  # noqa: S608 - the condition is made of the texts above
    for row in dataset.stream(sql, parameters):
        yield msgspec.convert(row, Entry)


def count(dataset: Dataset, chosen: Filter) -> int:
    """Return how many entries there are."""
    where, parameters = chosen.where
    sql = f"SELECT COUNT(*) AS entries FROM dead_letters AS entry WHERE {where}"  # noqa: S608
    (row,) = dataset.query(sql, parameters)
    return int(row["entries"])


def reasons(dataset: Dataset) -> list[str]:
    """Return the reasons that an entry can have, those of the open entries among them."""
    rows = dataset.query("SELECT DISTINCT reason FROM dead_letters")
    return [*REASONS, *sorted({row["reason"] for row in rows} - set(REASONS))]


def read(dataset: Dataset, config: Config, chosen: Filter) -> Iterator[Letter]:
    """Yield the entries with their letters, in no order."""
    where, parameters = chosen.where
    table = config.big_query.dead_letter_table_id
    # An entry's last letter is found by its id and its time, which may both be null.
    sql = f"""
        SELECT entry.*, letter.attributes AS attributes, letter.data AS data
        FROM dead_letters AS entry
        JOIN `{table}` AS letter
          ON COALESCE(letter.message_id, '') = COALESCE(entry.message_id, '')
          AND COALESCE(letter.publish_time, TIMESTAMP '1970-01-01 00:00:00+00:00')
            = COALESCE(entry.last_seen, TIMESTAMP '1970-01-01 00:00:00+00:00')
        WHERE {where}
        QUALIFY ROW_NUMBER() OVER (
          PARTITION BY entry.path, entry.version, entry.event, entry.message_id
        ) = 1
    """  # noqa: S608 - the table's id is held to its alphabet by the configuration
    for row in dataset.stream(sql, parameters):
        attributes, data = row.pop("attributes"), row.pop("data")
        yield Letter(msgspec.convert(row, Entry), _attributes(attributes), data or b"")


def retry(dataset: Dataset, config: Config, chosen: Filter) -> Iterator[Attempt]:
    """Handle the events of the entries once more, whatever their age; yield each as it is done.

    What succeeds is resolved, which takes it out of the view: an interrupted run is gone on
    with by the next. Raises as `indexing.attempt` does in an outage, and `ConfigError` where
    the table takes no rows of this configuration.
    """
    sink = RowSink(config)
    office = _Office(indexing.handler(dataset, config, sink), sink, config)
    return indexing.attempt(office.retry, read(dataset, config, chosen))


def dismiss(dataset: Dataset, config: Config, chosen: Filter, because: str) -> Iterator[Attempt]:
    """Close the entries as they are, with the reason; yield each as it is done.

    Their letters stay; the next failure opens an entry again. Raises as `indexing.attempt` does
    in an outage.
    """
    sink = RowSink(config)

    def close(letter: Letter) -> Attempt:
        entry = letter.entry
        row = rows.dismissal_row(
            _resolution(letter),
            path=entry.path,
            version=entry.version,
            event=entry.event,
            because=because,
        )
        try:
            sink.insert_dead_letter(row, Deadline.after(config.limits.deadline_seconds))
        except Exception as error:
            return Attempt(entry, None, error)
        return Attempt(entry, "dismissed")

    return indexing.attempt(close, read(dataset, config, chosen))


class _Office:
    """Where dead letters are handled again; used by several threads."""

    def __init__(self, handler: Handler, sink: RowSink, config: Config) -> None:
        self._handler = handler
        self._sink = sink
        self._seconds = config.limits.deadline_seconds

    def retry(self, letter: Letter) -> Attempt:
        """Handle an event once more, and resolve its entry when that succeeds."""
        try:
            result = self._handle(letter)
            self._resolve(letter)
        except Exception as error:
            return Attempt(letter.entry, None, error)
        return Attempt(letter.entry, result)

    def _handle(self, letter: Letter) -> Result:
        delivery = events.recorded(letter.attributes, letter.data, letter.entry.message_id)
        try:
            return self._handler.apply(events.parse(delivery), self._deadline).result
        except SupersededError:
            return Result.SUPERSEDED

    def _resolve(self, letter: Letter) -> None:
        self._sink.insert_dead_letter(_resolution(letter), self._deadline)

    @property
    def _deadline(self) -> Deadline:
        return Deadline.after(self._seconds)


def _resolution(letter: Letter) -> DeadLetterRow:
    """Return the row that closes an entry."""
    now = datetime.now(UTC)
    return rows.resolution_row(
        message_id=letter.entry.message_id,
        attributes=letter.attributes,
        data=letter.data,
        now=max(now, letter.entry.last_seen or now),  # whatever this machine's clock says
    )


def _attributes(text: str | None) -> dict[str, Any]:
    """Return the attributes of a letter; whatever else the column holds has none."""
    try:
        decoded = events.decode(text or "")
    except InvalidEventError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _pattern(glob: str) -> str:
    """Return a glob pattern as RE2 has it: nothing in it but `*` and `?` means anything."""
    parts = (
        _WILD.get(char) or (char if _PLAIN.match(char) else f"\\x{{{ord(char):x}}}")
        for char in glob
    )
    return f"^(?s:{''.join(parts)})$"
