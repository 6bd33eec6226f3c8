"""The checks that only Google's services allow, against a server that plays their REST APIs."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dcm2bq import config
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.events import EventKind
from dcm2bq.tools.trial import delivery_steps, trial
from dcm2bq.tools.trial.dataset_checks import DatasetChecks
from dcm2bq.tools.trial.deployment_checks import LINES, DeploymentChecks
from dcm2bq.tools.trial.google_apis import GoogleApis
from dcm2bq.tools.trial.lines import TrialLine, TrialResult, Verdict
from dcm2bq.transport import Transport
from tests.support.cloud import google_error
from tests.support.datasets import borrowed_dataset, connect
from tests.support.event_source import ALL_TRIGGERS
from tests.support.google_project import AGENT, TOPIC, GoogleProject
from tests.support.patience import scaled
from tests.support.proxy import Fault
from tests.trial.conftest import FAULT_SECONDS, Site, Try

CONFIG = config.from_overrides({"bigQuery": {"datasetId": "dicom"}})
VARIABLE = "TRIAL_TEST_SERVER"

Edit = Callable[[Any], object]


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The name of a dataset; nothing asks for the dataset itself."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    return Dataset(CONFIG)


@pytest.fixture
def project() -> Iterator[GoogleProject]:
    """A deployment in order."""
    with GoogleProject("scans", "dicom").running() as project:
        yield project


def apis_of(project: GoogleProject, patch: pytest.MonkeyPatch) -> GoogleApis:
    patch.setenv(VARIABLE, project.url)
    return GoogleApis(lambda service: Transport(service, VARIABLE))


@pytest.fixture
def check(
    project: GoogleProject, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[TrialLine, TrialResult]]:
    def results() -> dict[TrialLine, TrialResult]:
        apis = apis_of(project, monkeypatch)
        checks = DeploymentChecks(apis, dataset, CONFIG, "scans", "images/trial/")
        return {result.line: result for result in checks.results()}

    return results


Check = Callable[[], dict[TrialLine, TrialResult]]


def test_a_deployment_in_order_is_confirmed(check: Check, project: GoogleProject) -> None:
    """Reading it changes nothing."""
    results = check()
    assert list(results) == list(LINES)
    assert {result.verdict for result in results.values()} == {Verdict.CONFIRMED}, results
    assert {command for command, _ in project.requests} == {"GET"}
    assert ("GET", "/v1/projects/123456/locations/-/triggers") in project.requests


def subscription(**changes: Any) -> Edit:
    return lambda resource: resource.update(changes)


def access(entry: dict[str, str]) -> Edit:
    return lambda resource: resource["access"].append({"role": "READER", **entry})


FAULTS: dict[str, tuple[str, Edit, TrialLine, str]] = {
    "viewers read the dataset": (
        "/datasets/dicom",
        access({"specialGroup": "projectReaders"}),
        TrialLine.DATASET_ACCESS,
        "open to every Viewer of the project",
    ),
    "anybody reads the dataset": (
        "/datasets/dicom",
        access({"specialGroup": "allAuthenticatedUsers"}),
        TrialLine.DATASET_ACCESS,
        "open to everybody with a Google account",
    ),
    "a domain reads the dataset": (
        "/datasets/dicom",
        access({"domain": "example.org"}),
        TrialLine.DATASET_ACCESS,
        "open to everybody of the domain example.org",
    ),
    "editors read the dataset, by a member of the policy": (
        "/datasets/dicom",
        access({"iamMember": "projectEditor:local"}),
        TrialLine.DATASET_ACCESS,
        "open to every Editor of the project",
    ),
    "viewers read the bucket": (
        "/scans/iam",
        lambda policy: policy["bindings"].append(
            {"role": "roles/storage.legacyObjectReader", "members": ["projectViewer:local"]}
        ),
        TrialLine.BUCKET_ACCESS,
        "open to every Viewer of the project (roles/storage.legacyObjectReader)",
    ),
    "hierarchical namespace": (
        "/b/scans",
        lambda bucket: bucket.update(hierarchicalNamespace={"enabled": True}),
        TrialLine.NAMESPACE,
        "the namespace is hierarchical",
    ),
    "no trigger": (
        "/triggers",
        lambda listing: listing["triggers"].pop(1),
        TrialLine.TRIGGERS,
        "no trigger for deleted",
    ),
    "a trigger of another bucket": (
        "/triggers",
        lambda listing: listing["triggers"][0]["eventFilters"][1].update(value="other"),
        TrialLine.TRIGGERS,
        "no trigger for finalized",
    ),
    "a trigger elsewhere": (
        "/b/scans",
        lambda bucket: bucket.update(location="EU"),
        TrialLine.TRIGGER_LOCATION,
        "the bucket is in eu; not there: projects/local/locations/europe-west4/triggers/",
    ),
    "no subscription": (
        "/triggers",
        lambda listing: listing["triggers"][2].pop("transport"),
        TrialLine.SUBSCRIPTIONS,
        "dcm2bq-archived: it names no subscription",
    ),
    "acknowledgement deadline": (
        "/deleted-sub",
        subscription(ackDeadlineSeconds=10),
        TrialLine.SUBSCRIPTIONS,
        "dcm2bq-deleted: ackDeadlineSeconds is 10, not 600",
    ),
    "retention": (
        "/deleted-sub",
        subscription(messageRetentionDuration="86400s"),
        TrialLine.SUBSCRIPTIONS,
        "messageRetentionDuration is 86400s, not 604800s",
    ),
    "expiry": (
        "/deleted-sub",
        subscription(expirationPolicy={"ttl": "2678400s"}),
        TrialLine.SUBSCRIPTIONS,
        "expirationPolicy is 2678400s, not never",
    ),
    "back-off": (
        "/deleted-sub",
        lambda resource: resource.pop("retryPolicy"),
        TrialLine.SUBSCRIPTIONS,
        "retryPolicy is not set, not 10s to 600s",
    ),
    "no dead-letter topic": (
        "/deleted-sub",
        lambda resource: resource.pop("deadLetterPolicy"),
        TrialLine.SUBSCRIPTIONS,
        "maxDeliveryAttempts is not set, not 100; dcm2bq-deleted: it has no dead-letter topic",
    ),
    "detached": (
        "/deleted-sub",
        subscription(state="RESOURCE_ERROR"),
        TrialLine.SUBSCRIPTIONS,
        "its state is RESOURCE_ERROR",
    ),
    "nobody reads the dead-letter topic": (
        "/dcm2bq-dead-letter/subscriptions",
        lambda listing: listing.clear(),
        TrialLine.DEAD_LETTER_SUBSCRIPTION,
        f"no subscription of {TOPIC} writes to local.dicom.dead_letter",
    ),
    "dead letters go to another table": (
        "/dead-letter-sub",
        lambda resource: resource["bigqueryConfig"].update(table="local.other.dead_letter"),
        TrialLine.DEAD_LETTER_SUBSCRIPTION,
        "writes to local.dicom.dead_letter",
    ),
    "the table is refused": (
        "/dead-letter-sub",
        lambda resource: resource["bigqueryConfig"].update(state="SCHEMA_MISMATCH"),
        TrialLine.DEAD_LETTER_SUBSCRIPTION,
        "is SCHEMA_MISMATCH",
    ),
    "no metadata": (
        "/dead-letter-sub",
        lambda resource: resource["bigqueryConfig"].update(writeMetadata=False),
        TrialLine.DEAD_LETTER_SUBSCRIPTION,
        "writes no metadata",
    ),
    "the dead-letter subscription expires": (
        "/dead-letter-sub",
        subscription(expirationPolicy={"ttl": "2678400s"}),
        TrialLine.DEAD_LETTER_SUBSCRIPTION,
        "expires when it is idle",
    ),
    "Pub/Sub may not publish dead letters": (
        "/dcm2bq-dead-letter:getIamPolicy",
        lambda policy: policy.clear(),
        TrialLine.DEAD_LETTER_GRANTS,
        f"{AGENT} lacks roles/pubsub.publisher on {TOPIC}",
    ),
    "Pub/Sub may not acknowledge dead letters": (
        "/archived-sub:getIamPolicy",
        lambda policy: policy["bindings"][0].update(role="roles/viewer"),
        TrialLine.DEAD_LETTER_GRANTS,
        "lacks roles/pubsub.subscriber on projects/local/subscriptions/archived-sub",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, check: Check, project: GoogleProject) -> None:
    end, edit, line, detail = FAULTS[name]
    project.edit(end, edit)
    result = check()[line]
    assert result.verdict == Verdict.REFUTED
    assert detail in result.detail
    assert result.remedy


def test_notifications_that_are_pushed_replace_triggers(
    check: Check, project: GoogleProject
) -> None:
    project.notify("scans")
    project.edit("/notificationConfigs", notification(object_name_prefix="images/"))
    results = check()
    rest = {result for result in results.values() if result.verdict != Verdict.CONFIRMED}
    assert {result.line for result in rest} == {TrialLine.TRIGGER_LOCATION}, rest
    detail = "finalized, deleted, archived through Pub/Sub"
    assert results[TrialLine.TRIGGERS].detail == detail
    assert results[TrialLine.DEAD_LETTER_GRANTS].detail == AGENT


def notification(**changes: Any) -> Edit:
    return lambda listing: listing["items"][0].update(changes)


PUSH_FAULTS: dict[str, tuple[str, Edit, TrialLine, str]] = {
    "no notification of deletions": (
        "/notificationConfigs",
        notification(event_types=["OBJECT_FINALIZE", "OBJECT_ARCHIVE"]),
        TrialLine.TRIGGERS,
        "no trigger for deleted, and no notification that is pushed",
    ),
    "a notification of another folder": (
        "/notificationConfigs",
        notification(object_name_prefix="reports/"),
        TrialLine.TRIGGERS,
        "no trigger for finalized, deleted, archived, and no",
    ),
    "nothing is pushed": (
        "/changes-sub",
        subscription(pushConfig={}),
        TrialLine.TRIGGERS,
        "no trigger for finalized, deleted, archived, and no",
    ),
    "pushes without a service account": (
        "/changes-sub",
        lambda resource: resource["pushConfig"].pop("oidcToken"),
        TrialLine.SUBSCRIPTIONS,
        "changes-sub: its pushes name no service account",
    ),
    "pushes without a wrapper": (
        "/changes-sub",
        lambda resource: resource["pushConfig"].update(noWrapper={"writeMetadata": True}),
        TrialLine.SUBSCRIPTIONS,
        "changes-sub: its messages have no wrapper",
    ),
    "acknowledgement deadline": (
        "/changes-sub",
        subscription(ackDeadlineSeconds=10),
        TrialLine.SUBSCRIPTIONS,
        "changes-sub: ackDeadlineSeconds is 10, not 600",
    ),
    "Pub/Sub may not acknowledge dead letters": (
        "/changes-sub:getIamPolicy",
        lambda policy: policy.clear(),
        TrialLine.DEAD_LETTER_GRANTS,
        "lacks roles/pubsub.subscriber on projects/local/subscriptions/changes-sub",
    ),
}


@pytest.mark.parametrize("name", PUSH_FAULTS)
def test_a_planted_fault_of_a_push_is_found(
    name: str, check: Check, project: GoogleProject
) -> None:
    end, edit, line, detail = PUSH_FAULTS[name]
    project.notify("scans")
    project.edit(end, edit)
    result = check()[line]
    assert result.verdict == Verdict.REFUTED
    assert detail in result.detail
    assert result.remedy


def test_a_deleted_subscription_is_found(check: Check, project: GoogleProject) -> None:
    project.refuse("/deleted-sub", 404)
    result = check()[TrialLine.SUBSCRIPTIONS]
    assert "dcm2bq-deleted: its subscription was deleted: replace the trigger" in result.detail


def test_a_grant_on_the_project_counts(check: Check, project: GoogleProject) -> None:
    project.edit("/dcm2bq-dead-letter:getIamPolicy", lambda policy: policy.clear())
    role = {"role": "roles/pubsub.publisher", "members": [AGENT]}
    project.edit("/projects/local:getIamPolicy", lambda policy: policy.update(bindings=[role]))
    assert check()[TrialLine.DEAD_LETTER_GRANTS].verdict == Verdict.CONFIRMED
    assert ("POST", "/v1/projects/local:getIamPolicy") in project.requests


@pytest.mark.parametrize(
    ("end", "line", "permission"),
    [
        ("/datasets/dicom", TrialLine.DATASET_ACCESS, "bigquery.datasets.get"),
        ("/scans/iam", TrialLine.BUCKET_ACCESS, "storage.buckets.getIamPolicy"),
        ("/b/scans", TrialLine.NAMESPACE, "storage.buckets.get"),
        ("/triggers", TrialLine.TRIGGERS, "eventarc.triggers.list"),
        ("/deleted-sub", TrialLine.SUBSCRIPTIONS, "pubsub.subscriptions.get"),
        (
            "/dcm2bq-dead-letter/subscriptions",
            TrialLine.DEAD_LETTER_SUBSCRIPTION,
            "pubsub.topics.get",
        ),
        (
            "/deleted-sub:getIamPolicy",
            TrialLine.DEAD_LETTER_GRANTS,
            "pubsub.subscriptions.getIamPolicy",
        ),
    ],
)
def test_what_the_caller_may_not_read_is_not_tried(
    end: str, line: TrialLine, permission: str, check: Check, project: GoogleProject
) -> None:
    project.refuse(end)
    result = check()[line]
    assert result.verdict == Verdict.NOT_TRIED
    assert f"needs the permission {permission}" in result.detail


def test_without_the_access_list_access_is_not_tried(check: Check, project: GoogleProject) -> None:
    """BigQuery leaves it out for callers who may not read it."""
    project.edit("/datasets/dicom", lambda resource: resource.pop("access"))
    assert check()[TrialLine.DATASET_ACCESS].verdict == Verdict.NOT_TRIED


# What the function logged tells what is wrong.


@pytest.fixture
def attempt(
    site: Site, try_it: Try, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[TrialLine, TrialResult]]]:
    """Try the local deployment, with Google's APIs beside it; look at its log often."""
    del try_it  # only its environment
    monkeypatch.setattr(delivery_steps, "_LOG_PAUSE_SECONDS", 0.2)
    project = GoogleProject(site.bucket, site.stack.dataset.dataset_id, site.stack.log_file)
    with project.running():

        def results(
            seconds: int,
            *,
            on_google: bool = False,
            announce: Callable[[str], object] = str,
            **overrides: Any,
        ) -> dict[TrialLine, TrialResult]:
            settings = config.from_overrides(site.config(**overrides))
            plan = trial.plan(settings, f"gs://{site.bucket}", seconds=seconds, announce=announce)
            plan = dataclasses.replace(plan, on_google=on_google)
            left: list[str] = []
            with trial.uploading(plan, left.extend) as objects:
                apis = apis_of(project, monkeypatch)
                lines = {result.line: result for result in trial.results(plan, objects, apis)}
            assert left == []
            return lines

        yield results


