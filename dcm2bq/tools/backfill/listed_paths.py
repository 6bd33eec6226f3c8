"""The shard of each hashed path, in a table: a shard is a range of names, and hashes scatter.

At launch, the bucket is listed a second time. BigQuery then joins the paths with those that it
already has, so that each shard can be compared by itself; see `known`.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.load import Loader, LoadJob
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.gcs.store import Store
from dcm2bq.row_names import row_names
from dcm2bq.tools.backfill.plan import THREADS, Shard
from dcm2bq.tools.backfill.run_records import Run
from dcm2bq.tools.backfill.staged_files import FILE_BYTES, GzipFile
from dcm2bq.tools.key_layout import EXPIRY_DAYS

_PLACE = "paths"
"""How the names of the table, of the job, and of the folder of the files begin."""


@contextmanager
def listed_paths(dataset: Dataset, run: Run, shards: Sequence[Shard]) -> Iterator[str]:
    """Yield the name of a table of the objects' paths in rows, each with its shard; drop it then.

    The table, its files and the load job have a name of their own each time: a run that is resumed
    after its keys have expired must load the paths again, and BigQuery would not run the job of an
    earlier attempt a second time.

    Raises `ReadFailedError` if the bucket cannot be listed, and `ServiceError` if a service fails.
    """
    place = f"{_PLACE}_{uuid.uuid4().hex[:12]}"
    listed = f"{run.known_table}_{place}"
    folder = RunFolder(run.folder, run.config)
    dataset.query(f"""
        CREATE TABLE IF NOT EXISTS `{listed}` (shard INT64, path STRING)
        OPTIONS (
          expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {EXPIRY_DAYS} DAY),
          description = 'The shards of the paths that a backfill has listed'
        )
    """)
    with ThreadPoolExecutor(THREADS) as pool:
        files = [
            name
            for names in pool.map(_PathFiles(run, folder, place).write, shards)
            for name in names
        ]
    if files:
        uris = [f"{folder.uri}/{name}" for name in files]
        Loader(run.config).finish(LoadJob(run.job_id(0, place, 0), listed, uris))
    yield listed
    dataset.query(f"DROP TABLE IF EXISTS `{listed}`")
    for name in files:
        folder.delete(name)


class _PathFiles:
    """Writes the paths of shards into files under `place` in `folder`; used by several threads."""

    def __init__(self, run: Run, folder: RunFolder, place: str) -> None:
        self._run = run
        self._folder = folder
        self._names = row_names(run.config.privacy)
        self._store = Store(run.config)
        self._place = place

    def write(self, shard: Shard) -> list[str]:
        """Return the names of the files of a shard."""
        run = self._run
        files: list[str] = []
        listed = self._store.list(run.bucket, run.prefix, start=shard.start, end=shard.end)
        lines = (
            msgspec.json.encode({"shard": shard.number, "path": self._names.path(stored.path)})
            for stored in listed
        )
        for content in _compressed(lines):
            name = f"{self._place}/{shard.number:06}-{len(files):06}.ndjson.gz"
            self._folder.create(name, content)
            files.append(name)
        return files


def _compressed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines as gzip files of a bounded size."""
    file, is_empty = GzipFile(), True
    for line in lines:
        file.add(line + b"\n")
        is_empty = False
        if file.size >= FILE_BYTES:
            yield file.close()
            file, is_empty = GzipFile(), True
    if not is_empty:
        yield file.close()
