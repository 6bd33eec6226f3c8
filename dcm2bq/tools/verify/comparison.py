"""Compare a bucket's listing with `instances_live`, and repair the differences.

Both sides are read in the order of their paths and merged, so memory does not grow with the
bucket. BigQuery sorts one range of paths at a time: it could not sort a large table in one go.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from dcm2bq.dicom import looks_like_dicom
from dcm2bq.dicom.read.source import FIRST_READ
from dcm2bq.errors import RejectedEventError, RetryableError, SupersededError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.handler import Handler, Result
from dcm2bq.ignored import Ignored, is_archive, is_sniffed, why_ignored
from dcm2bq.parallel import in_parallel
from dcm2bq.stored_object import SCHEME, StoredObject
from dcm2bq.tools import attempts, indexing
from dcm2bq.tools.ignored_names import COLD, IgnoredNames, SampleFindings, read_from
from dcm2bq.tools.wording import counted

RANGE_ROWS = 1_000_000
"""Rows that BigQuery sorts in one query: paths of up to 1 kB each, so at most about 1 GB."""
CONFIRMED_AT_ONCE = 1000
"""Repairs looked up by one query: their paths take at most 1 MB of a request's 10 MB."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two queries of the view: streamed rows appear within a few seconds."""
_LIVE_ROWS = "FROM instances_live WHERE STARTS_WITH(path, @prefix)"
_IS_MARKER = "event IN ('deleted', 'archived')"
_FIRST_PATH, _AFTER_LAST_PATH = "gs://", "gs:0"  # "0" is the character after "/"


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
    """An object without its row, or a row without its object.

    `event` would remove the difference: the object's `finalized` event, or the `deleted` event
    of a generation that is not in the bucket. `reason` is the reason of a dead letter, or why the
    difference must not be repaired.
    """

    finding: Finding
    event: ObjectEvent
    reason: str | None = None

    @property
    def object(self) -> StoredObject:
        """The object, or the generation that is no longer in the bucket."""
        return self.event.object

    @property
    def is_repairable(self) -> bool:
        """Whether `Comparison.repair` can remove it."""
        return self.reason is None


class RepairResult(StrEnum):
    """The results of a repair beside those of the handler."""

    EXISTS = "exists"
    """Nothing to do: the generation is live, and was created after the bucket was listed."""
    LEFT = "left"
    """This command does not repair it."""
    UNSEEN = "unseen"
    """A row or marker was written, but the view did not show its effect in time."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A difference and the result of its repair; None if it failed with `error`."""

    difference: BucketDifference
    result: str | None
    error: Exception | None = None

    @property
    def is_resolved(self) -> bool:
        """Whether the difference is gone, or is accepted: dismissed, or one of a few ignored."""
        if self.difference.finding in {Finding.DISMISSED, Finding.IGNORED}:
            return True
        unresolved = {None, RepairResult.LEFT, RepairResult.UNSEEN, Result.DEAD_LETTERED}
        return self.result not in unresolved


class _Row(msgspec.Struct, frozen=True):
    """Live rows, dead letters (with `reason`), or the highest `marker` of a path.

    `members` is the number of members of an archive that it stands for; 0 for the object as a
    whole. `expanded` is the number of members that an expansion left with a row or dead letter.
    """

    path: str
    version: str | None
    reason: str | None
    dismissed: bool = False
    marker: int | None = None
    members: int = 0
    expanded: int | None = None

    @property
    def is_live(self) -> bool:
        return self.reason is None and self.marker is None and self.expanded is None


