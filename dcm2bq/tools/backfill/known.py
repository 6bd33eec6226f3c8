"""The generations of a bucket that BigQuery already has: queried once, read shard by shard."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.gcs.uri import GsUri
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill.listed_paths import listed_paths
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run
from dcm2bq.tools.hashed_names import in_order_of_rows
from dcm2bq.tools.key_layout import KeyLayout, merge


def prepare(dataset: Dataset, run: Run, shards: Sequence[Shard]) -> None:
    """Store the generations with a live row, an expansion, or a dead letter, open or dismissed.

    The table is dropped at the end of the run, or expires. If names are hashed, the bucket is
    listed again to find out which shard each hash is in.
    """
    if run.config.privacy.hashes_paths:
        if dataset.get_table(run.known_table) is None:
            with listed_paths(dataset, run, shards) as table:
                _layout(dataset, run).store_listed(table, len(shards), "backfill")
        return
    starts = [f"gs://{run.bucket}/{shard.start}" for shard in shards]
    _layout(dataset, run).store(starts, "backfill")


def count(dataset: Dataset, config: Config, uri: GsUri) -> int:
    """Return how many generations under a prefix `prepare` would store.

    If names are hashed, those of the whole bucket are counted.
    """
    return KeyLayout(dataset, config, _prefix(config, uri)).count_known()


def bytes_queried(dataset: Dataset, config: Config, uri: GsUri) -> int:
    """Return how many bytes `prepare` reads; asking costs nothing."""
    return KeyLayout(dataset, config, _prefix(config, uri)).bytes_to_read()


def by_shard(dataset: Dataset, run: Run) -> dict[int, int]:
    """Return how many objects of each shard have a stored generation, if it has any."""
    return _layout(dataset, run).known_by_shard()


def forget(dataset: Dataset, run: Run) -> None:
    """Drop the table of `prepare`."""
    _layout(dataset, run).drop()


def missing(
    dataset: Dataset,
    run: Run,
    shard: Shard,
    listed: Iterable[StoredObject],
    skip: Callable[[], object],
) -> Iterator[StoredObject]:
    """Yield the objects whose generation is not stored; call `skip` for each of the others.

    `listed` must be in the order of the names: sorted by path, it is merged with the stored rows.
    """
    known = _layout(dataset, run).known(shard.number)
    objects = in_order_of_rows(row_names(run.config.privacy), listed)
    for stored, versions in merge(known, objects):
        if stored is None:
            continue
        if str(stored.generation) in versions:
            skip()
        else:
            yield stored


def _layout(dataset: Dataset, run: Run) -> KeyLayout:
    prefix = _prefix(run.config, GsUri(run.bucket, run.prefix))
    return KeyLayout(dataset, run.config, prefix, run.known_table)


def _prefix(config: Config, uri: GsUri) -> str:
    """Return the prefix of the paths that rows have for the objects under a prefix."""
    return str(GsUri(uri.bucket) if config.privacy.hashes_paths else uri)
