"""The trigger of the local stack: CloudEvents as Eventarc sends them, in binary mode over HTTP."""

import http
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import urllib3

from dcm2bq import events
from dcm2bq.events import EventKind
from dcm2bq.local.mirror import Resource

_ANSWER_SECONDS = 90  # the function's own deadline is shorter


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of one object; `resource` is the object as it was after the change."""

    kind: EventKind
    resource: Resource
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def headers(self) -> dict[str, str]:
        """The CloudEvent's attributes as HTTP headers."""
        bucket, name = self.resource["bucket"], self.resource["name"]
        attributes = events.attributes(self.kind, bucket, name, event_id=self.id, time=self.time)
        return {**attributes, "Content-Type": "application/json"}

    @property
    def body(self) -> bytes:
        """The event's data."""
        return json.dumps(self.resource).encode()


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How an event fares; `failure` is None when it is acknowledged."""

    event: Event
    attempts: int = 0
    failure: str | None = "not sent"


class Trigger:
    """Delivers events to the function at `url`; used by several threads at once."""

    def __init__(self, url: str, *, connections: int) -> None:
        self._pool = urllib3.connection_from_url(url, maxsize=connections, retries=False)

    def deliver(self, delivery: Delivery) -> Delivery:
        """Send an event once more, unless it is acknowledged; return how it fares now."""
        if delivery.failure is None:
            return delivery
        failure = self._attempt(delivery.event)
        return replace(delivery, attempts=delivery.attempts + 1, failure=failure)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _attempt(self, event: Event) -> str | None:
        try:
            answer = self._pool.request(
                "POST", "/", body=event.body, headers=event.headers, timeout=_ANSWER_SECONDS
            )
        except urllib3.exceptions.HTTPError as error:
            return f"no answer ({type(error).__name__})"
        if http.HTTPStatus.OK <= answer.status < http.HTTPStatus.MULTIPLE_CHOICES:
            return None
        return f"HTTP {answer.status}"
