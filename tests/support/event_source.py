"""A Cloud Storage that sends events about its objects to the function, as Eventarc does.

It stands before the local Cloud Storage, forwards every request, and sends an event for each
upload and deletion that succeeds. Events that are not acknowledged are sent again.
"""

import json
import math
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import unquote, urlsplit

from dcm2bq.events import EventKind
from dcm2bq.local.eventarc import Event, EventDelivery, Trigger
from tests.support import cloud
from tests.support.http_server import Exchange, serving
from tests.support.patience import until
from tests.support.proxy import end_to_end
from tests.support.pubsub import Notification

ALL_TRIGGERS = frozenset({EventKind.FINALIZED, EventKind.DELETED, EventKind.ARCHIVED})
_PAUSE_SECONDS = 0.2
_THREADS = 8


class EventSource:
    """Sends events of the kinds in `triggers`, which a test may change, to `function`.

    The buckets named in `versioned` keep what is overwritten or deleted without a generation.
    With `through_pubsub` the events are notifications that a subscription pushes.
    """

    def __init__(self, storage: str, function: str, versioned: Collection[str] = ()) -> None:
        self.triggers = ALL_TRIGGERS
        self.through_pubsub = False
        self._versioned = versioned
        self.url = ""
        self._storage = storage.removeprefix("http://")
        self._live: dict[tuple[str, str], dict[str, Any]] = {}
        self._kept: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._failures: dict[str, int] = {}
        """Of the events that are not acknowledged, by their ids."""
        self._function = function
        self._trigger = Trigger(function, connections=_THREADS)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator["EventSource"]:
        """Serve at `url` until the block ends."""
        try:
            with serving(self._serve) as self.url:
                yield self
        finally:
            self._ended.set()
            self._pool.shutdown(cancel_futures=True)
            self._trigger.close()

    def settle(self) -> None:
        """Wait until each event on its way is acknowledged, or has failed once more."""
        before = self._failures.copy()
        until(
            lambda: all(
                self._failures.get(event, math.inf) > failures for event, failures in before.items()
            )
        )

    def _serve(self, exchange: Exchange) -> None:
        connection = HTTPConnection(self._storage, timeout=600)
        try:
            connection.request(
                exchange.command,
                exchange.path,
                exchange.body,
                end_to_end(exchange.headers.items()),
            )
            response = connection.getresponse()
            status, headers = response.status, end_to_end(response.getheaders())
            body = response.read()
        finally:
            connection.close()
        if status < HTTPStatus.BAD_REQUEST:
            self._note(exchange, body)
        exchange.answer(status, body, headers)

    def _note(self, exchange: Exchange, body: bytes) -> None:
        """Send the events about a request that has succeeded."""
        path = urlsplit(exchange.path).path
        if exchange.command == "POST" and path.startswith("/upload/"):
            resource = json.loads(body)
            resource |= {name: str(resource[name]) for name in ("generation", "size")}
            bucket, name = resource["bucket"], resource["name"]
            self._end(bucket, name)
            self._live[bucket, name] = resource
            self._send(EventKind.FINALIZED, resource)
        elif exchange.command == "DELETE" and "/o/" in path:
            bucket, _, name = path.removeprefix("/storage/v1/b/").partition("/o/")
            self._end(bucket, unquote(name), exchange.query.get("generation"))

    def _end(self, bucket: str, name: str, generation: str | None = None) -> None:
        """Send the event about a generation that is no longer live, or no longer there."""
        if kept := self._kept.pop((bucket, name, generation or ""), None):
            self._send(EventKind.DELETED, kept)
        elif old := self._live.pop((bucket, name), None):
            is_kept = bucket in self._versioned and not generation
            if is_kept:
                self._kept[bucket, name, old["generation"]] = old
            self._send(EventKind.ARCHIVED if is_kept else EventKind.DELETED, old)

    def _send(self, kind: EventKind, resource: dict[str, Any]) -> None:
        if kind in self.triggers:
            event = Event(kind=kind, resource=resource)
            self._failures[event.id] = 0
            self._pool.submit(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        while not (self._is_acknowledged(event) or self._ended.is_set()):
            self._failures[event.id] += 1
            self._ended.wait(_PAUSE_SECONDS)
        del self._failures[event.id]

    def _is_acknowledged(self, event: Event) -> bool:
        if not self.through_pubsub:
            return self._trigger.deliver(EventDelivery(event=event)).failure is None
        change = cloud.Event(
            id=event.id,
            type=cloud.TYPE_PREFIX + event.kind,
            time=event.time.isoformat(),
            data=event.resource,
        )
        return Notification(event=change).push(self._function).ok
