"""Every kind of fault: how the event is answered, how soon, and what the tables hold then."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from tests.support.function_forks import function_forks
from tests.support.function_process import OURS, function
from tests.support.function_stack import Stack, unique
from tests.support.http_server import Exchange, serving
from tests.support.patience import patience, scaled
from tests.support.proxy import PATIENCE, SPOILT, Fault, Proxy

Report = Callable[[str], None]

DEADLINE = scaled(2)
BRIEF = scaled(1)
"""The deadline of other functions: events are sent to them one after the other, and most wait."""
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
LASTING = ("HTTP 403", "HTTP 503", "row errors")
"""The faults of BigQuery that an old event meets, too."""
INSERT = "instances/insertAll"
LANES = 3
"""Functions that share the faults of BigQuery: each costs a start."""
NOWHERE = "http://no-such-host.invalid"
UNKNOWN = {
    "BigQuery, no such name": ("BIGQUERY_EMULATOR_HOST", NOWHERE),
    "Cloud Storage, no such name": ("STORAGE_EMULATOR_HOST", NOWHERE),
    "Cloud Storage, refused": ("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9"),
}


type Name = tuple[str, ...]
"""Of a delivery: where the fault is, which it is, and the age of the event where both are tried."""

STORED: Name = ("BigQuery", "stall", "old")
"""The delivery that becomes a dead letter although its row is stored."""
DOWN: Name = ("BigQuery", "HTTP 503 for dead letters, too", "old")
OF_BIGQUERY: dict[Name, Fault] = {
    **{("BigQuery", name, "new"): Fault(INSERT, **fault) for name, fault in BIGQUERY.items()},
    DOWN: Fault("insertAll", 503),
}
"""The faults for functions that reach BigQuery through another proxy than the stack's."""


@dataclass(frozen=True)
class Outcome:
    """The HTTP status of a delivery, and the seconds until the answer."""

    event: Event
    status: int
    seconds: float
    slack: float
    """Seconds that the function itself may have taken, as busy as the machine was."""

    def is_within(self, seconds: float) -> bool:
        """Whether the answer came after that many seconds of waiting at most."""
        return self.seconds < seconds + self.slack


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
    """A function with a short deadline, and a thread for every event that it gets at once."""
    options = {"bigQuery": {"timeoutSeconds": DEADLINE}, "limits": {"deadlineSeconds": DEADLINE}}
    with make_stack(threads=2 * len(STORAGE) + 1, **options) as stack:
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
    return Outcome(event, status, time.monotonic() - started, SLACK * patience())


def by_path(stack: Stack, column: str, table: str) -> dict[str, list[str]]:
    """Return the values of a column by the path of their rows."""
    values: dict[str, list[str]] = {}
    for row in stack.dataset.query(f"SELECT path, {column} AS value FROM {table}"):
        values.setdefault(row["path"], []).append(row["value"])
    return values


def look_at[Key](stack: Stack, outcomes: Mapping[Key, Outcome]) -> dict[Key, Seen]:
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


@contextmanager
def running(stack: Stack, environ: Mapping[str, str]) -> Iterator[int]:
    """Run a function on the stack with other servers; yield its port."""
    options = {
        "bigQuery": {"datasetId": stack.dataset.dataset_id, "timeoutSeconds": BRIEF},
        "limits": {"deadlineSeconds": BRIEF},
    }
    environ = {
        "BIGQUERY_EMULATOR_HOST": stack.bigquery.url,
        "STORAGE_EMULATOR_HOST": stack.storage.url,
        "DCM2BQ_CONFIG": json.dumps(options),
        "NO_GCE_CHECK": "true",
        **environ,
    }
    with function(OURS, 0, 4, environ=environ, forks=function_forks()) as (port, _):
        yield port


