"""Whether bucket, triggers and subscriptions are as docs/DEPLOY.md describes them.

Only Google's services have these, so that a trial on local servers leaves them out.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from dcm2bq.bigquery.access import opening
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.events import EventKind
from dcm2bq.tools.trial.google_apis import GoogleApis, MissingError, UntriedError
from dcm2bq.tools.trial.lines import TrialLine, TrialResult, confirmed, not_tried, refuted
from dcm2bq.tools.trial.routes import PUBSUB, STORAGE, Route, Routes

BIGQUERY = "https://bigquery.googleapis.com"
RESOURCE_MANAGER = "https://cloudresourcemanager.googleapis.com"

SETTINGS: Mapping[str, Any] = {
    "ackDeadlineSeconds": 600,
    "messageRetentionDuration": "604800s",
    "expirationPolicy": {},
    "retryPolicy": {"minimumBackoff": "10s", "maximumBackoff": "600s"},
    "maxDeliveryAttempts": 100,
}
"""The settings of the subscription of a trigger or topic, as docs/DEPLOY.md explains them."""

_IN_WORDS = {
    "projectReaders": "every Viewer of the project",
    "projectWriters": "every Editor of the project",
    "allAuthenticatedUsers": "everybody with a Google account",
    "allUsers": "everybody",
}
"""What `bigquery.access.opening` calls those whom it lets in, except a domain."""
_OPEN_MEMBERS = {
    "allUsers": _IN_WORDS["allUsers"],
    "allAuthenticatedUsers": _IN_WORDS["allAuthenticatedUsers"],
    "projectViewer": _IN_WORDS["projectReaders"],
}
"""Members whom a bucket must not let in, up to their colon. Its project's editors may stay."""
_APPLY = "run terraform apply, or see docs/DEPLOY.md, Subscriptions"
_EVERYBODY = "docs/DEPLOY.md describes who may read what"

LINES = (
    TrialLine.DATASET_ACCESS,
    TrialLine.BUCKET_ACCESS,
    TrialLine.NAMESPACE,
    TrialLine.TRIGGERS,
    TrialLine.TRIGGER_LOCATION,
    TrialLine.SUBSCRIPTIONS,
    TrialLine.DEAD_LETTER_SUBSCRIPTION,
    TrialLine.DEAD_LETTER_GRANTS,
)


