"""What the records in a run's folder say at one moment; see `run_records`."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from dcm2bq.config import Config
from dcm2bq.errors import ConfigError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.tools.backfill.run_records import (
    Batch,
    Coverage,
    DataflowSubmission,
    Ending,
    Loaded,
    Manifest,
    RunAttempt,
    ShardFailure,
    Sign,
    Staged,
    decode,
    number_of,
)

_READERS = 16
"""Records read at the same time: there may be 1,000, of some 40 ms each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """The records of a run. `written` is when each object in its folder was written.

    `staged` has the shards that are in no batch. The last attempt has `dataflow`, `coverage` if it
    has a budget, `failures` and `signs`. `ending` says why it ended, `stopped` why it starts no
    more load jobs, and `unloaded` why loading failed, which may be tried again.
    """

    manifest: Manifest
    written: Mapping[str, datetime]
    attempts: Sequence[RunAttempt] = ()
    dataflow: DataflowSubmission | None = None
    coverage: Coverage | None = None
    ending: Ending | None = None
    stopped: Ending | None = None
    unloaded: Ending | None = None
    failures: Sequence[ShardFailure] = ()
    staged: Sequence[Staged] = ()
    batches: Sequence[Batch] = ()
    loaded: Mapping[int, Loaded]
    signs: Sequence[Sign] = ()

    @property
    def began(self) -> datetime:
        """When the last attempt began, by the clock of Cloud Storage."""
        return self.written[f"attempts/{len(self.attempts):04}/began.json"]

    @property
    def last_sign(self) -> datetime:
        """When any process last wrote to the folder."""
        return max(self.written.values())

    @property
    def staged_shards(self) -> set[int]:
        """Numbers of the shards that are staged, loaded or not."""
        return {number_of(name) for name in self.written if name.startswith("shards/")}

    @property
    def loaded_shards(self) -> set[int]:
        """Numbers of the shards that are in BigQuery."""
        return {
            shard for batch in self.batches if batch.number in self.loaded for shard in batch.shards
        }

    @property
    def covered_shards(self) -> set[int]:
        """Numbers of the shards that are loaded once the last attempt has done its work."""
        return {
            shard.number
            for shard in self.manifest.shards
            if self.coverage is None or shard.number <= self.coverage.last
        }

    @property
    def newly_staged(self) -> dict[int, datetime]:
        """When each shard was staged by the last attempt, by number."""
        return {
            number_of(name): time
            for name, time in self.written.items()
            if name.startswith("shards/") and time >= self.began
        }

    def sign_time(self, sign: Sign) -> datetime:
        """Return when a sign was written."""
        return self.written[sign.name]


def read(staging: str, run_id: str, config: Config) -> RunSnapshot:
    """Read the records of a run; needs no right but to read the staging bucket.

    Raises `ConfigError` if there is no such run or another version began it, and `ReadFailedError`
    or `ServiceError` if the folder cannot be read.
    """
    folder = RunFolder(f"{staging.rstrip('/')}/{run_id}", config)
    content = folder.read("run.json")
    if content is None:
        raise ConfigError(f"{folder.uri}: there is no such run; check --staging and --status")
    manifest = decode(content, Manifest)
    written = dict(folder.times())
    with ThreadPoolExecutor(_READERS) as pool:
        return _RecordReader(folder, pool, written).snapshot(manifest)


class _RecordReader:
    """Reads many records at the same time."""

    def __init__(
        self, folder: RunFolder, pool: ThreadPoolExecutor, written: Mapping[str, datetime]
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._written = written

    def snapshot(self, manifest: Manifest) -> RunSnapshot:
        """Return all records; shards in a batch are not read, since it has their sums."""
        batches = list(self._all(Batch, self._names("batches/")))
        in_batch = {shard for batch in batches for shard in batch.shards}
        attempts = list(self._all(RunAttempt, self._names("attempts/", "/began.json")))
        last = f"attempts/{len(attempts):04}/"
        began = self._written.get(f"{last}began.json")
        signs = [name for name in self._names("alive/") if began and self._written[name] >= began]
        return RunSnapshot(
            manifest=manifest,
            written=self._written,
            attempts=attempts,
            dataflow=self._one(DataflowSubmission, f"{last}dataflow.json"),
            coverage=self._one(Coverage, f"{last}covered.json"),
            ending=self._one(Ending, f"{last}ended.json"),
            stopped=self._one(Ending, f"{last}stopped.json"),
            unloaded=self._one(Ending, f"{last}unloaded.json"),
            failures=list(self._all(ShardFailure, self._names(f"{last}failed/"))),
            staged=list(
                self._all(
                    Staged,
                    [name for name in self._names("shards/") if number_of(name) not in in_batch],
                )
            ),
            batches=batches,
            loaded={loaded.batch: loaded for loaded in self._all(Loaded, self._names("loaded/"))},
            signs=list(self._all(Sign, signs)),
        )

    def _names(self, start: str, end: str = ".json") -> list[str]:
        return [name for name in self._written if name.startswith(start) and name.endswith(end)]

    def _one[T](self, kind: type[T], name: str) -> T | None:
        return next(self._all(kind, [name] if name in self._written else []), None)

    def _all[T](self, kind: type[T], names: Sequence[str]) -> Iterator[T]:
        """Yield the records of these names; one that was deleted meanwhile is left out."""
        contents = self._pool.map(self._folder.read, names)
        return map(partial(decode, kind=kind), filter(None, contents))