def storage_faults(stack: Stack) -> dict[Name, Outcome]:
    """Meet every fault of Cloud Storage with a new event and with an old one, all at once."""
    events: dict[Name, Event] = {}
    faults = []
    for name, fault in STORAGE.items():
        for age in ("new", "old"):
            event = upload(stack)
            events["Cloud Storage", name, age] = old(event) if age == "old" else event
            faults.append(Fault(event.data["name"], **fault))
    stack.storage.faults = faults
    with ThreadPoolExecutor(len(events)) as pool:
        outcomes = pool.map(lambda event: post(stack, event), events.values())
    return dict(zip(events, outcomes, strict=True))


def bigquery_faults(
    stack: Stack, bigquery_url: str, faults: Mapping[Name, Fault]
) -> dict[Name, Outcome]:
    """Meet faults of BigQuery, one after the other: rows of concurrent events share inserts."""
    outcomes = {}
    with (
        Proxy(bigquery_url).running() as bigquery,
        running(stack, {"BIGQUERY_EMULATOR_HOST": bigquery.url}) as port,
    ):
        for name, fault in faults.items():
            event = upload(stack)
            if name[-1] == "old":
                event = old(event)
            bigquery.faults = [fault]
            outcomes[name] = post(stack, event, f"http://127.0.0.1:{port}")
    return outcomes


def lasting_faults(stack: Stack) -> dict[Name, Outcome]:
    """Meet some faults of BigQuery with old events."""
    outcomes: dict[Name, Outcome] = {}
    for name in (*LASTING, "stall"):
        event = old(upload(stack))
        stack.bigquery.faults = [Fault(INSERT, **BIGQUERY[name])]
        outcomes["BigQuery", name, "old"] = post(stack, event)
    return outcomes


def unknown_server(stack: Stack, name: str) -> dict[Name, Outcome]:
    """Deliver an event to a function that cannot find one of the servers."""
    variable, url = UNKNOWN[name]
    with running(stack, {variable: url}) as port:
        return {("server", name): post(stack, upload(stack), f"http://127.0.0.1:{port}")}


