"""How the handler deals with events that may end the process, and with names and content."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq.config import Config, from_overrides
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.delivery import Delivery, Message
from dcm2bq.dicom import Budget, Claim
from dcm2bq.errors import NotDicomError, ReadFailedError
from dcm2bq.handler import Handler, Result
from dcm2bq.ignored import Ignored
from dcm2bq.rows import DeadLetterRow, InstanceRow
from dcm2bq.stored_object import StoredObject
from tests.dicom.build import dicom, element, identity
from tests.support.in_memory import MemoryReader, MemorySink, MemoryStore

MIB = 1024 * 1024
STORAGE_OBJECT = "google.cloud.storage.object.v1"
LARGE = dicom(identity(), *[element(0x00091000 + n, "LT", b"x" * 60_000) for n in range(100)])


def notification(*, data: bytes = b"", happened: float = 0, **message: Any) -> Delivery:
    """Return a notification; it happened that many hours ago."""
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "eventTime": (datetime.now(UTC) - timedelta(hours=happened)).isoformat(),
        "bucketId": "scans",
        "objectId": "a.dcm",
        "objectGeneration": "1",
        "payloadFormat": "NONE",
    }
    return Delivery(attributes, data, Message(id="7", **message))


def delivery(name: str = "a.dcm") -> Delivery:
    attributes = {
        "ce-id": "1",
        "ce-type": f"{STORAGE_OBJECT}.finalized",
        "ce-time": datetime.now(UTC).isoformat(),
    }
    named = {"bucket": "scans", "name": name, "generation": "1", "size": str(len(LARGE))}
    return Delivery(attributes, json.dumps(named).encode())


def test_an_event_that_never_finishes_becomes_a_dead_letter_before_it_is_started() -> None:
    """By Pub/Sub's own count, if the event has one; for an event that fails, its age counts."""
    sink = MemorySink()
    handler = Handler(Config(), MemoryStore(LARGE), sink)
    assert handler.handle(notification(attempt=94)).result is Result.INSERTED
    outcome = handler.handle(notification(attempt=95))
    assert outcome.result is Result.DEAD_LETTERED
    assert type(outcome.error).__name__ == "NeverFinishedError"
    assert isinstance(sink.rows[-1], DeadLetterRow)
    assert "delivered 95 times and never finished" in sink.rows[-1].attributes


def test_a_notification_without_data_becomes_the_row_of_the_object_that_it_names() -> None:
    """Its size is asked for; an empty object is ignored even then."""
    sink = MemorySink()
    outcome = Handler(Config(), MemoryStore(LARGE), sink).handle(notification())
    assert outcome.result is Result.INSERTED
    (row,) = sink.rows
    assert isinstance(row, InstanceRow)
    assert (row.path, row.version, row.info.event_id) == ("gs://scans/a.dcm", "1", "7")
    assert row.info.input.size == len(LARGE)
    outcome = Handler(Config(), MemoryStore(b""), sink).handle(notification())
    assert (outcome.result, outcome.ignored) == (Result.IGNORED, Ignored.EMPTY)


