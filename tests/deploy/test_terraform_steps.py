"""What no Terraform resource can do: the steps that set subscriptions and add columns."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.support import google_api
from tests.support.google_api import Answer, Api, Request
from tests.support.pages import ROOT

STEPS = ROOT / "tf" / "steps"
TOKEN = "ya29.the-token-of-the-provider"
SUBSCRIPTION = "projects/p/subscriptions/eventarc-europe-west4-dcm2bq-deleted-sub-001"
TABLE = "projects/p/datasets/dicom/tables/instances"
SETTINGS = {
    "ackDeadlineSeconds": 600,
    "expirationPolicy": {},
    "messageRetentionDuration": "604800s",
    "retryPolicy": {"minimumBackoff": "10s", "maximumBackoff": "600s"},
    "deadLetterPolicy": {"deadLetterTopic": "projects/p/topics/t", "maxDeliveryAttempts": 100},
}
TAG = "projects/p/locations/eu/taxonomies/1/policyTags/2"


@pytest.fixture
def api() -> Iterator[Api]:
    with google_api.serve() as served:
        yield served


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the steps wait a hundredth of the time between their attempts."""
    shortened = "import time\nreal = time.sleep\ntime.sleep = lambda seconds: real(seconds / 100)\n"
    (tmp_path / "sitecustomize.py").write_text(shortened)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def run(step: str, api: Api | None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a step as Terraform's local-exec does; check that it never shows the token."""
    if api is not None:
        environ |= {
            "GOOGLE_PUBSUB_CUSTOM_ENDPOINT": f"{api.url}/v1/",
            "GOOGLE_BIG_QUERY_CUSTOM_ENDPOINT": f"{api.url}/bigquery/v2/",
        }
    done = subprocess.run(
        [sys.executable, "-W", "error", STEPS / f"{step}.py"],
        env={**os.environ, "DCM2BQ_TOKEN": TOKEN, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def set_subscription(api: Api | None, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {"DCM2BQ_SUBSCRIPTION": SUBSCRIPTION, "DCM2BQ_SETTINGS": json.dumps(SETTINGS)}
    return run("subscription", api, **given, **environ)


def test_a_subscription_gets_the_settings_and_nothing_else(api: Api) -> None:
    done = set_subscription(api)
    assert done.returncode == 0, done.stderr
    (request,) = api.requests
    assert (request.method, request.path) == ("PATCH", f"/v1/{SUBSCRIPTION}")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.body["subscription"] == {"name": SUBSCRIPTION, **SETTINGS}
    assert set(request.body["updateMask"].split(",")) == set(SETTINGS)


def test_the_token_is_on_no_command_line(api: Api) -> None:
    seen = []

    def answer(_: Request) -> Answer:
        listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
        seen.append(listed.stdout)
        return 200, {}

    api.answer = answer
    assert set_subscription(api).returncode == 0
    assert "subscription.py" in seen[0]
    assert TOKEN not in seen[0]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "The token has expired: run terraform apply again."),
        (403, "roles/pubsub.editor on the project"),
        (404, "terraform apply -replace=ADDRESS"),
        (400, "Run terraform apply again."),
    ],
)
def test_a_failure_says_what_is_wrong_where_and_what_to_do(
    api: Api, status: int, advice: str
) -> None:
    api.answer = lambda _: (status, {"error": {"message": "Google's reason"}})
    failed = set_subscription(api)
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        f"dcm2bq: the subscription {SUBSCRIPTION} was not changed: HTTP {status}: Google's reason\n"
    )
    assert advice in failed.stderr
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_by_itself_is_tried_again(api: Api, status: int) -> None:
    answers: Iterator[Answer] = iter([(status, {}), (status, {}), (200, {})])
    api.answer = lambda _: next(answers)
    assert set_subscription(api).returncode == 0
    assert len(api.requests) == 3


def test_an_outage_ends_the_apply_after_half_a_minute(api: Api) -> None:
    api.answer = lambda _: (503, "no JSON that Google would send")
    failed = set_subscription(api)
    assert (failed.returncode, len(api.requests)) == (1, 6)
    assert "HTTP 503" in failed.stderr


