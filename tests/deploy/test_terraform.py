"""The examples in the docs set variables that exist; what was moved has arrived."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.support.function_stack import ROOT

TF = ROOT / "tf"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[str]:
    """Return each variable that the docs set, in a block or inline."""
    found = []
    for page in DOCS:
        text = page.read_text().replace("\\|", "|")
        for block in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL):
            found += re.findall(r"^\w+ *= *(?:\{.*\}|\S+)", block, re.MULTILINE)
        found += re.findall(r"`(\w+ = (?:\{.*?\}|\"[^\"]*\"|true|false))`", text)
    return sorted(set(found))


@pytest.mark.parametrize("example", examples())
def test_examples_set_variables_that_exist(example: str) -> None:
    ((name, value),) = ((k, v) for k, v in hcl2.loads(example + "\n").items() if k[0] != "_")
    declared = {
        key.strip('"'): body
        for each in hcl2.loads((TF / "variables.tf").read_text())["variable"]
        for key, body in each.items()
    }
    assert name in declared
    _fields_exist(value, declared[name]["type"])


def _fields_exist(value: Any, type_: str) -> None:
    if isinstance(value, dict) and "object(" in type_:
        for field in value:
            assert re.search(rf"\b{field} = ", type_), field


def test_the_docs_have_examples() -> None:
    assert len(examples()) >= 10


def test_what_was_moved_is_declared_at_its_new_address_only() -> None:
    """Otherwise an apply over an earlier version would destroy it."""
    declared, moves = set(), []
    for file in TF.glob("*.tf"):
        content = hcl2.loads(file.read_text())
        for block in content.get("resource", []):
            for type_, named in block.items():
                declared |= {f"{type_}.{name}".replace('"', "") for name in named}
        moves += content.get("moved", [])
    assert len(moves) == 24
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
    expression = condition.replace("google_bigquery_dataset.dicom.access", json.dumps(entries))
    assert expression != condition
    done = subprocess.run(
        ["terraform", f"-chdir={tmp_path}", "console"],
        input=expression,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == json.dumps(closed)
