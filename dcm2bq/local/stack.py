"""The whole local stack: a bucket whose changes reach the real function as events.

Files become objects (`mirror`) and their changes become CloudEvents (`eventarc`). The function,
a separate process (`servers`), reads the objects over HTTP (`storage`) and writes the rows.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dcm2bq import config as configuration
from dcm2bq import emulators
from dcm2bq.config import Config
from dcm2bq.events import EventKind
from dcm2bq.local import servers, storage
from dcm2bq.local.bucket import Bucket, is_object_name
from dcm2bq.local.eventarc import Event, EventDelivery, Trigger
from dcm2bq.local.mirror import Mirror
from dcm2bq.local.prepared_database import PreparedDatabase
from dcm2bq.local.scratch_folder import scratch_folder
from dcm2bq.local.watched_folder import Changes
from dcm2bq.parallel import in_parallel
from dcm2bq.version import entry_point

if TYPE_CHECKING:
    from dcm2bq.bigquery.dataset import Dataset

BUCKET = "dicom"
CONCURRENCY = 32
"""Events in flight. Their rows share inserts, the most expensive step here.

An insert takes the local BigQuery about 10 ms, whether it has one row or ten.
"""
_AHEAD = 4 * CONCURRENCY  # changes started before the first is yielded: workers never run dry

# Seconds before each further delivery of an event. The real trigger retries for many hours; here
# somebody is waiting, and only a fault makes a local delivery fail.
_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)


class ChangeKind(StrEnum):
    """What happened to a file."""

    NEW = "new"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a file and its events; `problem` is why the change did not reach the bucket."""

    kind: ChangeKind
    name: str
    deliveries: tuple[EventDelivery, ...] = ()
    problem: str | None = None

    @property
    def is_unacknowledged(self) -> bool:
        """Whether any of its events has not been acknowledged yet."""
        return any(delivery.failure for delivery in self.deliveries)

    @property
    def failure(self) -> str | None:
        """What went wrong, or None; a dead letter is not a failure."""
        if self.problem:
            return f"not uploaded: {self.problem}"
        for delivery in self.deliveries:
            if delivery.failure:
                kind, attempts = delivery.event.kind, delivery.attempts
                return f"{kind} not acknowledged: {delivery.failure} ({attempts} times)"
        return None


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of the servers on 127.0.0.1."""

    bigquery: int = field(default_factory=servers.free_port)
    storage: int = field(default_factory=servers.free_port)
    other_buckets: int = field(default_factory=servers.free_port)
    function: int = field(default_factory=servers.free_port)

    def check(self) -> None:
        """Raise `ServerError` with the name of a server that has ended."""
        ports = {
            "BigQuery": self.bigquery,
            "Cloud Storage": self.other_buckets,
            "the function": self.function,
        }
        for name, port in ports.items():
            if not servers.is_listening(port):
                raise servers.ServerError(f"{name} has ended: stopping the local stack")


class Stack:
    """A running stack: `objects` is the bucket, `dataset` holds the rows made from it."""

    def __init__(
        self, config: Config, ports: Ports, dataset: "Dataset", folder: Path, objects: Mirror
    ) -> None:
        self.config = config
        self.ports = ports
        self.dataset = dataset
        self._folder = folder
        self._trigger = Trigger(servers.url(ports.function), connections=CONCURRENCY)
        self.objects = objects

    def apply(self, changes: Changes, root: Path) -> Iterator[Change]:
        """Apply changes of the files under `root` to the bucket; yield each one when it is done.

        Events that are not acknowledged are delivered again after growing pauses.
        """
        pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="local")
        tasks: Iterable[Callable[[], Change | None]] = chain(
            (partial(self._write, name, root) for name in changes.written),
            (partial(self._remove, name) for name in changes.removed),
        )
        try:
            for pause in (*_PAUSES, None):
                failed = []
                for change in in_parallel(pool, lambda task: task(), tasks, _AHEAD):
                    if change and change.is_unacknowledged and pause:
                        failed.append(change)
                    elif change:
                        yield change
                if not failed or not pause:
                    break
                time.sleep(pause)
                tasks = [partial(self._deliver, change) for change in failed]
        finally:
            # Do not wait: requests still in flight fail when the servers stop.
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections, which would delay the end of the function's server."""
        self._trigger.close()

    def keep_function_log(self) -> Path:
        """Copy the function's log to a file that outlives the stack; return its path."""
        handle, path = tempfile.mkstemp(prefix="dcm2bq-function-", suffix=".log")
        with os.fdopen(handle, "wb") as target, (self._folder / "function" / "log").open("rb") as f:
            shutil.copyfileobj(f, target)
        return Path(path)

    def _write(self, name: str, root: Path) -> Change | None:
        before = self.objects.get(name)
        change = Change(kind=ChangeKind.CHANGED if before else ChangeKind.NEW, name=name)
        if not is_object_name(name):
            return replace(change, problem="Cloud Storage does not accept this name")
        try:
            now = self.objects.put(name, root)
        except FileNotFoundError:  # the next scan of the folder reports it as removed
            return None
        except OSError as error:
            return replace(change, problem=error.strerror or type(error).__name__)
        events = [Event(kind=EventKind.FINALIZED, resource=now)]
        if before:
            events.append(Event(kind=EventKind.DELETED, resource=before))
        return self._deliver(
            replace(change, deliveries=tuple(EventDelivery(event=event) for event in events))
        )

    def _remove(self, name: str) -> Change | None:
        before = self.objects.get(name)
        if before is None:
            return None
        self.objects.remove(name)
        delivery = EventDelivery(event=Event(kind=EventKind.DELETED, resource=before))
        return self._deliver(Change(kind=ChangeKind.DELETED, name=name, deliveries=(delivery,)))

    def _deliver(self, change: Change) -> Change:
        deliveries = tuple(self._trigger.deliver(delivery) for delivery in change.deliveries)
        return replace(change, deliveries=deliveries)