def test_everything_is_confirmed_that_can_be(
    attempt: Callable[..., dict[TrialLine, TrialResult]],
) -> None:
    """The large row, too; pruning cannot be, since the local BigQuery does not bill."""
    results = attempt(60, on_google=True)
    assert set(results) == set(TrialLine)
    undecided = {
        result.line
        for result in results.values()
        if result.verdict != Verdict.CONFIRMED and not result.line.shown_by
    }
    assert undecided == {TrialLine.PRUNING}, results
    assert results[TrialLine.LARGE_ROW].verdict == Verdict.CONFIRMED


def test_events_that_come_through_pub_sub_are_confirmed_and_found_in_the_log(
    site: Site, attempt: Callable[..., dict[TrialLine, TrialResult]]
) -> None:
    site.events.through_pubsub = True
    results = attempt(60)
    lines = (TrialLine.ROW, TrialLine.EVENT_NAMES, TrialLine.DEAD_LETTER, TrialLine.MARKER)
    assert {results[line].verdict for line in lines} == {Verdict.CONFIRMED}, results
    site.stack.bigquery.faults.append(Fault("insertAll", 403, google_error(403, "accessDenied")))
    result = attempt(200)[TrialLine.ROW]
    assert result.verdict == Verdict.REFUTED
    assert "the function failed" in result.detail


