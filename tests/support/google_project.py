"""A server that plays the REST APIs which describe a deployment; it records what it is asked."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.http_server import Exchange, serving

NUMBER = "123456"
AGENT = f"serviceAccount:service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
TOPIC = "projects/local/topics/dcm2bq-dead-letter"
KINDS = ("finalized", "deleted", "archived")
NOTIFIED = ("OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_ARCHIVE")
EVENTS = re.compile(r"jsonPayload\.event_type:\(([A-Za-z_ ]+)\)")
GENERATION = re.compile(r'jsonPayload\.generation="(\d+)"')


class GoogleProject:
    """A deployment for a bucket as docs/DEPLOY.md describes it: `resources` by path.

    A test changes resources to plant a fault; one that is an integer is answered with that status.
    The log is what the function wrote to `log_file`.
    """

    def __init__(self, bucket: str, dataset: str, log_file: Path | None = None) -> None:
        self.requests: list[tuple[str, str]] = []
        self.url = ""
        self._log_file = log_file
        triggers = [_trigger(kind, bucket) for kind in KINDS]
        self.resources: dict[str, Any] = {
            f"/bigquery/v2/projects/local/datasets/{dataset}": {
                "access": [
                    {"role": "OWNER", "specialGroup": "projectOwners"},
                    {"role": "READER", "userByEmail": "analyst@example.org"},
                ]
            },
            f"/storage/v1/b/{bucket}": {"location": "EUROPE-WEST4", "projectNumber": NUMBER},
            f"/storage/v1/b/{bucket}/iam": {
                "bindings": [
                    {"role": "roles/storage.objectViewer", "members": ["serviceAccount:run@x"]}
                ]
            },
            f"/storage/v1/b/{bucket}/notificationConfigs": {},
            f"/v1/projects/{NUMBER}/locations/-/triggers": {"triggers": triggers},
            f"/v1/{TOPIC}/subscriptions": {"subscriptions": [_subscription("dead-letter")]},
            f"/v1/{_subscription('dead-letter')}": {
                "name": _subscription("dead-letter"),
                "topic": TOPIC,
                "state": "ACTIVE",
                "expirationPolicy": {},
                "bigqueryConfig": {
                    "table": f"local.{dataset}.dead_letter",
                    "writeMetadata": True,
                    "state": "ACTIVE",
                },
            },
            f"/v1/{TOPIC}:getIamPolicy": _policy("roles/pubsub.publisher"),
            "/v1/projects/local:getIamPolicy": {},
        }
        for kind in KINDS:
            self.resources[f"/v1/{_subscription(kind)}"] = {
                "name": _subscription(kind),
                "state": "ACTIVE",
                "ackDeadlineSeconds": 600,
                "messageRetentionDuration": "604800s",
                "expirationPolicy": {},
                "retryPolicy": {"minimumBackoff": "10s", "maximumBackoff": "600s"},
                "deadLetterPolicy": {"deadLetterTopic": TOPIC, "maxDeliveryAttempts": 100},
            }
            path = f"/v1/{_subscription(kind)}:getIamPolicy"
            self.resources[path] = _policy("roles/pubsub.subscriber")

    def notify(self, bucket: str) -> None:
        """Replace the triggers of the bucket by a notification of its changes, which is pushed."""
        self.edit("/triggers", lambda listing: listing.clear())
        changes, subscription = "projects/local/topics/changes", _subscription("changes")
        notification = {"topic": f"//pubsub.googleapis.com/{changes}", "event_types": [*NOTIFIED]}
        push = {"pushEndpoint": "https://run.app/", "oidcToken": {"serviceAccountEmail": "t@x"}}
        self.resources |= {
            f"/storage/v1/b/{bucket}/notificationConfigs": {"items": [notification]},
            f"/v1/{changes}/subscriptions": {"subscriptions": [subscription]},
            f"/v1/{subscription}": {
                **self.resources[f"/v1/{_subscription('deleted')}"],
                "name": subscription,
                "pushConfig": push,
            },
            f"/v1/{subscription}:getIamPolicy": _policy("roles/pubsub.subscriber"),
            "/v1/projects/local": {"projectNumber": NUMBER},
        }

    def edit(self, end: str, change: Callable[[Any], object]) -> None:
        """Change the resource whose path ends so."""
        (path,) = (path for path in self.resources if path.endswith(end))
        resource = copy.deepcopy(self.resources[path])
        change(resource)
        self.resources[path] = resource

    def refuse(self, end: str, status: int = 403) -> None:
        """Answer requests for the resource whose path ends so with an error."""
        (path,) = (path for path in self.resources if path.endswith(end))
        self.resources[path] = status

    @contextmanager
    def running(self) -> Iterator["GoogleProject"]:
        """Serve at `url` until the block ends."""
        with serving(self._serve) as self.url:
            yield self

    def _serve(self, exchange: Exchange) -> None:
        path = unquote(urlsplit(exchange.path).path)
        self.requests.append((exchange.command, path))
        if path == "/v2/entries:list":
            exchange.answer_json(self._entries(json.loads(exchange.body)))
            return
        resource = self.resources.get(path, 404)
        if isinstance(resource, int):
            exchange.answer_json({"error": {"code": resource}}, resource)
        else:
            exchange.answer_json(resource)

    def _entries(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the function's lines about a generation, as Cloud Logging keeps them."""
        generation = GENERATION.search(request["filter"])
        assert generation, request
        events = EVENTS.search(request["filter"])[1].split(" OR ")  # type: ignore[index]
        lines = map(json.loads, self._log_file.read_text().splitlines() if self._log_file else [])
        return {
            "entries": [
                {"jsonPayload": line}
                for line in lines
                if line.get("generation") == generation[1]
                and str(line.get("event_type")).rpartition(".")[2] in events
            ]
        }


def _subscription(kind: str) -> str:
    return f"projects/local/subscriptions/{kind}-sub"


def _trigger(kind: str, bucket: str) -> dict[str, Any]:
    return {
        "name": f"projects/local/locations/europe-west4/triggers/dcm2bq-{kind}",
        "eventFilters": [
            {"attribute": "type", "value": f"google.cloud.storage.object.v1.{kind}"},
            {"attribute": "bucket", "value": bucket},
        ],
        "transport": {
            "pubsub": {"topic": "projects/local/topics/t", "subscription": _subscription(kind)}
        },
    }


def _policy(role: str) -> dict[str, Any]:
    return {"bindings": [{"role": role, "members": [AGENT]}]}
