"""Export files and objects: each goes through the function's handler, its rows into Parquet."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dcm2bq import events, hash_key, rows, schema
from dcm2bq.config import Config
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom import budget_of
from dcm2bq.endpoints import ObjectContent, ObjectStore
from dcm2bq.errors import (
    ConfigError,
    Dcm2BqError,
    RejectedEventError,
    RetryableError,
    SupersededError,
    describe,
)
from dcm2bq.events import ObjectEvent
from dcm2bq.files import walk
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.handler import Handler, Outcome, Result
from dcm2bq.ignored import Ignored, why_ignored
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import attempts, indexing
from dcm2bq.tools.export.collected_rows import DEAD_LETTERS, INSTANCES, CollectedRows
from dcm2bq.tools.export.destination import Destination
from dcm2bq.tools.export.local_files import (
    LocalObject,
    LocalStore,
    local_object,
    text_of,
)
from dcm2bq.tools.export.part_files import columns_of
from dcm2bq.tools.ignored_names import IgnoredNames, SampleFindings, first_bytes, read_from
from dcm2bq.tools.tables import Field

if TYPE_CHECKING:
    from dcm2bq.gcs.store import Store

_LAYOUT = "1"
"""Of the folder: an export with another one cannot be resumed."""
_SHAPING = {
    "input": ("namePattern", "otherNames", "archives"),
    "limits": ("outputBytes",),
    "jsonOutput": (),
    "bulkData": (),
}
"""The options that decide which objects have rows, and what these hold; all of a group if none is
named. Other limits only decide whether an object can be converted."""


@dataclass(slots=True, kw_only=True)
class ExportCounts:
    """What a run has done so far; `results` are of the objects that it handled.

    `listed` counts objects and files, `unchanged` those that an earlier run has exported. `gone`
    are exported objects that no longer exist. `requests` are those to Cloud Storage, without those
    of attempts that were repeated; `bytes_read` counts files, too. With `is_cut`, the limit ended
    the run before its last object; `unlisted` are the errors of folders that could not be listed,
    and `empty` are the sources without anything: a disk that is not mounted looks like this.
    """

    listed: int = 0
    unchanged: int = 0
    gone: int = 0
    requests: int = 0
    bytes_read: int = 0
    is_cut: bool = False
    results: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    unlisted: list[OSError] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def exported(self) -> int:
        """Objects that were handled, and not ignored."""
        return self.results[Result.INSERTED] + self.results[Result.EXPANDED]

    @property
    def is_whole(self) -> bool:
        """Whether everything was listed, so that what was not listed is gone."""
        return not (self.is_cut or self.unlisted or self.empty)

    @property
    def is_complete(self) -> bool:
        """Whether everything was listed, and no object changed before it was read."""
        return self.is_whole and not self.results[Result.SUPERSEDED]


@dataclass(frozen=True, slots=True)
class _Task:
    """An object to export under the `path` that rows have; one given by name is never ignored."""

    stored: StoredObject
    path: str
    is_named: bool


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt to export an object; `error` is why it may be worth another one."""

    task: _Task
    collected: CollectedRows
    outcome: Outcome | None
    error: Exception | None
    requests: int = 0
    bytes_read: int = 0

    @property
    def proves_service(self) -> bool:
        """Whether the object was read, whatever it contained."""
        return self.outcome is not None and self.bytes_read > 0


