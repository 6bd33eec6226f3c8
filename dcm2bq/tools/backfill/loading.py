"""Load staged shards: a few load jobs for each, none of which runs twice."""

from collections import Counter
from collections.abc import Iterator, Sequence

from dcm2bq.bigquery.load import BYTES_MAX, URIS_MAX, Loader, LoadJob
from dcm2bq.tools.backfill.run_records import Loaded, Run, RunRecords, Staged
from dcm2bq.tools.backfill.staged_files import DEAD_LETTER, INSTANCES


class ShardLoader:
    """Loads staged shards; made once per process, used by all its threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loader = Loader(run.config)
        self._records = RunRecords(run)

    def start(self, staged: Staged) -> None:
        """Start the load jobs of a shard, unless they were started before."""
        for _, job in jobs(self._run, staged):
            self._loader.start(job)

    def finish(self, staged: Staged) -> Loaded:
        """Wait until a shard is in BigQuery, record that, and delete its staged files."""
        rows: Counter[str] = Counter()
        ids = []
        for table, job in jobs(self._run, staged):
            done = self._loader.finish(job)
            rows[table] += done.rows
            ids.append(done.job_id)
        loaded = Loaded(shard=staged.shard, rows=rows, jobs=ids, results=staged.results)
        self._records.finish(loaded)
        if not self._run.keeps_files:
            self._records.clear(staged.shard)
        return loaded


def jobs(run: Run, staged: Staged) -> Iterator[tuple[str, LoadJob]]:
    """Yield the load jobs of a shard, each with its table; a table without files has none."""
    options = run.config.big_query
    table_ids = {INSTANCES: options.instances_table_id, DEAD_LETTER: options.dead_letter_table_id}
    for table, files in staged.files.items():
        for part, names in enumerate(_parts(staged, files)):
            uris = [f"{run.folder}/{name}" for name in names]
            yield table, LoadJob(run.job_id(staged.shard, table, part), table_ids[table], uris)


def _parts(staged: Staged, files: Sequence[str]) -> Iterator[list[str]]:
    """Yield the files in groups within the limits of one load job."""
    part: list[str] = []
    size = 0
    for name in files:
        if part and (len(part) == URIS_MAX or size + staged.sizes[name] > BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(name)
        size += staged.sizes[name]
    if part:
        yield part