@pytest.fixture(scope="module")
def outcomes(
    hasty: Stack, bigquery_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[Name, Outcome]:
    """Every fault, all kinds of them at once, since most time is spent waiting.

    Events that meet a fault of Cloud Storage get as far as a dead letter at most.
    """
    names = [*OF_BIGQUERY]
    with ThreadPoolExecutor(2 + LANES + len(UNKNOWN) + len(SERVICES)) as pool:
        parts = [
            pool.submit(storage_faults, hasty),
            pool.submit(lasting_faults, hasty),
            *(
                pool.submit(
                    bigquery_faults,
                    hasty,
                    bigquery_url,
                    {name: OF_BIGQUERY[name] for name in names[lane::LANES]},
                )
                for lane in range(LANES)
            ),
            *(pool.submit(unknown_server, hasty, name) for name in UNKNOWN),
            *(
                pool.submit(token_faults, hasty, service, tmp_path_factory.mktemp("key"))
                for service in SERVICES
            ),
        ]
        outcomes = {name: outcome for part in parts for name, outcome in part.result().items()}
    hasty.storage.faults = []
    hasty.bigquery.faults = []
    return outcomes


@pytest.fixture(scope="module")
def seen(hasty: Stack, outcomes: dict[Name, Outcome]) -> dict[Name, Seen]:
    """What came of every fault, and of the next delivery."""
    return look_at(hasty, {name: outcomes[name] for name in outcomes if name != STORED})


@pytest.mark.parametrize("fault", STORAGE)
def test_a_fault_of_cloud_storage_means_redelivery(seen: dict[Name, Seen], fault: str) -> None:
    delivery = seen["Cloud Storage", fault, "new"]
    assert delivery.outcome.status == 500
    assert delivery.outcome.is_within(DEADLINE)
    assert delivery.rows == 0
    assert delivery.reasons == []
    delivery.assert_comes_right()


@pytest.mark.parametrize("fault", STORAGE)
def test_a_lasting_fault_of_cloud_storage_becomes_a_dead_letter(
    seen: dict[Name, Seen], fault: str
) -> None:
    delivery = seen["Cloud Storage", fault, "old"]
    assert delivery.outcome.status == 200
    assert delivery.outcome.is_within(DEADLINE + GRACE)
    assert delivery.rows == 0
    assert delivery.reasons == ["ReadFailedError"]
    delivery.assert_comes_right()


@pytest.mark.parametrize("fault", BIGQUERY)
def test_a_fault_of_bigquery_means_redelivery(seen: dict[Name, Seen], fault: str) -> None:
    delivery = seen["BigQuery", fault, "new"]
    assert delivery.outcome.status == 500
    assert delivery.outcome.is_within(BRIEF)
    if "after" not in BIGQUERY[fault] and "how" not in BIGQUERY[fault]:
        assert delivery.rows == 0
    delivery.assert_comes_right()


@pytest.mark.parametrize("fault", LASTING)
def test_a_lasting_fault_of_bigquery_becomes_a_dead_letter(
    seen: dict[Name, Seen], fault: str
) -> None:
    delivery = seen["BigQuery", fault, "old"]
    assert delivery.outcome.status == 200
    assert delivery.outcome.is_within(DEADLINE + GRACE)
    assert delivery.reasons == ["WriteFailedError"]
    delivery.assert_comes_right()


def test_a_dead_letter_of_a_row_that_was_stored_after_all_is_closed_by_retry(
    hasty: Stack, outcomes: dict[Name, Outcome]
) -> None:
    outcome = outcomes[STORED]
    assert outcome.status == 200
    name = outcome.event.data["name"]
    assert len(hasty.rows(name)) == 1
    path = f"gs://{hasty.bucket.name}/{name}"
    assert by_path(hasty, "reason", "dead_letters")[path] == ["WriteFailedError"]
    assert retry_dead_letters(hasty, f"*/{name}") == 0
    assert path not in by_path(hasty, "reason", "dead_letters")
    look_at(hasty, {STORED: outcome})[STORED].assert_comes_right()


def test_while_bigquery_is_down_even_an_old_event_is_left_to_the_trigger(
    seen: dict[Name, Seen],
) -> None:
    delivery = seen[DOWN]
    assert delivery.outcome.status == 500
    assert delivery.outcome.is_within(BRIEF + GRACE)
    delivery.assert_comes_right()


@pytest.mark.parametrize("server", UNKNOWN)
def test_a_server_that_cannot_be_found_means_redelivery(
    seen: dict[Name, Seen], server: str
) -> None:
    delivery = seen["server", server]
    assert delivery.outcome.status == 500
    assert delivery.outcome.is_within(BRIEF)
    assert delivery.rows == 0
    delivery.assert_comes_right()


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


def token_faults(stack: Stack, service: str, folder: Path) -> dict[Name, Outcome]:
    """Meet each fault of the token endpoint with a function that needs it for the service."""
    endpoint = TokenEndpoint()
    outcomes: dict[Name, Outcome] = {}
    with serving(endpoint.serve) as token_url:
        key = folder / "key.json"
        write_key(key, f"{token_url}/token")
        environ = {service: "", "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
        with running(stack, environ) as port:
            for fault in TOKENS:
                endpoint.fault, endpoint.requests = fault, 0
                event = upload(stack)
                outcomes[service, fault] = post(stack, event, f"http://127.0.0.1:{port}")
                assert endpoint.requests > 0
    return outcomes


@pytest.mark.parametrize("fault", TOKENS)
@pytest.mark.parametrize("service", SERVICES)
def test_without_an_access_token_an_event_is_delivered_again(
    seen: dict[Name, Seen], service: str, fault: str
) -> None:
    delivery = seen[service, fault]
    assert delivery.outcome.status == 500
    assert delivery.outcome.is_within(BRIEF + REFRESH)
    assert delivery.rows == 0
    delivery.assert_comes_right()
