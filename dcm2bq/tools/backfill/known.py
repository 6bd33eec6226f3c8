"""The generations of a bucket that BigQuery already has: queried once, read shard by shard.

The result is stored in a table partitioned by shard, because a query per shard would scan the
paths of all rows each time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.gcs.uri import GsUri
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run

_DAYS = 7
"""Days after which an abandoned run's table expires."""
_KNOWN = """
SELECT path, version FROM instances_live WHERE member IS NULL
UNION DISTINCT
SELECT path, version FROM `{instances}` WHERE event = 'expanded'
UNION DISTINCT
SELECT path, version FROM dead_letters
WHERE event IN ('finalized', 'metadataUpdated')
  AND member IS NULL
  AND reason != 'ArchiveTooLargeError'
UNION DISTINCT
SELECT path, version FROM dismissed_letters
WHERE event IN ('finalized', 'metadataUpdated') AND member IS NULL
"""
"""An archive is known once it was expanded, whatever became of its members.

It is not known if it was too large for the function, since a backfill gives it more time.
"""


def prepare(dataset: Dataset, run: Run, shards: Sequence[Shard]) -> None:
    """Store the generations with a live row, an expansion, or a dead letter, open or dismissed.

    The table is dropped at the end of the run, or expires.
    """
    known = _KNOWN.format(instances=run.config.big_query.instances_table_id)
    sql = f"""
        CREATE TABLE IF NOT EXISTS `{run.known_table}`
        PARTITION BY RANGE_BUCKET(shard, GENERATE_ARRAY(0, {len(shards)}, 1))
        OPTIONS (
          expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {_DAYS} DAY),
          description = 'Generations that a backfill skips because BigQuery already has them'
        )
        AS
        SELECT RANGE_BUCKET(path, @starts) - 1 AS shard, path, version
        FROM ({known})
        WHERE STARTS_WITH(path, @source)
    """  # noqa: S608 - the configuration and the command restrict the characters of ids
    starts = [f"gs://{run.bucket}/{shard.start}" for shard in shards]
    dataset.query(sql, {"starts": starts, "source": f"gs://{run.bucket}/{run.prefix}"})


def count(dataset: Dataset, config: Config, uri: GsUri) -> int:
    """Return how many generations under a prefix `prepare` would store."""
    known = _KNOWN.format(instances=config.big_query.instances_table_id)
    sql = f"SELECT COUNT(*) AS n FROM ({known}) WHERE STARTS_WITH(path, @source)"  # noqa: S608
    (row,) = dataset.query(sql, {"source": str(uri)})
    return int(row["n"])


def bytes_queried(dataset: Dataset, config: Config, uri: GsUri) -> int:
    """Return how many bytes `prepare` reads; asking costs nothing."""
    known = _KNOWN.format(instances=config.big_query.instances_table_id)
    sql = f"SELECT path, version FROM ({known}) WHERE STARTS_WITH(path, @source)"  # noqa: S608
    return dataset.bytes_processed(sql, {"source": str(uri)})


def number(dataset: Dataset, run: Run) -> int:
    """Return how many generations are stored; no query is needed for that."""
    table = dataset.get_table(run.known_table) or {}
    return int(table.get("numRows", 0))


def by_shard(dataset: Dataset, run: Run) -> dict[int, int]:
    """Return how many objects of each shard have a stored generation."""
    sql = f"SELECT shard, COUNT(DISTINCT path) AS n FROM `{run.known_table}` GROUP BY shard"  # noqa: S608
    return {int(row["shard"]): int(row["n"]) for row in dataset.query(sql)}


def forget(dataset: Dataset, run: Run) -> None:
    """Drop the table of `prepare`."""
    dataset.query(f"DROP TABLE IF EXISTS `{run.known_table}`")


def missing(
    dataset: Dataset,
    run: Run,
    shard: Shard,
    listed: Iterable[StoredObject],
    skip: Callable[[], object],
) -> Iterator[StoredObject]:
    """Yield the objects whose generation is not stored; call `skip` for each of the others.

    `listed` must be in the order of their paths, as the stored rows are read: the two are merged,
    and neither is held in memory.
    """
    sql = f"SELECT path, version FROM `{run.known_table}` WHERE shard = @shard ORDER BY path"  # noqa: S608
    rows = ((row["path"], row["version"]) for row in dataset.stream(sql, {"shard": shard.number}))
    row = next(rows, None)
    for stored in listed:
        versions = set()
        while row is not None and row[0] <= stored.path:
            if row[0] == stored.path:
                versions.add(row[1])
            row = next(rows, None)
        if str(stored.generation) in versions:
            skip()
        else:
            yield stored
