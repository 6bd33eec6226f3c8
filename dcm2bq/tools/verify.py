"""Hold a bucket's listing against `instances_live`, and mend what differs.

Both sides come in the order of their paths and are merged, so that nothing is kept but the
objects at hand. BigQuery sorts a range of paths at a time: a sort of everything would grow
with the bucket.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import groupby, pairwise
from operator import attrgetter, itemgetter

import msgspec

from dcm2bq import events
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import RetryableError, SupersededError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.handler import Handler, Result
from dcm2bq.ignored import is_ignored
from dcm2bq.stored_object import SCHEME, StoredObject
from dcm2bq.tools import indexing

RANGE_ROWS = 1_000_000
CONFIRMED_AT_ONCE = 1000
"""Repairs that are looked up by one query: their paths are at most 1 MB of its 10 MB."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two looks at the view: BigQuery shows streamed rows within some seconds."""
_LIVE_ROWS = "FROM instances_live WHERE STARTS_WITH(path, @prefix)"
_IS_MARKER = "event IN ('deleted', 'archived')"
_FIRST_PATH, _BEHIND_LAST_PATH = "gs://", "gs:0"  # "0" follows "/"


class Finding(StrEnum):
    """How an object and its rows differ."""

    MISSING = "missing"
    DEAD_LETTERED = "dead-lettered"
    HIDDEN = "hidden"
    STALE = "stale"
    SUPERSEDED = "superseded"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An object without its row, or a row without its object.

    `event` is the one that would put it right: of the object that is missing from the table,
    or of the generation that is missing from the bucket. `reason` is that of a dead letter, or
    why the difference must not be mended.
    """

    finding: Finding
    event: ObjectEvent
    reason: str | None = None

    @property
    def can_be_mended(self) -> bool:
        """Whether `mend` has something to do."""
        return self.reason is None


class Mended(StrEnum):
    """What was done about a difference, where it is not the handler's result."""

    EXISTS = "exists"
    """The generation is live: it came after the bucket was listed."""
    LEFT = "left"
    """Not by this command."""
    UNSEEN = "unseen"
    """A row or marker was written, but the view did not show its effect in time."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A difference, and what became of it: `result` is None where `error` tells why nothing did."""

    difference: Difference
    result: str | None
    error: Exception | None = None

    @property
    def is_mended(self) -> bool:
        """Whether nothing differs any more, or is accepted as it is."""
        if self.difference.finding is Finding.DISMISSED:
            return True
        return self.result not in {None, Mended.LEFT, Mended.UNSEEN, Result.DEAD_LETTERED}


class _Row(msgspec.Struct, frozen=True):
    """A live row, an open dead letter (with `reason`), or the highest `marker` of a path."""

    path: str
    version: str | None
    reason: str | None
    dismissed: bool = False
    marker: int | None = None

    @property
    def is_live(self) -> bool:
        return self.reason is None and self.marker is None