def test_a_row_says_by_codes_what_the_privacy_profile_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete marker, which holds nothing of the header, does not."""
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key that is long enough")
    profile = from_overrides({"privacy": {"profile": "basic", "options": ["retainUids"]}})
    done = []
    for config in (profile, Config()):
        sink = MemorySink()
        handler = Handler(config, MemoryStore(LARGE), sink)
        for change in ("finalized", "deleted"):
            named = {**delivery().attributes, "ce-type": f"{STORAGE_OBJECT}.{change}"}
            handler.handle(replace(delivery(), attributes=named))
        done += [row.info.deidentification for row in sink.rows if isinstance(row, InstanceRow)]
    assert done == [("113100", "113110"), (), (), ()]


def test_the_age_of_a_notification_is_counted_from_when_it_was_published() -> None:
    """As its retention is: a notification that Cloud Storage sent late is not given up at once."""

    class Failing(MemoryStore):
        def open(self, stored: StoredObject, deadline: Deadline) -> MemoryReader:  # noqa: ARG002
            raise ReadFailedError("Cloud Storage: HTTP 503")

    sink = MemorySink()
    handler = Handler(Config(), Failing(LARGE), sink)

    def published(hours: float) -> datetime:
        return datetime.now(UTC) - timedelta(hours=hours)

    for recent in (notification(happened=11), notification(happened=13, published=published(11))):
        with pytest.raises(ReadFailedError):
            handler.handle(recent)
    for old in (notification(happened=13), notification(happened=13, published=published(12.1))):
        assert handler.handle(old).result is Result.DEAD_LETTERED


def test_the_dead_letter_of_a_notification_has_the_shape_of_its_message() -> None:
    sink = MemorySink()
    message = notification(data=b'{"bucket": "scans", "name": "b.dcm", "generation": "1"}')
    assert Handler(Config(), MemoryStore(LARGE), sink).handle(message).result is (
        Result.DEAD_LETTERED
    )
    (row,) = sink.rows
    assert isinstance(row, DeadLetterRow)
    assert (row.message_id, row.data, row.subscription_name) == ("7", message.data, None)
    assert json.loads(row.attributes) == {
        **message.attributes,
        "error_type": "InvalidEventError",
        "error": "data.name: differs from the attribute objectId",
    }


def test_an_unusually_large_conversion_is_reported_before_it_continues() -> None:
    """If the process is killed, its last line names the object."""
    told: list[tuple[str, int]] = []
    memory = Budget(64 * MIB)
    handler = Handler(
        Config(),
        MemoryStore(LARGE),
        MemorySink(),
        memory=memory,
        on_large=lambda e, n: told.append((e.object.path, n)),
    )
    handler.handle(delivery())
    ((path, size),) = told
    assert path == "gs://scans/a.dcm"
    assert size > memory.total // 8


def test_the_memory_of_a_row_is_held_until_it_is_inserted() -> None:
    memory, free = Budget(64 * MIB), []

    class Watching(MemorySink):
        def insert(self, row: InstanceRow, deadline: Deadline) -> None:  # noqa: ARG002
            free.append(memory.free)

    Handler(Config(), MemoryStore(LARGE), Watching(), memory=memory).handle(delivery())
    assert memory.total - free[0] > 4 * 6_000_000 - 8 * MIB
    assert memory.free == memory.total


def test_converting_leaves_time_for_the_insert() -> None:
    ends: list[float] = []

    class Watched(Budget):
        def claim(
            self,
            deadline: Deadline = NO_DEADLINE,
            on_large: Callable[[int], object] | None = None,
            *,
            beside: int = 0,
        ) -> Claim:
            ends.append(deadline.at)
            return super().claim(deadline, on_large, beside=beside)

    class Watching(MemorySink):
        def insert(self, row: InstanceRow, deadline: Deadline) -> None:  # noqa: ARG002
            ends.append(deadline.at)

    Handler(Config(), MemoryStore(LARGE), Watching(), memory=Watched(64 * MIB)).handle(delivery())
    converted, inserted = ends
    assert inserted - converted > 4, "of 50 seconds"


SNIFF = from_overrides({"input": {"otherNames": "sniff"}})


def test_an_object_of_another_name_is_recorded_if_it_begins_like_dicom() -> None:
    sink = MemorySink()
    for name in ("IM0001", "1.2.840.10008", "scan.img", "scan.ima"):
        assert Handler(SNIFF, MemoryStore(LARGE), sink).handle(delivery(name)).result is (
            Result.INSERTED
        )
    outcome = Handler(SNIFF, MemoryStore(b"%PDF-1.7" * 99), sink).handle(delivery("IM0002"))
    assert (outcome.result, outcome.ignored) == (Result.IGNORED, Ignored.CONTENT)
    assert len(sink.rows) == 4


def test_other_content_under_a_name_of_dicom_remains_a_dead_letter() -> None:
    outcome = Handler(SNIFF, MemoryStore(b"%PDF-1.7" * 99), MemorySink()).handle(delivery())
    assert (outcome.result, type(outcome.error)) == (Result.DEAD_LETTERED, NotDicomError)


def test_deletes_of_any_name_leave_markers_if_names_are_sniffed() -> None:
    """Whatever the object was: a marker of a path that was never recorded hides nothing."""
    uploaded = delivery("notes.txt")
    kind = {"ce-type": "google.cloud.storage.object.v1.deleted"}
    gone = replace(uploaded, attributes={**uploaded.attributes, **kind})
    for config, result in ((SNIFF, Result.MARKED), (Config(), Result.IGNORED)):
        assert Handler(config, MemoryStore(b""), MemorySink()).handle(gone).result is result
    for name in ("folder/", "gcloud/tmp/parallel_composite_uploads/x"):
        outcome = Handler(SNIFF, MemoryStore(LARGE), MemorySink()).handle(delivery(name))
        assert outcome.result is Result.IGNORED
