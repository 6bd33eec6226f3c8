"""What becomes of an archive: rows and dead letters of its members, then the row `expanded`."""

import json
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dcm2bq import events
from dcm2bq.config import Config, from_overrides
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.delivery import Delivery
from dcm2bq.dicom import Budget, ReadFailedError
from dcm2bq.errors import (
    RowTooLargeError,
    SupersededError,
    UnreadableArchiveError,
    WriteFailedError,
)
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Handler, Outcome, Result
from dcm2bq.ignored import Ignored
from dcm2bq.rows import ArchiveInfo, DeadLetterRow, InstanceRow
from dcm2bq.stored_object import StoredObject
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import tar_of, zip_of
from tests.support.in_memory import MemorySink, MemoryStore

MIB = 1024 * 1024
READ = from_overrides({"input": {"archives": "read"}})
PIXELS = element(0x7FE00010, "OW", b"\0" * 70_000)
SCAN = dicom(identity(), PIXELS)
BROKEN = dicom(identity(), element(0x00100010, "PN", b"Doe", length=900))
MIXED = {
    "study/1": SCAN,
    "study/copy of 1": SCAN,
    "broken.dcm": BROKEN,
    "report.pdf": b"%PDF-1.7 " * 99,
    "readme": b"hello",
    "DICOMDIR?offset=1&é#%": SCAN,
}


def event(content: bytes, name: str = "a.zip", **changes: Any) -> ObjectEvent:
    made = ObjectEvent(
        event_id="1",
        kind=EventKind.FINALIZED,
        time=datetime.now(UTC),
        object=StoredObject(bucket="scans", name=name, generation=7, size=len(content)),
    )
    return replace(made, **changes)


def handle(
    content: bytes,
    sink: MemorySink,
    *,
    name: str = "a.zip",
    config: Config = READ,
    memory: Budget | None = None,
    is_last: bool = False,
) -> Outcome:
    handler = Handler(config, MemoryStore(content), sink, memory=memory)
    return handler.handle(events.deliver(event(content, name)), is_last=is_last)


def rows_of(sink: MemorySink) -> list[InstanceRow]:
    return [row for row in sink.rows if isinstance(row, InstanceRow)]


def letters_of(sink: MemorySink) -> dict[str | None, dict[str, str]]:
    """Return the attributes of the dead letters, by member."""
    letters = [row for row in sink.rows if isinstance(row, DeadLetterRow)]
    attributes = [json.loads(letter.attributes) for letter in letters]
    return {found.get("member"): found for found in attributes}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_of(MIXED)),
        ("a.ZIP", zip_of(MIXED, compression=zipfile.ZIP_STORED)),
        ("a.tar", tar_of(MIXED)),
        ("a.tgz", tar_of(MIXED, is_compressed=True)),
    ],
)
def test_each_member_becomes_what_it_is(name: str, content: bytes) -> None:
    sink = MemorySink()
    outcome = handle(content, sink, name=name)
    assert outcome.result is Result.EXPANDED
    counts = ArchiveInfo(members=6, instances=3, dead_letters=1, others=2)
    assert outcome.archive == counts
    *made, expanded = rows_of(sink)
    assert [row.member for row in made] == ["study/1", "study/copy of 1", "DICOMDIR?offset=1&é#%"]
    for row in made:
        assert (row.event, row.path, row.version) == ("finalized", f"gs://scans/{name}", "7")
        assert row.info.input.size == len(SCAN)
        assert row.info.bytes_read is not None
        assert 0 < row.info.bytes_read <= len(SCAN)
        assert row.info.archive is None
    assert (expanded.event, expanded.member, expanded.metadata) == ("expanded", None, None)
    assert expanded.info.archive == counts
    assert sink.rows[-1] is expanded
    (letter,) = letters_of(sink).values()
    assert (letter["member"], letter["error_type"]) == ("broken.dcm", "UnreadableDicomError")
    assert letter["ce-type"] == "google.cloud.storage.object.v1.finalized"


def test_references_name_the_member_and_count_in_its_own_bytes() -> None:
    """Percent-encoded, so that a name cannot be mistaken for the rest of the query."""
    uris = []
    for explicit in (False, True):
        sink = MemorySink()
        config = from_overrides(
            {
                "input": {"archives": "read"},
                "jsonOutput": {"explicitBulkDataRoot": explicit},
            }
        )
        handle(zip_of({"a&b c/é#?%": SCAN}), sink, config=config)
        metadata = json.loads(rows_of(sink)[0].metadata or "")
        uris.append(metadata["PixelData"]["BulkDataURI"])
    offset = SCAN.index(PIXELS) + 12
    query = f"member=a%26b%20c/%C3%A9%23%3F%25&offset={offset}&length=70000"
    assert uris == [f"?{query}", f"gs://scans/a.zip?generation=7&{query}"]