def test_a_function_that_fails_again_and_again_is_not_waited_for(
    site: Site, attempt: Callable[..., dict[TrialLine, TrialResult]]
) -> None:
    site.stack.bigquery.faults.append(Fault("insertAll", 403, google_error(403, "accessDenied")))
    announced: list[str] = []
    result = attempt(200, announce=announced.append)[TrialLine.ROW]
    assert len(announced) == 2
    assert all(line.startswith("waiting for ") for line in announced)
    assert result.verdict == Verdict.REFUTED
    assert "the function failed" in result.detail
    assert "WriteFailedError" in result.detail
    assert "accessDenied" in result.detail


def test_a_function_that_stores_elsewhere_is_told_from_one_without_events(
    bigquery_url: str, attempt: Callable[..., dict[TrialLine, TrialResult]]
) -> None:
    with borrowed_dataset(bigquery_url) as made:
        big_query = {"datasetId": made.dataset_id, "timeoutSeconds": scaled(3)}
        result = attempt(FAULT_SECONDS, bigQuery=big_query)[TrialLine.ROW]
    assert result.detail == "the function has stored it, but not in these tables"
    assert "datasetId" in result.remedy


def test_a_row_in_the_log_says_nothing_about_the_marker(
    site: Site, attempt: Callable[..., dict[TrialLine, TrialResult]]
) -> None:
    """A deletion is waited for to the end, although the log has the upload of the same object."""
    site.events.triggers = ALL_TRIGGERS - {EventKind.DELETED}
    announced: list[str] = []
    result = attempt(FAULT_SECONDS, announce=announced.append)[TrialLine.MARKER]
    assert announced[-1].startswith("gave up after ")
    assert result.verdict == Verdict.REFUTED


