"""Every kind of fault: how the event is answered, how soon, and what the tables hold then."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.reliability.conftest import MakeStack, retry_dead_letters
from tests.reliability.state_machine import CONTENTS
from tests.support.cloud import Event, google_error, row_error
from tests.support.function_process import OURS, function
from tests.support.function_stack import Stack, unique
from tests.support.http_server import Exchange, serving
from tests.support.patience import patience, scaled
from tests.support.proxy import PATIENCE, SPOILT, Fault

Report = Callable[[str], None]

DEADLINE = scaled(2)
GRACE = 8
"""Seconds after the deadline in which a dead letter may be written."""
SLACK = 2.5
"""Seconds for the function itself on an idle machine."""
REFRESH = 5
"""Seconds that a refresh of the access token may take."""

STATUSES = (400, 401, 403, 404, 412, 429, 500, 502, 503, 504)
ANY: dict[str, dict[str, Any]] = {
    **{
        f"HTTP {status}": {"status": status, "body": google_error(status, "x")}
        for status in STATUSES
    },
    "HTTP 503 without a body": {"status": 503},
    "no JSON, and HTTP 500": {"status": 500, "body": b"<html>"},
    "reset before the answer": {},
    "reset after the request was served": {"after": True},
    **{how: {"how": how} for how in SPOILT},
}
STORAGE = {**ANY, "an empty body": {"status": 206}, "no range": {"status": 206, "body": b"x" * 700}}
del STORAGE["HTTP 404"]  # it means that the generation is gone
BIGQUERY = {
    **ANY,
    "no JSON, and HTTP 200": {"status": 200, "body": b"{"},
    "JSON of another kind": {"status": 200, "body": b"[]"},
    "row errors": {"status": 200, "body": row_error("invalid", "metadata")},
    "row errors without a known reason": {"status": 200, "body": row_error("SENTINEL^PATIENT")},
    "the row was stopped": {"status": 200, "body": row_error("stopped")},
    "row errors of another request": {
        "status": 200,
        "body": row_error("invalid").replace(b'"index": 0', b'"index": 9'),
    },
}
del BIGQUERY["other range"]


@dataclass(frozen=True)
class Outcome:
    """The HTTP status of a delivery, and the seconds until the answer."""

    event: Event
    status: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """The result of a delivery under a fault, and of the next one without it."""

    outcome: Outcome
    rows: int
    reasons: list[str]
    """Of its dead letters that are open."""
    status_again: int
    live_again: list[str]
    """The generations that are live."""
    reasons_again: list[str]

    def assert_comes_right(self) -> None:
        """Hold that the next delivery makes one live row, and that nothing is left open."""
        assert self.status_again == 200
        assert self.live_again == [self.outcome.event.data["generation"]]
        assert self.reasons_again == []


@pytest.fixture(scope="module")
def hasty(make_stack: MakeStack) -> Iterator[Stack]:
    """A function with a short deadline."""
    options = {"bigQuery": {"timeoutSeconds": DEADLINE}, "limits": {"deadlineSeconds": DEADLINE}}
    with make_stack(**options) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _no_faults(hasty: Stack) -> Iterator[None]:
    yield
    hasty.storage.faults = []
    hasty.bigquery.faults = []


def upload(stack: Stack) -> Event:
    return stack.bucket.upload(unique("fault-") + ".dcm", CONTENTS["one instance"])


def old(event: Event) -> Event:
    """Return the event as if its deliveries had failed for longer than allowed."""
    return replace(event, time=(datetime.now(UTC) - timedelta(hours=13)).isoformat())


def post(stack: Stack, event: Event, url: str | None = None) -> Outcome:
    started = time.monotonic()
    status = event.post(url or stack.url).status_code
    return Outcome(event, status, time.monotonic() - started)


def by_path(stack: Stack, column: str, table: str) -> dict[str, list[str]]:
    """Return the values of a column by the path of their rows."""
    values: dict[str, list[str]] = {}
    for row in stack.dataset.query(f"SELECT path, {column} AS value FROM {table}"):
        values.setdefault(row["path"], []).append(row["value"])
    return values


def look_at[Name](stack: Stack, outcomes: Mapping[Name, Outcome]) -> dict[Name, Seen]:
    """Look at the tables, deliver everything once more, all at once, and look again."""
    rows, reasons = by_path(stack, "version", "instances"), by_path(stack, "reason", "dead_letters")
    with ThreadPoolExecutor(len(outcomes)) as pool:
        again = [*pool.map(lambda outcome: post(stack, outcome.event), outcomes.values())]
    live_again = by_path(stack, "version", "instances_live")
    reasons_again = by_path(stack, "reason", "dead_letters")
    seen = {}
    for (name, outcome), second in zip(outcomes.items(), again, strict=True):
        path = f"gs://{stack.bucket.name}/{outcome.event.data['name']}"
        seen[name] = Seen(
            outcome,
            len(rows.get(path, [])),
            reasons.get(path, []),
            second.status,
            live_again.get(path, []),
            reasons_again.get(path, []),
        )
    return seen


def look_at_one(stack: Stack, outcome: Outcome) -> Seen:
    return look_at(stack, {"": outcome})[""]


@pytest.fixture(scope="module")
def storage_faults(hasty: Stack) -> dict[tuple[str, str], Seen]:
    """Every fault of Cloud Storage, for a new event and for an old one, all at once."""
    events, faults = {}, []
    for name, fault in STORAGE.items():
        for age in ("new", "old"):
            event = upload(hasty)
            events[name, age] = old(event) if age == "old" else event
            faults.append(Fault(event.data["name"], **fault))
    hasty.storage.faults = faults
    with ThreadPoolExecutor(len(events)) as pool:
        outcomes = pool.map(lambda event: post(hasty, event), events.values())
    hasty.storage.faults = []
    return look_at(hasty, dict(zip(events, outcomes, strict=True)))


@pytest.mark.parametrize("fault", STORAGE)
def test_a_fault_of_cloud_storage_means_redelivery(
    storage_faults: dict[tuple[str, str], Seen], fault: str
) -> None:
    seen = storage_faults[fault, "new"]
    assert seen.outcome.status == 500
    assert seen.outcome.seconds < DEADLINE + SLACK * patience()
    assert seen.rows == 0
    assert seen.reasons == []
    seen.assert_comes_right()


@pytest.mark.parametrize("fault", STORAGE)
def test_a_lasting_fault_of_cloud_storage_becomes_a_dead_letter(
    storage_faults: dict[tuple[str, str], Seen], fault: str
) -> None:
    seen = storage_faults[fault, "old"]
    assert seen.outcome.status == 200
    assert seen.outcome.seconds < DEADLINE + GRACE + SLACK * patience()
    assert seen.rows == 0
    assert seen.reasons == ["ReadFailedError"]
    seen.assert_comes_right()


@pytest.fixture(scope="module")
def bigquery_faults(hasty: Stack) -> dict[str, Seen]:
    """Every fault of BigQuery, one after the other: rows of concurrent events share inserts."""
    outcomes = {}
    for name, fault in BIGQUERY.items():
        event = upload(hasty)
        hasty.bigquery.faults = [Fault("instances/insertAll", **fault)]
        outcomes[name] = post(hasty, event)
    hasty.bigquery.faults = []
    return look_at(hasty, outcomes)


@pytest.mark.parametrize("fault", BIGQUERY)
def test_a_fault_of_bigquery_means_redelivery(bigquery_faults: dict[str, Seen], fault: str) -> None:
    seen = bigquery_faults[fault]
    assert seen.outcome.status == 500
    assert seen.outcome.seconds < DEADLINE + SLACK * patience()
    if "after" not in BIGQUERY[fault] and "how" not in BIGQUERY[fault]:
        assert seen.rows == 0
    seen.assert_comes_right()


@pytest.mark.parametrize("fault", ["HTTP 403", "HTTP 503", "row errors"])
def test_a_lasting_fault_of_bigquery_becomes_a_dead_letter(hasty: Stack, fault: str) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("instances/insertAll", **BIGQUERY[fault])]
    outcome = post(hasty, event)
    assert outcome.status == 200
    assert outcome.seconds < DEADLINE + GRACE + SLACK * patience()
    hasty.bigquery.faults = []
    (letter,) = [row for row in hasty.dead_letters() if row["message_id"] == event.id]
    assert letter["attributes"]["error_type"] == "WriteFailedError"
    look_at_one(hasty, outcome).assert_comes_right()


def test_a_dead_letter_of_a_row_that_was_stored_after_all_is_closed_by_retry(
    hasty: Stack,
) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("instances/insertAll", how="stall")]
    outcome = post(hasty, event)
    assert outcome.status == 200
    hasty.bigquery.faults = []
    assert len(hasty.rows(event.data["name"])) == 1
    path = f"gs://{hasty.bucket.name}/{event.data['name']}"
    assert by_path(hasty, "reason", "dead_letters")[path] == ["WriteFailedError"]
    assert retry_dead_letters(hasty, f"*/{event.data['name']}") == 0
    assert path not in by_path(hasty, "reason", "dead_letters")
    look_at_one(hasty, outcome).assert_comes_right()


def test_while_bigquery_is_down_even_an_old_event_is_left_to_the_trigger(
    hasty: Stack,
) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("insertAll", 503)]
    outcome = post(hasty, event)
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + GRACE + SLACK * patience()
    hasty.bigquery.faults = []
    look_at_one(hasty, outcome).assert_comes_right()


def elsewhere(stack: Stack, **environ: str) -> dict[str, str]:
    """Return the environment of a function on the stack, with other servers."""
    options = {
        "bigQuery": {"datasetId": stack.dataset.dataset_id, "timeoutSeconds": DEADLINE},
        "limits": {"deadlineSeconds": DEADLINE},
    }
    return {
        "BIGQUERY_EMULATOR_HOST": stack.bigquery.url,
        "STORAGE_EMULATOR_HOST": stack.storage.url,
        "DCM2BQ_CONFIG": json.dumps(options),
        "NO_GCE_CHECK": "true",
        **environ,
    }


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("BIGQUERY_EMULATOR_HOST", "http://no-such-host.invalid"),
        ("STORAGE_EMULATOR_HOST", "http://no-such-host.invalid"),
        ("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9"),
    ],
    ids=["BigQuery, no such name", "Cloud Storage, no such name", "Cloud Storage, refused"],
)
def test_a_server_that_cannot_be_found_means_redelivery(
    hasty: Stack, variable: str, url: str
) -> None:
    event = upload(hasty)
    with function(OURS, 0, 4, environ=elsewhere(hasty, **{variable: url})) as (port, _):
        outcome = post(hasty, event, f"http://127.0.0.1:{port}")
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + SLACK * patience()
    seen = look_at_one(hasty, outcome)
    assert seen.rows == 0
    seen.assert_comes_right()


TOKENS: dict[str, Callable[[Exchange], object]] = {
    "HTTP 500": lambda exchange: exchange.answer(500, b"{}"),
    "invalid_grant": lambda exchange: exchange.answer(400, b'{"error": "invalid_grant"}'),
    "no JSON": lambda exchange: exchange.answer(200, b"<html>"),
    "no token": lambda exchange: exchange.answer(200, b"{}"),
    "stall": lambda _exchange: time.sleep(PATIENCE),
    "reset": lambda exchange: exchange.reset(),
}


class TokenEndpoint:
    """A token endpoint that fails."""

    def __init__(self) -> None:
        self.fault = "reset"
        self.requests = 0

    def serve(self, exchange: Exchange) -> None:
        self.requests += 1
        exchange.hang_up()
        TOKENS[self.fault](exchange)


def write_key(path: Path, token_uri: str) -> None:
    """Write the key of a service account with another token endpoint."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    content = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "f@p.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(content))


