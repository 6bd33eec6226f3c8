"""The examples in the docs set variables that exist; what was moved has arrived."""

import base64
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.support.function_stack import ROOT
from tests.support.product_sql import scheduled_refresh
from tests.support.terraform_blocks import parsed

TF = ROOT / "tf"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[str]:
    """Return each variable that the docs set, in a block or inline."""
    found = []
    for page in DOCS:
        text = page.read_text().replace("\\|", "|")
        for block in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL):
            found += re.findall(r"^\w+ *= *(?:\{.*\}|\{\n(?: .*\n)+\}|\S+)", block, re.MULTILINE)
        found += re.findall(r"`(\w+ = (?:\{.*?\}|\"[^\"]*\"|true|false))`", text)
    return sorted(set(found))


@pytest.mark.parametrize("example", examples())
def test_examples_set_variables_that_exist(example: str) -> None:
    ((name, value),) = ((k, v) for k, v in hcl2.loads(example + "\n").items() if k[0] != "_")
    assert name in types()
    _fields_exist(value, types()[name])


@cache
def types() -> dict[str, str]:
    """Return the types of the variables by name."""
    return {
        name.strip('"'): body["type"]
        for content in parsed()
        for each in content.get("variable", [])
        for name, body in each.items()
    }


def _fields_exist(value: Any, type_: str) -> None:
    if isinstance(value, dict) and "map(object(" in type_:
        for element in value.values():
            _fields_exist(element, type_.replace("map(object(", "object("))
    elif isinstance(value, dict) and "object(" in type_:
        for field in value:
            assert re.search(rf"\b{field} = ", type_), field


def test_the_docs_have_examples() -> None:
    assert len(examples()) >= 10


def test_what_was_moved_is_declared_at_its_new_address_only() -> None:
    """Otherwise an apply over an earlier version would destroy it."""
    declared, moves = set(), []
    for content in parsed():
        for block in content.get("resource", []):
            for type_, named in block.items():
                declared |= {f"{type_}.{name}".replace('"', "") for name in named}
        moves += content.get("moved", [])
    assert len(moves) == 40
    for move in moves:
        before, after = (
            re.sub(r"^\$\{|\}$", "", str(move[end])).partition("[") for end in ("from", "to")
        )
        assert after[0] in declared
        assert before[0] not in declared or before[0] == after[0]
        assert before[0].partition(".")[0] == after[0].partition(".")[0]


