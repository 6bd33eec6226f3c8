"""The routes by which the events of a bucket reach the function.

Each type of event has triggers of Eventarc, or else the bucket notifies a topic of Pub/Sub, with a
subscription that pushes the messages to the function.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcm2bq import notifications
from dcm2bq.events import TYPE_PREFIX, EventKind
from dcm2bq.tools.trial.google_apis import GoogleApis, UntriedError, quoted

STORAGE = "https://storage.googleapis.com"
EVENTARC = "https://eventarc.googleapis.com"
PUBSUB = "https://pubsub.googleapis.com"

_TOPIC_PREFIX = "//pubsub.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Route:
    """A trigger or a push subscription by its `label`, with the full name of the subscription."""

    label: str
    subscription: str | None


class Routes:
    """Reads the routes of a bucket; each part is requested once.

    Notifications count if the names of all objects under `prefix` have the notification's prefix.
    `project` is where triggers are looked for if the bucket's own project cannot be read. Raises
    `UntriedError`.
    """

    def __init__(
        self, apis: GoogleApis, bucket: str, prefix: str, kinds: Sequence[EventKind], project: str
    ) -> None:
        self._apis = apis
        self._bucket = bucket
        self._prefix = prefix
        self._kinds = kinds
        self._project = project

    @cached_property
    def bucket(self) -> dict[str, Any]:
        """The bucket's resource."""
        return self._apis.get(
            STORAGE,
            f"/storage/v1/b/{self._bucket}",
            needs="storage.buckets.get",
            fields="location,projectNumber,hierarchicalNamespace",
        )

    @property
    def triggers(self) -> Sequence[Mapping[str, Any]]:
        """The bucket's triggers; they are in the bucket's project."""
        return [trigger for triggers in self._triggers.values() for trigger in triggers]

    @property
    def all(self) -> Sequence[Route]:
        """Every trigger and, for the types of events without one, the push subscriptions."""
        pushes = {name for names in self._pushes.values() for name in names}
        return [
            *(
                Route(_last(trigger["name"]), _subscription_of(trigger))
                for trigger in self.triggers
            ),
            *(Route(_last(name), name) for name in sorted(pushes)),
        ]

    @property
    def by_notification(self) -> Sequence[EventKind]:
        """The types of events that come by notifications."""
        return [kind for kind, names in self._pushes.items() if names]

    @property
    def missing(self) -> Sequence[EventKind]:
        """The types of events without a route."""
        return [kind for kind, names in self._pushes.items() if not names]

    def subscription(self, name: str) -> dict[str, Any]:
        """Return a subscription's resource; raise `MissingError` if it was deleted."""
        path = "/".join(map(quoted, name.split("/")))
        return self._apis.get(PUBSUB, f"/v1/{path}", needs="pubsub.subscriptions.get")

    def subscriptions_of(self, topic: str) -> Iterator[dict[str, Any]]:
        """Yield the subscriptions of a topic."""
        names = self._apis.pages(
            PUBSUB, f"/v1/{topic}/subscriptions", "subscriptions", needs="pubsub.topics.get"
        )
        return map(self.subscription, names)

    @cached_property
    def _triggers(self) -> dict[EventKind, list[Mapping[str, Any]]]:
        try:
            project = self.bucket["projectNumber"]
        except UntriedError:
            project = self._project
        triggers: dict[EventKind, list[Mapping[str, Any]]] = {kind: [] for kind in self._kinds}
        for trigger in self._apis.pages(
            EVENTARC,
            f"/v1/projects/{project}/locations/-/triggers",
            "triggers",
            needs="eventarc.triggers.list",
        ):
            filters = {
                entry.get("attribute"): entry.get("value")
                for entry in trigger.get("eventFilters") or []
            }
            if filters.get("bucket") != self._bucket:
                continue
            for kind in self._kinds:
                if filters.get("type") == f"{TYPE_PREFIX}{kind}":
                    triggers[kind].append(trigger)
        return triggers

    @cached_property
    def _pushes(self) -> dict[EventKind, list[str]]:
        """The push subscriptions of notified topics, for each type of event without a trigger."""
        pushes: dict[EventKind, list[str]] = {
            kind: [] for kind, triggers in self._triggers.items() if not triggers
        }
        for topic, kinds in self._notified.items() if pushes else ():
            names = [
                subscription["name"]
                for subscription in self.subscriptions_of(topic)
                if (subscription.get("pushConfig") or {}).get("pushEndpoint")
            ]
            for kind in pushes.keys() & kinds:
                pushes[kind] += names
        return pushes

    @cached_property
    def _notified(self) -> dict[str, set[str]]:
        """The types of events that topics are notified of, Eventarc's own topics left out."""
        own = {_transport(trigger).get("topic") for trigger in self.triggers}
        listing = self._apis.get(
            STORAGE,
            f"/storage/v1/b/{self._bucket}/notificationConfigs",
            needs="storage.buckets.get",
        )
        notified: dict[str, set[str]] = {}
        for entry in listing.get("items") or []:
            topic = str(entry.get("topic")).removeprefix(_TOPIC_PREFIX)
            if topic in own or not self._prefix.startswith(entry.get("object_name_prefix") or ""):
                continue
            types = entry.get("event_types") or notifications.KINDS
            kinds = {notifications.KINDS[name] for name in types if name in notifications.KINDS}
            notified[topic] = notified.get(topic, set()) | kinds
        return notified


def _transport(trigger: Mapping[str, Any]) -> Mapping[str, Any]:
    return (trigger.get("transport") or {}).get("pubsub") or {}


def _subscription_of(trigger: Mapping[str, Any]) -> str | None:
    name = _transport(trigger).get("subscription")
    return str(name) if name else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]