SERVICES = ("BIGQUERY_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")


@pytest.fixture(scope="module")
def token_faults(
    hasty: Stack, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Seen]:
    """Each fault of the token endpoint, for functions that need it for one of the services each."""

    def outcomes_for(service: str) -> dict[tuple[str, str], Outcome]:
        endpoint, outcomes = TokenEndpoint(), {}
        with serving(endpoint.serve) as token_url:
            key = tmp_path_factory.mktemp("key") / "key.json"
            write_key(key, f"{token_url}/token")
            environ = {service: "", "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
            with function(OURS, 0, 4, environ=elsewhere(hasty, **environ)) as (port, _):
                for fault in TOKENS:
                    endpoint.fault, endpoint.requests = fault, 0
                    event = upload(hasty)
                    outcomes[service, fault] = post(hasty, event, f"http://127.0.0.1:{port}")
                    assert endpoint.requests > 0
        return outcomes

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        first, second = pool.map(outcomes_for, SERVICES)
    return look_at(hasty, first | second)


@pytest.mark.parametrize("fault", TOKENS)
@pytest.mark.parametrize("service", SERVICES)
def test_without_an_access_token_an_event_is_delivered_again(
    token_faults: dict[tuple[str, str], Seen], service: str, fault: str
) -> None:
    seen = token_faults[service, fault]
    assert seen.outcome.status == 500
    assert seen.outcome.seconds < DEADLINE + REFRESH + SLACK * patience()
    assert seen.rows == 0
    seen.assert_comes_right()
