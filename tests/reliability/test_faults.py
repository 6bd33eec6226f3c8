"""Every kind of fault: what the event is answered, how soon, and what the tables hold then."""

import json
import time
from collections.abc import Callable, Iterator
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
BURIAL = 8
"""Seconds beyond the deadline in which a dead letter may be written."""
SLACK = 2.5
"""Seconds for the function and an idle machine themselves."""
REFRESH = 5
"""Seconds that a refresh of the access token may take by itself."""

STATUSES = (400, 401, 403, 404, 412, 429, 500, 502, 503, 504)
ANY: dict[str, dict[str, Any]] = {
    **{f"HTTP {each}": {"status": each, "body": google_error(each, "x")} for each in STATUSES},
    "HTTP 503 without a body": {"status": 503},
    "no JSON, and HTTP 500": {"status": 500, "body": b"<html>"},
    "reset before the answer": {},
    "reset after the request was served": {"after": True},
    **{each: {"how": each} for each in SPOILT},
}
STORAGE = {**ANY, "an empty body": {"status": 206}, "no range": {"status": 206, "body": b"x" * 700}}
del STORAGE["HTTP 404"]  # means that the generation is gone
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
    """How a delivery fared: the HTTP status of its answer, and the seconds until it came."""

    event: Event
    status: int
    seconds: float


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
    """Return the event as if it had been delivered for longer than it may be."""
    return replace(event, time=(datetime.now(UTC) - timedelta(hours=13)).isoformat())


def post(stack: Stack, event: Event, url: str | None = None) -> Outcome:
    started = time.monotonic()
    status = event.post(url or stack.url).status_code
    return Outcome(event, status, time.monotonic() - started)


def assert_comes_right(stack: Stack, event: Event) -> None:
    """Hold that the next delivery makes one live row, and that nothing is left open."""
    assert event.post(stack.url).status_code == 200
    path = f"gs://{stack.bucket.name}/{event.data['name']}"
    live = stack.dataset.query("SELECT version FROM instances_live WHERE path = @p", {"p": path})
    assert live == [{"version": event.data["generation"]}]
    assert open_reasons(stack, event) == []


def open_reasons(stack: Stack, event: Event) -> list[str]:
    rows = stack.dataset.query(
        "SELECT reason FROM dead_letters WHERE path = @path",
        {"path": f"gs://{stack.bucket.name}/{event.data['name']}"},
    )
    return [row["reason"] for row in rows]


@pytest.fixture(scope="module")
def storage_outcomes(hasty: Stack) -> dict[tuple[str, str], Outcome]:
    """Each fault of Cloud Storage, upon a new event and upon an old one, all at once."""
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
    return dict(zip(events, outcomes, strict=True))


@pytest.mark.parametrize("fault", STORAGE)
def test_a_fault_of_cloud_storage_means_delivery_again(
    hasty: Stack, storage_outcomes: dict[tuple[str, str], Outcome], fault: str
) -> None:
    outcome = storage_outcomes[fault, "new"]
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + SLACK * patience()
    assert hasty.rows(outcome.event.data["name"]) == []
    assert open_reasons(hasty, outcome.event) == []
    assert_comes_right(hasty, outcome.event)


@pytest.mark.parametrize("fault", STORAGE)
def test_a_fault_of_cloud_storage_that_lasts_becomes_a_dead_letter(
    hasty: Stack, storage_outcomes: dict[tuple[str, str], Outcome], fault: str
) -> None:
    outcome = storage_outcomes[fault, "old"]
    assert outcome.status == 200
    assert outcome.seconds < DEADLINE + BURIAL + SLACK * patience()
    assert hasty.rows(outcome.event.data["name"]) == []
    assert open_reasons(hasty, outcome.event) == ["ReadFailedError"]
    assert_comes_right(hasty, outcome.event)


@pytest.mark.parametrize("fault", BIGQUERY)
def test_a_fault_of_bigquery_means_delivery_again(hasty: Stack, fault: str) -> None:
    event = upload(hasty)
    hasty.bigquery.faults = [Fault("instances/insertAll", **BIGQUERY[fault])]
    outcome = post(hasty, event)
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + SLACK * patience()
    if "after" not in BIGQUERY[fault] and "how" not in BIGQUERY[fault]:
        assert hasty.rows(event.data["name"]) == []
    hasty.bigquery.faults = []
    assert_comes_right(hasty, event)


@pytest.mark.parametrize("fault", ["HTTP 403", "HTTP 503", "row errors"])
def test_a_fault_of_bigquery_that_lasts_becomes_a_dead_letter(hasty: Stack, fault: str) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("instances/insertAll", **BIGQUERY[fault])]
    outcome = post(hasty, event)
    assert outcome.status == 200
    assert outcome.seconds < DEADLINE + BURIAL + SLACK * patience()
    hasty.bigquery.faults = []
    (letter,) = [row for row in hasty.dead_letters() if row["message_id"] == event.id]
    assert letter["attributes"]["error_type"] == "WriteFailedError"
    assert_comes_right(hasty, event)


def test_a_dead_letter_of_a_row_that_was_stored_after_all_is_closed_by_retry(
    hasty: Stack,
) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("instances/insertAll", how="stall")]
    assert post(hasty, event).status == 200
    hasty.bigquery.faults = []
    assert len(hasty.rows(event.data["name"])) == 1
    assert open_reasons(hasty, event) == ["WriteFailedError"]
    assert retry_dead_letters(hasty, f"*/{event.data['name']}") == 0
    assert_comes_right(hasty, event)


def test_a_bigquery_that_is_wholly_away_leaves_even_an_old_event_to_the_trigger(
    hasty: Stack,
) -> None:
    event = old(upload(hasty))
    hasty.bigquery.faults = [Fault("insertAll", 503)]
    outcome = post(hasty, event)
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + BURIAL + SLACK * patience()
    hasty.bigquery.faults = []
    assert_comes_right(hasty, event)


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
def test_a_server_that_cannot_be_found_means_delivery_again(
    hasty: Stack, variable: str, url: str
) -> None:
    event = upload(hasty)
    with function(OURS, 0, 4, environ=elsewhere(hasty, **{variable: url})) as (port, _):
        outcome = post(hasty, event, f"http://127.0.0.1:{port}")
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + SLACK * patience()
    assert hasty.rows(event.data["name"]) == []
    assert_comes_right(hasty, event)


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
    """Write the key of a service account whose tokens come from elsewhere."""
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


@pytest.fixture(scope="module", params=["BIGQUERY_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
def tokenless(
    hasty: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TokenEndpoint]]:
    """A function that needs an access token for one of the services, and the endpoint."""
    endpoint = TokenEndpoint()
    with serving(endpoint.serve) as token_url:
        key = tmp_path_factory.mktemp("key") / "key.json"
        write_key(key, f"{token_url}/token")
        environ = {request.param: "", "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
        with function(OURS, 0, 4, environ=elsewhere(hasty, **environ)) as (port, _):
            yield f"http://127.0.0.1:{port}", endpoint


@pytest.mark.parametrize("fault", TOKENS)
def test_without_an_access_token_an_event_is_delivered_again(
    hasty: Stack, tokenless: tuple[str, TokenEndpoint], fault: str
) -> None:
    url, endpoint = tokenless
    endpoint.fault, endpoint.requests = fault, 0
    event = upload(hasty)
    outcome = post(hasty, event, url)
    assert endpoint.requests > 0
    assert outcome.status == 500
    assert outcome.seconds < DEADLINE + REFRESH + SLACK * patience()
    assert hasty.rows(event.data["name"]) == []
    assert_comes_right(hasty, event)
