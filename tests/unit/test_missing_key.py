"""A missing key stops the run: no event is to blame, and none becomes a dead letter."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from dcm2bq import config, events
from dcm2bq.errors import ConfigError, NotDicomError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Handler
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import attempts
from dcm2bq.tools.backfill.staging import ShardObjects
from tests.dicom.build import dicom, identity
from tests.support.in_memory import MemorySink, MemoryStore

CONTENT = dicom(identity())


@dataclass
class Attempt:
    error: Exception | None


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCM2BQ_HASH_KEY", raising=False)


@pytest.fixture(params=[{"hash": ["PatientID"]}, {"profile": "basic"}], ids=["hash", "profile"])
def options(request: pytest.FixtureRequest) -> config.Config:
    return config.from_overrides({"privacy": request.param})


def event(number: int) -> ObjectEvent:
    return ObjectEvent(
        event_id=f"e{number}",
        kind=EventKind.FINALIZED,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        object=StoredObject(
            bucket="scans",
            name=f"{number}.dcm",
            generation=number + 1,
            size=len(CONTENT),
        ),
    )


@pytest.mark.parametrize("is_last", [True, False, None])
def test_the_handler_raises_a_missing_key_whatever_the_age_of_the_event(
    options: config.Config, *, is_last: bool | None
) -> None:
    sink = MemorySink()
    with pytest.raises(ConfigError, match="DCM2BQ_HASH_KEY is not set: it must hold 16 bytes"):
        Handler(options, MemoryStore(CONTENT), sink).handle(
            events.deliver(event(1)), is_last=is_last
        )
    assert sink.rows == []


def test_a_backfill_stops_at_the_first_object(options: config.Config) -> None:
    sink = MemorySink()
    given: list[int] = []

    def listed() -> Iterator[ObjectEvent]:
        for number in range(1000):
            given.append(number)
            yield event(number)

    with ThreadPoolExecutor(2) as pool:
        objects = ShardObjects(Handler(options, MemoryStore(CONTENT), sink), lambda _: None)
        with pytest.raises(ConfigError, match="DCM2BQ_HASH_KEY"):
            objects.handle(listed(), pool, 2)
    assert sink.rows == []
    assert len(given) < 20


def test_repairs_and_retries_stop_at_the_first_missing_key() -> None:
    """Other errors concern only their attempt."""
    tried = attempts.attempt_each(Attempt, [NotDicomError("x"), ConfigError("key"), None])
    assert isinstance(next(tried).error, NotDicomError)
    with pytest.raises(ConfigError, match="key"):
        next(tried)