@contextmanager
def running(config: Config) -> Iterator[Stack]:
    """Run the whole stack with an empty bucket and an empty dataset.

    The configuration's project and buckets are replaced by the local ones. Raises `ServerError`
    if a server does not start.
    """
    config = msgspec.structs.replace(
        config,
        big_query=msgspec.structs.replace(config.big_query, project_id=emulators.PROJECT),
        input=msgspec.structs.replace(config.input, buckets=()),
    )
    ports = Ports()
    mirror = Mirror(BUCKET)
    prepared = PreparedDatabase(config)
    with ExitStack() as exits:
        folder = exits.enter_context(scratch_folder())
        exits.enter_context(environment(_emulators(ports)))
        # Not in this thread, where an interrupt could arrive after a server has started and before
        # it is registered to be stopped. The pool must outlive the servers: Linux kills a server
        # together with the thread that started it.
        pool = exits.enter_context(ThreadPoolExecutor())
        bigquery = pool.submit(
            prepared.start_server,
            exits,
            folder,
            ports.bigquery,
            storage=servers.url(ports.storage),
        )
        starting: list[Future[Any]] = [
            bigquery,
            pool.submit(_start_storage, exits, folder, mirror, ports),
            pool.submit(_start_function, exits, folder, config, ports),
        ]
        # Nor is anything imported in this thread meanwhile: an interrupt within an import can leave
        # the import lock held, and the starting threads would wait for it forever.
        connecting = pool.submit(connect, config)
        try:
            dataset = connecting.result()
        finally:
            for future in (*starting, connecting):  # all, so that each started server is stopped
                future.exception()
        for future in starting:
            future.result()
        from dcm2bq.tools.dictionary_rows import fill_dictionary  # noqa: PLC0415
        from dcm2bq.tools.init import init  # noqa: PLC0415
        from dcm2bq.tools.refresh import keep_fresh  # noqa: PLC0415

        if not bigquery.result().has_tables:
            init(dataset, config)
        fill_dictionary(dataset, config)
        keep_fresh(dataset, config)
        prepared.keep(folder)
        with closing(Stack(config, ports, dataset, folder, mirror)) as stack:
            yield stack


def connect(config: Config) -> "Dataset":
    """Return the dataset on the BigQuery that the environment variables name."""
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415 - slow: imported while the servers start

    return Dataset(config)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set `values` and hide the caller's Google settings in this process until the block ends."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({**servers.isolated(before), **values})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start_storage(exits: ExitStack, folder: Path, mirror: Mirror, ports: Ports) -> None:
    others = exits.enter_context(
        servers.storage_server(folder, ports.other_buckets, public=ports.storage)
    )
    with closing(Bucket(others, mirror.name, connections=1)) as bucket:
        bucket.create()  # so that it is in the list of buckets
    exits.enter_context(storage.serving(mirror, ports.storage, others))


def _emulators(ports: Ports) -> dict[str, str]:
    return {
        emulators.BIGQUERY: servers.url(ports.bigquery),
        emulators.STORAGE: servers.url(ports.storage),
    }


def _start_function(exits: ExitStack, folder: Path, config: Config, ports: Ports) -> None:
    environ = {
        **_emulators(ports),
        configuration.INLINE_VARIABLE: configuration.to_json(config),
        "THREADS": str(CONCURRENCY),
    }
    url = exits.enter_context(
        servers.function_server(folder, entry_point(), environ, ports.function)
    )
    # The function makes its clients for the first event; it ignores this one, of an empty object.
    empty = {"bucket": BUCKET, "name": "warm-up", "generation": "1", "size": "0"}
    with closing(Trigger(url, connections=1)) as trigger:
        trigger.deliver(EventDelivery(event=Event(kind=EventKind.FINALIZED, resource=empty)))
