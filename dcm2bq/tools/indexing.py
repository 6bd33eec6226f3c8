"""What the commands that write rows share: the function's handler, and attempts at many things.

`attempt_each` is for commands whose user decides what to repeat; `attempt_twice` is for a
backfill, which has nobody to ask.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from dcm2bq import dicom, schema, secret_manager
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, RetryableError
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler
from dcm2bq.schema.compare import compare
from dcm2bq.tools.parallel import in_parallel

THREADS = 8
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
    """An attempt that can show that the services work, even if nothing was to be done."""

    @property
    def proves_service(self) -> bool:
        """Whether the services that it needs answered and granted the request."""


def handler(dataset: Dataset, config: Config, sink: RowSink | None = None) -> Handler:
    """Return the function's handler, writing to `sink` or, by default, to BigQuery.

    Raises `ConfigError` if the table does not accept its rows; see `require_table`.
    """
    require_table(dataset, config)
    return Handler(config, Store(config), sink or RowSink(config))


def require_table(dataset: Dataset, config: Config) -> None:
    """Raise `ConfigError` unless `instances` exists and accepts rows of this configuration.

    Rows made with other privacy options must not be mixed: the old ones would stay readable. Nor
    must rows made with another key: their pseudonyms would not meet.
    """
    secret_manager.provide_hash_key(config.privacy)
    dicom.privacy_rules(config.privacy)
    definition = schema.load(config, dataset.project)[0]
    table = dataset.get_table(definition.name)
    if table is None:
        raise ConfigError(
            f"{definition.qualified_name}: the table does not exist; create it with dcm2bq init"
        )
    if refusals := compare(table, definition).refusals:
        raise ConfigError(
            "\n".join(f"{definition.qualified_name}: {refusal}" for refusal in refusals)
        )


def require_bucket(bucket: str, config: Config) -> None:
    """Raise `ConfigError` for a bucket whose events the function would reject."""
    if not config.input.admits(bucket):
        raise ConfigError(f"gs://{bucket}: is not one of input.buckets")


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
    proved that the services work: then not the item is to blame.
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
    """Yield each item with its attempt; raise where going on is pointless."""
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
        """Raise `error` if it is one too many."""
        self._failures = self._failures + 1 if isinstance(error, RetryableError) else 0
        if error and self._failures >= OUTAGE_FAILURES:
            raise error
