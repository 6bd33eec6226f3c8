"""With `privacy.path: hash`, no name of an object or member is in what is written to the tables."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dcm2bq import events, log
from dcm2bq.config import Config, from_overrides
from dcm2bq.deadline import NO_DEADLINE
from dcm2bq.delivery import Delivery, Message
from dcm2bq.errors import ConfigError, RowTooLargeError, UnreadableArchiveError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Handler, Outcome, Result
from dcm2bq.row_names import RowNames, row_names
from dcm2bq.rows import DeadLetterRow, InstanceRow
from dcm2bq.stored_object import StoredObject
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import tar_of, zip_of
from tests.support.in_memory import MemorySink, MemoryStore

NAME = "Doe^Jane 1950-01-31"
"""Part of every name of an object or member here."""
PIXELS = element(0x7FE00010, "OW", b"\0" * 70_000)
SCAN = dicom(identity(), PIXELS)
CUT = dicom(identity(), element(0x00100010, "PN", b"Roe", length=900))
KEY = "a key of 16 bytes or more"
HASHED = re.compile(r"gs://scans/hmac-sha256-[0-9a-f]{64}")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    return from_overrides(
        {
            "privacy": {"path": "hash"},
            "input": {"archives": "read"},
            "jsonOutput": {"explicitBulkDataRoot": True},
        }
    )


def event(name: str, content: bytes, kind: EventKind = EventKind.FINALIZED) -> ObjectEvent:
    stored = StoredObject(bucket="scans", name=f"{NAME}/{name}", generation=7, size=len(content))
    return ObjectEvent(event_id="1", kind=kind, time=datetime.now(UTC), object=stored)


def handle(
    config: Config, name: str, content: bytes, kind: EventKind = EventKind.FINALIZED
) -> tuple[Outcome, MemorySink]:
    sink = MemorySink()
    handler = Handler(config, MemoryStore(content), sink)
    return handler.handle(events.deliver(event(name, content, kind))), sink


def written(sink: MemorySink) -> str:
    """Return all that is sent to BigQuery, with the data of dead letters as text."""
    letters = [row.data.decode() for row in sink.rows if isinstance(row, DeadLetterRow)]
    ids = [row.insert_id for row in sink.rows]
    return " ".join([str(list(map(msgspec.to_builtins, sink.rows))), *letters, *ids])


MEMBERS = {f"{NAME}/1": SCAN, f"{NAME}/broken": CUT, f"{NAME}/readme": b"hello"}
OBJECTS = {
    "a.dcm": (SCAN, Result.INSERTED),
    "broken.dcm": (CUT, Result.DEAD_LETTERED),
    "text.dcm": (b"no DICOM" * 99, Result.DEAD_LETTERED),
    "a.zip": (zip_of(MEMBERS), Result.EXPANDED),
    "a.tar": (tar_of(MEMBERS), Result.EXPANDED),
    "broken.zip": (b"PK" * 999, Result.DEAD_LETTERED),
}


def test_no_name_is_in_any_row_marker_or_dead_letter(config: Config) -> None:
    """Nor is a part of one, in any encoding that the function uses."""
    for name, (content, result) in OBJECTS.items():
        outcome, sink = handle(config, name, content)
        assert outcome.result is result
        marked, markers = handle(config, name, content, EventKind.DELETED)
        assert marked.result is Result.MARKED
        text = written(sink) + written(markers)
        assert not re.search(
            "Doe|Jane|1950-01-31|readme|broken|a%5e|\\.dcm|\\.zip", text, re.IGNORECASE
        )
        (marker,) = markers.rows
        assert isinstance(marker, InstanceRow)
        for row in sink.rows:
            if isinstance(row, InstanceRow):
                assert row.path == marker.path
                assert HASHED.fullmatch(row.path)
            else:
                data = json.loads(row.data)
                assert f"gs://{data['bucket']}/{data['name']}" == marker.path


def test_everything_else_in_a_row_stays(config: Config) -> None:
    """Its references begin with the hashed path, and with the hashed member of an archive."""
    _, sink = handle(config, "a.zip", OBJECTS["a.zip"][0])
    plain = MemorySink()
    full = replace_privacy(config)
    content = OBJECTS["a.zip"][0]
    Handler(full, MemoryStore(content), plain).handle(events.deliver(event("a.zip", content)))
    (row, *_), (expected, *_) = sink.rows, plain.rows
    assert isinstance(row, InstanceRow)
    assert isinstance(expected, InstanceRow)
    assert (row.version, row.info, row.SOPInstanceUID) == (
        expected.version,
        expected.info,
        expected.SOPInstanceUID,
    )
    uri = json.loads(row.metadata or "")["PixelData"]["BulkDataURI"]
    assert re.fullmatch(
        rf"{HASHED.pattern}\?generation=7&member=hmac-sha256-[0-9a-f]{{64}}"
        r"&offset=\d+&length=70000",
        uri,
    )
    assert uri.startswith(f"{row.path}?generation=7&member={row.member}&")


def replace_privacy(config: Config) -> Config:
    return msgspec.structs.replace(config, privacy=Config().privacy)


def test_a_member_that_is_indexed_again_is_found_by_its_hash(config: Config) -> None:
    """Nothing but the hash is known when the dead letter of a member is retried."""
    members = MEMBERS | {f"{NAME}/2": SCAN}
    for name, content in {"a.zip": zip_of(members), "a.tgz": tar_of(members)}.items():
        _, sink = handle(config, name, content)
        sought = [row.member for row in sink.rows if isinstance(row, InstanceRow)][1]
        again = MemorySink()
        handler = Handler(config, MemoryStore(content), again)
        outcome = handler.apply(event(name, content), NO_DEADLINE, member=sought)
        assert outcome.result is Result.INSERTED
        (row,) = again.rows
        assert isinstance(row, InstanceRow)
        assert row.member == sought
        with pytest.raises(UnreadableArchiveError, match="no such member"):
            handler.apply(event(name, content), NO_DEADLINE, member=f"{NAME}/2")


def test_a_row_that_is_too_large_leaves_a_dead_letter_without_the_name(config: Config) -> None:
    class Refusing(MemorySink):
        def insert_all(self, rows: Any, deadline: Any) -> list[Exception]:  # noqa: ARG002
            return [RowTooLargeError("too large")] * len(rows)

    sink = Refusing()
    content = OBJECTS["a.zip"][0]
    Handler(config, MemoryStore(content), sink).handle(events.deliver(event("a.zip", content)))
    letters = [row for row in sink.rows if isinstance(row, DeadLetterRow)]
    assert len(letters) == 2
    assert "Doe" not in written(sink)


ODD: dict[str, Delivery] = {
    "another type": Delivery({"ce-type": NAME, "ce-id": "3", "ce-subject": NAME}, b"{}"),
    "no JSON": Delivery({"ce-id": NAME, "ce-source": NAME}, NAME.encode()),
    "other data": Delivery({"ce-id": "4", NAME: NAME}, json.dumps({"name": NAME}).encode()),
    "another object in the attributes": replace(
        events.deliver(event("a.dcm", SCAN)),
        data=json.dumps({"bucket": "scans", "name": NAME, "generation": "1"}).encode(),
    ),
    "no notification": Delivery({"objectId": NAME}, b"", Message(id=NAME)),
    "a notification with other data": Delivery(
        {
            "eventType": "OBJECT_FINALIZE",
            "eventTime": "2026-01-31T00:00:00Z",
            "bucketId": "scans",
            "objectId": NAME,
            "objectGeneration": "1",
        },
        json.dumps({"name": f"{NAME}.dcm"}).encode(),
        Message(id="5"),
    ),
}
"""Deliveries that cannot be parsed, with a name at any place."""


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_parsed_leaves_a_dead_letter_that_names_nothing(
    config: Config, kind: str
) -> None:
    sink = MemorySink()
    outcome = Handler(config, MemoryStore(SCAN), sink).handle(ODD[kind])
    assert outcome.result is Result.DEAD_LETTERED
    assert "Doe" not in written(sink)
    (letter,) = sink.rows
    assert isinstance(letter, DeadLetterRow)
    assert {"error", "error_type"} <= json.loads(letter.attributes).keys()
    assert letter.message_id in {"1", "3", "4", "5", None}


def test_a_notification_leaves_a_dead_letter_that_names_its_hash(config: Config) -> None:
    """Whatever the object's resource holds beside the name: links, the owner, custom metadata."""
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "eventTime": datetime.now(UTC).isoformat(),
        "bucketId": "scans",
        "objectId": f"{NAME}.dcm",
        "objectGeneration": "7",
    }
    resource = {
        "bucket": "scans",
        "name": f"{NAME}.dcm",
        "generation": "7",
        "size": "9",
        "metadata": {"patient": NAME},
        "selfLink": f"https://www.googleapis.com/storage/v1/b/scans/o/{NAME}",
    }
    notified = Delivery(attributes, json.dumps(resource).encode(), Message(id="5"))
    sink = MemorySink()
    outcome = Handler(config, MemoryStore(b"no DICOM" * 9), sink).handle(notified)
    assert outcome.result is Result.DEAD_LETTERED
    assert "Doe" not in written(sink)
    (letter,) = sink.rows
    assert isinstance(letter, DeadLetterRow)
    kept = json.loads(letter.data)
    assert f"gs://scans/{kept['name']}" == row_names(config.privacy).path(f"gs://scans/{NAME}.dcm")
    assert (kept["generation"], letter.message_id) == ("7", "5")