def test_an_archive_is_an_object_like_any_other_unless_archives_are_read() -> None:
    sink = MemorySink()
    outcome = handle(zip_of(MIXED), sink, config=Config())
    assert (outcome.result, outcome.ignored) == (Result.IGNORED, Ignored.NAME)
    every_name = from_overrides({"input": {"namePattern": "."}})
    assert handle(zip_of(MIXED), sink, config=every_name).result is Result.DEAD_LETTERED
    assert rows_of(sink) == []


def test_a_deleted_archive_has_one_marker() -> None:
    content, sink = zip_of(MIXED), MemorySink()
    deleted = event(content, kind=EventKind.DELETED)
    handler = Handler(READ, MemoryStore(content), sink)
    assert handler.handle(events.deliver(deleted)).result is Result.MARKED
    (row,) = rows_of(sink)
    assert (row.event, row.member) == ("deleted", None)


def test_an_archive_that_cannot_be_read_has_one_dead_letter() -> None:
    sink = MemorySink()
    assert handle(b"not a ZIP", sink).result is Result.DEAD_LETTERED
    assert rows_of(sink) == []
    assert letters_of(sink)[None]["error_type"] == "UnreadableArchiveError"


def test_an_archive_with_too_many_members_has_one_dead_letter() -> None:
    sink = MemorySink()
    config = from_overrides({"input": {"archives": "read"}, "limits": {"members": 5}})
    assert handle(tar_of(MIXED), sink, name="a.tar", config=config).result is Result.DEAD_LETTERED
    assert not any(row.event == "expanded" for row in rows_of(sink))
    assert letters_of(sink)[None]["error_type"] == "ArchiveTooLargeError"


class Failing(MemorySink):
    """Fails to store the rows of one member, with an error."""

    def __init__(self, member: str, error: Exception) -> None:
        super().__init__()
        self._member = member
        self._error = error

    def insert_all(
        self, rows: Sequence[InstanceRow], deadline: Deadline
    ) -> Sequence[Exception | None]:
        verdicts: list[Exception | None] = []
        for row in rows:
            is_refused = row.member == self._member
            verdicts.append(self._error if is_refused else None)
            if not is_refused:
                self.insert(row, deadline)
        return verdicts


def test_a_row_that_is_too_large_becomes_a_dead_letter_of_its_member() -> None:
    sink = Failing("study/1", RowTooLargeError("too large"))
    assert handle(zip_of(MIXED), sink).archive == ArchiveInfo(
        members=6, instances=2, dead_letters=2, others=2
    )
    assert letters_of(sink)["study/1"]["error_type"] == "RowTooLargeError"


def test_an_archive_is_not_expanded_before_all_its_rows_are_durable() -> None:
    """The event fails and is delivered again; given up, the archive has a dead letter."""
    sink = Failing("study/copy of 1", WriteFailedError("BigQuery: HTTP 503"))
    with pytest.raises(WriteFailedError, match="503"):
        handle(zip_of(MIXED), sink)
    assert not any(row.event == "expanded" for row in rows_of(sink))
    assert handle(zip_of(MIXED), sink, is_last=True).result is Result.DEAD_LETTERED
    assert letters_of(sink)[None]["error_type"] == "WriteFailedError"
    assert not any(row.event == "expanded" for row in rows_of(sink))


def test_dead_letters_of_members_are_durable_first_too() -> None:
    class Broken(MemorySink):
        def insert_dead_letters(
            self, rows: Sequence[DeadLetterRow], deadline: Deadline
        ) -> Sequence[Exception | None]:
            del deadline
            return [WriteFailedError("dead_letter: HTTP 503") for _ in rows]

    sink = Broken()
    with pytest.raises(WriteFailedError):
        handle(zip_of(MIXED), sink)
    assert not any(row.event == "expanded" for row in rows_of(sink))


class Vanishing(MemoryStore):
    """Has an object that is overwritten, or unreachable, once so many bytes were read."""

    def __init__(self, content: bytes, after: int, error: Exception) -> None:
        super().__init__(content)
        self._after, self._error = after, error

    def open(self, stored: StoredObject, deadline: Deadline) -> Any:
        reader = super().open(stored, deadline)
        read_at, after, error = reader.read_at, self._after, self._error

        def read(offset: int, n: int, /) -> bytes:
            if offset > after:
                raise error
            return read_at(offset, n)

        reader.read_at = read  # type: ignore[method-assign]
        return reader


