"""A run: what it was asked for, and what it leaves in its folder.

    run.json               what was asked for, and the shards
    rows/000001/...        rows as compressed newline-delimited JSON, until they are loaded
    shards/000001.json     which of these files count, written once
    loaded/000001.json     that they are in BigQuery

Nothing is ever overwritten, so that a later run, or a second process of this one, sees the
same or nothing.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from dcm2bq import config as configuration
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.backfill.plan import Shard

KNOWN_TABLE = "backfill_{}"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for; the same for each process that takes part.

    `source` and `staging` are `gs://` URIs. `takes_all` tells that objects which BigQuery has
    already are handled as well, `keeps_files` that staged rows stay after they are loaded.
    """

    id: str
    source: str
    staging: str
    config: Config
    takes_all: bool = False
    keeps_files: bool = False
    threads: int = 16

    @property
    def bucket(self) -> str:
        """The bucket that is brought in."""
        return GsUri.parse(self.source).bucket

    @property
    def prefix(self) -> str:
        """What the names of the objects begin with."""
        return GsUri.parse(self.source).name

    @property
    def folder(self) -> str:
        """The `gs://` URI of the run's own folder."""
        return f"{self.staging.rstrip('/')}/{self.id}"

    @property
    def known_table(self) -> str:
        """The table of what BigQuery had at the start."""
        return KNOWN_TABLE.format(self.id)

    def job_id(self, shard: int, table: str, part: int) -> str:
        """The start of the ids of a load job; the attempt follows."""
        return f"dcm2bq-backfill-{self.id}-{shard:06}-{table}-{part}-"


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose rows are staged: `files` by table, `results` how many objects became what.

    `sizes` are those of the compressed files, `bytes_read` what was fetched for the headers.
    """

    shard: int
    files: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    results: Mapping[str, int]
    bytes_read: int = 0


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose rows are in BigQuery: `rows` by table, and the ids of the `jobs`."""

    shard: int
    rows: Mapping[str, int]
    jobs: Sequence[str]
    results: Mapping[str, int]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    shards: list[Shard]


def new_id() -> str:
    """Return the id of a new run: its time, and something that no other run has."""
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(3)}"


class Records:
    """The records of a run in its folder."""

    def __init__(self, run: Run) -> None:
        self.folder = RunFolder(run.folder, run.config)

    def begin(self, run: Run, shards: Sequence[Shard]) -> None:
        """Write down what is asked for."""
        content = msgspec.json.encode(_Manifest(run=run, shards=list(shards)))
        if not self.folder.create("run.json", content):
            raise ConfigError(f"{run.folder}: there is a run of this id already")

    def resume(self, run: Run) -> list[Shard]:
        """Return the shards of an earlier run; raises `ConfigError` unless it was the same."""
        content = self.folder.read("run.json")
        if content is None:
            raise ConfigError(f"{run.folder}: there is no such run")
        found = _decode(content, _Manifest)
        for name, ours, theirs in _compare(run, found.run):
            raise ConfigError(f"run {run.id}: its {name} was {theirs}, not {ours}")
        return found.shards

    def staged(self, shard: int) -> Staged | None:
        """Return what is staged of a shard, or None."""
        content = self.folder.read(f"shards/{shard:06}.json")
        return None if content is None else _decode(content, Staged)

    def stage(self, staged: Staged) -> Staged:
        """Write down which files count; return what somebody else wrote before, if so."""
        name = f"shards/{staged.shard:06}.json"
        if self.folder.create(name, msgspec.json.encode(staged)):
            return staged
        earlier = self.staged(staged.shard)
        if earlier is None:
            raise ServiceError(f"Cloud Storage: {self.folder.uri}/{name}: is gone")
        return earlier

    def finish(self, loaded: Loaded) -> None:
        """Write down that a shard is in BigQuery."""
        self.folder.create(f"loaded/{loaded.shard:06}.json", msgspec.json.encode(loaded))

    def loaded(self) -> dict[int, Loaded]:
        """Return the shards that are in BigQuery, by number."""
        found = (self.folder.read(name) for name in list(self.folder.names("loaded/")))
        shards = [_decode(each, Loaded) for each in found if each is not None]
        return {each.shard: each for each in shards}

    def clear(self, shard: int) -> None:
        """Delete the staged rows of a shard, those of abandoned attempts too."""
        for name in list(self.folder.names(f"rows/{shard:06}/")):
            self.folder.delete(name)


def _compare(ours: Run, theirs: Run) -> Iterable[tuple[str, Any, Any]]:
    """Yield what makes two runs different ones: name, and both values."""
    for name in ("source", "takes_all"):
        if getattr(ours, name) != getattr(theirs, name):
            yield name.replace("_", " "), getattr(ours, name), getattr(theirs, name)
    for option in configuration.options():
        group, _, name = option.path.partition(".")
        values = [msgspec.to_builtins(each.config)[group][name] for each in (ours, theirs)]
        if values[0] != values[1]:
            yield option.path, *values


def _decode[T](content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except ValueError:
        raise ConfigError(
            "the run's records are not of this version of dcm2bq: resume the run with the version "
            "that began it, or begin a new one"
        ) from None
