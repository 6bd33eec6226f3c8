"""Deliveries become validated events, or errors that name the field."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from dcm2bq.delivery import Delivery
from dcm2bq.errors import InvalidEventError
from dcm2bq.events import EventKind, ObjectEvent, deliver, parse, received, recorded
from dcm2bq.stored_object import StoredObject

SENTINEL = "SENTINEL^PATIENT"

ATTRIBUTES = {
    "ce-id": "1",
    "ce-type": "google.cloud.storage.object.v1.finalized",
    "ce-time": "2026-01-02T03:04:05.678Z",
}
DATA = {"bucket": "scans", "name": "a/b.dcm", "generation": "12", "size": "34"}


def delivery(data: Any = None, **attributes: str | None) -> Delivery:
    named = {f"ce-{k}": v for k, v in attributes.items()}
    merged = {k: v for k, v in {**ATTRIBUTES, **named}.items() if v is not None}
    content = (
        data if isinstance(data, bytes) else json.dumps(DATA if data is None else data).encode()
    )
    return Delivery(merged, content)


def test_every_field_of_a_storage_event_is_kept() -> None:
    data = {
        **DATA,
        "contentType": "application/dicom",
        "contentEncoding": "gzip",
        "storageClass": "STANDARD",
        "md5Hash": "m",
        "crc32c": "c",
        "metageneration": "1",
    }
    assert parse(delivery(data)) == ObjectEvent(
        event_id="1",
        kind=EventKind.FINALIZED,
        time=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        object=StoredObject(
            bucket="scans",
            name="a/b.dcm",
            generation=12,
            size=34,
            content_type="application/dicom",
            content_encoding="gzip",
            storage_class="STANDARD",
            md5_hash="m",
            crc32c="c",
        ),
    )


@pytest.mark.parametrize("kind", list(EventKind))
def test_all_four_types_are_known(kind: EventKind) -> None:
    assert parse(delivery(type=f"google.cloud.storage.object.v1.{kind}")).kind is kind


def test_a_customers_key_is_noticed_and_survives_redelivery() -> None:
    """The key and its digest are not kept."""
    encryption = {"encryptionAlgorithm": "AES256", "keySha256": SENTINEL}
    event = parse(delivery({**DATA, "customerEncryption": encryption}))
    assert event.object.has_customer_key
    assert SENTINEL not in repr(event)
    assert parse(deliver(event)) == event
    assert not parse(delivery({**DATA, "customerEncryption": {}})).object.has_customer_key


def test_generation_and_size_may_be_numbers() -> None:
    event = parse(delivery({**DATA, "generation": 1700000000000001, "size": 5}))
    assert (event.object.generation, event.object.size) == (1700000000000001, 5)


def test_a_size_may_be_missing() -> None:
    assert parse(delivery({k: v for k, v in DATA.items() if k != "size"})).object.size is None


@pytest.mark.parametrize(
    "name",
    ["a b.dcm", "Ünïcode/画像.dcm", "a#b?c=d.dcm", "100%25.dcm", 'it\'s "x".dcm', "`a;--.dcm"],
)
def test_names_are_kept_unchanged(name: str) -> None:
    event = parse(delivery({**DATA, "name": name}))
    assert event.object.name == name
    assert event.object.path == f"gs://scans/{name}"


def test_a_bulk_data_root_can_be_split_at_its_query() -> None:
    event = parse(delivery({**DATA, "name": "a%b?c#d e.dcm"}))
    assert event.object.bulk_data_root == "gs://scans/a%25b%3Fc%23d e.dcm?generation=12"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_times_are_read_to_the_microsecond_in_utc(time: str, expected: datetime) -> None:
    assert parse(delivery(time=time)).time == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (delivery(id=None), "id: is missing"),
        (delivery(type=None), "type: is missing"),
        (delivery(type=f"com.example.{SENTINEL}"), "type: is not one of google.cloud.storage."),
        (
            delivery(type=f"google.cloud.storage.object.v1.{SENTINEL}"),
            "type: is not one of finalized, deleted, archived, metadataUpdated",
        ),
        (delivery(time=None), "time: is missing"),
        (delivery(time=SENTINEL), "time: is not an RFC 3339 time"),
        (delivery(time="9999-99-99T00:00:00Z"), "time: is not an RFC 3339 time"),
        (delivery(SENTINEL.encode()), "data: is not JSON"),
        (delivery(b""), "data: is not JSON"),
        (delivery(b"[" * 100_000), "data: is not JSON"),
        (delivery(b'{"name": "\xff"}'), "data: is not JSON"),
        (delivery(b'{"name": "\xed\xa0\x80"}'), "data: is not JSON"),
        (delivery([SENTINEL]), "data: is not a JSON object"),
        (delivery({**DATA, "bucket": None}), "data.bucket: is missing"),
        (delivery({**DATA, "bucket": SENTINEL}), "data.bucket: is not a bucket name"),
        (delivery({**DATA, "bucket": 7}), "data.bucket: is not text"),
        (delivery({**DATA, "name": None}), "data.name: is missing"),
        (delivery({**DATA, "name": ""}), "data.name: is empty or exceeds 1024 bytes"),
        (delivery({**DATA, "name": SENTINEL * 99}), "data.name: is empty or exceeds 1024 bytes"),
        (delivery({**DATA, "generation": None}), "data.generation: is missing"),
        (delivery({**DATA, "generation": SENTINEL}), "data.generation: is not an integer"),
        (delivery({**DATA, "generation": True}), "data.generation: is not an integer"),
        (delivery({**DATA, "generation": "-1"}), "data.generation: is not an integer"),
        (delivery({**DATA, "generation": 0}), "data.generation: is not a generation"),
        (delivery({**DATA, "generation": 2**63}), "data.generation: is not a generation"),
        (delivery({**DATA, "size": "1e3"}), "data.size: is not an integer"),
        (delivery({**DATA, "size": -1}), "data.size: is not a size in bytes"),
        (delivery({**DATA, "md5Hash": 1}), "data.md5Hash: is not text"),
    ],
)
def test_a_wrong_field_is_named_without_its_value(wrong: Delivery, message: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        parse(wrong)
    assert str(error.value).startswith(message)
    assert SENTINEL not in str(error.value)


@pytest.mark.parametrize("kind", list(EventKind))
@pytest.mark.parametrize("name", ["a/b.dcm", "a b#%41?'\"ü\n.dcm"])
@pytest.mark.parametrize("size", [None, 0, 34])
def test_a_delivery_made_of_an_event_is_that_event(
    kind: EventKind, name: str, size: int | None
) -> None:
    event = ObjectEvent(
        event_id="7",
        kind=kind,
        time=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        object=StoredObject(
            bucket="scans",
            name=name,
            generation=1_767_323_045_678_000,
            size=size,
            crc32c="c",
        ),
    )
    assert parse(deliver(event)) == event


def test_attributes_recorded_beside_a_cloud_event_are_left_out() -> None:
    kept = recorded({**ATTRIBUTES, "error": "x", "resolved": True}, b"{}", "m")
    assert kept == Delivery(ATTRIBUTES, b"{}")


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("OBJECT_FINALIZE", EventKind.FINALIZED),
        ("OBJECT_DELETE", EventKind.DELETED),
        ("OBJECT_ARCHIVE", EventKind.ARCHIVED),
        ("OBJECT_METADATA_UPDATE", EventKind.METADATA_UPDATED),
    ],
)
@pytest.mark.parametrize("data", [b"", json.dumps(DATA).encode()])
def test_a_notification_of_cloud_storage_becomes_an_event_with_or_without_data(
    event_type: str, kind: EventKind, data: bytes
) -> None:
    attributes = {
        "eventType": event_type,
        "eventTime": "2026-01-02T03:04:05.678Z",
        "bucketId": "scans",
        "objectId": "a/b.dcm",
        "objectGeneration": "12",
    }
    event = parse(recorded(attributes, data, "m"))
    assert (event.kind, event.object.path, event.object.generation) == (
        kind,
        "gs://scans/a/b.dcm",
        12,
    )
    assert event.event_id == "m"
    assert event.time == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert event.object.size == (34 if data else None)


@pytest.mark.parametrize("name", ["bucketId", "objectId", "objectGeneration"])
def test_a_notification_whose_data_is_about_another_object_is_refused(name: str) -> None:
    attributes = {
        "eventType": "OBJECT_DELETE",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "bucketId": "scans",
        "objectId": "a/b.dcm",
        "objectGeneration": "12",
    }
    assert parse(recorded(attributes, json.dumps(DATA).encode(), "m")).kind is EventKind.DELETED
    with pytest.raises(InvalidEventError, match=r"^data\.\w+: differs from the attribute"):
        parse(recorded({**attributes, name: "111"}, json.dumps(DATA).encode(), "m"))


@pytest.mark.parametrize("attributes", [{}, {"eventType": "OBJECT_OTHER"}, {"ce-type": "x"}])
def test_a_record_that_is_not_an_event_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidEventError):
        parse(recorded(attributes, b"{}", None))


def test_an_event_larger_than_any_of_cloud_storage_is_refused() -> None:
    with pytest.raises(InvalidEventError, match=r"^id: exceeds 4096 characters$"):
        parse(delivery(id="x" * 4097))
    with pytest.raises(InvalidEventError, match=r"^data: exceeds 1048576 bytes$"):
        parse(delivery({**DATA, "contentType": "x" * 1024 * 1024}))


def test_an_excerpt_of_a_delivery_fits_a_row() -> None:
    large = Delivery({f"ce-{n}" + "k" * 9999: "v" * 9999 for n in range(99)}, b"d" * 9_999_999)
    excerpt = large.excerpt
    text = sum(len(key) + len(value) for key, value in excerpt.attributes.items())
    assert text + len(excerpt.data) < 2_000_000
    assert delivery().excerpt == delivery()


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("bucket", "scans"),
        ("source", "//storage.googleapis.com/projects/_/buckets/scans"),
        ("source", "//storage.googleapis.com/projects/_/buckets/scans/objects/a/b.dcm"),
        ("subject", "objects/a/b.dcm"),
        ("subject", "objects/a%2Fb.dcm"),
        ("generation", "12"),
    ],
)
def test_attributes_that_agree_with_the_data_are_accepted(attribute: str, value: str) -> None:
    assert parse(delivery(**{attribute: value})) == parse(delivery())


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("bucket", f"scans-{SENTINEL}", "data.bucket: differs from the attribute bucket"),
        ("bucket", "", "data.bucket: differs from the attribute bucket"),
        ("source", "scans", "data.bucket: differs from the attribute source"),
        (
            "source",
            f"//storage.googleapis.com/projects/_/buckets/scans-{SENTINEL}",
            "data.bucket: differs from the attribute source",
        ),
        ("subject", "a/b.dcm", "data.name: differs from the attribute subject"),
        ("subject", f"objects/{SENTINEL}", "data.name: differs from the attribute subject"),
        ("generation", "13", "data.generation: differs from the attribute generation"),
        ("other", f"{SENTINEL}\ud800", "attributes: is not valid Unicode"),
    ],
)
def test_attributes_that_disagree_with_the_data_are_refused(
    attribute: str, value: str, message: str
) -> None:
    with pytest.raises(InvalidEventError) as error:
        parse(delivery(**{attribute: value}))
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["a b.dcm", "Ünïcode/画像.dcm", "100%25.dcm", "a+b%.dcm", "%2525"])
@pytest.mark.parametrize(
    "encode",
    [
        str,
        quote,
        lambda name: quote(name, safe=""),
        lambda name: quote(quote(name)),
        lambda name: name.encode().decode("latin-1"),
    ],
    ids=["text", "encoded", "slashes encoded", "encoded twice", "raw UTF-8"],
)
def test_a_subject_is_recognised_however_it_was_encoded(
    name: str, encode: Callable[[str], str]
) -> None:
    data = {**DATA, "name": name}
    assert parse(delivery(data, subject=f"objects/{encode(name)}")).object.name == name
    with pytest.raises(InvalidEventError):
        parse(delivery(data, subject=f"objects/{encode(name)}x"))


def test_an_event_more_than_a_day_in_the_future_is_refused() -> None:
    def at(days: float) -> datetime:
        return datetime.now(UTC) + timedelta(days=days)

    def generation(days: float) -> int:
        return int(at(days).timestamp() * 1_000_000)

    parse(delivery({**DATA, "generation": generation(0.9)}, time=at(0.9).isoformat()))
    for wrong in (generation(1.1), 2**62, 2**63 - 1):
        with pytest.raises(
            InvalidEventError, match=r"^data\.generation: is more than a day in the future$"
        ):
            parse(delivery({**DATA, "generation": wrong}))
    for time in (at(1.1).isoformat(), "9999-12-31T23:59:59.999999-23:59"):
        with pytest.raises(InvalidEventError, match=r"^time: is "):
            parse(delivery(time=time))


def test_an_excerpt_can_be_encoded_as_utf8() -> None:
    excerpt = Delivery({"ce-\ud800": "ü\udfff"}, b"").excerpt
    assert excerpt.attributes == {"ce-\\ud800": "ü\\udfff"}


def test_a_request_is_read_in_either_mode() -> None:
    headers = {"Ce-Id": "1", "Content-Type": "application/json", "Host": "x"}
    assert received(headers, b"\xff") == Delivery({"ce-id": "1"}, b"\xff")
    envelope = {"id": "1", "number": 7, "data": DATA}
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    read = received(headers, json.dumps(envelope).encode())
    assert read.attributes == {"ce-id": "1", "ce-number": "7"}
    assert json.loads(read.data) == DATA
    for nothing in (b"", b"[]", b"[" * 200_000, b"\xff", b"7", b'{"id": "\\ud800"}'):
        assert received(headers, nothing) == Delivery({}, nothing)