def test_an_archive_that_is_overwritten_meanwhile_leaves_no_expanded_row() -> None:
    content, sink = tar_of({str(n): SCAN for n in range(40)}), MemorySink()
    store = Vanishing(content, 1_000_000, SupersededError("that generation no longer exists"))
    outcome = Handler(READ, store, sink).handle(events.deliver(event(content, "a.tar")))
    assert outcome.result is Result.SUPERSEDED
    assert all(row.member for row in rows_of(sink))


def test_an_archive_that_cannot_be_read_to_its_end_is_read_again() -> None:
    content, sink = tar_of({str(n): SCAN for n in range(40)}), MemorySink()
    store = Vanishing(content, 1_000_000, ReadFailedError("Cloud Storage: HTTP 503"))
    with pytest.raises(ReadFailedError):
        Handler(READ, store, sink).handle(events.deliver(event(content, "a.tar")))
    assert all(row.member for row in rows_of(sink))


def test_rows_are_stored_in_batches_while_members_are_read() -> None:
    batches: list[int] = []
    first = threading.Event()

    class Slow(MemorySink):
        def insert_all(
            self, rows: Sequence[InstanceRow], deadline: Deadline
        ) -> Sequence[Exception | None]:
            batches.append(len(rows))
            time.sleep(0.05)
            first.set()
            return super().insert_all(rows, deadline)

    members = {f"{n}": SCAN for n in range(1200)}
    outcome = handle(zip_of(members), Slow())
    assert outcome.archive
    assert outcome.archive.instances == sum(batches) == 1200
    assert max(batches) <= 500
    assert len(batches) < 200


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_members_share_a_small_budget_of_memory(name: str) -> None:
    """Neither the archive nor rows that wait keep the members from being converted."""
    large = dicom(identity(), *[element(0x00091000 + n, "LT", b"x" * 60_000) for n in range(15)])
    members = {str(n): large for n in range(30)}
    memory = Budget(20 * MIB)
    content = zip_of(members) if name == "a.zip" else tar_of(members)
    assert handle(content, MemorySink(), name=name, memory=memory).archive == ArchiveInfo(
        members=30, instances=30, dead_letters=0, others=0
    )
    assert memory.free == memory.total


@pytest.mark.parametrize("count", [2, 4])
def test_archives_do_not_wait_for_the_memory_of_one_another(count: int) -> None:
    """Each holds more than a third of the budget, and their members need the rest."""
    large = dicom(identity(), *[element(0x00091000 + n, "LT", b"x" * 60_000) for n in range(15)])
    content, sink, memory = (
        zip_of({str(n): large for n in range(5)}),
        MemorySink(),
        Budget(16 * MIB),
    )
    handlers = [Handler(READ, MemoryStore(content), sink, memory=memory) for _ in range(count)]
    delivery = events.deliver(event(content))
    with ThreadPoolExecutor(count) as pool:
        pending = [pool.submit(each.handle, delivery, is_last=False) for each in handlers]
        outcomes = [future.result() for future in pending]
    assert [outcome.result for outcome in outcomes] == [Result.EXPANDED] * count
    assert memory.free == memory.total


def test_a_member_that_needs_the_memory_of_its_archive_has_a_dead_letter() -> None:
    """It would wait for its own archive, until the deadline of each delivery."""
    huge = dicom(identity(), *[element(0x00091000 + n, "LT", b"x" * 60_000) for n in range(18)])
    sink, memory = MemorySink(), Budget(16 * MIB)
    assert handle(huge, sink, name="a.dcm", memory=memory).result is Result.INSERTED
    outcome = handle(zip_of({"huge": huge, "study/1": SCAN}), sink, memory=memory)
    assert outcome.archive == ArchiveInfo(members=2, instances=1, dead_letters=1, others=0)
    assert "limits.memoryBytes" in letters_of(sink)["huge"]["error"]


IMPATIENT = from_overrides({"input": {"archives": "read"}, "limits": {"deadlineSeconds": 1}})


def test_an_archive_that_waits_for_memory_until_its_deadline_is_not_too_large() -> None:
    content, memory = zip_of(MIXED), Budget(16 * MIB)
    handler = Handler(IMPATIENT, MemoryStore(content), MemorySink(), memory=memory)
    with memory.claim() as claim:
        claim.charge(12 * MIB - claim.used)
        with pytest.raises(ReadFailedError, match="no memory"):
            handler.handle(events.deliver(event(content)), is_last=False)


