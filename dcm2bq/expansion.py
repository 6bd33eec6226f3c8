"""Expand an archive: each DICOM member becomes a row, each broken one a dead letter.

    archives ──> header_row ──> queue ──> sink        one row, `expanded`, when all is durable
    members      one at a time            in batches

Members are converted in the thread of the event, in the order of the archive. A second thread
stores what is converted in the meantime, as much at once as one insert takes. Memory is bounded by
claims: the archive's is for its directory, and each row has its own until it is stored.

A process expands one archive at a time. Several would share its processor, so that none might meet
its deadline, and each could hold the memory that the members of the others wait for.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

from dcm2bq import events, rows
from dcm2bq.archives import Member, members
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import Source
from dcm2bq.dicom.memory import Budget, Claim, GiveWayError
from dcm2bq.endpoints import ObjectContent, Sink
from dcm2bq.errors import (
    ArchiveTooLargeError,
    ReadFailedError,
    RejectedEventError,
    UnlikeDicomError,
    UnreadableArchiveError,
    describe,
)
from dcm2bq.events import ObjectEvent
from dcm2bq.header_row import header_row
from dcm2bq.row_names import row_names

_READ_SHARE = 0.9
"""Part of an event's time for reading and converting, as of any object's."""
_AHEAD = 500
"""Rows that wait to be stored: as many as one insert takes."""
_BATCH_CHARS = 4_000_000
"""Characters of metadata that are stored at once: about what one insert takes."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of an archive; `bytes_read` is what was fetched of it."""

    counts: rows.ArchiveInfo
    warnings: int
    bytes_read: int


class Expander:
    """Expands archives; made once per process, used by all its threads.

    Members are converted within `memory`; `on_large` is called as by the handler. Rows and dead
    letters name the archive and its members as the configuration asks for.
    """

    def __init__(
        self,
        config: Config,
        sink: Sink,
        memory: Budget,
        on_large: Callable[[ObjectEvent, int], object] | None = None,
    ) -> None:
        self._config = config
        self._names = row_names(config.privacy)
        self._sink = sink
        self._memory = memory
        self._on_large = on_large

    def expand(self, event: ObjectEvent, content: ObjectContent, deadline: Deadline) -> Expansion:
        """Store the row or the dead letter of each member, then the row `expanded`.

        Raises what `archives.members` raises, and any other error for which the whole archive
        must be handled again; what has been stored by then stays.
        """
        reading = deadline.share(_READ_SHARE)
        with self._turn(reading), self._memory.claim(reading) as claim:
            while True:
                try:
                    expansion = self._store_members(event, content, claim, deadline)
                except GiveWayError:  # raised before the first member
                    claim.begin_again()
                else:
                    break
        row = rows.expanded_row(self._names.event(event), expansion.counts, now=datetime.now(UTC))
        self._sink.insert(row, deadline)
        return expansion

    def index_member(
        self, event: ObjectEvent, content: ObjectContent, member: str, deadline: Deadline
    ) -> rows.InstanceRow | None:
        """Store the row of the `member` that rows have; return it, or None if it is not DICOM.

        Raises the error of a member that cannot be read or converted, and what `expand` raises.
        """
        reading = deadline.share(_READ_SHARE)
        limits = self._config.limits
        shown = self._names.event(event)

        def is_sought(name: str) -> bool:
            return self._names.member(shown.object.path, name) == member

        opened = members(content, event.object.name, limits, reading, chosen=is_sought)
        with closing(opened):
            first = next(opened, None)
            if first is None:
                raise UnreadableArchiveError("the archive has no such member")
            with self._memory.claim(self._time_of_member(reading)) as claim:
                row = self._row(shown, first, claim)
                for another in opened:  # of the same name: the row would close its dead letter
                    self._row(shown, another, claim)
                if row is not None:
                    self._sink.insert(row, deadline)
                return row

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait until no other archive is being expanded; keep others waiting in the meantime."""
        turn = self._memory.nesting
        if not turn.acquire(timeout=min(max(deadline.left, 0), threading.TIMEOUT_MAX)):
            raise ReadFailedError("other archives were being expanded until the deadline")
        try:
            yield
        finally:
            turn.release()

    def _store_members(
        self, event: ObjectEvent, content: ObjectContent, claim: Claim, deadline: Deadline
    ) -> Expansion:
        """Store the row or the dead letter of each member; `claim` pays for reading the archive."""
        opened = members(content, event.object.name, self._config.limits, claim.deadline, claim)
        number = others = 0
        shown = self._names.event(event)
        with closing(opened), _Writer(shown, self._sink, deadline) as writer:
            for number, member in enumerate(opened, 1):
                if number == 1:
                    # All is charged. Claims of members wait for older ones that still convert.
                    claim.settle(claim.used)
                try:
                    others += not self._hand_over(event, shown, member, writer, claim)
                except ReadFailedError as error:
                    opened.throw(error)  # it may be the archive that is too large for its time
        counts = rows.ArchiveInfo(
            members=number,
            instances=writer.instances,
            dead_letters=writer.dead_letters,
            others=others,
        )
        return Expansion(counts, writer.warnings, content.bytes_read)

    def _hand_over(
        self,
        event: ObjectEvent,
        shown: ObjectEvent,
        member: Member,
        writer: "_Writer",
        archive: Claim,
    ) -> bool:
        """Give the row or the dead letter of a member to the writer; return whether it has one.

        `shown` is the event with the names that rows have.
        """
        deadline = self._time_of_member(archive.deadline)
        on_large = self._on_large and partial(self._on_large, event)
        with ExitStack() as held:
            claim = held.enter_context(
                self._memory.claim(deadline, on_large, beside=archive.granted)
            )
            try:
                row = self._row(shown, member, claim)
            except ArchiveTooLargeError:
                raise
            except RejectedEventError as error:
                name = self._names.member(shown.object.path, member.name)
                writer.put(_dead_letter(shown, name, error))
                return True
            if row is None:
                return False
            writer.put(row, held.pop_all())
            return True

    def _time_of_member(self, deadline: Deadline) -> Deadline:
        """Return the archive's deadline; if it has none, that of an ordinary object."""
        return deadline.or_after(self._config.limits.deadline_seconds)

    def _row(self, shown: ObjectEvent, member: Member, claim: Claim) -> rows.InstanceRow | None:
        """Return the row of a member; None if it is not DICOM."""
        if member.error:
            raise member.error
        content = _MemberContent(member.source)
        name = self._names.member(shown.object.path, member.name)
        try:
            return header_row(shown, content, claim, self._config, member=name, sniff=True)
        except UnlikeDicomError:
            return None