def test_a_log_without_a_line_means_no_event(
    site: Site, attempt: Callable[..., dict[TrialLine, TrialResult]]
) -> None:
    site.events.triggers = frozenset()
    result = attempt(FAULT_SECONDS)[TrialLine.ROW]
    assert "and the log of project local does not mention it" in result.detail
    assert "trigger for finalized" in result.remedy


# Pruning, by what BigQuery says that queries read.


def job(processed: int) -> bytes:
    statistics = {"query": {"totalBytesProcessed": str(processed)}}
    reference = {"projectId": "local", "jobId": "j", "location": "EU"}
    status = {"state": "DONE"}
    return json.dumps(
        {"jobReference": reference, "statistics": statistics, "status": status, "configuration": {}}
    ).encode()


GIB = 1 << 30


@pytest.mark.parametrize(
    ("processed", "verdict", "detail"),
    [
        ([100 * GIB, GIB, GIB], Verdict.CONFIRMED, "1,024 MiB of 102,400 MiB"),
        ([10 * GIB, 10 * GIB, GIB, 10 * GIB, GIB], Verdict.CONFIRMED, "1,024 MiB of 10,240 MiB"),
        ([10 * GIB, GIB, 10 * GIB, 10 * GIB], Verdict.REFUTED, "10,240 MiB of 10,240 MiB"),
        ([GIB // 2, GIB // 2, GIB // 2], Verdict.NOT_TRIED, "too small to show it: 512 MiB"),
        (
            [99 * GIB, GIB, 99 * GIB],
            Verdict.NOT_TRIED,
            "instances_live WHERE StudyInstanceUID = '2.25.0'",
        ),
    ],
)
def test_pruning_is_judged_by_the_bytes_that_queries_read(
    site: Site, processed: list[int], verdict: Verdict, detail: str
) -> None:
    """Dry runs first; where they only give an upper bound, a run of what is affordable."""
    checks = DatasetChecks(connect(site.stack.bigquery.url, site.stack.config), site.stack.config)
    site.stack.bigquery.faults += [
        *(Fault("/queries/j", 200, job_result()),),
        *(Fault("/jobs", 200, job(number), times=1) for number in processed),
    ]
    result = checks.pruning()
    assert result.verdict == verdict, result
    assert detail in result.detail


def job_result() -> bytes:
    reference = {"projectId": "local", "jobId": "j", "location": "EU"}
    return json.dumps(
        {"jobReference": reference, "jobComplete": True, "totalRows": "0", "schema": {}}
    ).encode()
