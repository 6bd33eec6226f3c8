"""Repair differences with the code of the function, and confirm that the view shows it."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from dcm2bq import events
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import RetryableError, SupersededError
from dcm2bq.events import EventKind
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler, Result
from dcm2bq.row_names import row_names
from dcm2bq.tools import attempts
from dcm2bq.tools.verify.findings import BucketDifference, Finding

CONFIRMED_FIRST, CONFIRMED_AT_ONCE = 1000, 16_000
"""Repairs looked up by the first query, and by any at most.

Each query reads the keys of all rows, $1.84 at a billion, so each looks up twice as many as the one
before. Those of the largest one wait for it a few minutes at most.
"""
CONFIRMED_BYTES = 1_500_000
"""Size of the paths of one query in UTF-8: JSON may need six times that, a request has 10 MB."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two queries of the view: streamed rows appear within a few seconds."""


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


class Repairer:
    """Repairs differences; used by several threads."""

    def __init__(self, dataset: Dataset, config: Config) -> None:
        self._dataset = dataset
        self._instances = config.big_query.instances_table_id
        self._names = row_names(config.privacy)
        self._store = Store(config)
        self._handler = Handler(config, self._store, RowSink(config), bounds_archives=False)
        self._seconds = config.limits.deadline_seconds
        self._patience = config.big_query.timeout_seconds

    def repair(self, difference: BucketDifference) -> Repair:
        """Index a missing object, or write a marker for a generation that no longer exists.

        A marker is written only if Cloud Storage confirms that exactly this generation is
        deleted or archived: the listing alone may be older than the row. Where names are hashed,
        it cannot be asked about a generation. There, the listing proves that the generation is
        gone: it began after the keys had been queried, and generations never return.
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
        paths = sorted({repair.difference.path for repair in repairs})
        sql = f"""
            SELECT path, version, FALSE AS expanded
            FROM instances_live
            WHERE path IN UNNEST(@paths)
            UNION DISTINCT
            SELECT path, version, TRUE
            FROM `{self._instances}`
            WHERE event = 'expanded' AND path IN UNNEST(@paths)
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        shown = {tuple(row.values()) for row in self._dataset.stream(sql, {"paths": paths})}
        return [
            repair
            for repair in repairs
            if (_sought(repair) in shown) is not _SHOWN_AFTER[repair.result]
        ]

    def _repair(self, difference: BucketDifference) -> str:
        if not difference.is_repairable:
            return RepairResult.LEFT
        event = difference.event
        deadline = Deadline.after(self._seconds)
        if difference.finding is Finding.MISSING:
            outcome = self._handler.handle(events.deliver(event), is_last=False)
            has_letters = outcome.archive is not None and outcome.archive.dead_letters > 0
            return Result.DEAD_LETTERED if has_letters else outcome.result
        if self._names.are_hashed:
            self._handler.mark_as(event, deadline)
            return Result.MARKED
        try:
            archived_at = self._store.archived_at(event.object, deadline)
        except SupersededError:
            return self._handler.mark(event, deadline).result
        if archived_at is None:
            return RepairResult.EXISTS
        archived = replace(event, kind=EventKind.ARCHIVED, time=archived_at)
        return self._handler.mark(archived, deadline).result


_SHOWN_AFTER: Mapping[str | None, bool] = {
    Result.INSERTED: True,
    Result.EXPANDED: True,
    Result.MARKED: False,
}
"""Whether a generation, or its expansion, is shown after a repair with this result."""


def repair_all(repairer: Repairer, differences: Iterable[BucketDifference]) -> Iterator[Repair]:
    """Repair the differences, several at once, and confirm in the view that it worked.

    Raises what `attempts.attempt_each` raises in an outage.
    """
    pending: list[Repair] = []
    size, most = 0, CONFIRMED_FIRST
    try:
        for repair in attempts.attempt_each(repairer.repair, differences):
            pending.append(repair)
            size += len(repair.difference.path.encode())
            if len(pending) >= most or size >= CONFIRMED_BYTES:
                batch, pending, size = pending, [], 0
                most = min(2 * most, CONFIRMED_AT_ONCE)
                yield from repairer.confirm(batch)
    except RetryableError:
        yield from repairer.confirm(pending)
        raise
    yield from repairer.confirm(pending)


def _sought(repair: Repair) -> tuple[str, str, bool]:
    """Return what shows the effect of a repair: a path, a generation, whether it was expanded."""
    difference = repair.difference
    generation = str(difference.object.generation)
    return difference.path, generation, repair.result == Result.EXPANDED
