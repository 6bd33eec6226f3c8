"""Forged events of every kind, over HTTP: each is answered and reported, and hides no row."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.data import get_testdata_file

from tests.support.cloud import TYPE_PREFIX, Bucket, Event
from tests.support.function_stack import Stack, unique
from tests.support.proxy import Fault

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
NESTED = "[" * 200_000 + "]" * 200_000
DIGITS = "1" * 5000
STRUCTURED = "application/cloudevents+json"


@dataclass(frozen=True)
class Request:
    """The HTTP request of a CloudEvent."""

    headers: dict[str, str]
    body: bytes

    def post(self, url: str) -> requests.Response:
        return requests.post(url, self.body, headers=self.headers, timeout=60)


Forgery = Callable[[Event], Request]


def binary(event: Event, body: bytes | None = None, /, **attributes: str) -> Request:
    """Return an event in binary mode, with other attributes or another body."""
    named = {**event.attributes, **attributes}
    headers = {f"ce-{key}": value for key, value in named.items()}
    content = json.dumps(event.data).encode() if body is None else body
    return Request({**headers, "Content-Type": "application/json"}, content)


def structured(event: Event, data: str | None = None, /, **attributes: Any) -> Request:
    """Return an event in structured mode; `data` is JSON text, used unchanged."""
    envelope = json.dumps({**event.attributes, **attributes})
    content = json.dumps(event.data) if data is None else data
    return Request({"Content-Type": STRUCTURED}, f'{envelope[:-1]}, "data": {content}}}'.encode())


def in_base64(event: Event, data: str) -> Request:
    """Return an event in structured mode with its data in base64."""
    envelope = {**event.attributes, "data_base64": data}
    return Request({"Content-Type": STRUCTURED}, json.dumps(envelope).encode())


def raw(event: Event, field: str, value: str) -> str:
    """Return the event's data with a second, forged field after the true one."""
    return f'{json.dumps(event.data)[:-1]}, "{field}": {value}}}'