def test_a_server_that_cannot_be_reached_is_named() -> None:
    failed = set_subscription(None, GOOGLE_PUBSUB_CUSTOM_ENDPOINT="http://127.0.0.1:9/")
    assert failed.returncode == 1
    assert "no answer: " in failed.stderr


def test_the_token_is_not_sent_to_where_a_redirect_leads(api: Api) -> None:
    with google_api.serve() as elsewhere:
        api.answer = lambda _: (302, f"{elsewhere.url}/v1/{SUBSCRIPTION}")
        assert set_subscription(api).returncode == 1
        assert elsewhere.requests == []


def test_the_token_is_sent_over_https_only() -> None:
    failed = set_subscription(None, GOOGLE_PUBSUB_CUSTOM_ENDPOINT="http://pubsub.example/v1/")
    assert failed.returncode == 1
    assert "https only" in failed.stderr


class Table:
    """A table of BigQuery, as far as the step uses it."""

    def __init__(self, columns: list[dict[str, Any]]) -> None:
        self.columns, self.version, self.interruptions = columns, 1, 0
        self.labels = {"cost_center": "radiology", "dcm2bq_privacy": "f0"}

    def __call__(self, request: Request) -> Answer:
        assert request.path == f"/bigquery/v2/{TABLE}"
        if request.method == "GET":
            fields, labels = deepcopy(self.columns), dict(self.labels)
            return 200, {"etag": str(self.version), "schema": {"fields": fields}, "labels": labels}
        if self.interruptions:
            self.interruptions -= 1
            self.columns = [*self.columns, column(f"theirs_{self.interruptions}")]
            self.version += 1
        if request.headers["If-Match"] != str(self.version):
            return 412, {"error": {"message": "Precondition check failed."}}
        assert set(request.body) <= {"schema", "labels"}
        self.columns = request.body.get("schema", {"fields": self.columns})["fields"]
        self.labels = request.body.get("labels", self.labels)
        self.version += 1
        return 200, {}