def test_hashes_of_objects_members_buckets_and_keys_differ() -> None:
    """So that no table shows that a member, or an object elsewhere, has the same name."""
    names, others = RowNames(b"k" * 16), RowNames(b"l" * 16)
    archive = names.path("gs://scans/a.zip")
    hashes = [
        archive,
        names.path("gs://other/a.zip"),
        others.path("gs://scans/a.zip"),
        names.member(archive, "a.zip"),
        names.member(archive, archive),
        names.member(names.path("gs://scans/b.zip"), "a.zip"),
        others.member(archive, "a.zip"),
        names.path(archive),
    ]
    assert len({text.rpartition("/")[2] for text in hashes}) == len(hashes)


def test_names_in_full_pass_unchanged() -> None:
    names = row_names(Config().privacy)
    happened = event("a.dcm", SCAN)
    assert names == RowNames()
    assert names.event(happened) is happened
    assert names.object(happened.object) is happened.object
    assert names.path("gs://scans/a.dcm") == "gs://scans/a.dcm"
    assert names.member("gs://scans/a.zip", "1") == "1"
    delivered = events.deliver(happened)
    assert names.delivery(delivered, happened) is delivered


def test_a_missing_key_prevents_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCM2BQ_HASH_KEY", raising=False)
    config = from_overrides({"privacy": {"path": "hash"}})
    with pytest.raises(ConfigError, match="DCM2BQ_HASH_KEY is not set"):
        Handler(config, MemoryStore(b""), MemorySink())


def test_a_line_of_the_log_has_the_path_of_the_row_if_both_are_hashed(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = event("ä.dcm", SCAN)
    both = msgspec.structs.replace(config, log=from_overrides({"log": {"path": "hash"}}).log)
    log.setup(both)
    log.write("INFO", "event inserted", path=happened.object.path)
    line = json.loads(capsys.readouterr().out)
    assert line["path"] == row_names(config.privacy).event(happened).object.path
