"""The keys of a bucket's rows in the order of their paths, to be merged with its listing.

BigQuery cannot sort the keys of a large table at once, and a query for each range of paths would
scan those of all rows each time. So one statement lays the keys out in a table that is partitioned
by shard, a range of paths. Each shard is then read once, in order, and merged with the listing,
which has the same order: the cost is linear, and neither side is held in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.stored_object import StoredObject

MARKERS = "event IN ('deleted', 'archived')"
"""The condition of delete markers."""

EXPIRY_DAYS = 7
"""Days after which the table of an abandoned run expires; the longest runs take a few."""
_KEYS = """
SELECT path, version, CAST(NULL AS STRING) AS reason, FALSE AS dismissed,
  CAST(NULL AS INT64) AS marker, COUNT(DISTINCT member) AS members,
  CAST(NULL AS INT64) AS expanded, LOGICAL_OR(member IS NULL) AS known
FROM instances_live
WHERE STARTS_WITH(path, @prefix)
GROUP BY path, version
UNION ALL
SELECT path, version, MAX(reason), FALSE, NULL, COUNT(DISTINCT member), NULL,
  LOGICAL_OR(member IS NULL AND reason != 'ArchiveTooLargeError')
FROM dead_letters
WHERE STARTS_WITH(path, @prefix) AND event IN ('finalized', 'metadataUpdated')
GROUP BY path, version, member IS NULL
UNION ALL
SELECT path, version, MAX(because), TRUE, NULL, COUNT(DISTINCT member), NULL,
  LOGICAL_OR(member IS NULL)
FROM dismissed_letters
WHERE STARTS_WITH(path, @prefix) AND event IN ('finalized', 'metadataUpdated')
GROUP BY path, version, member IS NULL
UNION ALL
SELECT path, NULL, NULL, FALSE, MAX(CAST(version AS INT64)), 0, NULL, FALSE
FROM `{instances}`
WHERE STARTS_WITH(path, @prefix) AND {markers}
GROUP BY path
UNION ALL
SELECT path, version, NULL, FALSE, NULL, 0, ARRAY_AGG(
  IFNULL(info.archive.instances + info.archive.dead_letters, 0)
  ORDER BY ingested_at DESC
  LIMIT 1
)[OFFSET(0)], TRUE
FROM `{instances}`
WHERE STARTS_WITH(path, @prefix) AND event = 'expanded'
GROUP BY path, version
"""
"""See `KeyRow`; `known` marks the generations that a backfill need not read again.

The keys of all members of an archive are one row: memory does not grow with it. An archive is
known once it was expanded, whatever became of its members; but not if it was too large for the
function, since a backfill gives it more time.
"""

_CREATION = f"""
CREATE TABLE IF NOT EXISTS `{{table}}`
PARTITION BY RANGE_BUCKET(shard, GENERATE_ARRAY(0, {{shards}}, 1))
OPTIONS (
  expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {EXPIRY_DAYS} DAY),
  description = 'Keys that a run of dcm2bq {{command}} compares with the listing'
)
AS
"""
"""The beginning of the statement that lays the keys out; its query follows."""


class KeyRow(msgspec.Struct, frozen=True):
    """Live rows, dead letters (with `reason`), or the highest `marker` of a path.

    `members` is the number of members of an archive that it stands for; 0 for the object as a
    whole. `expanded` is the number of members that an expansion left with a row or dead letter.
    """

    path: str
    version: str | None
    reason: str | None
    dismissed: bool = False
    marker: int | None = None
    members: int = 0
    expanded: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether it stands for live rows."""
        return self.reason is None and self.marker is None and self.expanded is None


