"""The local stack as a whole: a bucket whose changes reach the real function as events.

Files become objects (`mirror`), their changes CloudEvents (`eventarc`), these rows by the
function in a process of its own (`servers`), which reads the objects over HTTP (`storage`).
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import dcm2bq
from dcm2bq import config as configuration
from dcm2bq.config import Config
from dcm2bq.events import Kind
from dcm2bq.local import servers, storage
from dcm2bq.local.bucket import Bucket, is_object_name
from dcm2bq.local.eventarc import Delivery, Event, Trigger
from dcm2bq.local.mirror import Mirror
from dcm2bq.local.scratch_folder import own_folder
from dcm2bq.local.watched_folder import Changes
from dcm2bq.tools.parallel import in_parallel

if TYPE_CHECKING:
    from dcm2bq.bigquery.dataset import Dataset

BUCKET = "dicom"
CONCURRENCY = 32
"""Events in flight: their rows share inserts, which are what costs most here.

One insert takes the local BigQuery about 10 ms, whether of one row or of ten.
"""
_AHEAD = 4 * CONCURRENCY  # changes that are begun before the first of them is shown

_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before an event is delivered again


class Action(StrEnum):
    """What happened to a file."""

    NEW = "new"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file's change and its events; `problem` tells why it did not reach the bucket."""

    action: Action
    name: str
    deliveries: tuple[Delivery, ...] = ()
    problem: str | None = None

    @property
    def is_unacknowledged(self) -> bool:
        """Whether an event has not been acknowledged by now."""
        return any(each.failure for each in self.deliveries)

    @property
    def failure(self) -> str | None:
        """Why something is amiss with this change, or None; dead letters are not amiss."""
        if self.problem:
            return f"not uploaded: {self.problem}"
        for each in self.deliveries:
            if each.failure:
                return f"{each.event.kind} not acknowledged: {each.failure} ({each.attempts} times)"
        return None


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the servers listen on this machine."""

    bigquery: int = field(default_factory=servers.free_port)
    storage: int = field(default_factory=servers.free_port)
    other_buckets: int = field(default_factory=servers.free_port)
    function: int = field(default_factory=servers.free_port)

    def check(self) -> None:
        """Raise `ServerError`, naming the server, when one has ended."""
        named = {
            "BigQuery": self.bigquery,
            "Cloud Storage": self.other_buckets,
            "the function": self.function,
        }
        for name, port in named.items():
            if not servers.is_listening(port):
                raise servers.ServerError(f"{name} has ended: so does the local stack")


class Stack:
    """A running stack: `objects` are what the bucket holds, `dataset` what came of it."""

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
        """Make the bucket follow the files under `root`; yield each change as it is done.

        Events that are not acknowledged are delivered again, with a growing pause; the real
        trigger goes on for a day.
        """
        pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="local")
        work: Iterable[Callable[[], Change | None]] = chain(
            (partial(self._write, name, root) for name in changes.written),
            (partial(self._remove, name) for name in changes.removed),
        )
        try:
            for pause in (*_PAUSES, None):
                failed = []
                for change in in_parallel(pool, lambda step: step(), work, _AHEAD):
                    if change and change.is_unacknowledged and pause:
                        failed.append(change)
                    elif change:
                        yield change
                if not failed or not pause:
                    break
                time.sleep(pause)
                work = [partial(self._deliver, change) for change in failed]
        finally:
            # Not waited for: the end of the servers ends what still waits for an answer.
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections: a server that ends waits for them a while."""
        self._trigger.close()

    def keep_function_log(self) -> Path:
        """Copy the function's log to where it outlives the stack; return its path."""
        handle, path = tempfile.mkstemp(prefix="dcm2bq-function-", suffix=".log")
        with os.fdopen(handle, "wb") as target, (self._folder / "function" / "log").open("rb") as f:
            shutil.copyfileobj(f, target)
        return Path(path)

    def _write(self, name: str, root: Path) -> Change | None:
        before = self.objects.get(name)
        change = Change(action=Action.CHANGED if before else Action.NEW, name=name)
        if not is_object_name(name):
            return replace(change, problem="Cloud Storage takes no object of this name")
        try:
            now = self.objects.put(name, root)
        except FileNotFoundError:  # the next look at the folder finds it gone
            return None
        except OSError as error:
            return replace(change, problem=error.strerror or type(error).__name__)
        events = [Event(kind=Kind.FINALIZED, resource=now)]
        if before:
            events.append(Event(kind=Kind.DELETED, resource=before))
        return self._deliver(
            replace(change, deliveries=tuple(Delivery(event=each) for each in events))
        )

    def _remove(self, name: str) -> Change | None:
        before = self.objects.get(name)
        if before is None:
            return None
        self.objects.remove(name)
        delivery = Delivery(event=Event(kind=Kind.DELETED, resource=before))
        return self._deliver(Change(action=Action.DELETED, name=name, deliveries=(delivery,)))

    def _deliver(self, change: Change) -> Change:
        deliveries = tuple(self._trigger.deliver(each) for each in change.deliveries)
        return replace(change, deliveries=deliveries)