def ahead(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def microseconds(days: float) -> int:
    return int(ahead(days).timestamp() * 1_000_000)


def data(**fields: Any) -> Forgery:
    return lambda event: binary(event.but(**fields))


def without(field: str) -> Forgery:
    return lambda event: binary(
        event, json.dumps({k: v for k, v in event.data.items() if k != field}).encode()
    )


def attributes(**values: str) -> Forgery:
    return lambda event: binary(event, None, **values)


def body(content: str | bytes) -> Forgery:
    return lambda event: binary(event, content.encode() if isinstance(content, str) else content)


def written(field: str, value: str) -> Forgery:
    return lambda event: binary(event, raw(event, field, value).encode())


NOT_JSON = "data: is not JSON"
NO_OBJECT = "data: is not a JSON object"
NO_INTEGER = "data.generation: is not an integer"
NO_GENERATION = "data.generation: is not a generation"
NO_UNICODE = "attributes: is not valid Unicode"
TOO_LATE = "data.generation: is more than a day in the future"

FORGERIES: dict[str, tuple[Forgery, str]] = {
    "another bucket": (data(bucket="other-scans"), "data.bucket: is not one of input.buckets"),
    "data of another bucket": (
        lambda event: binary(event, raw(event, "bucket", '"other-scans"').encode()),
        "data.bucket: differs from the attribute bucket",
    ),
    "an attribute of another bucket": (
        attributes(bucket="other-scans"),
        "data.bucket: differs from the attribute bucket",
    ),
    "a source that is another bucket": (
        attributes(source="//storage.googleapis.com/projects/_/buckets/other-scans"),
        "data.bucket: differs from the attribute source",
    ),
    "a source that is no bucket": (
        attributes(source="//pubsub.googleapis.com/projects/p/topics/t"),
        "data.bucket: differs from the attribute source",
    ),
    "a subject that is another object": (
        attributes(subject="objects/other.dcm"),
        "data.name: differs from the attribute subject",
    ),
    "another generation than its attribute": (
        attributes(generation="1"),
        "data.generation: differs from the attribute generation",
    ),
    "a bucket given twice": (
        written("bucket", '"other-scans"'),
        "data.bucket: differs from the attribute bucket",
    ),
    "a name given twice": (
        written("name", '"other.dcm"'),
        "data.name: differs from the attribute subject",
    ),
    "a generation of the day after tomorrow": (
        lambda event: binary(event.but(generation=str(microseconds(2)))),
        TOO_LATE,
    ),
    "the highest generation": (data(generation=str(2**63 - 1)), TOO_LATE),
    "the highest generation as a number": (data(generation=2**63 - 1), TOO_LATE),
    "a generation beyond 64 bits": (data(generation=str(2**63)), NO_GENERATION),
    "a generation of 401 digits": (written("generation", "1" + "0" * 400), NO_GENERATION),
    "a generation of 5,000 digits": (written("generation", DIGITS), NOT_JSON),
    "a negative generation": (data(generation=-1), NO_GENERATION),
    "a negative generation as text": (data(generation="-1"), NO_INTEGER),
    "generation zero": (data(generation=0), NO_GENERATION),
    "a fraction of a generation": (data(generation=1.5), NO_INTEGER),
    "a generation with an exponent": (written("generation", "1e3"), NO_INTEGER),
    "a generation without end": (written("generation", "Infinity"), NOT_JSON),
    "a generation that is a truth value": (data(generation=True), NO_INTEGER),
    "a generation in foreign digits": (data(generation="\u0661\u0662"), NO_INTEGER),
    "a generation that is a list": (data(generation=["1"]), NO_INTEGER),
    "no generation": (without("generation"), "data.generation: is missing"),
    "a time of the day after tomorrow": (
        lambda event: binary(event, time=ahead(2).isoformat()),
        "time: is more than a day in the future",
    ),
    "the last year": (
        attributes(time="9999-12-31T23:59:59Z"),
        "time: is more than a day in the future",
    ),
    "a time before time": (
        attributes(time="0001-01-01T00:00:00+23:59"),
        "time: is not an RFC 3339 time",
    ),
    "no time at all": (attributes(time="yesterday"), "time: is not an RFC 3339 time"),
    "a name of a lone surrogate": (written("name", '"\\ud800.dcm"'), NOT_JSON),
    "a name of 1,025 bytes": (
        data(name="x" * 1021 + ".dcm"),
        "data.name: is empty or exceeds 1024 bytes",
    ),
    "an empty name": (data(name=""), "data.name: is empty or exceeds 1024 bytes"),
    "a name that is an object": (data(name={"name": "a.dcm"}), "data.name: is not text"),
    "no name": (without("name"), "data.name: is missing"),
    "a bucket that is a list": (data(bucket=["a"]), "data.bucket: is not text"),
    "a bucket that is a path": (data(bucket="a/../b"), "data.bucket: is not a bucket name"),
    "no bucket": (without("bucket"), "data.bucket: is missing"),
    "a size that is a list": (data(size=[1]), "data.size: is not an integer"),
    "a size beyond 64 bits": (data(size=str(2**63)), "data.size: is not a size in bytes"),
    "a storage class that is a number": (data(storageClass=7), "data.storageClass: is not text"),
    "no data": (body(""), NO_OBJECT),
    "data that is not JSON": (body("gs://a/b"), NOT_JSON),
    "data that is half of its JSON": (body('{"bucket": "a'), NOT_JSON),
    "data that is a list": (body("[]"), NO_OBJECT),
    "data that is no number": (body("NaN"), NOT_JSON),
    "data that is not UTF-8": (body(b'{"bucket": "\xff"}'), NOT_JSON),
    "200,000 arrays": (body(NESTED), NOT_JSON),
    "200,000 arrays in a field": (written("metadata", NESTED), NOT_JSON),
    "5,000 digits in a field": (written("metadata", DIGITS), NOT_JSON),
    "an unknown type": (
        attributes(type=TYPE_PREFIX + "exploded"),
        "type: is not one of finalized, deleted, archived, metadataUpdated",
    ),
    "a foreign type": (
        attributes(type="com.example.deleted"),
        f"type: is not one of {TYPE_PREFIX}*",
    ),
    "a type without end": (
        attributes(type=TYPE_PREFIX * 100),
        "type: is not one of finalized, deleted, archived, metadataUpdated",
    ),
    "structured, another bucket": (
        lambda event: structured(event.but(bucket="other-scans")),
        "data.bucket: is not one of input.buckets",
    ),
    "structured, the highest generation": (
        lambda event: structured(event.but(generation=2**63 - 1)),
        TOO_LATE,
    ),
    "structured, a lone surrogate in the name": (
        lambda event: structured(event, raw(event, "name", '"\\ud800.dcm"')),
        NOT_JSON,
    ),
    "structured, a lone surrogate in the subject": (
        lambda event: structured(event, subject="objects/\ud800"),
        NO_UNICODE,
    ),
    "structured, a lone surrogate in the type": (
        lambda event: structured(event, type="\udfff"),
        NO_UNICODE,
    ),
    "structured, a lone surrogate in an extension": (
        lambda event: structured(event, other="\ud800"),
        NO_UNICODE,
    ),
    "structured, a lone surrogate in an extension's name": (
        lambda event: structured(event, **{"\ud800": "x"}),
        NO_UNICODE,
    ),
    "structured, an attribute that is an object": (
        lambda event: structured(event, bucket={"name": "a"}),
        "data.bucket: differs from the attribute bucket",
    ),
    "structured, a field of the framework's own": (
        lambda event: structured(event, extensions="x", subject="objects/other.dcm"),
        "data.name: differs from the attribute subject",
    ),
    "structured, a version that is a list": (
        lambda event: structured(event, specversion=["1.0"], subject="objects/other.dcm"),
        "data.name: differs from the attribute subject",
    ),
    "structured, data that is text": (lambda event: structured(event, '"text"'), NO_OBJECT),
    "structured, data that is no base64": (lambda event: in_base64(event, "x"), NO_OBJECT),
    "structured, data in base64 that is not JSON": (
        lambda event: in_base64(event, base64.b64encode(b"\xff\xfe\0").decode()),
        NOT_JSON,
    ),
}

UNREADABLE: dict[str, Forgery] = {
    "200,000 arrays": lambda event: structured(event, NESTED),
    "200,000 arrays in an attribute": lambda event: Request(
        {"Content-Type": STRUCTURED},
        structured(event).body[:-1] + f', "other": {NESTED}}}'.encode(),
    ),
    "200,000 arrays, and nothing else": lambda event: Request(
        {"Content-Type": STRUCTURED}, f"{NESTED} {event.id}".encode()
    ),
}
"""Events of which nothing can be read, not even the id."""


@pytest.fixture(scope="module")
def victim(guarded: tuple[Stack, Bucket]) -> Event:
    """An existing object with its row, which all forgeries name."""
    stack, bucket = guarded
    event = bucket.upload("victims/it's #1.dcm", CT_SMALL)
    assert event.post(stack.url).status_code == 200
    return event


def forged(victim: Event) -> Event:
    """Return the event that would hide the object if it were genuine."""
    return replace(victim.as_type("deleted"), id=unique("forged-"))


def letters(stack: Stack, where: str, it: str | bytes) -> list[dict[str, str]]:
    """Return the attributes of the dead letters."""
    rows = stack.dataset.query(f"SELECT attributes FROM dead_letter WHERE {where}", {"it": it})
    return [json.loads(row["attributes"]) for row in rows]


def assert_nothing_is_hidden(stack: Stack, victim: Event) -> None:
    live = stack.live("STRPOS(path, '/victims/') > 0")
    assert [row["version"] for row in live] == [victim.data["generation"]]
    markers = stack.dataset.query("SELECT path FROM instances WHERE event != 'finalized'")
    assert markers == []


@dataclass(frozen=True)
class Sent:
    """A forgery, the function's answer, and the attributes of its dead letters."""

    event: Event
    answer: tuple[int, str]
    letters: list[dict[str, str]]


READABLE, NOT_READABLE = "readable", "not readable"


@pytest.fixture(scope="module")
def sent(guarded: tuple[Stack, Bucket], victim: Event) -> dict[tuple[str, str], Sent]:
    """Send every forgery, and hold that nothing is hidden afterwards: a marker would stay."""
    stack, _ = guarded
    forges = {
        **{(READABLE, name): forge for name, (forge, _) in FORGERIES.items()},
        **{(NOT_READABLE, name): forge for name, forge in UNREADABLE.items()},
    }
    events = {name: forged(victim) for name in forges}
    requests = {name: forge(events[name]) for name, forge in forges.items()}
    answers = {name: request.post(stack.url) for name, request in requests.items()}
    rows = stack.dead_letters()
    assert_nothing_is_hidden(stack, victim)

    def letters_of(name: tuple[str, str]) -> list[dict[str, str]]:
        if NOT_READABLE in name:
            return [
                row["attributes"]
                for row in rows
                if row["message_id"] is None and row["data"] == requests[name].body
            ]
        return [row["attributes"] for row in rows if row["message_id"] == events[name].id]

    return {
        name: Sent(events[name], (answer.status_code, answer.text), letters_of(name))
        for name, answer in answers.items()
    }


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_event_becomes_a_dead_letter_and_hides_nothing(
    guarded: tuple[Stack, Bucket], sent: dict[tuple[str, str], Sent], name: str
) -> None:
    stack, _ = guarded
    forgery = sent[READABLE, name]
    assert forgery.answer == (200, "OK")
    (letter,) = forgery.letters
    assert letter["error_type"] == "InvalidEventError"
    assert letter["error"] == FORGERIES[name][1]
    (line,) = stack.log_lines(forgery.event.id)
    assert line["outcome"] == "dead_lettered"


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_event_becomes_a_dead_letter(
    sent: dict[tuple[str, str], Sent], name: str
) -> None:
    assert sent[NOT_READABLE, name].answer == (200, "OK")
    assert sent[NOT_READABLE, name].letters == [
        {"error_type": "InvalidEventError", "error": NOT_JSON}
    ]


def test_a_lone_surrogate_in_the_id_is_shown_as_its_escape(
    guarded: tuple[Stack, Bucket], victim: Event
) -> None:
    stack, _ = guarded
    event = forged(victim)
    assert structured(event, id=f"{event.id}\ud800").post(stack.url).status_code == 200
    escaped = f"{event.id}\\ud800"
    (letter,) = letters(stack, "message_id = @it", escaped)
    assert letter["error"] == NO_UNICODE
    assert [line["outcome"] for line in stack.log_lines(escaped)] == ["dead_lettered"]
    assert_nothing_is_hidden(stack, victim)


@pytest.mark.parametrize(
    "forge",
    [
        lambda event: binary(event, extensions="x"),
        lambda event: structured(event, specversion=["1.0"]),
        lambda event: structured(event, extensions="x"),
        lambda event: in_base64(event, base64.b64encode(json.dumps(event.data).encode()).decode()),
    ],
)
def test_a_genuine_event_that_the_framework_fails_on_becomes_a_row(
    guarded: tuple[Stack, Bucket], forge: Forgery
) -> None:
    stack, bucket = guarded
    event = bucket.upload(unique("odd-") + ".dcm", CT_SMALL)
    stack.bigquery.faults = [Fault("insertAll", 403)]
    assert forge(event).post(stack.url).status_code == 500
    stack.bigquery.faults = []
    assert forge(event).post(stack.url).status_code == 200
    assert len(stack.live(f"ENDS_WITH(path, '{event.data['name']}')")) == 1


@pytest.mark.parametrize("send", [binary, structured])
def test_forged_names_that_exist_in_no_bucket_do_no_harm(
    guarded: tuple[Stack, Bucket], victim: Event, send: Callable[[Event], Request]
) -> None:
    stack, bucket = guarded
    for name in ("a\0b.dcm", "a\nb.dcm", "\x7f\x1b[31m.dcm", "%00%2F%25.dcm", "+ +"):
        event = replace(forged(victim), type=TYPE_PREFIX + "finalized").but(name=name)
        assert send(event).post(stack.url).status_code == 200
    assert len(stack.live(f"STARTS_WITH(path, 'gs://{bucket.name}/victims/')")) == 1
    assert_nothing_is_hidden(stack, victim)


def test_a_request_without_a_required_attribute_is_refused(
    guarded: tuple[Stack, Bucket], victim: Event
) -> None:
    stack, _ = guarded
    request = binary(forged(victim))
    for name in ("id", "type", "source", "specversion"):
        headers = {key: value for key, value in request.headers.items() if key != f"ce-{name}"}
        answer = replace(request, headers=headers).post(stack.url)
        assert (answer.status_code, answer.text) == (400, "not a CloudEvent\n")
    assert_nothing_is_hidden(stack, victim)


def test_an_event_less_than_a_day_in_the_future_is_accepted(guarded: tuple[Stack, Bucket]) -> None:
    """Clocks differ, and a new object must not become a dead letter because of that."""
    stack, bucket = guarded
    event = bucket.upload(unique("ahead-") + ".dcm", CT_SMALL)
    generation = str(microseconds(0.9))
    stack.storage.faults = [Fault(f"generation={generation}", 200, CT_SMALL)]
    early = replace(event.but(generation=generation), time=ahead(0.9).isoformat())
    assert early.post(stack.url).status_code == 200
    stack.storage.faults = []
    (row,) = stack.rows(event.data["name"])
    assert row["version"] == generation
    assert time.time() < row["timestamp"].timestamp()


def test_the_dead_letters_view_works_whatever_forged_events_contain(
    guarded: tuple[Stack, Bucket],
) -> None:
    stack, _ = guarded
    (counted,) = stack.dataset.query(
        "SELECT COUNT(*) AS n, COUNT(reason) AS reasons FROM dead_letters"
    )
    assert counted["n"] == counted["reasons"] > 0