class Comparison:
    """Compares the objects under a `gs://bucket[/prefix]` with their rows.

    Iterating yields the differences in the order of their paths. Meanwhile `objects` counts the
    objects, `ignored` those that the function ignores, `unread` those that it may ignore but
    that are not read here because of their storage class, and `settling` those without a row
    that are younger than `settle` and may still get one; `on_object` is called for each object.
    Raises `RetryableError` if either side cannot be read.
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
        self._handler = Handler(config, self._store, RowSink(config), bounds_archives=False)
        self._seconds = config.limits.deadline_seconds
        self._patience = config.big_query.timeout_seconds
        self._table = config.big_query.instances_table_id
        self._range_rows = range_rows
        self._settled = datetime.now(UTC) - settle
        self.objects = self.ignored = self.unread = self.settling = 0
        self._ignored_names: IgnoredNames[StoredObject] = IgnoredNames()
        self.on_object: Callable[[], object] = lambda: None

    @cached_property
    def rows(self) -> int:
        """The number of live rows."""
        (counted,) = self._dataset.query(f"SELECT COUNT(*) AS n {_LIVE_ROWS}", self._parameters)
        return int(counted["n"])

    def __iter__(self) -> Iterator[BucketDifference]:
        if self._config.input.other_names != "sniff":
            yield from self._differences()
            return
        with ThreadPoolExecutor(attempts.THREADS) as pool:
            ahead = 2 * attempts.THREADS
            for difference in in_parallel(pool, self._unless_ignored, self._differences(), ahead):
                if difference:
                    yield difference
                else:
                    self.ignored += 1

    def examine_ignored(self) -> tuple[SampleFindings, Iterator[BucketDifference]]:
        """Read a sample of the objects that are ignored because of their names.

        To be called after the iteration. Returns the findings, and as differences the objects
        that begin with DICM.
        """
        findings, dicom = self._ignored_names.examine(read_from(self._store))
        reason = "begins with DICM, but its name does not match input.namePattern"
        return findings, (_lacks_row(Finding.IGNORED, stored, reason) for stored in dicom)

    def repair(self, difference: BucketDifference) -> Repair:
        """Index a missing object, or write a marker for a generation that no longer exists.

        A marker is written only if Cloud Storage confirms that exactly this generation is
        deleted or archived: the listing alone may be older than the row.
        """
        try:
            result = self._repair(difference)
        except Exception as error:
            return Repair(difference, None, error)
        return Repair(difference, result)

    def confirm(self, repairs: Sequence[Repair]) -> Iterator[Repair]:
        """Yield the repairs; those whose effect the view does not show become `UNSEEN`.

        The view is queried until it shows all of them, at most for `bigQuery.timeoutSeconds`.
        """
        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        pending = [repair for repair in repairs if repair.result in _SHOWN_AFTER]
        error = None
        while pending:
            try:
                pending, error = self._unseen(pending), None
            except RetryableError as failure:
                error = failure
            if not pending or time.monotonic() + pause > give_up:
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        unseen = {id(repair) for repair in pending}
        for repair in repairs:
            if id(repair) in unseen:
                yield replace(repair, result=RepairResult.UNSEEN, error=error)
            else:
                yield repair

    def _unseen(self, repairs: Sequence[Repair]) -> list[Repair]:
        """Return the repairs whose effect the view does not show."""
        paths = sorted({repair.difference.object.path for repair in repairs})
        sql = f"""
            SELECT path, version, FALSE AS expanded
            FROM instances_live
            WHERE path IN UNNEST(@paths)
            UNION DISTINCT
            SELECT path, version, TRUE
            FROM `{self._table}`
            WHERE event = 'expanded' AND path IN UNNEST(@paths)
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        shown = {tuple(row.values()) for row in self._dataset.stream(sql, {"paths": paths})}
        return [
            repair
            for repair in repairs
            if (_sought(repair) in shown) is not _SHOWN_AFTER[repair.result]
        ]

    def _boundaries(self) -> Sequence[str]:
        """Return the paths that divide the rows into ranges that BigQuery can sort."""
        paths = f"""
            FROM (
              SELECT path FROM instances_live
              UNION ALL
              SELECT DISTINCT path FROM `{self._table}` WHERE {_IS_MARKER}
            )
            WHERE STARTS_WITH(path, @prefix)
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        (counted,) = self._dataset.query(f"SELECT COUNT(*) AS n {paths}", self._parameters)
        ranges = -(-int(counted["n"]) // self._range_rows)
        inner: Sequence[str] = ()
        if ranges > 1:
            sql = f"SELECT APPROX_QUANTILES(path, {ranges:d}) AS paths {paths}"
            (row,) = self._dataset.query(sql, self._parameters)
            inner = sorted(set(row["paths"][1:-1]))
        return [_FIRST_PATH, *inner, _AFTER_LAST_PATH]

    def _unless_ignored(self, difference: BucketDifference) -> BucketDifference | None:
        """Return a difference; None if the first bytes of its object show that it is ignored."""
        stored = difference.object
        if difference.finding not in _LACKS_ROW or not is_sniffed(self._config, stored):
            return difference
        try:
            content = self._store.open(stored, Deadline.after(self._seconds))
            head = content.read_at(0, FIRST_READ)
        except SupersededError:  # deleted since it was listed
            return None
        except RejectedEventError:  # so it would become a dead letter
            return difference
        return difference if looks_like_dicom(head) else None

    def _differences(self) -> Iterator[BucketDifference]:
        for start, end in pairwise(self._boundaries()):
            yield from self._compare(start, end)

    def _compare(self, start: str, end: str) -> Iterator[BucketDifference]:
        """Merge the objects and the rows of one range of paths."""
        by_path = self._rows(start, end)
        # Rows are read first: an object created in between only seems to lack its row, and is
        # too young to be reported.
        path, rows = next(by_path, (_AFTER_LAST_PATH, []))
        for stored in self._objects(start, end):
            while path < stored.path:
                yield from self._without_object(rows)
                path, rows = next(by_path, (_AFTER_LAST_PATH, []))
            if path == stored.path:
                yield from self._with_object(stored, rows)
                path, rows = next(by_path, (_AFTER_LAST_PATH, []))
            else:
                yield from self._with_object(stored, [])
        while rows:
            yield from self._without_object(rows)
            path, rows = next(by_path, (_AFTER_LAST_PATH, []))

    def _objects(self, start: str, end: str) -> Iterator[StoredObject]:
        root = f"{SCHEME}{self._bucket}/"
        first = start.removeprefix(root) if start.startswith(root) else ""
        after = end.removeprefix(root) if end.startswith(root) else ""
        for stored in self._store.list(self._bucket, self._prefix, start=first, end=after):
            self.objects += 1
            self.on_object()
            yield stored

    def _rows(self, start: str, end: str) -> Iterator[tuple[str, list[_Row]]]:
        """Yield each path with its live rows, dead letters and highest marker, in order.

        Those of all members of an archive are one row of the answer: memory does not grow with it.
        """
        condition = "STARTS_WITH(path, @prefix) AND path >= @start AND path < @before"
        sql = f"""
            SELECT path, version, CAST(NULL AS STRING) AS reason, FALSE AS dismissed,
              CAST(NULL AS INT64) AS marker, COUNT(DISTINCT member) AS members,
              CAST(NULL AS INT64) AS expanded
            FROM instances_live
            WHERE {condition}
            GROUP BY path, version
            UNION ALL
            SELECT path, version, MAX(reason), FALSE, NULL, COUNT(DISTINCT member), NULL
            FROM dead_letters
            WHERE {condition} AND event IN ('finalized', 'metadataUpdated')
            GROUP BY path, version, member IS NULL
            UNION ALL
            SELECT path, version, MAX(because), TRUE, NULL, COUNT(DISTINCT member), NULL
            FROM dismissed_letters
            WHERE {condition} AND event IN ('finalized', 'metadataUpdated')
            GROUP BY path, version, member IS NULL
            UNION ALL
            SELECT path, NULL, NULL, FALSE, MAX(CAST(version AS INT64)), 0, NULL
            FROM `{self._table}`
            WHERE {condition} AND {_IS_MARKER}
            GROUP BY path
            UNION ALL
            SELECT path, version, NULL, FALSE, NULL, 0, ARRAY_AGG(
              IFNULL(info.archive.instances + info.archive.dead_letters, 0)
              ORDER BY ingested_at DESC
              LIMIT 1
            )[OFFSET(0)]
            FROM `{self._table}`
            WHERE {condition} AND event = 'expanded'
            GROUP BY path, version
            ORDER BY path
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        rows = self._dataset.stream(sql, {**self._parameters, "start": start, "before": end})
        for path, group in groupby(rows, itemgetter("path")):
            yield path, [msgspec.convert(row, _Row) for row in group]

    def _with_object(
        self, stored: StoredObject, rows: Sequence[_Row]
    ) -> Iterator[BucketDifference]:
        """Yield the differences between an object and the rows of its path."""
        version = str(stored.generation)
        own = [row for row in rows if row.version == version]
        hidden_below = max((row.marker for row in rows if row.marker is not None), default=0)
        if not self._is_complete(stored, own):
            yield from self._incomplete(stored, own, hidden_below)
        elif letters := [row for row in own if row.reason and row.members]:
            yield _dead_lettered(stored, letters)
        for row in rows:
            if row.is_live and row.version != version:
                yield self._extra(row, stored)

    def _incomplete(
        self, stored: StoredObject, rows: Sequence[_Row], hidden_below: int
    ) -> Iterator[BucketDifference]:
        """Yield the difference of an object that lacks a row, unless that is right; count it then.

        `rows` are those of its generation; markers hide generations up to `hidden_below`.
        """
        if ignored := why_ignored(self._config, stored):
            self.ignored += 1
            if ignored is Ignored.NAME:
                self._ignored_names.add(stored.name, stored, storage_class=stored.storage_class)
        elif hidden_below >= stored.generation:
            # The rows were read before the listing: the marker came first, yet the object exists.
            reason = f"by a marker of generation {hidden_below}"
            yield _lacks_row(Finding.HIDDEN, stored, reason)
        elif letters := [row for row in rows if row.reason and not row.members]:
            yield _dead_lettered(stored, letters)
        elif stored.created and stored.created > self._settled:
            self.settling += 1
        elif is_sniffed(self._config, stored) and stored.storage_class in COLD:
            self.unread += 1
        else:
            yield _lacks_row(Finding.MISSING, stored)

    def _is_complete(self, stored: StoredObject, rows: Sequence[_Row]) -> bool:
        """Return whether an object has its row, or an archive one or a dead letter for each member.

        `rows` are those of the object's generation. An archive is complete if its expansion is
        recorded and left no more members than there are now.
        """
        if not is_archive(self._config, stored.name):
            return any(row.is_live for row in rows)
        members = sum(row.members for row in rows)
        return any(row.expanded is not None and row.expanded <= members for row in rows)

    def _without_object(self, rows: Sequence[_Row]) -> Iterator[BucketDifference]:
        """Yield the live rows of a path without an object."""
        for row in rows:
            if row.is_live:
                yield self._extra(row, None)

    def _extra(self, row: _Row, current: StoredObject | None) -> BucketDifference:
        """Return the difference of a row whose generation is not in the bucket."""
        deleted = ObjectEvent(
            event_id=_event_id(),
            kind=EventKind.DELETED,
            time=datetime.now(UTC),
            object=StoredObject(
                bucket=self._bucket,
                name=row.path.removeprefix(f"{SCHEME}{self._bucket}/"),
                generation=int(row.version or 0),
            ),
        )
        if current is None:
            return BucketDifference(finding=Finding.STALE, event=deleted)
        if deleted.object.generation < current.generation:
            return BucketDifference(finding=Finding.SUPERSEDED, event=deleted)
        # A marker would also hide the row of the lower generation, the one in the bucket.
        return BucketDifference(
            finding=Finding.STALE, event=deleted, reason="the object has a lower generation"
        )

    def _repair(self, difference: BucketDifference) -> str:
        if not difference.is_repairable:
            return RepairResult.LEFT
        event = difference.event
        deadline = Deadline.after(self._seconds)
        if difference.finding is Finding.MISSING:
            outcome = self._handler.handle(events.deliver(event), is_last=False)
            has_letters = outcome.archive is not None and outcome.archive.dead_letters > 0
            return Result.DEAD_LETTERED if has_letters else outcome.result
        try:
            archived_at = self._store.archived_at(event.object, deadline)
        except SupersededError:
            return self._handler.mark(event, deadline).result
        if archived_at is None:
            return RepairResult.EXISTS
        archived = replace(event, kind=EventKind.ARCHIVED, time=archived_at)
        return self._handler.mark(archived, deadline).result


