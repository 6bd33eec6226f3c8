"""Attempts at many things at once, which an outage of a service ends.

`attempt_each` is for commands whose user decides what to repeat; `attempt_twice` is for a
backfill, which has nobody to ask.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from dcm2bq.errors import ConfigError, RetryableError
from dcm2bq.parallel import in_parallel

THREADS = 8
"""Items handled at once by a command; each waits for services most of its time."""
OUTAGE_FAILURES = 8
"""Retryable failures in a row that mean a service is down: one for each thread of a command."""

_SECOND_ROUND_ITEMS = 1000
"""Failed items held in memory; when there are more, their second round comes early."""
_PAUSE_SECONDS = 1.0
"""Before a second round, so that a short disturbance is over."""


class Attempt(Protocol):
    """The result of trying one of many things."""

    @property
    def error(self) -> Exception | None:
        """Why it failed; None if it succeeded."""


class ProvingAttempt(Attempt, Protocol):
    """An attempt that may prove that the services work; one with nothing to do does not."""

    @property
    def proves_service(self) -> bool:
        """Whether the services that it needs answered and granted the request."""


def attempt_each[T, A: Attempt](work: Callable[[T], A], items: Iterable[T]) -> Iterator[A]:
    """Do the same for each item, `THREADS` at once; yield the attempts in the items' order.

    At most `2 * THREADS` items are read ahead. Raises the last error after `OUTAGE_FAILURES`
    attempts in a row failed with a `RetryableError`, and a `ConfigError` at once, since every
    attempt would fail with it.
    """
    watch = _OutageWatch()
    with ThreadPoolExecutor(THREADS) as pool:
        for _, attempt in _attempts(work, items, pool, THREADS, watch):
            yield attempt


def attempt_twice[T, A: ProvingAttempt](
    first: Callable[[T], A],
    last: Callable[[T], A],
    items: Iterable[T],
    *,
    pool: ThreadPoolExecutor,
    threads: int,
) -> Iterator[A]:
    """Do `first` for each item and, at the end, `last` for those that failed.

    Yields each item's attempt that counts: its successful `first`, or its `last`. Raises as
    `attempt_each` does, and the error of a failed `last` if no attempt before the second round
    proved that the services work: the item is not to blame then.
    """
    watch = _OutageWatch()
    is_proven = False
    failed: list[T] = []

    def second_round() -> Iterator[A]:
        if not failed:
            return
        time.sleep(_PAUSE_SECONDS)
        error = None
        for _, attempt in _attempts(last, failed, pool, threads, watch):
            error = attempt.error or error
            yield attempt
        if error and not is_proven:
            raise error
        failed.clear()

    for item, attempt in _attempts(first, items, pool, threads, watch):
        if attempt.error:
            failed.append(item)
        else:
            is_proven = is_proven or attempt.proves_service
            yield attempt
        if len(failed) == _SECOND_ROUND_ITEMS:
            yield from second_round()
    yield from second_round()


def _attempts[T, A: Attempt](
    work: Callable[[T], A],
    items: Iterable[T],
    pool: ThreadPoolExecutor,
    threads: int,
    watch: "_OutageWatch",
) -> Iterator[tuple[T, A]]:
    """Yield each item with its attempt; raise as soon as continuing is pointless."""
    results = in_parallel(pool, lambda item: (item, work(item)), items, 2 * threads)
    for item, attempt in results:
        if isinstance(attempt.error, ConfigError):
            raise attempt.error
        yield item, attempt
        watch.check(attempt.error)


class _OutageWatch:
    """Counts the failures in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def check(self, error: Exception | None) -> None:
        """Count an attempt's error, if any; raise it if it completes an outage."""
        self._failures = self._failures + 1 if isinstance(error, RetryableError) else 0
        if error and self._failures >= OUTAGE_FAILURES:
            raise error
