"""The trigger of the local stack: sends CloudEvents as Eventarc does, in binary mode over HTTP."""

import http
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import urllib3

from dcm2bq import events
from dcm2bq.events import EventKind
from dcm2bq.local.mirror import Resource

_ANSWER_SECONDS = 90  # longer than the function's own deadline: limits.deadlineSeconds


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of one object; `resource` describes the generation that came or went."""

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
class EventDelivery:
    """An event and how its delivery went; `failure` is None once it is acknowledged."""

    event: Event
    attempts: int = 0
    failure: str | None = "not sent"


class Trigger:
    """Delivers events to the function at `url`. Thread-safe."""

    def __init__(self, url: str, *, connections: int) -> None:
        self._pool = urllib3.connection_from_url(url, maxsize=connections, retries=False)

    def deliver(self, delivery: EventDelivery) -> EventDelivery:
        """Send the event unless it is already acknowledged; return the delivery's new state."""
        if delivery.failure is None:
            return delivery
        failure = self._send(delivery.event)
        return replace(delivery, attempts=delivery.attempts + 1, failure=failure)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _send(self, event: Event) -> str | None:
        try:
            answer = self._pool.request(
                "POST", "/", body=event.body, headers=event.headers, timeout=_ANSWER_SECONDS
            )
        except urllib3.exceptions.HTTPError as error:
            return f"no answer ({type(error).__name__})"
        if http.HTTPStatus.OK <= answer.status < http.HTTPStatus.MULTIPLE_CHOICES:
            return None
        return f"HTTP {answer.status}"