class Export:
    """An export of `sources`: local files and folders, and `gs://` prefixes.

    Raises `ConfigError` for a folder `out` that cannot take it, and for a bucket whose events the
    function would refuse.
    """

    def __init__(
        self,
        config: Config,
        sources: Sequence[str],
        out: Path,
        *,
        threads: int = attempts.THREADS,
        limit: int | None = None,
    ) -> None:
        self._config = config
        self._names = row_names(config.privacy)
        self._sources = [
            str(GsUri.parse(source)) if is_uri(source) else _absolute(source) for source in sources
        ]
        for source in filter(is_uri, self._sources):
            indexing.require_bucket(GsUri.parse(source).bucket, config)
        self._out = out.resolve()  # a link to it need not have its name
        self._threads = threads
        self._limit = limit
        self._memory = budget_of(config.limits)
        self._local = LocalStore()
        self._unmatched: IgnoredNames[StoredObject] = IgnoredNames()
        self.counts = ExportCounts()
        columns = _columns(config)
        self.destination = Destination(out, self._facts(columns), columns)

    def run(self, show: Callable[[ExportCounts], object] = lambda _: None) -> None:
        """Export what is new or has changed, and remove what is gone.

        `show` is called for each object that is listed. Raises `RetryableError` if Cloud Storage is
        down, and `OSError` if nothing more can be written: the next run resumes.
        """
        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="export") as pool:
                tried = attempts.attempt_twice(
                    partial(self._attempt, is_last=False),
                    partial(self._attempt, is_last=True),
                    self._tasks(show),
                    pool=pool,
                    threads=self._threads,
                )
                for attempt in tried:
                    self._count(attempt)
        except (KeyboardInterrupt, Dcm2BqError):
            self.destination.commit()
            raise
        if self.counts.is_whole:
            self.counts.gone = self.destination.forget_unseen()
        self.destination.sweep()

    def examine_ignored(self) -> SampleFindings:
        """Read a sample of what was ignored because of its name."""
        from_cloud = read_from(self._cloud) if any(map(is_uri, self._sources)) else None
        requested: list[str] = []

        def read(stored: StoredObject, n: int) -> bytes:
            if isinstance(stored, LocalObject):
                return first_bytes(stored.file, n)
            assert from_cloud is not None
            requested.append(stored.name)  # unlike a sum, exact in several threads
            return from_cloud(stored, n)

        findings, _ = self._unmatched.examine(read)
        self.counts.requests += len(requested)
        return findings

    def close(self) -> None:
        """Let other processes use the folder."""
        self.destination.close()

    @cached_property
    def _cloud(self) -> "Store":
        from dcm2bq.gcs.store import Store  # noqa: PLC0415 - slow to import, needed for gs:// only

        return Store(self._config)

    def _facts(self, columns: Mapping[str, Sequence[Field]]) -> dict[str, str]:
        """Return what must be the same in each run, by name: digests of the options, mostly."""
        options = msgspec.to_builtins(self._config)
        return {
            "layout": _LAYOUT,
            "source": _digest(sorted(map(self._names.path, map(_source_text, self._sources)))),
            "columns": _digest({table: _shape(fields) for table, fields in columns.items()}),
            **{
                group: _digest([options[group][name] for name in names or options[group]])
                for group, names in _SHAPING.items()
            },
            "privacy": self._config.privacy.fingerprint,
            "key": hash_key.digest(self._config.privacy) or "",
        }

    def _tasks(self, show: Callable[[ExportCounts], object]) -> Iterator[_Task]:
        """Yield what must be exported; count the rest."""
        given = 0
        for stored, is_named in self._listed():
            show(self.counts)
            ignored = None if is_named else why_ignored(self._config, stored)
            if ignored:
                self.counts.listed += 1
                self._ignore(stored, ignored)
                continue
            path = self._names.object(stored).path
            known = self.destination.see(path)
            if known.is_repeated:  # sources may overlap
                continue
            self.counts.listed += 1
            if known.version == _version(stored):
                self.counts.unchanged += 1
            elif given == self._limit and not known.has_failed:
                self.counts.is_cut = True
                return
            else:
                given += not known.has_failed  # otherwise a run could consist of these alone
                yield _Task(stored, path, is_named)

    def _ignore(self, stored: StoredObject, ignored: Ignored) -> None:
        self.counts.ignored[ignored] += 1
        if ignored is Ignored.NAME:
            self._unmatched.add(stored.path, stored, storage_class=stored.storage_class)

    def _listed(self) -> Iterator[tuple[StoredObject, bool]]:
        """Yield each file and object, and whether it was given by its own name."""
        # The longest first: what is given by name is always read, even if its folder is given, too.
        for source in sorted(self._sources, key=len, reverse=True):
            is_empty = True
            for listed in self._objects(source):
                is_empty = False
                yield listed
            if is_empty:
                self.counts.empty.append(source)

    def _objects(self, source: str) -> Iterator[tuple[StoredObject, bool]]:
        if is_uri(source):
            uri = GsUri.parse(source)
            for page in self._cloud.pages(uri.bucket, uri.name):
                self.counts.requests += 1
                for stored in page:
                    yield stored, stored.name == uri.name
        elif (path := Path(source)).is_dir():
            for file in walk(path, self.counts.unlisted.append, is_left_out=self._is_out):
                yield local_object(path, file), False
        else:
            yield local_object(path.parent, path), True

    def _is_out(self, folder: Path) -> bool:
        return folder.name == self._out.name and folder.samefile(self._out)

    def _attempt(self, task: _Task, *, is_last: bool) -> _Attempt:
        collected = CollectedRows()
        event = events.finalized(task.stored, _event_id(task))
        is_local = isinstance(task.stored, LocalObject)
        store = _CountedStore(self._local if is_local else self._cloud)
        failure = None
        try:
            handler = Handler(
                self._config_for(task),
                store,
                collected,
                memory=self._memory,
                bounds_archives=False,
            )
            deadline = Deadline.after(self._config.limits.deadline_seconds)
            outcome = handler.apply(event, deadline)
        except SupersededError as error:
            collected.clear()
            outcome = Outcome(result=Result.SUPERSEDED, error=error)
        except Exception as error:
            collected.clear()
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of this machine, as if its disk is full: no object is to blame
            is_final = is_last or is_local or isinstance(error, RejectedEventError)
            if isinstance(error, ConfigError) or not is_final:
                return _Attempt(task, collected, None, error, store.reads, store.bytes_read)
            self._dead_letter(event, error, collected)
            outcome = Outcome(result=Result.DEAD_LETTERED, error=error)
            # A dead letter for a retryable error is still a sign of an outage.
            failure = error if isinstance(error, RetryableError) and not is_local else None
        requests = 0 if is_local else store.reads
        return _Attempt(task, collected, outcome, failure, requests, store.bytes_read)

    def _config_for(self, task: _Task) -> Config:
        """Return the configuration of the function, without what it says of names and buckets."""
        options = self._config.input
        if task.is_named:
            options = msgspec.structs.replace(options, name_pattern="", archives="read")
        if isinstance(task.stored, LocalObject):
            options = msgspec.structs.replace(options, buckets=[])
        return msgspec.structs.replace(self._config, input=options)

    def _dead_letter(self, event: ObjectEvent, error: Exception, sink: CollectedRows) -> None:
        delivery = events.deliver(self._names.event(event))
        row = rows.dead_letter_row(
            delivery,
            now=datetime.now(UTC),
            error_type=type(error).__name__,
            error=describe(error),
        )
        sink.insert_dead_letter(row, NO_DEADLINE)

    def _count(self, attempt: _Attempt) -> None:
        """Store the rows of an attempt, and count it."""
        self.counts.requests += attempt.requests
        self.counts.bytes_read += attempt.bytes_read
        outcome = attempt.outcome
        assert outcome is not None
        self.counts.results[outcome.result] += 1
        if outcome.ignored:
            self.counts.ignored[outcome.ignored] += 1
        if outcome.result is Result.SUPERSEDED:
            return  # the next run sees what became of it
        # The next run tries again: the cause may be gone, or another release may know better.
        is_settled = outcome.result is not Result.DEAD_LETTERED
        version = _version(attempt.task.stored) if is_settled else None
        self.counts.rows += self.destination.store(attempt.task.path, version, attempt.collected)
        attempt.collected.clear()


