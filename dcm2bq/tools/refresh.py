"""Bring the table `objects` up to date with the log, by one MERGE.

Why `objects_live` is exact, whatever refreshes were interrupted, repeated or concurrent:

- Each row of `objects` is the greatest of its key among the rows of the log that were read. So
  reading a part of the log again, late or at the same time does no harm.
- The MERGE changes the rows and `refreshed_at` together, or nothing.
- `ingested_at` is set before a row can be seen. So a refresh reads the log from 28 days before the
  last one, and the view the last 28 days (`objects/overlap.sql`). A row that appeared within 28
  days, less the age of the last refresh, is in `objects`, in what the view reads of the log, or in
  both. The view raises an error if that age exceeds seven days: a row has 21 days to appear.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config

EVERYTHING = datetime.min.replace(tzinfo=UTC)
"""The `since` of a refresh that reads the whole log."""
FRESH = timedelta(days=1)
"""Age of the last refresh from which the local stack does another: the view allows seven days."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that was done or would be: the part of the log that it reads.

    `since` is the least `ingested_at`; `bytes_read` is what BigQuery bills at most.
    """

    since: datetime
    bytes_read: int

    @property
    def is_full(self) -> bool:
        """Whether the whole log is read."""
        return self.since == EVERYTHING


def refresh(
    dataset: Dataset, config: Config, *, full: bool = False, dry_run: bool = False
) -> Refresh:
    """Bring `objects` up to date; with `full`, read the whole log, as the first refresh does.

    Raises `ConfigError` if `objects` does not exist, and `ServiceError` if BigQuery cannot be
    reached or refuses; nothing is changed then.
    """
    dataset.existing_table("objects")
    since = EVERYTHING if full else _since(dataset, config)
    sql = schema.statement("objects/refresh", config, dataset.project)
    planned = Refresh(since, dataset.bytes_processed(sql, {"since": since}))
    if not dry_run:
        dataset.query(sql, {"since": since})
    return planned


def last_refresh(dataset: Dataset) -> datetime | None:
    """Return when `objects` was last refreshed, or None if it never was.

    Raises `ConfigError` if it does not exist.
    """
    dataset.existing_table("objects")
    (row,) = dataset.query("SELECT MAX(refreshed_at) AS refreshed FROM objects")
    at: datetime | None = row["refreshed"]
    return at


def keep_fresh(dataset: Dataset, config: Config) -> None:
    """Refresh unless that was done within a day."""
    at = last_refresh(dataset)
    if at is None or datetime.now(UTC) - at > FRESH:
        refresh(dataset, config)


def _since(dataset: Dataset, config: Config) -> datetime:
    sql = schema.statement("objects/refresh_from", config, dataset.project)
    (row,) = dataset.query(sql)
    since: datetime = row["since"]
    return since