_LACKS_ROW = frozenset({Finding.MISSING, Finding.HIDDEN})
"""Findings about objects of which nothing is recorded."""
_SHOWN_AFTER: Mapping[str | None, bool] = {
    Result.INSERTED: True,
    Result.EXPANDED: True,
    Result.MARKED: False,
}
"""Whether a generation, or its expansion, is shown after a repair with this result."""


def repair_all(comparison: Comparison) -> Iterator[Repair]:
    """Repair the differences, several at once, and confirm in the view that it worked.

    Raises what `attempts.attempt_each` raises in an outage.
    """
    pending: list[Repair] = []
    try:
        for repair in attempts.attempt_each(comparison.repair, comparison):
            pending.append(repair)
            if len(pending) == CONFIRMED_AT_ONCE:
                batch, pending = pending, []
                yield from comparison.confirm(batch)
    except RetryableError:
        yield from comparison.confirm(pending)
        raise
    yield from comparison.confirm(pending)


def _sought(repair: Repair) -> tuple[str, str, bool]:
    """Return what shows the effect of a repair: a path, a generation, whether it was expanded."""
    stored = repair.difference.object
    return stored.path, str(stored.generation), repair.result == Result.EXPANDED


def _dead_lettered(stored: StoredObject, letters: Sequence[_Row]) -> BucketDifference:
    """Return the difference of an object, or of members of it, with dead letters."""
    letter = min(letters, key=attrgetter("dismissed"))  # open ones come first
    finding = Finding.DISMISSED if letter.dismissed else Finding.DEAD_LETTERED
    members = f"{counted(letter.members, 'member')}: " if letter.members else ""
    return _lacks_row(finding, stored, f"{members}{letter.reason}")


def _lacks_row(
    finding: Finding, stored: StoredObject, reason: str | None = None
) -> BucketDifference:
    """Return the difference of an object that has no live row."""
    event = events.finalized(stored, _event_id())
    return BucketDifference(finding=finding, event=event, reason=reason)


def _event_id() -> str:
    return f"verify-{uuid.uuid4()}"