class KeyLayout:
    """The keys of the rows whose paths begin with `prefix`, a `gs://` URI.

    `table` is the id of the run's table in which they are laid out, qualified or not. Without it,
    only `unstored`, `bytes_to_read` and `count_known` can be called.
    """

    def __init__(self, dataset: Dataset, config: Config, prefix: str, table: str = "") -> None:
        self._dataset = dataset
        self._instances = config.big_query.instances_table_id
        self._parameters = {"prefix": prefix}
        self.table = table

    def store(self, starts: Sequence[str], command: str) -> None:
        """Lay the keys out in the table, unless it is there; it expires if it is not dropped.

        Shard n has the paths from `starts[n]` up to the next start. `command` is for the table's
        description.
        """
        keys = _KEYS.format(instances=self._instances, markers=MARKERS)
        made = _CREATION.format(table=self.table, shards=len(starts), command=command)
        sql = f"""
            {made}
            SELECT RANGE_BUCKET(path, @starts) - 1 AS shard, *
            FROM ({keys})
        """  # noqa: S608 - the configuration and the command restrict the characters of ids
        self._dataset.query(sql, {**self._parameters, "starts": list(starts)})

    def store_listed(self, listed: str, shards: int, command: str) -> None:
        """Lay the keys out as `store` does, by the shards that the table `listed` has for paths.

        Keys of other paths are left out. For paths that do not have the order of the listing.
        """
        keys = _KEYS.format(instances=self._instances, markers=MARKERS)
        made = _CREATION.format(table=self.table, shards=shards, command=command)
        sql = f"""
            {made}
            SELECT shard, k.*
            FROM ({keys}) AS k
            JOIN `{listed}` USING (path)
        """  # noqa: S608 - as above
        self._dataset.query(sql, self._parameters)

    def drop(self) -> None:
        """Drop the table, if it is there."""
        self._dataset.query(f"DROP TABLE IF EXISTS `{self.table}`")

    def shard(self, number: int) -> Iterator[KeyRow]:
        """Yield the keys of a shard in the order of their paths."""
        sql = f"""
            SELECT * EXCEPT (shard, known)
            FROM `{self.table}`
            WHERE shard = @shard
            ORDER BY path
        """  # noqa: S608 - as above
        return _key_rows(self._dataset.stream(sql, {"shard": number}))

    def unstored(self) -> Iterator[KeyRow]:
        """Yield all keys in the order of their paths, without a table: there must be few."""
        keys = _KEYS.format(instances=self._instances, markers=MARKERS)
        sql = f"SELECT * EXCEPT (known) FROM ({keys}) ORDER BY path"  # noqa: S608 - as above
        return _key_rows(self._dataset.stream(sql, self._parameters))

    def bytes_to_read(self) -> int:
        """Return how many bytes BigQuery reads to lay the keys out, by a dry run."""
        keys = _KEYS.format(instances=self._instances, markers=MARKERS)
        return self._dataset.bytes_processed(keys, self._parameters)

    def known(self, shard: int) -> Iterator[tuple[str, str]]:
        """Yield path and version of the known generations of a shard, in order."""
        sql = f"""
            SELECT DISTINCT path, version
            FROM `{self.table}`
            WHERE shard = @shard AND known
            ORDER BY path
        """  # noqa: S608 - as above
        for row in self._dataset.stream(sql, {"shard": shard}):
            yield row["path"], row["version"]

    def known_by_shard(self) -> dict[int, int]:
        """Return how many paths of each shard have a known generation, if it has any."""
        sql = f"""
            SELECT shard, COUNT(DISTINCT path) AS n
            FROM `{self.table}`
            WHERE known
            GROUP BY shard
        """  # noqa: S608 - as above
        return {int(row["shard"]): int(row["n"]) for row in self._dataset.query(sql)}

    def count_known(self) -> int:
        """Return the number of known generations; this reads as much as laying the keys out."""
        keys = _KEYS.format(instances=self._instances, markers=MARKERS)
        sql = f"""
            SELECT COUNT(*) AS n
            FROM (SELECT DISTINCT path, version FROM ({keys}) WHERE known)
        """  # noqa: S608 - as above
        (row,) = self._dataset.query(sql, self._parameters)
        return int(row["n"])


def merge[R](
    rows: Iterable[tuple[str, R]], objects: Iterable[tuple[str, StoredObject]]
) -> Iterator[tuple[StoredObject | None, Sequence[R]]]:
    """Yield each object with the rows of its path, and None with those of each other path.

    Rows and objects come with their paths, and in the order of these. The first row is read before
    the first object.
    """
    groups = ((path, [row for _, row in group]) for path, group in groupby(rows, itemgetter(0)))
    path, group = next(groups, (None, []))
    for object_path, stored in objects:
        while path is not None and path < object_path:
            yield None, group
            path, group = next(groups, (None, []))
        if path == object_path:
            yield stored, group
            path, group = next(groups, (None, []))
        else:
            yield stored, []
    while path is not None:
        yield None, group
        path, group = next(groups, (None, []))


def _key_rows(rows: Iterable[dict[str, object]]) -> Iterator[KeyRow]:
    return (msgspec.convert(row, KeyRow) for row in rows)
