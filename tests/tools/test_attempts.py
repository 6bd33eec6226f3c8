"""Many attempts: an outage ends them, and a backfill tries what failed once more at the end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from dcm2bq.errors import ConfigError, NotDicomError, ReadFailedError
from dcm2bq.tools.attempts import OUTAGE_FAILURES, THREADS, attempt_each, attempt_twice


@dataclass(frozen=True)
class Tried:
    """An attempt at a number."""

    number: int
    error: Exception | None = None
    proves_service: bool = True


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    monkeypatch.setattr("dcm2bq.tools.attempts._PAUSE_SECONDS", 0)
    with ThreadPoolExecutor(3) as made:
        yield made


def succeed(number: int) -> Tried:
    return Tried(number)


def fail(number: int) -> Tried:
    return Tried(number, ReadFailedError(f"{number}"))


def test_attempts_come_in_the_order_of_their_items() -> None:
    assert [attempt.number for attempt in attempt_each(succeed, range(50))] == list(range(50))


def test_few_items_are_read_ahead_of_the_results() -> None:
    numbers = iter(range(1000))
    attempts = attempt_each(succeed, numbers)
    assert next(attempts).number == 0
    assert next(numbers) == 2 * THREADS


def test_retryable_failures_in_a_row_are_an_outage() -> None:
    seen: list[Tried] = []
    with pytest.raises(ReadFailedError, match=f"^{OUTAGE_FAILURES}$"):
        seen.extend(attempt_each(fail, range(1, 100)))
    assert len(seen) == OUTAGE_FAILURES


def test_other_failures_are_not_an_outage() -> None:
    def reject(number: int) -> Tried:
        return Tried(number, NotDicomError("x"))

    assert len(list(attempt_each(reject, range(40)))) == 40

    def fail_mostly(number: int) -> Tried:
        return fail(number) if number % OUTAGE_FAILURES else succeed(number)

    assert len(list(attempt_each(fail_mostly, range(40)))) == 40


@pytest.mark.parametrize("rows", [5, 2500])
def test_failed_items_are_tried_once_more_at_the_end(pool: ThreadPoolExecutor, rows: int) -> None:
    calls: list[tuple[str, int]] = []

    def first(number: int) -> Tried:
        calls.append(("first", number))
        return succeed(number) if number % 2 else fail(number)

    def last(number: int) -> Tried:
        calls.append(("last", number))
        return succeed(number)

    attempts = list(attempt_twice(first, last, range(rows), pool=pool, threads=3))
    assert all(attempt.error is None for attempt in attempts)
    assert sorted(attempt.number for attempt in attempts) == list(range(rows))
    repeated = [number for name, number in calls if name == "last"]
    assert sorted(repeated) == [number for number in range(rows) if number % 2 == 0]
    assert calls.index(("last", 0)) > calls.index(("first", rows // 2 - 1))


def test_a_second_failure_is_yielded_if_an_attempt_proves_that_the_services_work(
    pool: ThreadPoolExecutor,
) -> None:
    def first(number: int) -> Tried:
        return fail(number) if number == 3 else succeed(number)

    attempts = list(attempt_twice(first, fail, range(5), pool=pool, threads=3))
    assert [attempt.number for attempt in attempts] == [0, 1, 2, 4, 3]
    assert isinstance(attempts[-1].error, ReadFailedError)


def test_a_second_failure_is_raised_if_no_attempt_proves_that_the_services_work(
    pool: ThreadPoolExecutor,
) -> None:
    def first(number: int) -> Tried:
        return fail(number) if number % 2 else Tried(number, proves_service=False)

    with pytest.raises(ReadFailedError):
        list(attempt_twice(first, fail, range(4), pool=pool, threads=3))


def test_a_wrong_configuration_ends_either_round(pool: ThreadPoolExecutor) -> None:
    def refuse(number: int) -> Tried:
        return Tried(number, ConfigError("key"))

    for first, last in ((refuse, succeed), (fail, refuse)):
        with pytest.raises(ConfigError, match="key"):
            list(attempt_twice(first, last, range(3), pool=pool, threads=3))


def test_failures_are_counted_over_both_rounds(pool: ThreadPoolExecutor) -> None:
    seen: list[int] = []

    def last(number: int) -> Tried:
        seen.append(number)
        return fail(number)

    def first(number: int) -> Tried:
        return succeed(number) if number == 0 else fail(number)

    with pytest.raises(ReadFailedError):
        list(attempt_twice(first, last, range(OUTAGE_FAILURES), pool=pool, threads=1))
    assert len(seen) <= 2  # the first, and one that was begun ahead of its result