class _CountedStore:
    """A store that counts the reads for one object."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._contents: list[_CountedContent] = []

    @property
    def reads(self) -> int:
        return sum(content.reads for content in self._contents)

    @property
    def bytes_read(self) -> int:
        return sum(content.bytes_read for content in self._contents)

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:
        return self._store.described(stored, deadline)

    def open(self, stored: StoredObject, deadline: Deadline) -> "_CountedContent":
        content = _CountedContent(self._store.open(stored, deadline))
        self._contents.append(content)
        return content


class _CountedContent:
    """Content that counts the reads from it."""

    def __init__(self, content: ObjectContent) -> None:
        self._content = content
        self.reads = 0

    @property
    def size(self) -> int:
        return self._content.size

    @property
    def bytes_read(self) -> int:
        return self._content.bytes_read

    def read_at(self, offset: int, n: int) -> bytes:
        self.reads += 1
        return self._content.read_at(offset, n)


def _columns(config: Config) -> dict[str, Sequence[Field]]:
    """Return the columns of the tables in the export: those of `instances` and `dead_letters`."""
    resources = {each.name: each.resource for each in schema.load(config, "export")}
    names = {INSTANCES: config.big_query.instances_table_id, DEAD_LETTERS: "dead_letters"}
    return {table: columns_of(resources[name]["schema"]["fields"]) for table, name in names.items()}


def _shape(fields: Sequence[Field]) -> list[Any]:
    """Return the names and types of columns, without their descriptions."""
    return [
        [each["name"], each["type"], each.get("mode"), _shape(each.get("fields", ()))]
        for each in fields
    ]


def _event_id(task: _Task) -> str:
    """Return an id that is the same whenever this generation is exported."""
    digest = hashlib.sha256(f"{task.path}#{task.stored.generation}".encode()).hexdigest()
    return f"export-{digest[:16]}"


def _version(stored: StoredObject) -> str:
    """Return what differs once the content of an object may differ."""
    if isinstance(stored, LocalObject):
        return f"{stored.generation} {stored.size}"
    return str(stored.generation)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def _source_text(source: str) -> str:
    return source if is_uri(source) else text_of(Path(source))


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links stay
