"""Notifications as Cloud Storage publishes them, messages as Pub/Sub pushes them, its emulator."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from dcm2bq.local import servers
from tests.support.cloud import ONCE, TYPE_PREFIX, Event
from tests.support.patience import until
from tests.support.processes import guarded

EVENT_TYPES = {
    TYPE_PREFIX + "finalized": "OBJECT_FINALIZE",
    TYPE_PREFIX + "deleted": "OBJECT_DELETE",
    TYPE_PREFIX + "archived": "OBJECT_ARCHIVE",
    TYPE_PREFIX + "metadataUpdated": "OBJECT_METADATA_UPDATE",
}
SUBSCRIPTION = "projects/local/subscriptions/changes"


@dataclass(frozen=True, kw_only=True)
class Notification:
    """The message about an event; `changes` are to its attributes, and None removes one.

    `attempt` is the count of deliveries, which only subscriptions with a dead-letter policy have.
    """

    event: Event
    has_payload: bool = True
    attempt: int | None = None
    changes: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, str]:
        """The message's attributes."""
        data = self.event.data
        attributes = {
            "notificationConfig": f"projects/_/buckets/{data['bucket']}/notificationConfigs/1",
            "eventType": EVENT_TYPES[self.event.type],
            "payloadFormat": "JSON_API_V1" if self.has_payload else "NONE",
            "bucketId": data["bucket"],
            "objectId": data["name"],
            "objectGeneration": str(data["generation"]),
            "eventTime": self.event.time,
        }
        merged = {**attributes, **self.changes}
        return {key: value for key, value in merged.items() if value is not None}

    @property
    def payload(self) -> bytes:
        """The message's data."""
        return json.dumps(self.event.data, indent=2).encode() if self.has_payload else b""

    @property
    def body(self) -> dict[str, Any]:
        """The body of a push request; Pub/Sub writes id and time under two names."""
        message = {
            "attributes": self.attributes,
            "data": base64.b64encode(self.payload).decode(),
            "messageId": self.event.id,
            "message_id": self.event.id,
            "publishTime": self.event.time,
            "publish_time": self.event.time,
        }
        counted = {} if self.attempt is None else {"deliveryAttempt": self.attempt}
        return {"message": message, "subscription": SUBSCRIPTION, **counted}

    def push(self, url: str) -> requests.Response:
        """Deliver the message as a push subscription does."""
        return requests.post(url, json=self.body, headers=ONCE, timeout=600)

    def trigger(self, url: str, *, structured: bool = False) -> requests.Response:
        """Deliver the message as an Eventarc trigger of the topic does."""
        attributes = {
            "specversion": "1.0",
            "id": self.event.id,
            "type": "google.cloud.pubsub.topic.v1.messagePublished",
            "time": self.event.time,
            "source": "//pubsub.googleapis.com/projects/local/topics/changes",
        }
        if structured:
            headers = {"Content-Type": "application/cloudevents+json"}
            return requests.post(
                url, json.dumps({**attributes, "data": self.body}), headers=headers, timeout=600
            )
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return requests.post(url, json=self.body, headers=headers, timeout=600)


class Emulator:
    """Google's emulator of Pub/Sub, by its REST API."""

    def __init__(self, url: str) -> None:
        self._projects = f"{url}/v1/projects/local"

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Return the answer to a request about something of the project."""
        answer = requests.request(method, f"{self._projects}/{path}", json=body, timeout=60)
        assert answer.status_code == requests.codes.ok, answer.text
        decoded: dict[str, Any] = answer.json()
        return decoded


def emulator_program() -> Path | None:
    """Return the emulator of an installed gcloud, or None."""
    gcloud = shutil.which("gcloud")
    if gcloud is None or shutil.which("java") is None:
        return None
    component = Path(gcloud).resolve().parents[1] / "platform" / "pubsub-emulator"
    program = component / "bin" / "cloud-pubsub-emulator"
    return program if program.exists() else None


@contextmanager
def emulator(program: Path, folder: Path) -> Iterator[Emulator]:
    """Run the emulator until the block ends."""
    port = servers.free_port()
    command = [program, "--host=127.0.0.1", f"--port={port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            guarded(list(map(str, command))), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: process.poll() is not None or servers.answers(port, "/v1/projects/x/topics"))
        assert process.poll() is None, (folder / "log").read_text()
        yield Emulator(servers.url(port))
    finally:
        process.kill()
        process.wait()