class _MemberContent:
    """The content of a member; `bytes_read` counts the member's own bytes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.bytes_read = 0

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self._source.size

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on."""
        data = self._source.read_at(offset, n)
        self.bytes_read += len(data)
        return data


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row that waits to be stored, and the claim that it holds until then."""

    row: rows.InstanceRow | rows.DeadLetterRow
    held: ExitStack

    @property
    def size(self) -> int:
        """Characters of metadata."""
        return len(self.row.metadata or "") if isinstance(self.row, rows.InstanceRow) else 0


class _Writer:
    """Stores rows and dead letters in its own thread; at its end, all of them are durable.

    After a failure, nothing more is stored: `put`, or the end, raises its error.
    """

    def __init__(self, event: ObjectEvent, sink: Sink, deadline: Deadline) -> None:
        self._event = event
        self._sink = sink
        self._deadline = deadline
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="expansion", daemon=True)
        self.instances = self.dead_letters = self.warnings = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        """Wait for the rest; drop it instead if the archive could not be read to its end."""
        self._error = self._error or error
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(
        self, row: rows.InstanceRow | rows.DeadLetterRow, held: ExitStack | None = None
    ) -> None:
        """Store a row soon, and close `held` after that; wait while too many rows do."""
        self._queue.put(_Waiting(row, held or ExitStack()))
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._take()
            with ExitStack() as held:
                for waiting in batch:
                    held.push(waiting.held)
                try:
                    if batch and self._error is None:
                        self._store([waiting.row for waiting in batch])
                except BaseException as error:  # raised by the event's thread
                    self._error = error

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Wait for a row; return it with those that follow, and whether more can come."""
        batch: list[_Waiting] = []
        size = 0
        while size < _BATCH_CHARS and len(batch) < _AHEAD:
            try:
                waiting = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if waiting is None:
                return batch, False
            batch.append(waiting)
            size += waiting.size
        return batch, True

    def _store(self, batch: Sequence[rows.InstanceRow | rows.DeadLetterRow]) -> None:
        instances = [row for row in batch if isinstance(row, rows.InstanceRow)]
        letters = [row for row in batch if isinstance(row, rows.DeadLetterRow)]
        for row, error in zip(
            instances, self._sink.insert_all(instances, self._deadline), strict=True
        ):
            if isinstance(error, RejectedEventError):
                letters.append(_dead_letter(self._event, row.member, error))
            elif error is not None:
                raise error
            else:
                self.instances += 1
                self.warnings += len(row.info.warnings)
        for error in self._sink.insert_dead_letters(letters, self._deadline):
            if error is not None:
                raise error
        self.dead_letters += len(letters)


def _dead_letter(
    event: ObjectEvent, member: str | None, error: RejectedEventError
) -> rows.DeadLetterRow:
    """Return the dead letter of a member, as for the delivery of the archive's event."""
    return rows.dead_letter_row(
        events.deliver(event),
        now=datetime.now(UTC),
        error_type=type(error).__name__,
        error=describe(error),
        member=member,
    )
