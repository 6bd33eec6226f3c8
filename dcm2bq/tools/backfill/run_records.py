"""A run's parameters, and the records in its folder.

    run.json               the parameters and the shards
    rows/000001/...        rows as compressed newline-delimited JSON, until they are loaded
    shards/000001.json     which of these files count
    batches/000001.json    which staged shards are loaded together, and by which load jobs
    loaded/000001.json     the batch is in BigQuery
    attempts/0001/...      who began the run or resumed it, and how that attempt ended
    alive/...              what each process was doing a minute ago

Except for what only informs people, no object is ever overwritten, so every process, of this
attempt or a later one, sees the same record or none.
"""

import getpass
import secrets
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from dcm2bq import config as configuration
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, LoadFailedError, QuotaExceededError, ServiceError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.gcs.uri import GsUri
from dcm2bq.parallel import in_parallel
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.read_sample import UNMEASURED, ReadRate
from dcm2bq.version import VERSION

KNOWN_TABLE = "backfill_{}"
QUOTA, BUDGET, FAILURE, INTERRUPT = "quota", "budget", "failure", "interrupt"
"""Why an attempt ended before everything was loaded."""

_DELETERS = 16
"""Files deleted at the same time: a batch has up to 20,000, of some 40 ms each."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a run, the same for each process that takes part.

    `source` and `staging` are `gs://` URIs. With `takes_all`, objects that BigQuery already has
    are handled again. With `keeps_files`, staged rows are kept after they are loaded. `classes`
    are the storage classes to be loaded, all if empty. `attempt` is 1 for the command that begins
    the run, and one more for each that resumes it.
    """

    id: str
    source: str
    staging: str
    config: Config
    takes_all: bool = False
    keeps_files: bool = False
    classes: tuple[str, ...] = ()
    threads: int = 16
    attempt: int = 1

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

    def job_id(self, batch: int, table: str, part: int) -> str:
        """The beginning of a load job's ids; the number of the try follows."""
        return f"dcm2bq-backfill-{self.id}-{batch:06}-{table}-{part}-"


class RunAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One command that works on a run: when it `began`, who gave it, and where."""

    number: int
    began: datetime
    user: str
    host: str
    runner: str
    version: str


class DataflowSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """The job of an attempt on Dataflow, and its page in the console."""

    job: str
    page: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt ended early: `why` is `QUOTA`, `BUDGET`, `FAILURE` or `INTERRUPT`."""

    why: str
    message: str

    @property
    def error(self) -> LoadFailedError:
        """The error of a load job, to be raised in another process."""
        return (QuotaExceededError if self.why == QUOTA else LoadFailedError)(self.message)


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What the budget of an attempt covers: the shards up to the one with the number `last`."""

    last: int


class ShardFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a shard could not be staged in an attempt, without values of headers."""

    shard: int
    reason: str


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does: `objects` of a shard are handled; None if it loads."""

    host: str
    shard: int | None
    objects: int

    @property
    def name(self) -> str:
        """The name of the object; the next sign of the same task replaces it."""
        return "alive/load.json" if self.shard is None else f"alive/{self.shard:06}.json"


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose rows are staged: `files` by table, numbers of objects by result.

    `sizes` are the bytes of the compressed files, `bytes_read` the bytes fetched for the headers.
    """

    shard: int
    files: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    results: Mapping[str, int]
    bytes_read: int = 0


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """A load job of a batch: the `files` that it loads into a table, and their total size."""

    table: str
    files: Sequence[str]
    bytes: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Staged shards that are loaded together, and the sums of their results.

    `attempt` is the attempt that formed it.
    """

    number: int
    attempt: int
    formed: datetime
    shards: Sequence[int]
    jobs: Sequence[BatchJob]
    results: Mapping[str, int]
    bytes_read: int


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A batch whose rows are in BigQuery: numbers of `rows` by table, ids of the `jobs`."""

    batch: int
    rows: Mapping[str, int]
    jobs: Sequence[str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a run when it began, and its shards."""

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
        self._attempt = f"attempts/{run.attempt:04}"
        self._batches: list[Batch] = []

    def begin(self, run: Run, shards: Sequence[Shard], rate: ReadRate = UNMEASURED) -> None:
        """Record the parameters and the shards; raise `ConfigError` if the run exists."""
        content = msgspec.json.encode(Manifest(run=run, shards=list(shards), rate=rate))
        if not self.folder.create("run.json", content):
            raise ConfigError(f"{run.folder}: a run with this id already exists")

    def resume(self, run: Run) -> tuple[list[Shard], ReadRate]:
        """Return the shards of an earlier run, and how much of an object is read.

        Raises `ConfigError` if its parameters differ.
        """
        content = self.folder.read("run.json")
        if content is None:
            raise ConfigError(f"{run.folder}: there is no such run; check --staging and --resume")
        manifest = decode(content, Manifest)
        for name, value, first in _compare(run, manifest.run):
            raise ConfigError(
                f"run {run.id}: {name} was {first} when it began and is {value} now; "
                "resume it with the same value"
            )
        return manifest.shards, manifest.rate

    def staged(self, shard: int) -> Staged | None:
        """Return the record of a staged shard; None if it is not staged."""
        return self._read(f"shards/{shard:06}.json", Staged)

    def stage(self, staged: Staged) -> Staged:
        """Record which files count; return the earlier record if another process was first."""
        name = f"shards/{staged.shard:06}.json"
        if self.folder.create(name, msgspec.json.encode(staged)):
            return staged
        earlier = self.staged(staged.shard)
        if earlier is None:
            raise ServiceError(f"Cloud Storage: {self.folder.uri}/{name}: was deleted")
        return earlier

    def staged_shards(self) -> list[int]:
        """Return the numbers of the shards that are staged, in order."""
        return [number_of(name) for name in self.folder.names("shards/")]

    def form(self, batch: Batch) -> bool:
        """Record a batch; return False if another process recorded one of this number first.

        A batch must be formed from the shards that are in none of `batches`, all of which have
        smaller numbers. Therefore no shard is ever in two.
        """
        return self.folder.create(f"batches/{batch.number:06}.json", msgspec.json.encode(batch))

    def batches(self) -> Sequence[Batch]:
        """Return the batches formed so far, by number; those read before are not read again."""
        while batch := self._read(f"batches/{len(self._batches):06}.json", Batch):
            self._batches.append(batch)
        return tuple(self._batches)

    def finish(self, loaded: Loaded) -> None:
        """Record that a batch is in BigQuery."""
        self.folder.create(f"loaded/{loaded.batch:06}.json", msgspec.json.encode(loaded))

    def loaded(self, batch: int) -> Loaded | None:
        """Return the record of a batch that is in BigQuery; None if it is not."""
        return self._read(f"loaded/{batch:06}.json", Loaded)

    def begin_attempt(self, runner: str) -> int:
        """Record who works on the run from now on; return the number of the attempt."""
        for number in count(1):
            attempt = RunAttempt(
                number=number,
                began=datetime.now(UTC),
                user=_user(),
                host=socket.gethostname(),
                runner=runner,
                version=VERSION,
            )
            name = f"attempts/{number:04}/began.json"
            if self.folder.create(name, msgspec.json.encode(attempt)):
                self._attempt = f"attempts/{number:04}"
                return number
        raise AssertionError

    def submit(self, submission: DataflowSubmission) -> None:
        """Record the Dataflow job of this attempt."""
        self.folder.note(f"{self._attempt}/dataflow.json", msgspec.json.encode(submission))

    def is_submitted(self) -> bool:
        """Return whether this attempt has a Dataflow job."""
        return self.folder.read(f"{self._attempt}/dataflow.json") is not None

    def cover(self, coverage: Coverage) -> None:
        """Record that this attempt has a budget that does not cover everything."""
        self.folder.note(f"{self._attempt}/covered.json", msgspec.json.encode(coverage))

    def end(self, ending: Ending) -> None:
        """Record why this attempt ended early."""
        self.folder.note(f"{self._attempt}/ended.json", msgspec.json.encode(ending))

    def stop(self, error: LoadFailedError) -> None:
        """Record that this attempt must not start load jobs any more."""
        why = QUOTA if isinstance(error, QuotaExceededError) else FAILURE
        ending = Ending(why=why, message=str(error))
        self.folder.create(f"{self._attempt}/stopped.json", msgspec.json.encode(ending))

    def stopped(self) -> Ending | None:
        """Return why this attempt must not start load jobs any more; None if it may."""
        return self._read(f"{self._attempt}/stopped.json", Ending)

    def fail(self, failure: ShardFailure) -> None:
        """Record that a shard could not be staged; it may yet be, by another try."""
        name = f"{self._attempt}/failed/{failure.shard:06}.json"
        self.folder.note(name, msgspec.json.encode(failure))

    def fail_to_load(self, reason: str) -> None:
        """Record that staged shards could not be loaded; they may yet be, by another try."""
        ending = Ending(why=FAILURE, message=reason)
        self.folder.note(f"{self._attempt}/unloaded.json", msgspec.json.encode(ending))

    def sign(self, sign: Sign) -> None:
        """Record what this process does, instead of what it did before."""
        self.folder.note(sign.name, msgspec.json.encode(sign))

    def clear(self, shards: Collection[int]) -> None:
        """Delete the staged rows of loaded shards, including those of failed attempts."""
        names = [name for name in self.folder.names("rows/") if int(name.split("/")[1]) in shards]
        with ThreadPoolExecutor(_DELETERS) as pool:
            for _ in in_parallel(pool, self.folder.delete, names, 2 * _DELETERS):
                pass

    def _read[T](self, name: str, kind: type[T]) -> T | None:
        content = self.folder.read(name)
        return None if content is None else decode(content, kind)


def number_of(name: str) -> int:
    """Return the number in the name of a record.

    >>> number_of("shards/000012.json")
    12
    """
    return int(name.rpartition("/")[2].partition(".")[0])


def _user() -> str:
    """Return the name of the user of this process; empty in a container without one."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""


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


def decode[T](content: bytes, kind: type[T]) -> T:
    """Return a record; raise `ConfigError` if another version of dcm2bq wrote it."""
    try:
        return msgspec.json.decode(content, type=kind)
    except ValueError:
        raise ConfigError(
            "the run was begun by another version of dcm2bq: resume it with that version, or begin "
            "a new run"
        ) from None