class Comparison:
    """Compares the objects under a `gs://bucket[/prefix]` with their rows.

    `rows` is how many rows are live. Iterating yields the differences in the order of their
    paths and counts `objects`, of which `ignored` are none of the function's business and
    `settling` have no row and are younger than `settle`; `on_object` is called for each. Raises
    `ReadFailedError` where one side cannot be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        location: str,
        *,
        settle: timedelta,
        range_rows: int = RANGE_ROWS,
    ) -> None:
        uri = GsUri.parse(location)
        self._bucket, self._prefix = uri.bucket, uri.name
        indexing.require_bucket(self._bucket, config)
        self._parameters = {"prefix": str(uri)}
        self._dataset = dataset
        self._store = Store(config)
        self._config = config
        self._handler = Handler(config, self._store, RowSink(config))
        self._seconds = config.limits.deadline_seconds
        self._patience = config.big_query.timeout_seconds
        self._table = config.big_query.instances_table_id
        self._range_rows = range_rows
        self._settled = datetime.now(UTC) - settle
        self.objects = self.ignored = self.settling = 0
        self.on_object: Callable[[], object] = lambda: None

    @cached_property
    def rows(self) -> int:
        """How many rows are live."""
        (counted,) = self._dataset.query(f"SELECT COUNT(*) AS n {_LIVE_ROWS}", self._parameters)
        return int(counted["n"])

    def __iter__(self) -> Iterator[Difference]:
        for start, end in pairwise(self._boundaries()):
            yield from self._compare(start, end)

    def mend(self, difference: Difference) -> Repair:
        """Index an object that is missing, or mark a generation that is gone.

        A marker is written only when Cloud Storage says of exactly this generation that it is
        gone or archived: the listing alone may be older than the row.
        """
        try:
            result = self._mend(difference)
        except Exception as error:
            return Repair(difference, None, error)
        return Repair(difference, result)

    def confirm(self, repairs: Sequence[Repair]) -> Iterator[Repair]:
        """Yield the repairs, those as `UNSEEN` whose effect the view does not show.

        The view is asked until it shows all of them, for `bigQuery.timeoutSeconds` at most.
        """
        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        claims = [each for each in repairs if each.result in _SEEN_IN_VIEW]
        error = None
        while claims:
            try:
                claims, error = self._unseen(claims), None
            except RetryableError as failure:
                error = failure
            if not claims or time.monotonic() + pause > give_up:
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        unseen = {id(each) for each in claims}
        for each in repairs:
            yield replace(each, result=Mended.UNSEEN, error=error) if id(each) in unseen else each

    def _unseen(self, repairs: Sequence[Repair]) -> list[Repair]:
        """Return those of which the view shows another state than they claim."""
        paths = sorted({each.difference.event.object.path for each in repairs})
        sql = "SELECT path, version FROM instances_live WHERE path IN UNNEST(@paths)"
        live = {
            (row["path"], row["version"]) for row in self._dataset.stream(sql, {"paths": paths})
        }
        return [
            each
            for each in repairs
            if (
                (each.difference.event.object.path, str(each.difference.event.object.generation))
                in live
            )
            is not _SEEN_IN_VIEW[each.result]
        ]

    def _boundaries(self) -> Sequence[str]:
        """Return paths that part the rows into ranges which BigQuery can sort."""
        paths = f"""
            FROM (
              SELECT path FROM instances_live
              UNION ALL
              SELECT DISTINCT path FROM `{self._table}` WHERE {_IS_MARKER}
            )
            WHERE STARTS_WITH(path, @prefix)
        """  # noqa: S608 - the table's id is held to its alphabet by the configuration
        (counted,) = self._dataset.query(f"SELECT COUNT(*) AS n {paths}", self._parameters)
        ranges = -(-int(counted["n"]) // self._range_rows)
        inner: Sequence[str] = ()
        if ranges > 1:
            sql = f"SELECT APPROX_QUANTILES(path, {ranges:d}) AS paths {paths}"
            (row,) = self._dataset.query(sql, self._parameters)
            inner = sorted(set(row["paths"][1:-1]))
        return [_FIRST_PATH, *inner, _BEHIND_LAST_PATH]

    def _compare(self, start: str, end: str) -> Iterator[Difference]:
        """Merge the objects and the rows of one range of paths."""
        rows = self._rows(start, end)
        # The rows first: what comes between is an object without a row, and young.
        path, here = next(rows, (_BEHIND_LAST_PATH, []))
        for found in self._objects(start, end):
            while path < found.path:
                yield from self._judge_rows(here)
                path, here = next(rows, (_BEHIND_LAST_PATH, []))
            if path == found.path:
                yield from self._judge(found, here)
                path, here = next(rows, (_BEHIND_LAST_PATH, []))
            else:
                yield from self._judge(found, [])
        while here:
            yield from self._judge_rows(here)
            path, here = next(rows, (_BEHIND_LAST_PATH, []))

    def _objects(self, start: str, end: str) -> Iterator[StoredObject]:
        root = f"{SCHEME}{self._bucket}/"
        first = start.removeprefix(root) if start.startswith(root) else ""
        behind = end.removeprefix(root) if end.startswith(root) else ""
        for found in self._store.list(self._bucket, self._prefix, start=first, end=behind):
            self.objects += 1
            self.on_object()
            yield found

    def _rows(self, start: str, end: str) -> Iterator[tuple[str, list[_Row]]]:
        """Yield each path with its live rows, open dead letters and highest marker, in order."""
        condition = "STARTS_WITH(path, @prefix) AND path >= @start AND path < @behind"
        sql = f"""
            SELECT path, version, CAST(NULL AS STRING) AS reason, FALSE AS dismissed,
              CAST(NULL AS INT64) AS marker
            FROM instances_live
            WHERE {condition}
            UNION ALL
            SELECT path, version, reason, FALSE, NULL
            FROM dead_letters
            WHERE {condition} AND event IN ('finalized', 'metadataUpdated')
            UNION ALL
            SELECT path, version, because, TRUE, NULL
            FROM dismissed_letters
            WHERE {condition} AND event IN ('finalized', 'metadataUpdated')
            UNION ALL
            SELECT path, NULL, NULL, FALSE, MAX(CAST(version AS INT64))
            FROM `{self._table}`
            WHERE {condition} AND {_IS_MARKER}
            GROUP BY path
            ORDER BY path
        """  # noqa: S608 - the table's id is held to its alphabet by the configuration
        rows = self._dataset.stream(sql, {**self._parameters, "start": start, "behind": end})
        for path, group in groupby(rows, itemgetter("path")):
            yield path, [msgspec.convert(row, _Row) for row in group]

    def _judge(self, found: StoredObject, rows: Sequence[_Row]) -> Iterator[Difference]:
        """Yield what is wrong with an object, given the rows of its path."""
        version = str(found.generation)
        live = [row for row in rows if row.is_live]
        hidden_below = max((row.marker for row in rows if row.marker is not None), default=0)
        if any(row.version == version for row in live):
            pass
        elif is_ignored(self._config, found):
            self.ignored += 1
        elif hidden_below >= found.generation:
            # The rows came before the listing: the marker is older, and the object is there.
            reason = f"by a marker of generation {hidden_below}"
            yield Difference(finding=Finding.HIDDEN, event=_missing(found), reason=reason)
        elif letters := [row for row in rows if row.reason and row.version == version]:
            letter = min(letters, key=attrgetter("dismissed"))  # what is open comes first
            finding = Finding.DISMISSED if letter.dismissed else Finding.DEAD_LETTERED
            yield Difference(finding=finding, event=_missing(found), reason=letter.reason)
        elif found.created and found.created > self._settled:
            self.settling += 1
        else:
            yield Difference(finding=Finding.MISSING, event=_missing(found))
        for row in live:
            if row.version != version:
                yield self._extra(row, found)

    def _judge_rows(self, rows: Sequence[_Row]) -> Iterator[Difference]:
        """Yield the rows of a path where there is no object."""
        for row in rows:
            if row.is_live:
                yield self._extra(row, None)

    def _extra(self, row: _Row, found: StoredObject | None) -> Difference:
        gone = ObjectEvent(
            event_id=_event_id(),
            kind=EventKind.DELETED,
            time=datetime.now(UTC),
            object=StoredObject(
                bucket=self._bucket,
                name=row.path.removeprefix(f"{SCHEME}{self._bucket}/"),
                generation=int(row.version or 0),
            ),
        )
        if found is None:
            return Difference(finding=Finding.STALE, event=gone)
        if gone.object.generation < found.generation:
            return Difference(finding=Finding.SUPERSEDED, event=gone)
        # Its marker would hide the row of the lower generation, which is the live one.
        return Difference(
            finding=Finding.STALE, event=gone, reason="the object has a lower generation"
        )

    def _mend(self, difference: Difference) -> str:
        if not difference.can_be_mended:
            return Mended.LEFT
        event = difference.event
        deadline = Deadline.after(self._seconds)
        if difference.finding is Finding.MISSING:
            return self._handler.handle(events.deliver(event), is_last=False).result
        try:
            archived_at = self._store.archived_at(event.object, deadline)
        except SupersededError:
            return self._handler.mark(event, deadline).result
        if archived_at is None:
            return Mended.EXISTS
        archived = replace(event, kind=EventKind.ARCHIVED, time=archived_at)
        return self._handler.mark(archived, deadline).result


_SEEN_IN_VIEW: Mapping[str | None, bool] = {Result.INSERTED: True, Result.MARKED: False}
"""Whether the view shows a generation after it was repaired so."""


def mend(comparison: Comparison) -> Iterator[Repair]:
    """Mend the differences, several at once, and look what the view shows afterwards.

    Raises as `indexing.attempt` does in an outage.
    """
    pending: list[Repair] = []
    try:
        for each in indexing.attempt(comparison.mend, comparison):
            pending.append(each)
            if len(pending) == CONFIRMED_AT_ONCE:
                batch, pending = pending, []
                yield from comparison.confirm(batch)
    except RetryableError:
        yield from comparison.confirm(pending)
        raise
    yield from comparison.confirm(pending)


def _missing(found: StoredObject) -> ObjectEvent:
    """Return the event of an object that has no row."""
    return events.finalized(found, _event_id())


def _event_id() -> str:
    return f"verify-{uuid.uuid4()}"
