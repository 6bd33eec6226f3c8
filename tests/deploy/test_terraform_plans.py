"""A plan after an apply shows nothing, whatever the variables; a drift shows, and only it.

Runs terraform with mock providers, by TERRAFORM_RUNNER: a part of `make check-terraform`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import google_api, terraform
from tests.support.google_api import Answer, Api, Request

RUNNER = os.environ.get("TERRAFORM_RUNNER")
pytestmark = [
    pytest.mark.skipif(
        RUNNER is None or shutil.which("terraform") is None,
        reason="run by `make check-terraform`, if TERRAFORM_RUNNER names a runner",
    ),
    pytest.mark.timeout(2400),  # 16 applies and plans take a minute on an idle machine
]

KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
TAG = "projects/p/locations/us/taxonomies/1/policyTags/2"
COMBINATIONS = {
    "nothing_else": "",
    "a_suffix": 'suffix = "west-1"',
    "an_existing_bucket": 'bucket = { name = "scans", existing = true }',
    "buckets_by_both_ways": """buckets = {
        dicom = {}
        ct    = { via = "pubsub", prefix = "ct/" }
        mr    = { name = "scans", existing = true, via = "pubsub", topic = "projects/p/topics/t" }
    }""",
    "an_existing_dataset": 'suffix = "west"\ndataset = { id = "dicom", existing = true }',
    "a_multi_region": 'bucket = { location = "US", versioning = true }',
    "privacy": 'privacy = { hash = ["PatientID"], hash_key = { secret = "k", version = "1" } }',
    "reindexing": "reindex_on_metadata_update = true",
    "a_key": f'kms_key = "{KEY}"\nbackfill = {{ enabled = true }}\nrefresh = {{ enabled = true }}',
    "grants_by_others": f'grants = false\nkms_grants = false\nkms_key = "{KEY}"',
    "existing_identities": 'identities = { runtime = "a@p.iam.gserviceaccount.com" }',
    "a_network": """vpc = { subnetwork = "s" }
        topic_regions = ["us-central1"]
        request_logs = false""",
    "a_connector": 'vpc_connector = { id = "projects/p/locations/l/connectors/c" }',
    "readers_and_tags": 'dataset = { readers = ["group:g@example.org"], policy_tags = { '
    f'PatientName = "{TAG}" }}, time_travel_hours = 48, storage_billing = "PHYSICAL" }}',
    "alerts_and_a_budget": 'alerts = { emails = ["a@example.org"], silence_hours = 12 }\n'
    'budget = { billing_account = "012345-6789AB-CDEF01", monthly_amount = 9 }',
    "options": 'config = { jsonOutput = { ignorePrivate = true } }\nlabels = { team = "x" }',
}

HEAD = """
mock_provider "google" {
  source = "./tests/mocks/google"
}
mock_provider "google-beta" {
  source = "./tests/mocks/beta"
}
mock_provider "time" {}
"""

type Changes = dict[str, dict[str, list[str]]]
"""By run, the addresses of resources that a plan would change, with the actions."""


def again(name: str, variables: str) -> str:
    """Return a test file that applies with some variables, and plans the same again."""
    given = f'project_id = "my-project"\nregion = "us-central1"\n{variables}'
    runs = f'run "{name}" {{}}\nrun "{name}_again" {{\n  command = plan\n}}\n'
    return f"{HEAD}\nvariables {{\n{given}\n}}\n{runs}"


def run(
    folder: Path,
    files: dict[str, str],
    *,
    api: Api | None = None,
    more: dict[str, str] | None = None,
) -> Changes:
    """Run test files in a copy of the repository; return what each plan shows.

    The steps call `api`; `more` are further files of tf/.
    """
    tf = terraform.copy(folder)
    for file in (tf / "tests").glob("*.tftest.hcl"):
        file.unlink()
    for name, text in files.items():
        (tf / "tests" / f"{name}.tftest.hcl").write_text(text)
    for name, text in (more or {}).items():
        (tf / name).parent.mkdir(exist_ok=True)
        (tf / name).write_text(text)
    assert RUNNER is not None
    done = subprocess.run(
        [RUNNER, "test", tf, "-json", "-verbose"],
        env={**os.environ, **(endpoints(api.url) if api else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
    errors = [each for each in messages if each.get("@level") == "error"]
    assert (done.returncode, errors) == (0, []), done.stdout[-5000:] + done.stderr
    return {
        each["@testrun"]: changes(each["test_plan"]) for each in messages if "test_plan" in each
    }


def changes(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {
        each["address"]: each["change"]["actions"]
        for each in plan.get("resource_changes", [])
        if each["mode"] == "managed" and each["change"]["actions"] != ["no-op"]
    }


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Changes:
    """The second plan of each combination; its steps talk to a server of our own."""
    files = {name: again(name, variables) for name, variables in COMBINATIONS.items()}
    with google_api.serve() as api:
        api.answer = answer
        return run(tmp_path_factory.mktemp("again"), files, api=api)


def endpoints(url: str) -> dict[str, str]:
    return {
        "GOOGLE_PUBSUB_CUSTOM_ENDPOINT": url,
        "GOOGLE_BIG_QUERY_CUSTOM_ENDPOINT": url,
    }


def answer(request: Request) -> Answer:
    if request.method == "GET":
        table = request.path.rpartition("/")[2]
        file = terraform.ROOT / f"dcm2bq/schema/tables/{table}.json"
        schema = json.loads(file.read_text())["schema"]
        return 200, {"etag": "1", "schema": schema}
    return 200, {}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_second_plan_shows_nothing(plans: Changes, name: str) -> None:
    assert plans[f"{name}_again"] == {}


DRIFT = """
override_data {
  target = data.google_pubsub_subscription.event["dicom/deleted"]
  values = {
    ack_deadline_seconds       = 10
    message_retention_duration = "604800s"
    expiration_policy          = [{ ttl = "" }]
    retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
    dead_letter_policy         = [{
      dead_letter_topic     = "projects/my-project/topics/dcm2bq-dead-letter"
      max_delivery_attempts = 100
    }]
  }
}
"""


def test_a_drift_shows_in_a_plan_and_is_healed_by_an_apply(tmp_path: Path) -> None:
    text = again("drift", "").replace('run "drift_again" {', f'run "drift_again" {{{DRIFT}')
    healed = f'run "healed" {{{DRIFT}}}\nrun "afterwards" {{\n  command = plan\n}}\n'
    with google_api.serve() as api:
        api.answer = answer
        shown = run(tmp_path, {"drift": text + healed}, api=api)
        patched = [each for each in api.requests if "subscriptions/" in each.path]
    assert shown["drift_again"] == {
        'terraform_data.subscription["dicom/deleted"]': ["delete", "create"],
    }
    assert [each.path.rpartition("/")[2] for each in patched[3:]] == ["none-of-dcm2bq-deleted"]
    assert patched[3].body["subscription"]["ackDeadlineSeconds"] == 600
    assert shown["afterwards"] == {}


def test_other_columns_and_views_leave_the_tables_alone(tmp_path: Path) -> None:
    """The provider would send the new schema, and drop and untag what is not in it."""
    changed = f"""
