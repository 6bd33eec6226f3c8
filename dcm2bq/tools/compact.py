"""Remove hidden rows, and markers that hide nothing, from the old months of `instances`.

Each month is one DELETE, which leaves `instances_live` as it is: the work can stop after any month.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.tools import refresh

MARGIN = timedelta(days=30)
"""How long a month must be over. Triggers retry for seven days, streamed rows cannot be changed for
up to 90 minutes, and `objects_live` reads the last 28 days of the log."""


@dataclass(frozen=True, slots=True)
class CompactionMonth:
    """A month of `instances` with something to remove.

    `markers` is an upper bound: those that still hide a row of another month stay. `bytes_read` is
    what BigQuery bills for it: the keys of all rows, and all columns of this month. The latter,
    `bytes_stored`, are written anew at most, and are no longer long-term storage.
    """

    month: datetime
    rows: int
    hidden: int
    markers: int
    bytes_read: int
    bytes_stored: int


def plan(dataset: Dataset, config: Config) -> list[CompactionMonth]:
    """Return the months with something to remove, the oldest first.

    The query reads path, version, event and time of all rows.
    """
    sql = schema.statement("compaction/compaction_plan", config, dataset.project)
    compaction = schema.statement("compaction/compaction", config, dataset.project)
    stored = f"""
        SELECT *
        FROM `{config.big_query.instances_table_id}`
        WHERE ingested_at >= @since AND ingested_at < @until
    """  # noqa: S608 - the configuration restricts the characters of a table's id
    return [
        CompactionMonth(
            row["month"],
            row["row_count"],
            row["hidden"],
            row["markers"],
            bytes_read=dataset.bytes_processed(compaction, _interval(row["month"])),
            bytes_stored=dataset.bytes_processed(stored, _interval(row["month"])),
        )
        for row in dataset.query(sql, {"until": first_left_alone()})
    ]


def first_left_alone() -> datetime:
    """Return the first moment of the first month that is too recent to be compacted."""
    return _begin(datetime.now(UTC) - MARGIN)


def plan_bytes(dataset: Dataset, config: Config) -> int:
    """Return the bytes that `plan` reads.

    Raises `ConfigError` if `instances` does not exist.
    """
    dataset.existing_table(config.big_query.instances_table_id)
    sql = schema.statement("compaction/compaction_plan", config, dataset.project)
    return dataset.bytes_processed(sql, {"until": datetime.now(UTC)})


def compact(
    dataset: Dataset, config: Config, months: Iterable[CompactionMonth]
) -> Iterator[tuple[CompactionMonth, int]]:
    """Compact the months, and yield each with the number of rows and markers removed.

    They must be in order. If `objects` is in use, it is refreshed first: a marker that is removed
    before it was merged would never hide its rows there.
    """
    if refresh.last_refresh(dataset) is not None:
        refresh.refresh(dataset, config)
    sql = schema.statement("compaction/compaction", config, dataset.project)
    for month in months:
        yield month, dataset.change(sql, _interval(month.month))


def _interval(month: datetime) -> dict[str, datetime]:
    """Return the parameters that select a month."""
    return {"since": month, "until": _begin(month + timedelta(days=31))}


def _begin(moment: datetime) -> datetime:
    """Return the first moment of a month in UTC, as BigQuery's partitions have it."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