@contextmanager
def running(config: Config) -> Iterator[Stack]:
    """Run the whole stack with an empty bucket and an empty dataset.

    Project and bucket are always the local ones. Raises `ServerError` when a server does not start.
    """
    config = msgspec.structs.replace(
        config,
        big_query=msgspec.structs.replace(config.big_query, project_id=servers.PROJECT),
        input=msgspec.structs.replace(config.input, buckets=()),
    )
    ports = Ports()
    mirror = Mirror(BUCKET)
    with ExitStack() as ends:
        folder = ends.enter_context(own_folder())
        ends.enter_context(environment(_emulators(ports)))
        # Not in this thread, where an interrupt could come between a server's start and the note
        # that it must be ended. The pool outlives the servers: each ends with its thread.
        pool = ends.enter_context(ThreadPoolExecutor())
        starting: list[Future[Any]] = [
            pool.submit(ends.enter_context, _bigquery_server(folder, ports)),
            pool.submit(_start_storage, ends, folder, mirror, ports),
            pool.submit(_start_function, ends, folder, config, ports),
        ]
        try:
            dataset = connect(config)
        finally:
            for each in starting:  # all of them, so that what has started is ended
                each.exception()
        for each in starting:
            each.result()
        from dcm2bq.tools.init import init  # noqa: PLC0415

        init(dataset, config)
        with closing(Stack(config, ports, dataset, folder, mirror)) as stack:
            yield stack


def connect(config: Config) -> "Dataset":
    """Return the dataset on the BigQuery that the environment names."""
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415 - slow: it goes with the servers' start

    return Dataset(config)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Replace what is the caller's in this process's environment by `values` for a while."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({**servers.isolated(before), **values})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _bigquery_server(folder: Path, ports: Ports) -> AbstractContextManager[str]:
    return servers.bigquery_server(folder, ports.bigquery, storage=servers.url(ports.storage))


def _start_storage(ends: ExitStack, folder: Path, mirror: Mirror, ports: Ports) -> None:
    others = ends.enter_context(
        servers.storage_server(folder, ports.other_buckets, public=ports.storage)
    )
    with closing(Bucket(others, mirror.name, connections=1)) as bucket:
        bucket.create()  # so that it is listed among the others
    ends.enter_context(storage.serving(mirror, ports.storage, others))


def _emulators(ports: Ports) -> dict[str, str]:
    return {
        "BIGQUERY_EMULATOR_HOST": servers.url(ports.bigquery),
        "STORAGE_EMULATOR_HOST": servers.url(ports.storage),
    }


def _start_function(ends: ExitStack, folder: Path, config: Config, ports: Ports) -> None:
    environ = {
        **_emulators(ports),
        configuration.INLINE_VARIABLE: configuration.to_json(config),
        "THREADS": str(CONCURRENCY),
    }
    url = ends.enter_context(servers.function_server(folder, _main(), environ, ports.function))
    # Its clients are made for its first event: an empty object, which it ignores.
    empty = {"bucket": BUCKET, "name": "warm-up", "generation": "1", "size": "0"}
    with closing(Trigger(url, connections=1)) as trigger:
        trigger.deliver(Delivery(event=Event(kind=Kind.FINALIZED, resource=empty)))


def _main() -> Path:
    """Return the function's source: packed into the wheel, or at the checkout's root."""
    package = Path(dcm2bq.__file__).parent
    packed = package / "_function" / "main.py"
    return packed if packed.exists() else package.parent / "main.py"
