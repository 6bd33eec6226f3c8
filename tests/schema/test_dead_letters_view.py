"""The rules of the view `dead_letters`, each by a small case, on both SQL engines."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.delivery import Delivery
from dcm2bq.rows import dead_letter_row, dismissal_row, resolution_row
from tests.support import googlesql
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.timeout(googlesql.TIMEOUT)

Insert = Callable[..., None]
MakeRow = Callable[..., dict[str, Any]]

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
TYPE = "google.cloud.storage.object.v1."
SUBSCRIPTION = "projects/p/subscriptions/dead"


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def content(name: str, generation: int | str = "5", **fields: Any) -> bytes:
    return json.dumps({"bucket": "b", "name": name, "generation": generation, **fields}).encode()


def letter(
    name: str,
    *,
    seen: float | None = 0,
    event: str = "finalized",
    generation: int | str = "5",
    message_id: str | None = "m",
    attributes: Mapping[str, Any] | None = None,
    data: bytes | None = None,
    subscription: str | None = None,
) -> dict[str, Any]:
    """Return a row of the function or, with `subscription`, of the dead-letter topic."""
    reason = {"error_type": "NotDicomError", "error": "no DICOM"} if subscription is None else {}
    attributes = {"ce-id": "m", "ce-type": TYPE + event, **reason, **(attributes or {})}
    data = content(name, generation) if data is None else data
    return {
        "subscription_name": subscription,
        "message_id": message_id,
        "publish_time": seen if seen is None else at(seen).isoformat(),
        "attributes": json.dumps(attributes),
        "data": base64.b64encode(data).decode(),
    }


def resolution(name: str, *, seen: float, **changes: Any) -> dict[str, Any]:
    attributes = {"resolved": True, "resolved_at": at(seen).isoformat()}
    return letter(name, seen=seen, attributes=attributes, **changes)


@pytest.fixture(params=["local BigQuery", "Google's engine"])
def sql_engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dataset(request: pytest.FixtureRequest, sql_engine: str) -> Dataset | EngineDataset:
    """The module's dataset on the local BigQuery, or an empty one on Google's engine.

    It is not a parameter itself: then the module's dataset, of the same name, would be made again
    for each test.
    """
    if sql_engine == "local BigQuery":
        dataset: Dataset = request.getfixturevalue("dataset")  # the one that this one overrides
        return dataset
    return EngineDataset()


@pytest.fixture
def insert(request: pytest.FixtureRequest, dataset: Dataset | EngineDataset) -> Insert:
    """Insert rows into a table of the dataset."""
    if isinstance(dataset, EngineDataset):
        return lambda _, table, *rows: dataset.insert(table, *rows)
    insert: Insert = request.getfixturevalue("insert")
    return insert


@pytest.fixture
def shown(dataset: Dataset) -> Callable[[str], list[dict[str, Any]]]:
    """Return what the view shows of one object in the bucket `b`."""

    def run(name: str) -> list[dict[str, Any]]:
        return dataset.query(
            "SELECT * FROM dead_letters WHERE path = @path ORDER BY version, event",
            {"path": f"gs://b/{name}"},
        )

    return run


Shown = Callable[[str], list[dict[str, Any]]]


def test_a_dead_letter_of_the_function_is_shown(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    """The row is made by the function's own code."""
    delivery = Delivery(
        attributes={"ce-id": "event-1", "ce-type": TYPE + "finalized", "ce-subject": "objects/x"},
        data=content("a b#%'\"ü.dcm", 1_700_000_000_000_001, size="7"),
    )
    row = dead_letter_row(
        delivery, now=at(3), error_type="UnreadableDicomError", error="cut (tag 00100010)"
    )
    insert(dataset, "dead_letter", msgspec.to_builtins(row))
    assert shown("a b#%'\"ü.dcm") == [
        {
            "path": "gs://b/a b#%'\"ü.dcm",
            "version": "1700000000000001",
            "event": "finalized",
            "reason": "UnreadableDicomError",
            "message": "cut (tag 00100010)",
            "first_seen": at(3),
            "last_seen": at(3),
            "attempts": 1,
            "source": "function",
            "message_id": "event-1",
            "member": None,
        }
    ]


