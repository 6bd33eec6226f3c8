"""The keys of the rows under a prefix, one range of paths at a time."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from itertools import pairwise

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import Dcm2BqError, ServiceError
from dcm2bq.tools.key_layout import MARKERS, KeyLayout, KeyRow

RANGE_ROWS = 1_000_000
"""Rows that BigQuery sorts in one query: paths of up to 1 kB each, so at most about 1 GB."""

_RANGES_MAX = 1000
"""Most ranges: a statement can write 4,000 partitions, and the paths between them take 1 MB."""
_NOTABLE_BYTES = 10**9
"""Fewest bytes read by the first query that are worth an estimate: they cost $0.006."""
_FIRST_PATH, _AFTER_LAST_PATH = "gs://", "gs:0"  # "0" is the character after "/"


class KeyRanges:
    """The keys of the rows whose paths begin with `prefix`, a `gs://` URI.

    Iterating yields ranges of paths, as `start` and the excluded `end`, with their keys. If there
    is more than one, the keys are laid out in a table of the dataset `scratch`, by default that of
    the rows; `close` drops it. `on_estimate` is called with the bytes that BigQuery will read for
    the keys if that costs more than cents.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        prefix: str,
        *,
        range_rows: int = RANGE_ROWS,
        scratch: str | None = None,
    ) -> None:
        self._dataset = dataset
        self._instances = config.big_query.instances_table_id
        self._prefix = prefix
        self._range_rows = range_rows
        self._scratch = scratch or dataset.dataset_id
        table = f"verify_{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(3)}"
        self._layout = KeyLayout(dataset, config, prefix, f"{self._scratch}.{table}")
        self._is_stored = False
        self.on_estimate: Callable[[int], object] = lambda _: None

    @property
    def rows(self) -> int:
        """The number of rows with a header, superseded ones included."""
        return self._counts[0]

    def __iter__(self) -> Iterator[tuple[str, str, Iterator[KeyRow]]]:
        _, inner = self._counts
        if self._dataset.bytes_read >= _NOTABLE_BYTES:
            self.on_estimate(self._layout.bytes_to_read())
        if not inner:
            yield _FIRST_PATH, _AFTER_LAST_PATH, self._layout.unstored()
            return
        starts = [_FIRST_PATH, *inner]
        self._store(starts)
        for number, (start, end) in enumerate(pairwise([*starts, _AFTER_LAST_PATH])):
            yield start, end, self._layout.shard(number)

    def close(self) -> None:
        """Drop the table, if there is one; it expires by itself if that fails."""
        if self._is_stored:
            with suppress(Dcm2BqError):
                self._layout.drop()
            self._is_stored = False

    def _store(self, starts: Sequence[str]) -> None:
        self._is_stored = True  # also if the answer is lost
        try:
            self._layout.store(starts, "verify")
        except ServiceError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            raise ServiceError(
                f"{error}: may not create a table in the dataset {self._scratch}, which verify "
                f"needs for more than {self._range_rows:,} rows: grant roles/bigquery.dataEditor "
                "on it, name another dataset of the same location with --scratch, or verify "
                "prefixes with fewer rows"
            ) from None

    @cached_property
    def _counts(self) -> tuple[int, Sequence[str]]:
        """The number of rows with a header, and the paths between the ranges."""
        sql = f"""
            SELECT
              COUNT(*) AS n, COUNTIF({MARKERS}) AS markers,
              APPROX_QUANTILES(path, {_RANGES_MAX}) AS paths
            FROM `{self._instances}`
            WHERE STARTS_WITH(path, @prefix)
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        (row,) = self._dataset.query(sql, {"prefix": self._prefix})
        ranges = min(-(-int(row["n"]) // self._range_rows), _RANGES_MAX)
        inner = {row["paths"][n * _RANGES_MAX // ranges] for n in range(1, ranges)}
        return int(row["n"]) - int(row["markers"]), sorted(inner)
