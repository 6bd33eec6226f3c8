"""The delete markers that came after the keys were laid out.

A large bucket takes hours to list. Without them, each object that was deleted since the beginning
would seem to have a stale row.
"""

import time
from datetime import UTC, datetime, timedelta

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.tools.key_layout import MARKERS

FRESH_SECONDS = 300.0
"""Age of what was read until it is read again, which costs the markers of this month."""

_PATHS = 100_000  # kept in memory: some 20 MB
_MARGIN = timedelta(minutes=10)  # a marker is made some time before its row can be read


class LateMarkers:
    """The markers since now of the paths under a `gs://` prefix, read as they are asked for."""

    def __init__(self, dataset: Dataset, config: Config, prefix: str, fresh_seconds: float) -> None:
        self._dataset = dataset
        self._instances = config.big_query.instances_table_id
        self._parameters = {"prefix": prefix, "since": datetime.now(UTC) - _MARGIN}
        self._fresh_seconds = fresh_seconds
        self._read_at = time.monotonic()
        self._generations: dict[str, int] = {}
        self._last_path: str | None = None

    def hide(self, path: str, generation: int) -> bool:
        """Return whether a marker hides a generation, as of `fresh_seconds` ago at the latest.

        Paths must be asked for in their order.
        """
        is_fresh = time.monotonic() < self._read_at + self._fresh_seconds
        is_read = self._last_path is None or path <= self._last_path
        if not (is_fresh and is_read):
            self._read(path)
        return self._generations.get(path, 0) >= generation

    def _read(self, start: str) -> None:
        sql = f"""
            SELECT path, MAX(CAST(version AS INT64)) AS generation
            FROM `{self._instances}`
            WHERE {MARKERS} AND ingested_at >= @since
              AND STARTS_WITH(path, @prefix) AND path >= @start
            GROUP BY path
            ORDER BY path
            LIMIT {_PATHS}
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        self._read_at = time.monotonic()
        rows = self._dataset.stream(sql, {**self._parameters, "start": start})
        self._generations = {row["path"]: row["generation"] for row in rows}
        is_cut = len(self._generations) == _PATHS
        self._last_path = max(self._generations) if is_cut else None
