"""A run's parameters, and the records in its folder.

    run.json               the parameters and the shards
    rows/000001/...        rows as compressed newline-delimited JSON, until they are loaded
    shards/000001.json     which of these files count, written once
    loaded/000001.json     the shard is in BigQuery

No object is ever overwritten, so every process, of this attempt or a later one, sees the same
record or none.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec

from dcm2bq import config as configuration
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.read_sample import UNMEASURED, ReadRate

KNOWN_TABLE = "backfill_{}"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a run, the same for each process that takes part.

    `source` and `staging` are `gs://` URIs. With `takes_all`, objects that BigQuery already has
    are handled again. With `keeps_files`, staged rows are kept after they are loaded. `classes`
    are the storage classes to be loaded, all if empty.
    """

    id: str
    source: str
    staging: str
    config: Config
    takes_all: bool = False
    keeps_files: bool = False
    classes: tuple[str, ...] = ()
    threads: int = 16

    @property
    def bucket(self) -> str:
        """The bucket of the objects."""
        return GsUri.parse(self.source).bucket

    @property
    def prefix(self) -> str:
        """The prefix of the objects' names."""
        return GsUri.parse(self.source).name

    @property
    def folder(self) -> str:
        """The `gs://` URI of the run's folder."""
        return f"{self.staging.rstrip('/')}/{self.id}"

    @property
    def known_table(self) -> str:
        """The table of the generations that BigQuery had at the start."""
        return KNOWN_TABLE.format(self.id)

    def job_id(self, shard: int, table: str, part: int) -> str:
        """The beginning of a load job's ids; the number of the attempt follows."""
        return f"dcm2bq-backfill-{self.id}-{shard:06}-{table}-{part}-"


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose rows are staged: `files` by table, numbers of objects by result.

    `sizes` are the bytes of the compressed files, `bytes_read` the bytes fetched for the headers.
    """

    shard: int
    files: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    results: Mapping[str, int]
    bytes_read: int = 0


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose rows are in BigQuery: numbers of `rows` by table, ids of the `jobs`."""

    shard: int
    rows: Mapping[str, int]
    jobs: Sequence[str]
    results: Mapping[str, int]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    shards: list[Shard]
    rate: ReadRate = UNMEASURED


def new_id() -> str:
    """Return the id of a new run: the time and a random suffix."""
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(3)}"


class RunRecords:
    """Reads and writes the records of a run."""

    def __init__(self, run: Run) -> None:
        self.folder = RunFolder(run.folder, run.config)

    def begin(self, run: Run, shards: Sequence[Shard], rate: ReadRate = UNMEASURED) -> None:
        """Record the parameters and the shards; raise `ConfigError` if the run exists."""
        content = msgspec.json.encode(_Manifest(run=run, shards=list(shards), rate=rate))
        if not self.folder.create("run.json", content):
            raise ConfigError(f"{run.folder}: a run with this id already exists")

    def resume(self, run: Run) -> tuple[list[Shard], ReadRate]:
        """Return the shards of an earlier run, and how much of an object is read.

        Raises `ConfigError` if its parameters differ.
        """
        content = self.folder.read("run.json")
        if content is None:
            raise ConfigError(f"{run.folder}: there is no such run; check --staging and --resume")
        manifest = _decode(content, _Manifest)
        for name, value, first in _compare(run, manifest.run):
            raise ConfigError(
                f"run {run.id}: {name} was {first} when it began and is {value} now; "
                "resume it with the same value"
            )
        return manifest.shards, manifest.rate

    def staged(self, shard: int) -> Staged | None:
        """Return the record of a staged shard; None if it is not staged."""
        content = self.folder.read(f"shards/{shard:06}.json")
        return None if content is None else _decode(content, Staged)

    def staged_shards(self) -> list[int]:
        """Return the numbers of the shards that are staged, in order."""
        return [int(PurePosixPath(name).stem) for name in self.folder.names("shards/")]

    def stage(self, staged: Staged) -> Staged:
        """Record which files count; return the earlier record if another process was first."""
        name = f"shards/{staged.shard:06}.json"
        if self.folder.create(name, msgspec.json.encode(staged)):
            return staged
        earlier = self.staged(staged.shard)
        if earlier is None:
            raise ServiceError(f"Cloud Storage: {self.folder.uri}/{name}: was deleted")
        return earlier

    def finish(self, loaded: Loaded) -> None:
        """Record that a shard is in BigQuery."""
        self.folder.create(f"loaded/{loaded.shard:06}.json", msgspec.json.encode(loaded))

    def loaded(self) -> dict[int, Loaded]:
        """Return the shards that are in BigQuery, by number."""
        contents = (self.folder.read(name) for name in list(self.folder.names("loaded/")))
        shards = [_decode(content, Loaded) for content in contents if content is not None]
        return {loaded.shard: loaded for loaded in shards}

    def clear(self, shard: int) -> None:
        """Delete the staged rows of a shard, including those of failed attempts."""
        for name in list(self.folder.names(f"rows/{shard:06}/")):
            self.folder.delete(name)


def _compare(now: Run, began: Run) -> Iterable[tuple[str, Any, Any]]:
    """Yield the parameters that must not differ but do: name, value now, value when it began."""
    for name in ("source", "takes_all"):
        if getattr(now, name) != getattr(began, name):
            yield name.replace("_", " "), getattr(now, name), getattr(began, name)
    if now.classes != began.classes:
        given = [",".join(run.classes) or "not given" for run in (now, began)]
        yield "--classes", given[0], given[1]
    for option in configuration.options():
        group, _, name = option.path.partition(".")
        values = [msgspec.to_builtins(run.config)[group][name] for run in (now, began)]
        if values[0] != values[1]:
            yield option.path, *values


def _decode[T](content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except ValueError:
        raise ConfigError(
            "the run was begun by another version of dcm2bq: resume it with that version, or begin "
            "a new run"
        ) from None
