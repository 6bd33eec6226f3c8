"""Compare a bucket's listing with the keys of its rows."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import looks_like_dicom
from dcm2bq.dicom.read.source import FIRST_READ
from dcm2bq.errors import RejectedEventError, SupersededError
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.ignored import Ignored, is_archive, is_sniffed, why_ignored
from dcm2bq.parallel import in_parallel
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import attempts, indexing
from dcm2bq.tools.ignored_names import COLD, IgnoredNames, SampleFindings, read_from
from dcm2bq.tools.key_layout import KeyRow, merge
from dcm2bq.tools.verify.findings import (
    BucketDifference,
    Finding,
    dead_lettered,
    lacks_object,
    lacks_row,
)
from dcm2bq.tools.verify.key_ranges import RANGE_ROWS, KeyRanges
from dcm2bq.tools.verify.late_markers import FRESH_SECONDS, LateMarkers
from dcm2bq.tools.verify.listed import ListedObjects

_LACKS_ROW = frozenset({Finding.MISSING, Finding.HIDDEN})
"""Findings about objects of which nothing is recorded."""


class Comparison:
    """Compares the objects under a `gs://bucket[/prefix]` with their rows.

    Iterating yields the differences in the order of their paths. Meanwhile `objects` counts the
    objects, `ignored` those that the function ignores, `unread` those that it may ignore but
    that are not read here because of their storage class, and `settling` those without a row
    that are younger than `settle` and may still get one. If names are hashed, rows without an
    object are differences only if the whole bucket is `listed`. Raises `RetryableError` if either
    side cannot be read. `keys` must be closed at the end.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        location: str,
        *,
        settle: timedelta,
        range_rows: int = RANGE_ROWS,
        scratch: str | None = None,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        uri = GsUri.parse(location)
        indexing.require_bucket(uri.bucket, config)
        self._store = Store(config)
        self.listed = ListedObjects(self._store, uri, row_names(config.privacy))
        self._config = config
        self._seconds = config.limits.deadline_seconds
        self._settled = datetime.now(UTC) - settle
        prefix = self.listed.prefix
        self.keys = KeyRanges(dataset, config, prefix, range_rows=range_rows, scratch=scratch)
        self._late_markers = LateMarkers(dataset, config, prefix, fresh_seconds)
        self.objects = self.ignored = self.unread = self.settling = 0
        self._ignored_names: IgnoredNames[StoredObject] = IgnoredNames()

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
        return findings, (
            lacks_row(Finding.IGNORED, stored, self.listed.path(stored), reason) for stored in dicom
        )

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
        for start, end, keys in self.keys:
            # The keys are read first: an object created since only seems to lack its row, and is
            # too young to be reported.
            rows = ((row.path, row) for row in keys)
            for stored, group in merge(rows, self._objects(start, end)):
                if stored:
                    yield from self._with_object(stored, group)
                elif self.listed.is_whole:
                    yield from self._without_object(group)

    def _objects(self, start: str, end: str) -> Iterator[tuple[str, StoredObject]]:
        for path, stored in self.listed.between(start, end):
            self.objects += 1
            yield path, stored

    def _with_object(
        self, stored: StoredObject, rows: Sequence[KeyRow]
    ) -> Iterator[BucketDifference]:
        """Yield the differences between an object and the rows of its path."""
        version = str(stored.generation)
        own = [row for row in rows if row.version == version]
        hidden_below = max((row.marker for row in rows if row.marker is not None), default=0)
        if not self._is_complete(stored, own):
            yield from self._incomplete(stored, own, hidden_below)
        elif letters := [row for row in own if row.reason and row.members]:
            yield dead_lettered(stored, self.listed.path(stored), letters)
        for row in rows:
            if row.is_live and row.version != version:
                yield from self._extra(row, stored)

    def _incomplete(
        self, stored: StoredObject, rows: Sequence[KeyRow], hidden_below: int
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
            yield lacks_row(Finding.HIDDEN, stored, self.listed.path(stored), reason)
        elif letters := [row for row in rows if row.reason and not row.members]:
            yield dead_lettered(stored, self.listed.path(stored), letters)
        elif self._is_young(stored):
            self.settling += 1
        elif is_sniffed(self._config, stored) and stored.storage_class in COLD:
            self.unread += 1
        else:
            yield lacks_row(Finding.MISSING, stored, self.listed.path(stored))

    def _is_complete(self, stored: StoredObject, rows: Sequence[KeyRow]) -> bool:
        """Return whether an object has its row, or an archive one or a dead letter for each member.

        `rows` are those of the object's generation. An archive is complete if its expansion is
        recorded and left no more members than there are now.
        """
        if not is_archive(self._config, stored.name):
            return any(row.is_live for row in rows)
        members = sum(row.members for row in rows)
        return any(row.expanded is not None and row.expanded <= members for row in rows)

    def _is_young(self, stored: StoredObject) -> bool:
        """Return whether the events of an object may still be on their way."""
        return stored.created is not None and stored.created > self._settled

    def _without_object(self, rows: Sequence[KeyRow]) -> Iterator[BucketDifference]:
        """Yield the live rows of a path without an object."""
        for row in rows:
            if row.is_live:
                yield from self._extra(row, None)

    def _extra(self, row: KeyRow, current: StoredObject | None) -> Iterator[BucketDifference]:
        """Yield the difference of a row whose generation is not in the bucket.

        Nothing, if that is right: the row of `current`, or a marker, may be on its way or has come
        since the keys were read.
        """
        gone = self.listed.generation(row.path, row.version)
        if current and self._is_young(current) and gone.generation < current.generation:
            return
        if not self._late_markers.hide(row.path, gone.generation):
            yield lacks_object(gone, current)
