"""What waits for what in tf/: read from the configuration, as Terraform's own graph is.

A missing dependency shows in no plan and in no test with mock providers: only in a project, at the
first apply, as a race.
"""

import json
import re
from functools import cache
from typing import Any

import pytest

from tests.support.pages import ROOT
from tests.support.terraform_blocks import parsed

TF = ROOT / "tf"

REFERENCE = re.compile(
    r"\b((?:data\.)?(?:google_\w+|time_sleep|terraform_data|archive_file)\.\w+|local\.\w+)"
)

type Graph = dict[str, set[str]]

GRANTS = (
    "google_project_iam_member.this",
    "google_storage_bucket_iam_member.this",
    "google_bigquery_dataset_iam_member.this",
    "google_bigquery_table_iam_member.dead_letter",
    "google_bigquery_table_iam_member.refresh",
    "google_pubsub_topic_iam_member.dead_letter",
    "google_pubsub_topic_iam_member.objects",
    "google_secret_manager_secret_iam_member.this",
)
LATE_GRANTS = (  # on what exists after the function and the triggers only
    "google_cloud_run_v2_service_iam_member.trigger",
    "google_pubsub_subscription_iam_member.dead_letter",
)
KEY_GRANT = "google_kms_crypto_key_iam_member.agents"
AGENTS = (
    "google_service_account.this",
    "google_project_service_identity.agent",
    "data.google_storage_project_service_account.this",
)
ENCRYPTED = (
    "google_storage_bucket.dicom",
    "google_storage_bucket.source",
    "google_storage_bucket.staging",
    "google_bigquery_dataset.dicom",
    "google_bigquery_dataset.undelivered",
    "google_pubsub_topic.dead_letter",
    "google_pubsub_topic.objects",
    "google_cloudfunctions2_function.ingest",
    "google_artifact_registry_repository.images",
    "google_eventarc_google_channel_config.this",
)

WAITS: dict[str, tuple[str, ...]] = {
    # identities, a pause, grants, a pause, and what needs the grants
    "time_sleep.identities": AGENTS,
    **dict.fromkeys(
        (*GRANTS, *LATE_GRANTS, KEY_GRANT),
        ("time_sleep.identities", "google_project_service.this"),
    ),
    "time_sleep.grants": GRANTS,
    "time_sleep.keys": (KEY_GRANT,),
    "google_pubsub_subscription.dead_letter": ("time_sleep.grants",),
    "google_cloudfunctions2_function.ingest": (
        "time_sleep.grants",
        "terraform_data.columns",
        "terraform_data.existing_table",
    ),
    "google_eventarc_trigger.event": (
        "time_sleep.grants",
        "google_cloud_run_v2_service_iam_member.trigger",
        "google_eventarc_google_channel_config.this",
        "google_cloudfunctions2_function.ingest",
    ),
    # Pub/Sub may move a message before it is told to, and then has somewhere to move it.
    "terraform_data.subscription": (
        "google_pubsub_subscription_iam_member.dead_letter",
        "google_pubsub_topic_iam_member.dead_letter",
        "google_pubsub_subscription.dead_letter",
        "data.google_pubsub_subscription.event",
    ),
    # A push needs the right to call the function; a notification, somewhere to be kept.
    "google_pubsub_subscription.objects": (
        "time_sleep.grants",
        "google_cloud_run_v2_service_iam_member.trigger",
        "google_pubsub_subscription.dead_letter",
        "google_cloudfunctions2_function.ingest",
    ),
    "google_storage_notification.objects": (
        "time_sleep.grants",
        "google_pubsub_topic_iam_member.objects",
        "google_pubsub_subscription.objects",
    ),
    "time_sleep.ready": ("google_eventarc_trigger.event", "google_storage_notification.objects"),
    "google_bigquery_data_transfer_config.refresh": (
        "time_sleep.grants",
        "google_bigquery_table_iam_member.refresh",
        "terraform_data.columns",
    ),
    # a view of new columns needs the columns
    "terraform_data.columns": ("google_bigquery_table.table",),
    "google_bigquery_table.view": ("terraform_data.columns",),
    "google_bigquery_table.aggregate": ("google_bigquery_table.view",),
    "google_bigquery_table.aggregate_2": ("google_bigquery_table.aggregate",),
    "google_bigquery_table.aggregate_3": ("google_bigquery_table.aggregate_2",),
    "google_bigquery_routine.table_function": (
        "terraform_data.columns",
        "google_bigquery_table.aggregate_3",
    ),
}
WAITS |= {name: (*WAITS.get(name, ()), "time_sleep.keys") for name in ENCRYPTED}

