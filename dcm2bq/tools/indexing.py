"""What the commands that write rows share: the function's own handler, on a table that fits."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from dcm2bq import dicom, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, RetryableError
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler
from dcm2bq.schema.compare import compare
from dcm2bq.tools.parallel import in_parallel

THREADS = 8
OUTAGE = 8
"""So many failures in a row that may pass by themselves mean that a service is down."""


class Attempt(Protocol):
    """What became of one of many things to do; `error` is None where it was done."""

    @property
    def error(self) -> Exception | None:
        """Why it was not done."""


def handler(dataset: Dataset, config: Config, sink: RowSink | None = None) -> Handler:
    """Return the handler that the function has, with its writer or the one given.

    Raises `ConfigError` where its rows may not go into the table: see `require_table`.
    """
    require_table(dataset, config)
    return Handler(config, Store(config), sink or RowSink(config))


def require_table(dataset: Dataset, config: Config) -> None:
    """Raise `ConfigError` unless `instances` is there and takes rows of this configuration.

    Rows made by other privacy options must not stand beside new ones: the old ones would stay.
    """
    dicom.privacy_rules(config.privacy)
    definition = schema.load(config, dataset.project)[0]
    found = dataset.get_table(definition.name)
    if found is None:
        raise ConfigError(f"{definition.qualified_name}: there is no such table; dcm2bq init")
    if refusals := compare(found, definition).refusals:
        raise ConfigError("\n".join(f"{definition.qualified_name}: {each}" for each in refusals))


def require_bucket(bucket: str, config: Config) -> None:
    """Raise `ConfigError` where the function would make dead letters of a bucket's events."""
    if not config.input.admits(bucket):
        raise ConfigError(f"gs://{bucket}: is not one of input.buckets")


def attempt[T, A: Attempt](work: Callable[[T], A], items: Iterable[T]) -> Iterator[A]:
    """Do the same for each item, several at once; yield the attempts in the items' order.

    Few items are read ahead. Raises the last error where `OUTAGE` attempts in a row fail for
    reasons that may pass, and a `ConfigError` at once: every attempt would meet it.
    """
    failures = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for each in in_parallel(pool, work, items, 2 * THREADS):
            if isinstance(each.error, ConfigError):
                raise each.error
            yield each
            failures = failures + 1 if isinstance(each.error, RetryableError) else 0
            if failures == OUTAGE and each.error:
                raise each.error
