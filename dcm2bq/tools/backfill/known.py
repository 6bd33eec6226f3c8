"""What BigQuery has of a bucket: asked once for a run, read shard by shard in order.

The answer goes into a table of its own, partitioned by shard, since a query for each shard
would read the paths of all rows each time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.gcs.uri import GsUri
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run

_DAYS = 7
_KNOWN = """
SELECT path, version FROM instances_live
UNION DISTINCT
SELECT path, version FROM dead_letters WHERE event IN ('finalized', 'metadataUpdated')
UNION DISTINCT
SELECT path, version FROM dismissed_letters WHERE event IN ('finalized', 'metadataUpdated')
"""


def prepare(dataset: Dataset, run: Run, shards: Sequence[Shard]) -> None:
    """Note the generations that have a row in the live view or an open dead letter.

    The table goes at the end of the run, or by itself after some days.
    """
    sql = f"""
        CREATE TABLE IF NOT EXISTS `{run.known_table}`
        PARTITION BY RANGE_BUCKET(shard, GENERATE_ARRAY(0, {len(shards)}, 1))
        OPTIONS (
          expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {_DAYS} DAY),
          description = 'What a backfill need not bring in again'
        )
        AS
        SELECT RANGE_BUCKET(path, @starts) - 1 AS shard, path, version
        FROM ({_KNOWN})
        WHERE STARTS_WITH(path, @source)
    """  # noqa: S608 - the run's id is made of digits and letters
    starts = [f"gs://{run.bucket}/{shard.start}" for shard in shards]
    dataset.query(sql, {"starts": starts, "source": f"gs://{run.bucket}/{run.prefix}"})


def count(dataset: Dataset, uri: GsUri) -> int:
    """Return how many generations under a prefix have a live row or an open dead letter."""
    sql = f"SELECT COUNT(*) AS n FROM ({_KNOWN}) WHERE STARTS_WITH(path, @source)"  # noqa: S608
    (row,) = dataset.query(sql, {"source": str(uri)})
    return int(row["n"])


def forget(dataset: Dataset, run: Run) -> None:
    """Drop the table."""
    dataset.query(f"DROP TABLE IF EXISTS `{run.known_table}`")


def missing(
    dataset: Dataset,
    run: Run,
    shard: Shard,
    listed: Iterable[StoredObject],
    skip: Callable[[], object],
) -> Iterator[StoredObject]:
    """Yield the objects, which come in order, whose generation was not noted; `skip` the others.

    Neither side is held in memory.
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