def test_an_archive_that_waits_for_others_until_its_deadline_is_not_too_large() -> None:
    content, reading, is_over = zip_of(MIXED), threading.Event(), threading.Event()

    class Stalled(MemoryStore):
        def open(self, stored: StoredObject, deadline: Deadline) -> Any:
            reader = super().open(stored, deadline)
            read_at = reader.read_at

            def read(offset: int, n: int, /) -> bytes:
                reading.set()
                is_over.wait()
                return read_at(offset, n)

            reader.read_at = read  # type: ignore[method-assign]
            return reader

    handler = Handler(IMPATIENT, Stalled(content), MemorySink())
    delivery = events.deliver(event(content))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(handler.handle, delivery)
        try:
            assert reading.wait(10)
            with pytest.raises(ReadFailedError, match="other archives"):
                handler.handle(delivery, is_last=False)
        finally:
            is_over.set()


def test_memory_is_returned_after_a_failure() -> None:
    memory = Budget(64 * MIB)
    sink = Failing("study/1", WriteFailedError("no"))
    with pytest.raises(WriteFailedError):
        handle(zip_of(MIXED), sink, memory=memory)
    assert memory.free == memory.total


def apply_member(content: bytes, member: str, sink: MemorySink) -> Outcome:
    handler = Handler(READ, MemoryStore(content), sink)
    return handler.apply(event(content), Deadline.after(50), member=member)


def test_one_member_can_be_indexed_again() -> None:
    sink = MemorySink()
    assert apply_member(zip_of(MIXED), "study/1", sink).result is Result.INSERTED
    (row,) = rows_of(sink)
    assert (row.member, row.event) == ("study/1", "finalized")
    outcome = apply_member(zip_of(MIXED), "readme", sink)
    assert (outcome.result, outcome.ignored) == (Result.IGNORED, Ignored.CONTENT)
    with pytest.raises(UnreadableArchiveError, match="no such member"):
        apply_member(zip_of(MIXED), "study", sink)
    assert len(sink.rows) == 1


def test_one_member_of_a_zip_is_indexed_again_without_reading_the_others() -> None:
    content = zip_of({f"{n}": SCAN for n in range(200)}, compression=zipfile.ZIP_STORED)
    outcome = apply_member(content, "0", MemorySink())
    assert outcome.bytes_read is not None
    assert outcome.bytes_read < 300_000 < len(content)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_several_times_has_a_row_and_a_dead_letter(name: str) -> None:
    """`verify` counts both by their names; the dead letter stays open when it is retried."""
    pack = zip_of if name == "a.zip" else tar_of
    content, sink = pack([("a", SCAN), ("a", SCAN), ("b", SCAN), ("a", SCAN)]), MemorySink()
    assert handle(content, sink, name=name).archive == ArchiveInfo(
        members=3, instances=2, dead_letters=1, others=0
    )
    handler, count = Handler(READ, MemoryStore(content), sink), len(sink.rows)
    with pytest.raises(UnreadableArchiveError, match="same name"):
        handler.apply(event(content, name), Deadline.after(50), member="a")
    assert len(sink.rows) == count


def test_a_backfill_gives_an_archive_more_time_than_an_event() -> None:
    """Each member still has the time of an object."""
    ends: list[float] = []

    class Watched(Budget):
        def claim(self, deadline: Deadline = NO_DEADLINE, *others: Any, **named: Any) -> Any:
            ends.append(deadline.left)
            return super().claim(deadline, *others, **named)

    content, sink = zip_of(MIXED), MemorySink()
    memory = Watched(64 * MIB)
    handler = Handler(READ, MemoryStore(content), sink, memory=memory, bounds_archives=False)
    assert handler.handle(events.deliver(event(content))).result is Result.EXPANDED
    assert ends[0] == float("inf")
    assert all(49 < left <= 50 for left in ends[1:])


def test_the_delivery_of_a_member_is_that_of_its_archive() -> None:
    """So that it can be handled again."""
    sink = MemorySink()
    handle(zip_of(MIXED), sink)
    (letter,) = [row for row in sink.rows if isinstance(row, DeadLetterRow)]
    delivery = Delivery(json.loads(letter.attributes), letter.data)
    assert events.parse(delivery).object.path == "gs://scans/a.zip"