def test_a_message_of_the_dead_letter_topic_is_shown(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    """It has the CloudEvent's attributes and those that Pub/Sub adds when it gives up."""
    attributes = {
        "CloudPubSubDeadLetterSourceDeliveryCount": "100",
        "CloudPubSubDeadLetterSourceSubscription": "eventarc-sub",
    }
    row = letter("s1", subscription=SUBSCRIPTION, attributes=attributes, event="deleted")
    insert(dataset, "dead_letter", row)
    (found,) = shown("s1")
    assert found["event"] == "deleted"
    assert found["source"] == "subscription"
    assert found["reason"] == "DeliveryExhausted"
    assert found["message"] == "100 deliveries failed; subscription eventarc-sub"


def test_cloud_storage_notifications_are_shown_like_events(
    dataset: Dataset, insert: Insert
) -> None:
    """Without a payload, the attributes name the object; event types are translated."""
    kinds = {
        "OBJECT_FINALIZE": "finalized",
        "OBJECT_DELETE": "deleted",
        "OBJECT_ARCHIVE": "archived",
        "OBJECT_METADATA_UPDATE": "metadataUpdated",
        "OBJECT_OTHER": "OBJECT_OTHER",
    }
    for kind in kinds:
        attributes = {"eventType": kind, "bucketId": "n", "objectId": kind, "objectGeneration": "6"}
        row = letter("", subscription=SUBSCRIPTION, data=b"")
        insert(dataset, "dead_letter", {**row, "attributes": json.dumps(attributes)})
    found = dataset.query("SELECT * FROM dead_letters WHERE path LIKE 'gs://n/%'")
    assert {row["path"].removeprefix("gs://n/"): row["event"] for row in found} == kinds
    for entry in found:
        assert (entry["version"], entry["reason"]) == ("6", "DeliveryExhausted")
        assert entry["message"] is None


def test_an_unknown_event_type_is_shown_in_full(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    kind = "google.cloud.pubsub.topic.v1.messagePublished"
    insert(dataset, "dead_letter", letter("other", attributes={"ce-type": kind}))
    assert [entry["event"] for entry in shown("other")] == [kind]


GARBAGE = {
    "not JSON": (b"{", "{"),
    "not UTF-8": (b"\xff\xfe\x00", "\x01"),
    "empty": (b"", ""),
    "null": (None, None),
    "a number": (b"5", "5.5e400"),
    "text": (b'"gs://b/x"', '"text"'),
    "an array": (b"[1, {}]", "[]"),
    "null in JSON": (b"null", "null"),
    "objects for texts": (b'{"bucket": {}, "name": []}', '{"ce-type": {}, "error_type": []}'),
    "no name": (b'{"bucket": "b", "generation": 1}', '{"ce-type": null}'),
    "deep": (b"[" * 2000, "[" * 2000),
}


def test_malformed_dead_letters_are_shown_by_message_id(dataset: Dataset, insert: Insert) -> None:
    """They neither make the view fail nor get lost, and they can be resolved."""
    rows = [
        {
            "subscription_name": SUBSCRIPTION,
            "message_id": what,
            "publish_time": at(0).isoformat(),
            "attributes": attributes,
            "data": data if data is None else base64.b64encode(data).decode(),
        }
        for what, (data, attributes) in GARBAGE.items()
    ]
    insert(dataset, "dead_letter", *rows, *rows)
    query = "SELECT * FROM dead_letters WHERE path IS NULL"
    found = {row["message_id"]: row for row in dataset.query(query)}
    assert found.keys() == GARBAGE.keys()
    assert {row["attempts"] for row in found.values()} == {2}
    assert {row["reason"] for row in found.values()} == {"DeliveryExhausted"}
    resolved = {"attributes": '{"resolved": true}', "publish_time": at(1).isoformat()}
    insert(dataset, "dead_letter", *({**row, **resolved} for row in rows))
    assert dataset.query(query), "the attributes of a forwarded message are its sender's"
    insert(
        dataset,
        "dead_letter",
        *({**row, **resolved, "subscription_name": None} for row in rows),
    )
    assert dataset.query(query) == []


def test_malformed_dead_letters_of_different_messages_are_not_merged(
    dataset: Dataset, insert: Insert
) -> None:
    insert(
        dataset,
        "dead_letter",
        letter("", data=b"?", message_id="g1", event="odd"),
        letter("", data=b"?", message_id="g2", event="odd"),
        resolution("", data=b"?", message_id="g1", event="odd", seen=1),
    )
    found = dataset.query("SELECT message_id FROM dead_letters WHERE event = 'odd'")
    assert found == [{"message_id": "g2"}]


def test_malformed_versions_are_shown(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown
) -> None:
    """No marker closes them, and they do not make the view fail."""
    versions = ["", "-1x", "5 5", "99999999999999999999", "x"]
    rows = [letter("versions", generation=version) for version in versions]
    insert(dataset, "dead_letter", *rows)
    insert(dataset, "instances", row("gs://b/versions", 2**63 - 1, "deleted"))
    assert [entry["version"] for entry in shown("versions")] == versions


def test_dead_letters_are_grouped_by_path_version_and_event(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    """The last one gives reason and message. A generation may be a number or text."""
    last = {"error_type": "UnreadableDicomError", "error": "last"}
    insert(
        dataset,
        "dead_letter",
        letter("lines", generation="5", seen=20, message_id="m2"),
        letter("lines", generation=5, seen=30, message_id="m3", attributes=last),
        letter("lines", generation=5, seen=10, message_id="m1"),
        letter("lines", generation=6),
        letter("lines", generation=5, event="deleted"),
    )
    first, second, third = shown("lines")
    assert [(entry["version"], entry["event"]) for entry in (first, second, third)] == [
        ("5", "deleted"),
        ("5", "finalized"),
        ("6", "finalized"),
    ]
    assert second["attempts"] == 3
    assert (second["first_seen"], second["last_seen"]) == (at(10), at(30))
    assert (second["reason"], second["message"]) == ("UnreadableDicomError", "last")
    assert second["message_id"] == "m3"


def test_dead_letters_of_both_sources_are_grouped(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    insert(
        dataset,
        "dead_letter",
        letter("both", seen=1),
        letter("both", seen=2, subscription=SUBSCRIPTION),
    )
    (found,) = shown("both")
    assert (found["attempts"], found["source"]) == (2, "subscription")
    assert found["reason"] == "DeliveryExhausted"


def test_a_resolution_closes_earlier_dead_letters(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    """The next failure opens a new entry, which counts from there."""
    rows = [
        letter("resolved", seen=1),
        letter("resolved", seen=2),
        letter("resolved", seen=1, generation=6),
        letter("resolved", seen=1, event="deleted"),
    ]
    insert(dataset, "dead_letter", *rows, resolution("resolved", seen=3))
    others = [("5", "deleted"), ("6", "finalized")]
    assert [(entry["version"], entry["event"]) for entry in shown("resolved")] == others
    insert(dataset, "dead_letter", letter("resolved", seen=4))
    again = shown("resolved")[1]
    assert (again["event"], again["attempts"], again["first_seen"]) == ("finalized", 1, at(4))
    insert(dataset, "dead_letter", resolution("resolved", seen=5))
    assert [(entry["version"], entry["event"]) for entry in shown("resolved")] == others


def test_a_resolution_may_be_text(dataset: Dataset, insert: Insert, shown: Shown) -> None:
    """`"true"` counts like `true`."""
    resolved = {"resolved": "true"}
    insert(
        dataset,
        "dead_letter",
        letter("pubsub", seen=1, subscription=SUBSCRIPTION),
        letter("pubsub", seen=2, attributes=resolved),
    )
    assert shown("pubsub") == []


def test_a_resolution_alone_is_not_shown(dataset: Dataset, insert: Insert, shown: Shown) -> None:
    insert(dataset, "dead_letter", resolution("alone", seen=1))
    assert shown("alone") == []


def test_a_dead_letter_without_a_time_can_be_resolved(
    dataset: Dataset, insert: Insert, shown: Shown
) -> None:
    insert(dataset, "dead_letter", letter("timeless", seen=None))
    (found,) = shown("timeless")
    assert (found["first_seen"], found["last_seen"]) == (None, None)
    insert(dataset, "dead_letter", resolution("timeless", seen=1))
    assert shown("timeless") == []


@pytest.mark.parametrize("success", ["finalized", "metadataUpdated"])
def test_a_later_row_closes_uploads_and_updates_but_not_deletes(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown, success: str
) -> None:
    name = f"row {success}"
    events = ["finalized", "metadataUpdated", "deleted", "archived"]
    insert(dataset, "dead_letter", *(letter(name, event=event, seen=10) for event in events))
    insert(dataset, "instances", row(f"gs://b/{name}", 5, success, ingested=11))
    assert [entry["event"] for entry in shown(name)] == ["archived", "deleted"]


def test_a_row_of_another_object_or_an_earlier_row_closes_nothing(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown
) -> None:
    insert(dataset, "dead_letter", letter("no row", seen=10))
    insert(
        dataset,
        "instances",
        row("gs://b/no row", 6, ingested=11),
        row("gs://c/no row", 5, ingested=11),
        row("gs://b/no row", 5, ingested=9),
    )
    assert len(shown("no row")) == 1


def test_a_row_closes_a_dead_letter_and_the_next_failure_reopens_it(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown
) -> None:
    """Failure at 10, success at 20, failure at 30: one open entry, that of 30."""
    insert(dataset, "dead_letter", letter("again", seen=10))
    insert(dataset, "instances", row("gs://b/again", 5, ingested=20))
    assert shown("again") == []
    insert(dataset, "dead_letter", letter("again", seen=30))
    (found,) = shown("again")
    assert (found["attempts"], found["first_seen"]) == (1, at(30))
    insert(dataset, "instances", row("gs://b/again", 5, ingested=40))
    assert shown("again") == []


@pytest.mark.parametrize("marker", ["deleted", "archived"])
def test_a_marker_of_the_same_or_a_higher_generation_closes_every_event(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown, marker: str
) -> None:
    """At any time; a lower marker and one of another path close nothing."""
    name = f"marker {marker}"
    events = ["archived", "deleted", "finalized", "metadataUpdated"]
    insert(
        dataset,
        "dead_letter",
        *(
            letter(name, event=event, generation=generation, seen=50)
            for event in events
            for generation in (9, "10", 100)
        ),
    )
    insert(dataset, "instances", row(f"gs://b/{name}", 10, marker), row("gs://c/x", 500, marker))
    assert [(entry["version"], entry["event"]) for entry in shown(name)] == [
        ("100", event) for event in events
    ]


def member_letter(name: str, member: str | None, **changes: Any) -> dict[str, Any]:
    attributes = {} if member is None else {"member": member}
    return letter(name, attributes=attributes, **changes)


def test_each_member_of_an_archive_has_its_own_entry(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown
) -> None:
    """A row or a resolution closes that of its member; an expansion that of the whole archive."""

    def members() -> list[str | None]:
        return sorted((entry["member"] for entry in shown("m.zip")), key=str)

    names = ["a", "b/a", "c", None]
    insert(dataset, "dead_letter", *(member_letter("m.zip", name, seen=1) for name in names))
    insert(dataset, "dead_letter", member_letter("m.zip", "a", seen=2))
    assert members() == [None, "a", "b/a", "c"]
    assert [entry["attempts"] for entry in shown("m.zip") if entry["member"] == "a"] == [2]
    insert(dataset, "instances", row("gs://b/m.zip", 5, ingested=3, member="b/a"))
    assert members() == [None, "a", "c"]
    insert(dataset, "instances", row("gs://b/m.zip", 5, "expanded", ingested=3))
    assert members() == ["a", "c"]
    resolved = {"resolved": True, "member": "c"}
    insert(dataset, "dead_letter", letter("m.zip", seen=3, attributes=resolved))
    assert members() == ["a"]
    insert(dataset, "instances", row("gs://b/m.zip", 5, "deleted"))
    assert members() == []


def test_a_dismissal_holds_for_one_member(
    dataset: Dataset, insert: Insert, row: MakeRow, shown: Shown
) -> None:
    """The row is made by the command's own code. A marker of the archive ends it."""

    def dismissed() -> list[str]:
        query = "SELECT member FROM dismissed_letters WHERE path = 'gs://b/d.zip' ORDER BY member"
        return [found["member"] for found in dataset.query(query)]

    attributes = {"ce-type": TYPE + "finalized"}
    for name in ("a", "b"):
        insert(dataset, "dead_letter", member_letter("d.zip", name, seen=1))
        resolution = resolution_row(
            message_id="m",
            attributes={**attributes, "member": name},
            data=content("d.zip"),
            now=at(2),
        )
        dismissal = dismissal_row(
            resolution,
            path="gs://b/d.zip",
            member=name,
            version="5",
            event="finalized",
            because="known",
        )
        insert(dataset, "dead_letter", msgspec.to_builtins(dismissal))
    assert shown("d.zip") == []
    assert dismissed() == ["a", "b"]
    insert(dataset, "dead_letter", member_letter("d.zip", "b", seen=3))
    assert dismissed() == ["a"]
    insert(dataset, "instances", row("gs://b/d.zip", 6, "deleted"))
    assert dismissed() == []