class DeploymentChecks:
    """Reads what the deployment of a bucket consists of, for the objects under `prefix`."""

    def __init__(
        self, apis: GoogleApis, dataset: Dataset, config: Config, bucket: str, prefix: str
    ) -> None:
        self._apis = apis
        self._dataset = dataset
        self._bucket = bucket
        self._dead_letter_table = f"{dataset.name}.{config.big_query.dead_letter_table_id}"
        self._kinds = [EventKind.FINALIZED, EventKind.DELETED, EventKind.ARCHIVED]
        if config.events.reindex_on_metadata_update:
            self._kinds.append(EventKind.METADATA_UPDATED)
        self._routes = Routes(apis, bucket, prefix, self._kinds, dataset.project)

    def results(self) -> Iterator[TrialResult]:
        """Yield the lines, each as soon as it is decided."""
        checks: dict[TrialLine, Callable[[], TrialResult]] = {
            TrialLine.DATASET_ACCESS: self._dataset_access,
            TrialLine.BUCKET_ACCESS: self._bucket_access,
            TrialLine.NAMESPACE: self._namespace,
            TrialLine.TRIGGERS: self._all_triggers,
            TrialLine.TRIGGER_LOCATION: self._trigger_location,
            TrialLine.SUBSCRIPTIONS: self._settings,
            TrialLine.DEAD_LETTER_SUBSCRIPTION: self._dead_letter_subscription,
            TrialLine.DEAD_LETTER_GRANTS: self._dead_letter_grants,
        }
        for line in LINES:
            try:
                yield checks[line]()
            except UntriedError as error:
                yield not_tried(line, str(error))

    def _dataset_access(self) -> TrialResult:
        line = TrialLine.DATASET_ACCESS
        resource = self._apis.get(
            BIGQUERY,
            f"/bigquery/v2/projects/{self._dataset.project}/datasets/{self._dataset.dataset_id}",
            needs="bigquery.datasets.get",
        )
        access = resource.get("access")
        if access is None:
            return not_tried(line, "needs the permission bigquery.datasets.getIamPolicy")
        open_to = sorted({_openness(entry) for entry in access} - {""})
        if not open_to:
            return confirmed(line, f"{len(access)} entries")
        remedy = "close it: docs/DEPLOY.md, Who can read the dataset"
        return refuted(line, f"open to {', '.join(open_to)}", remedy)

    def _bucket_access(self) -> TrialResult:
        line = TrialLine.BUCKET_ACCESS
        policy = self._apis.get(
            STORAGE, f"/storage/v1/b/{self._bucket}/iam", needs="storage.buckets.getIamPolicy"
        )
        open_to = sorted(
            {
                f"{who} ({binding.get('role')})"
                for binding in policy.get("bindings") or []
                for member in binding.get("members") or []
                if (who := _OPEN_MEMBERS.get(member.partition(":")[0]))
            }
        )
        if not open_to:
            return confirmed(line)
        remedy = f"remove these roles from the bucket, if that is not intended; {_EVERYBODY}"
        return refuted(line, f"open to {', '.join(open_to)}", remedy)

    def _namespace(self) -> TrialResult:
        line = TrialLine.NAMESPACE
        if not (self._routes.bucket.get("hierarchicalNamespace") or {}).get("enabled"):
            return confirmed(line)
        return refuted(
            line,
            "the namespace is hierarchical: renaming a folder moves objects without any event",
            "use a bucket with a flat namespace, or never rename folders",
        )

    def _all_triggers(self) -> TrialResult:
        line = TrialLine.TRIGGERS
        notified, missing = self._routes.by_notification, self._routes.missing
        if not missing:
            by_trigger = [kind for kind in self._kinds if kind not in notified]
            through = [f"{', '.join(notified)} through Pub/Sub"] if notified else []
            return confirmed(line, ", ".join([*by_trigger, *through]))
        return refuted(
            line,
            f"no trigger for {', '.join(missing)}, and no notification that is pushed",
            "run terraform apply, or gcloud eventarc triggers create (docs/DEPLOY.md), and then "
            f"dcm2bq verify gs://{self._bucket} --repair",
        )

    def _trigger_location(self) -> TrialResult:
        line, location = TrialLine.TRIGGER_LOCATION, self._routes.bucket["location"].lower()
        elsewhere = [
            trigger["name"]
            for trigger in self._routes.triggers
            if trigger["name"].split("/")[3] != location
        ]
        if not self._routes.triggers:
            return not_tried(line, "there is no trigger")
        if not elsewhere:
            return confirmed(line, location)
        return refuted(
            line,
            f"the bucket is in {location}; not there: {', '.join(elsewhere)}",
            "create the triggers in the location of the bucket",
        )

    def _settings(self) -> TrialResult:
        line = TrialLine.SUBSCRIPTIONS
        if not self._routes.all:
            return not_tried(line, "there is no trigger")
        problems = [
            f"{route.label}: {problem}"
            for route in self._routes.all
            for problem in self._problems(route)
        ]
        if not problems:
            return confirmed(line, f"{len(self._routes.all)} of them")
        return refuted(line, "; ".join(problems), _APPLY)

    def _problems(self, route: Route) -> list[str]:
        if route.subscription is None:
            return ["it names no subscription"]
        try:
            subscription = self._routes.subscription(route.subscription)
        except MissingError:
            return ["its subscription was deleted: replace the trigger"]
        policy = subscription.get("deadLetterPolicy") or {}
        actual = {**subscription, "maxDeliveryAttempts": policy.get("maxDeliveryAttempts")}
        problems = [
            f"{setting} is {_shown(actual.get(setting))}, not {_shown(expected)}"
            for setting, expected in SETTINGS.items()
            if actual.get(setting) != expected
        ]
        if not policy.get("deadLetterTopic"):
            problems.append("it has no dead-letter topic")
        if subscription.get("state", "ACTIVE") != "ACTIVE":
            problems.append(f"its state is {subscription['state']}")
        push = subscription.get("pushConfig") or {}
        if push.get("pushEndpoint") and not push.get("oidcToken"):
            problems.append("its pushes name no service account")
        if push.get("noWrapper") is not None:
            problems.append("its messages have no wrapper")
        return problems

    def _dead_letter_subscription(self) -> TrialResult:
        line = TrialLine.DEAD_LETTER_SUBSCRIPTION
        if not self._dead_letter_topics:
            return not_tried(line, "no subscription has a dead-letter topic")
        problems = [
            problem for topic in self._dead_letter_topics if (problem := self._topic_problem(topic))
        ]
        if not problems:
            return confirmed(line, ", ".join(self._dead_letter_topics))
        return refuted(
            line,
            "; ".join(problems),
            "run terraform apply, or see docs/OPERATIONS.md, Dead letters are stuck",
        )

    def _topic_problem(self, topic: str) -> str:
        """Return why a dead-letter topic does not reach the table; "" if it does."""
        for subscription in self._routes.subscriptions_of(topic):
            bigquery = subscription.get("bigqueryConfig") or {}
            if bigquery.get("table", "").replace(":", ".") == self._dead_letter_table:
                name = subscription["name"]
                if not bigquery.get("writeMetadata"):
                    return f"{name} writes no metadata"
                if (subscription.get("expirationPolicy") or {}).get("ttl"):
                    return f"{name} expires when it is idle"
                state = bigquery.get("state", "ACTIVE")
                return "" if state == "ACTIVE" else f"the state of {name} is {state}"
        return f"no subscription of {topic} writes to {self._dead_letter_table}"

    def _dead_letter_grants(self) -> TrialResult:
        line = TrialLine.DEAD_LETTER_GRANTS
        if not self._dead_letter_topics:
            return not_tried(line, "no subscription has a dead-letter topic")
        agent = f"serviceAccount:service-{self._number}@gcp-sa-pubsub.iam.gserviceaccount.com"
        needed = [(name, "roles/pubsub.subscriber", "subscriptions") for name in self._subscribed]
        needed += [(t, "roles/pubsub.publisher", "topics") for t in self._dead_letter_topics]
        missing = [
            f"{role} on {name}"
            for name, role, kind in needed
            if not self._has(name, role, kind, agent)
        ]
        if missing:
            missing = [grant for grant in missing if not self._project_has(grant.split()[0], agent)]
        if not missing:
            return confirmed(line, agent)
        return refuted(
            line, f"{agent} lacks {', '.join(missing)}", "run terraform apply, or grant it"
        )

    def _has(self, name: str, role: str, kind: str, member: str) -> bool:
        policy = self._apis.get(
            PUBSUB, f"/v1/{name}:getIamPolicy", needs=f"pubsub.{kind}.getIamPolicy"
        )
        return _grants(policy, role, member)

    def _project_has(self, role: str, member: str) -> bool:
        policy = self._apis.post(
            RESOURCE_MANAGER,
            f"/v1/projects/{self._dataset.project}:getIamPolicy",
            needs="resourcemanager.projects.getIamPolicy",
        )
        return _grants(policy, role, member)

    @property
    def _subscribed(self) -> list[str]:
        return [route.subscription for route in self._routes.all if route.subscription]

    @cached_property
    def _number(self) -> str:
        """The number of the project of the subscriptions."""
        if self._routes.triggers:
            return str(self._routes.bucket["projectNumber"])
        project = self._subscribed[0].split("/")[1]
        resource = self._apis.get(
            RESOURCE_MANAGER, f"/v1/projects/{project}", needs="resourcemanager.projects.get"
        )
        return str(resource["projectNumber"])

    @cached_property
    def _dead_letter_topics(self) -> list[str]:
        topics = set()
        for name in self._subscribed:
            try:
                policy = self._routes.subscription(name).get("deadLetterPolicy") or {}
            except MissingError:
                continue  # the line about the settings says so
            topics.add(policy.get("deadLetterTopic"))
        return sorted(filter(None, topics))


def _openness(entry: Mapping[str, Any]) -> str:
    """Return to whom an entry of a dataset's access list opens it; "" for named principals."""
    group = opening(entry)
    if group is None:
        return ""
    domain = entry.get("domain") or str(entry.get("iamMember", "")).removeprefix("domain:")
    return _IN_WORDS.get(group, f"everybody of the domain {domain}")


def _grants(policy: Mapping[str, Any], role: str, member: str) -> bool:
    return any(
        binding.get("role") == role and member in (binding.get("members") or [])
        for binding in policy.get("bindings") or []
    )


def _shown(setting: Any) -> str:
    """Return a setting as text; an empty policy is one that never expires."""
    if setting is None:
        return "not set"
    if isinstance(setting, dict):
        return " to ".join(map(str, setting.values())) or "never"
    return str(setting)
