"""What can be told of tf/ without terraform: its shell step, and the examples in the docs."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.support.function_stack import ROOT

TF = ROOT / "tf"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def step() -> str:
    """Return the shell commands that complete a trigger's subscription."""
    text = (TF / "triggers.tf").read_text()
    (command,) = re.findall(r"command = <<-EOT\n(.*?)\n +EOT\n", text, re.DOTALL)
    return str(command)


def complete(folder: Path, gcloud: str) -> subprocess.CompletedProcess[str]:
    """Run the step with a gcloud of our own; what it is called with lands in `calls`."""
    program = folder / "gcloud"
    program.write_text(f'#!/bin/sh\necho "$1 $2 $3" >> {folder}/calls\n{gcloud}\n')
    program.chmod(0o755)
    names = ("PROJECT", "LOCATION", "TOPIC", "AGENT")
    environ = {name: name.lower() for name in names} | {"TRIGGER": "dcm2bq-deleted"}
    return subprocess.run(
        ["/bin/sh", "-euc", step()],
        env={"PATH": os.environ["PATH"], "GCLOUD": str(program), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_subscription_is_granted_before_it_is_changed(tmp_path: Path) -> None:
    done = complete(tmp_path, '[ "$1" != eventarc ] || echo "a subscription"')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        "eventarc triggers describe",
        "pubsub subscriptions add-iam-policy-binding",
        "pubsub subscriptions update",
    ]


def test_a_trigger_without_a_subscription_fails_the_apply_in_words(tmp_path: Path) -> None:
    failed = complete(tmp_path, "true")
    assert failed.returncode == 1
    assert failed.stderr == (
        "the trigger dcm2bq-deleted names no subscription yet: terraform apply again\n"
    )
    assert (tmp_path / "calls").read_text() == "eventarc triggers describe\n"


@pytest.mark.parametrize("failing", ["eventarc", "add-iam-policy-binding", "update"])
def test_what_gcloud_cannot_do_fails_the_apply(tmp_path: Path, failing: str) -> None:
    failed = complete(tmp_path, f'case "$*" in *{failing}*) exit 7 ;; esac; echo name')
    assert failed.returncode == 7
    assert failing in (tmp_path / "calls").read_text().splitlines()[-1]


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