def column(name: str, type_: str = "STRING", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def complete(
    api: Api, columns: list[dict[str, Any]], labels: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    given = {"DCM2BQ_COLUMNS": json.dumps(columns), "DCM2BQ_LABELS": json.dumps(labels or {})}
    return run("columns", api, DCM2BQ_TABLE=TABLE, **given)


def test_columns_are_added_and_none_is_dropped_changed_or_untagged(api: Api) -> None:
    """Those of the hospital, and of a newer release that was rolled back, stay as they are."""
    existing = [
        column("path", mode="REQUIRED", description="the hospital's own words"),
        column("PatientName", policyTags={"names": [TAG]}),
        column("size", "INTEGER"),
        column("info", "RECORD", fields=[column("warnings", mode="REPEATED"), column("theirs")]),
        column("ward"),
    ]
    table = api.answer = Table(deepcopy(existing))
    wanted = [
        column("path", mode="REQUIRED", description="Where the object is"),
        column("PatientName"),
        column("size", "INT64"),
        column("info", "RECORD", fields=[column("warnings", mode="REPEATED"), column("member")]),
        column("StudyDate", "DATE"),
    ]
    done = complete(api, wanted)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{TABLE}: info.member added, StudyDate added\n"
    expected = deepcopy(existing)
    expected[3]["fields"].append(column("member"))
    assert table.columns == [*expected, column("StudyDate", "DATE")]


def test_a_table_that_has_everything_is_not_written(api: Api) -> None:
    api.answer = Table([column("path"), column("ward")])
    done = complete(api, [column("path")])
    assert done.stdout == f"{TABLE}: complete\n"
    assert [request.method for request in api.requests] == ["GET"]


def test_a_policy_tag_that_terraform_sets_is_set(api: Api) -> None:
    table = api.answer = Table([column("PatientName"), column("PatientID")])
    done = complete(api, [column("PatientName", policyTags={"names": [TAG]}), column("PatientID")])
    assert done.stdout == f"{TABLE}: PatientName tagged\n"
    assert table.columns == [
        column("PatientName", policyTags={"names": [TAG]}),
        column("PatientID"),
    ]


def test_labels_are_set_and_those_of_others_stay(api: Api) -> None:
    table = api.answer = Table([column("path")])
    done = complete(api, [column("path")], {"application": "dcm2bq", "cost_center": "research"})
    assert done.stdout == f"{TABLE}: label application set, label cost_center set\n"
    assert table.labels == {
        "application": "dcm2bq",
        "cost_center": "research",
        "dcm2bq_privacy": "f0",
    }
    assert complete(api, [column("path")], {"application": "dcm2bq"}).stdout.endswith("complete\n")


def test_a_column_that_is_added_meanwhile_is_not_lost(api: Api) -> None:
    table = api.answer = Table([column("path")])
    table.interruptions = 2
    assert complete(api, [column("path"), column("StudyDate", "DATE")]).returncode == 0
    assert [each["name"] for each in table.columns] == ["path", "theirs_1", "theirs_0", "StudyDate"]


def test_a_table_of_another_kind_is_refused_before_anything_is_changed(api: Api) -> None:
    table = api.answer = Table([column("StudyDate", "STRING")])
    failed = complete(api, [column("path"), column("StudyDate", "DATE")])
    assert failed.returncode == 1
    assert failed.stderr.startswith("dcm2bq: the column StudyDate is STRING, but must be DATE: ")
    assert table.version == 1


def test_whoever_may_not_change_the_table_is_told_which_role_it_takes(api: Api) -> None:
    api.answer = lambda _: (403, {"error": {"message": "Access Denied"}})
    failed = complete(api, [column("path")])
    assert f"the table {TABLE} was not completed: HTTP 403: Access Denied" in failed.stderr
    assert "roles/bigquery.dataOwner" in failed.stderr


def look(
    api: Api, columns: list[dict[str, Any]], fingerprint: str = "f0"
) -> subprocess.CompletedProcess[str]:
    given = {"DCM2BQ_COLUMNS": json.dumps(columns), "DCM2BQ_PRIVACY": fingerprint}
    return run("existing_table", api, DCM2BQ_TABLE=TABLE, **given)


def test_a_table_of_another_deployment_is_read_and_left_alone(api: Api) -> None:
    api.answer = Table([column("path"), column("ward")])
    done = look(api, [column("path")])
    assert done.stdout == f"{TABLE}: as needed\n"
    assert [request.method for request in api.requests] == ["GET"]


@pytest.mark.parametrize(
    ("columns", "fingerprint", "reason"),
    [
        (["path", "StudyDate"], "f0", "lacks columns of this release: StudyDate. Upgrade the"),
        (["path"], "f1", "holds rows made by other privacy options: use the options"),
        (["path"], "", "holds rows made by other privacy options: use the options"),
    ],
)
def test_a_table_of_another_deployment_that_would_mix_rows_is_refused(
    api: Api, columns: list[str], fingerprint: str, reason: str
) -> None:
    api.answer = Table([column("path")])
    failed = look(api, [column(name) for name in columns], fingerprint)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"dcm2bq: the table {TABLE} {reason}")
    assert [request.method for request in api.requests] == ["GET"]


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "roles/bigquery.metadataViewer"), (404, "apply the deployment that owns it first")],
)
def test_a_table_of_another_deployment_that_cannot_be_read_is_named(
    api: Api, status: int, advice: str
) -> None:
    api.answer = lambda _: (status, {"error": {"message": "Google's reason"}})
    failed = look(api, [column("path")])
    assert f"the table {TABLE} was not read: HTTP {status}: Google's reason" in failed.stderr
    assert advice in failed.stderr


def test_the_token_is_in_no_state() -> None:
    """An ephemeral value can only be in provisioners and providers; a data source is in states."""
    text = "\n".join(file.read_text() for file in (ROOT / "tf").glob("*.tf"))
    assert text.count('ephemeral "google_client_config" "this" {}') == 1
    assert 'data "google_client_config"' not in text
    uses = [line.strip() for line in text.splitlines() if "access_token" in line]
    assert {line.replace(" ", "") for line in uses} == {
        "DCM2BQ_TOKEN=ephemeral.google_client_config.this.access_token"
    }


@pytest.mark.parametrize("file", sorted(STEPS.glob("*.py")), ids=lambda file: file.name)
def test_the_steps_run_on_python_3_8_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    own = {file.stem for file in STEPS.glob("*.py")}
    assert modules - own <= {"__future__", "json", "os", "sys", "time", "typing", "urllib"}