@pytest.mark.parametrize(
    ("groups", "closed"),
    [
        (["projectOwners"], True),
        (["projectOwners", None], True),
        (["projectOwners", "projectReaders"], False),
        (["projectOwners", "projectWriters"], False),
        (["projectOwners", None, "allAuthenticatedUsers"], False),
    ],
)
def test_an_open_dataset_is_reported(
    tmp_path: Path, groups: list[str | None], *, closed: bool
) -> None:
    """Mock providers cannot give a dataset other entries: Terraform evaluates the condition."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    text = (TF / "dataset.tf").read_text().partition('check "dataset_is_closed"')[2]
    (condition,) = re.findall(r"condition += (.*)\n", text.partition("\n}\n")[0])
    entries = [{"special_group": group} for group in groups]
    expression = condition.replace("local.dataset_access", json.dumps(entries))
    assert expression != condition
    done = subprocess.run(
        ["terraform", f"-chdir={tmp_path}", "console"],
        input=expression,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == json.dumps(closed)


MISTAKES = {
    "buckets and bucket exclude each other": {"ct": {}},
    "at most 20 lower case letters": {"dcm2bq-source": {}, "staging": {}, "C T": {}},
    "give each existing bucket its name": {"ct": {"existing": True}, "mr": {"name": "gs://mr"}},
    "names a bucket twice": {"ct": {"name": "scans"}, "mr": {"name": "scans"}},
    "via must be": {"ct": {"via": "queue"}},
    "Eventarc cannot filter": {"ct": {"prefix": "ct/"}},
    "prefix must be the beginning": {"ct": {"via": "pubsub", "prefix": "/ct/"}},
    "topic and subscription take via": {"ct": {"subscription": "push"}},
    "topic must be the full name": {"ct": {"via": "pubsub", "topic": "push"}},
    "subscription must be the name": {
        "ct": {"via": "pubsub", "subscription": "projects/p/subscriptions/s"}
    },
    "managed_elsewhere takes": {
        "ct": {"name": "scans", "existing": True, "via": "pubsub", "managed_elsewhere": True}
    },
    "project_number is for a bucket": {"ct": {"project_number": "1"}},
}
"""Buckets that cannot work, by a part of the sentence that says why."""

FINE = {
    "dicom": {},
    "ct": {"via": "pubsub", "prefix": "ct/", "location": "EU"},
    "pet": {
        "name": "pet-scans",
        "existing": True,
        "via": "pubsub",
        "managed_elsewhere": True,
        "project_number": "888888888888",
        "topic": "projects/p/topics/t",
        "subscription": "dcm2bq-push",
    },
}


@pytest.fixture(scope="module")
def declarations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the variables alone, whose validations need no provider."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder = tmp_path_factory.mktemp("variables")
    shutil.copy(TF / "variables.tf", folder)
    (folder / "views.tf").write_text("locals {\n  view_names = []\n}\n")  # of dcm2bq/schema
    return folder


def refusal(folder: Path, **variables: Any) -> str:
    """Return what Terraform says of values of variables, on one line; nothing if it takes them."""
    given = {"project_id": "my-project", "region": "us-central1", **variables}
    (folder / "terraform.tfvars.json").write_text(json.dumps(given))
    done = subprocess.run(
        ["terraform", f"-chdir={folder}", "plan", "-no-color"],
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join(re.sub(r"[│╷╵]", " ", done.stderr).split()) if done.returncode else ""


@pytest.mark.parametrize("sentence", MISTAKES)
def test_buckets_that_cannot_work_are_refused_with_the_reason(
    declarations: Path, sentence: str
) -> None:
    bucket = {"location": "EU"} if "bucket exclude" in sentence else {}
    said = refusal(declarations, buckets=MISTAKES[sentence], bucket=bucket)
    assert sentence in said
    assert [each for each in MISTAKES if each in said] == [sentence]


def test_buckets_and_datasets_that_work_are_taken(declarations: Path) -> None:
    dataset = {"id": "dicom", "existing": True, "readers": ["group:g@example.org"]}
    assert refusal(declarations, buckets=FINE, dataset=dataset) == ""


def test_what_the_owner_of_a_dataset_sets_is_refused_beside_an_existing_one(
    declarations: Path,
) -> None:
    said = refusal(declarations, dataset={"existing": True, "location": "EU"})
    assert "dataset.id must name the dataset" in said
    assert "dataset.existing excludes location" in said


def test_the_scheduled_refresh_is_that_of_the_command(declarations: Path) -> None:
    """Google's engine analyses the text of product_sql, and the command runs its statements."""
    names = (TF / "dataset.tf").read_text().partition("  # Views of the folder")[0]
    script = (TF / "refresh.tf").read_text().partition("  # As metrics")[0]
    folder = declarations / "refresh"
    folder.mkdir()
    shutil.copy(TF / "variables.tf", folder)
    shutil.copy(TF / "refresh.sql", folder)
    (folder / "script.tf").write_text(
        f'{names}}}\n{script}}}\nlocals {{\n  source_root = "{ROOT}"\n  dataset_id = "dicom"\n}}\n'
    )
    (folder / "terraform.tfvars.json").write_text('{"project_id": "project", "region": "a-b1"}')
    done = subprocess.run(
        ["terraform", f"-chdir={folder}", "console"],
        input="base64encode(local.refresh_script)",
        capture_output=True,
        text=True,
        check=True,
    )
    assert base64.b64decode(done.stdout.strip().strip('"')).decode() == scheduled_refresh()


PRIVACY_MISTAKES: dict[str, dict[str, Any]] = {
    "privacy.path must be full or hash": {"path": "hashed"},
    "privacy.hash_key must be given": {"path": "hash"},
    "privacy.options need privacy.profile": {"options": ["retainUids"]},
    "privacy.options must list options of the profile": {"options": ["retainUid"]},
    "privacy.options must not list both": {
        "options": ["retainLongitudinalModifiedDates", "retainLongitudinalFullDates"]
    },
    "privacy.shift_days must be an integer": {"shift_days": 0.5},
    "privacy.kept_descriptors must list values or keywords if": {"options": ["cleanDescriptors"]},
    "privacy.kept_descriptors must list texts": {"kept_descriptors": [" "]},
}


@pytest.mark.parametrize("sentence", PRIVACY_MISTAKES)
def test_privacy_options_that_cannot_work_are_refused_with_the_reason(
    declarations: Path, sentence: str
) -> None:
    assert sentence in refusal(declarations, privacy=PRIVACY_MISTAKES[sentence])


@pytest.mark.parametrize("number", [-1, -2])
def test_the_fingerprint_of_privacy_options_needs_no_provider(
    declarations: Path, number: int
) -> None:
    """tf/tests/privacy.tftest.hcl compares all vectors, where there are providers."""
    vector = json.loads((TF.parent / "tests" / "deploy" / "privacy.json").read_text())[number]
    locals_ = (TF / "function.tf").read_text().partition("  # What Terraform sets")[0]
    output = 'output "fingerprint" {\n  value = local.privacy_fingerprint\n}\n'
    (declarations / "privacy.tf").write_text(f"{locals_}}}\n{output}")
    try:
        assert refusal(declarations, privacy=vector["terraform"]) == ""
        shown = subprocess.run(
            ["terraform", f"-chdir={declarations}", "plan", "-no-color"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        (declarations / "privacy.tf").unlink()
    assert f'fingerprint = "{vector["fingerprint"]}"' in shown.stdout