run "changed" {{
  command = plan
  variables {{
    dataset = {{
      dead_letter_table_id = "letters"
      policy_tags          = {{ PatientName = "{TAG}" }}
    }}
    labels = {{ team = "x" }}
  }}
}}
"""
    with google_api.serve() as api:
        api.answer = answer
        shown = run(tmp_path, {"changed": again("applied", "") + changed}, api=api)["changed"]
    assert 'google_bigquery_table.table["instances"]' not in shown
    assert shown['terraform_data.columns["instances"]'] == ["delete", "create"]
    assert shown['google_bigquery_table.view["dead_letters"]'] == ["delete", "create"]
    assert shown['google_bigquery_table.aggregate["dismissed_letters"]'] == ["delete", "create"]
    assert shown['google_bigquery_table.view["instances_live"]'] == ["update"]  # its labels


IMPORTS = """
import {
  to = google_bigquery_table.table["instances"]
  id = "projects/my-project/datasets/dicom/tables/instances"
}
import {
  to = google_bigquery_dataset.dicom[0]
  id = "projects/my-project/datasets/dicom"
}
"""

IMPORTED = """
override_resource {
  target = google_bigquery_table.table["instances"]
  values = { effective_labels = { ward = "7", dcm2bq_privacy = "%s" } }
}
override_resource {
  target = google_bigquery_dataset.dicom[0]
}
"""


def test_an_imported_table_is_accepted_by_its_label_and_left_as_it_is(tmp_path: Path) -> None:
    """`labels` of an imported resource are empty: the label is in `effective_labels`."""
    (vector, *_) = json.loads((terraform.ROOT / "tests/deploy/privacy.json").read_text())
    head = f'{HEAD}\nvariables {{\nproject_id = "my-project"\nregion = "us-central1"\n'
    privacy = f"privacy = {json.dumps(vector['terraform'])}\n}}\n"
    plan = "{\n  command = plan\n%s}\n"
    refused = plan % "  expect_failures = [google_bigquery_table.table]\n"
    files = {
        "same": f'{head}{privacy}{IMPORTED % vector["fingerprint"]}run "same" {plan % ""}',
        "other": f'{head}{privacy}{IMPORTED % "f0"}run "other" {refused}',
        "none": f'{head}}}\n{IMPORTED % "f0"}run "none" {refused}',
    }
    shown = run(tmp_path, files, more={"imports.tf": IMPORTS})
    assert not any("delete" in actions for actions in shown["same"].values())
    assert shown["same"]['google_bigquery_table.table["dead_letter"]'] == ["create"]
    assert shown["same"].get('google_bigquery_table.table["instances"]', []) in ([], ["update"])


BEFORE = """
resource "google_storage_bucket" "dicom" {
  count    = 1
  name     = "my-project-dicom"
  location = "us-central1"
}
resource "google_eventarc_trigger" "event" {
  for_each = toset(["finalized", "deleted", "archived"])
  name     = "dcm2bq-${each.key}"
  location = "us-central1"
  matching_criteria {
    attribute = "bucket"
    value     = "my-project-dicom"
  }
  destination {}
}
resource "google_bigquery_dataset" "dicom" {
  dataset_id = "dicom"
}
resource "google_storage_bucket_iam_member" "this" {
  for_each = toset(["runtime", "backfill"])
  bucket   = "my-project-dicom"
  role     = "roles/storage.objectViewer"
  member   = "serviceAccount:${each.key}"
}
"""
"""What had other addresses while there was one bucket, as far as anything could be lost with it."""


def test_several_buckets_after_one_replace_nothing(tmp_path: Path) -> None:
    """One state is planned by both configurations; the second moves what the first made."""
    given = 'project_id = "my-project"\nregion = "us-central1"\nbackfill = { enabled = true }'
    buckets = 'buckets = { dicom = {}, ct = { via = "pubsub" } }'
    runs = """
run "before" {
  state_key = "one"
  module {
    source = "./tests/before"
  }
}
run "after" {
  command   = plan
  state_key = "one"
}
"""
    text = f"{HEAD}\nvariables {{\n{given}\n{buckets}\n}}\n{runs}"
    shown = run(tmp_path, {"moved": text}, more={"tests/before/main.tf": BEFORE})["after"]
    assert not any("delete" in actions for actions in shown.values())
    created = {name for name, actions in shown.items() if actions == ["create"]}
    assert 'google_storage_bucket.dicom["ct"]' in created
    assert created.isdisjoint(
        {
            'google_storage_bucket.dicom["dicom"]',
            'google_eventarc_trigger.event["dicom/deleted"]',
            "google_bigquery_dataset.dicom[0]",
            'google_storage_bucket_iam_member.this["runtime/dicom"]',
        }
    )