PAUSES = {"identities": "60s", "keys": "60s", "grants": "90s", "ready": "120s"}


@cache
def graph() -> Graph:
    """Return what each resource, data source and local value refers to."""
    edges: Graph = {}
    for content in parsed():
        for kind, prefix in (("resource", ""), ("data", "data.")):
            for block in content.get(kind, []):
                for type_, named in block.items():
                    for name, body in named.items():
                        edges[f"{prefix}{type_}.{name}".replace('"', "")] = references(body)
        for block in content.get("locals", []):
            for name, value in block.items():
                edges[f"local.{name}"] = references(value)
    return edges


def references(body: Any) -> set[str]:
    return set(REFERENCE.findall(json.dumps(body)))


def upstream(edges: Graph, name: str) -> set[str]:
    """Return everything that exists before this does."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for reference in edges.get(waiting.pop(), set()) - seen:
            seen.add(reference)
            waiting.append(reference)
    return seen


def missing(edges: Graph) -> set[tuple[str, str]]:
    """Return who does not wait for what; a pause must be named by whoever waits for it."""
    return {
        (name, awaited)
        for name, all_awaited in WAITS.items()
        for awaited in all_awaited
        if awaited
        not in (edges[name] if awaited.startswith("time_sleep.") else upstream(edges, name))
    }


def test_everything_waits_for_what_it_needs() -> None:
    assert missing(graph()) == set()


def test_every_resource_waits_for_the_apis() -> None:
    resources = [name for name in graph() if name.startswith(("google_", "data.google_"))]
    first = {
        "google_project_service.this",
        "data.google_storage_bucket.existing",
        "data.google_bigquery_dataset.existing",
    }
    for name in set(resources) - first:
        assert "google_project_service.this" in upstream(graph(), name), name


def test_every_grant_and_everything_with_a_key_is_looked_at() -> None:
    edges = graph()
    granting = {name for name in edges if re.match(r"google_\w+_iam_member\.", name)}
    assert granting == {*GRANTS, *LATE_GRANTS, KEY_GRANT}
    bodies = json.dumps(parsed())
    assert bodies.count('kms_key_name"') + bodies.count('crypto_key_name"') == len(ENCRYPTED)


@pytest.mark.parametrize("name", PAUSES)
def test_the_pauses_are_as_long_as_google_takes(name: str) -> None:
    text = "\n".join(file.read_text() for file in TF.glob("*.tf"))
    (duration,) = re.findall(
        rf'resource "time_sleep" "{name}" {{\n  create_duration = (.*)\n', text
    )
    assert f'"{PAUSES[name]}"' in duration


def waits() -> list[tuple[str, str]]:
    return [(name, awaited) for name, all_awaited in WAITS.items() for awaited in all_awaited]


@pytest.mark.parametrize(("name", "awaited"), waits(), ids=str)
def test_a_dependency_that_is_taken_back_is_found(name: str, awaited: str) -> None:
    """Without the reference, wherever it is in between, the one that waits is reported."""
    paths = {name} if awaited.startswith("time_sleep.") else {name, *upstream(graph(), name)}
    edges = {
        each: refers - {awaited} if each in paths else refers for each, refers in graph().items()
    }
    assert (name, awaited) in missing(edges)


def test_nothing_is_created_before_it_is_destroyed() -> None:
    """Terraform would do the same with everything that it waits for, and a view exists once."""
    text = "\n".join(file.read_text() for file in TF.glob("*.tf"))
    assert "create_before_destroy" not in text


def test_no_pause_is_named_without_need() -> None:
    named = {
        (name, pause) for name, refers in graph().items() for pause in refers if "sleep." in pause
    }
    assert named - set(waits()) == set()
