"""The workflows run fixed versions of actions, with no more permissions than each job needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WRITES = {
    ("release.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "publish"): {"id-token"},
    ("release.yml", "github"): {"contents"},
    ("update.yml", "propose"): {"contents", "pull-requests"},
}
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return jobs


@every_workflow
def test_each_action_is_pinned_by_commit_with_its_version_beside_it(path: Path) -> None:
    for action in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"\./\S+|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_one_version_everywhere() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    actions = set(re.findall(r"uses: ([\w./-]+)@(\S+)", text))
    assert len(actions) == len({name for name, _ in actions})


@every_workflow
def test_each_job_has_only_the_permissions_that_it_needs(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs(path).items():
        permissions = job.get("permissions", {})
        writes = {scope for scope, level in permissions.items() if level == "write"}
        assert writes == WRITES.get((path.name, name), set()), name


@every_workflow
def test_each_job_has_a_time_limit(path: Path) -> None:
    for name, job in jobs(path).items():
        assert "uses" in job or job["timeout-minutes"] <= 60, name


@every_workflow
def test_no_checkout_leaves_credentials_behind(path: Path) -> None:
    for name, job in jobs(path).items():
        for step in job.get("steps", []):
            if str(step.get("uses")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


@every_workflow
def test_each_make_target_of_a_workflow_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"run: make (.*)", path.read_text())
    commands += re.findall(r"target: ([\w -]+)", path.read_text())
    for command in commands:
        for target in re.findall(r"(?:^| )([a-z][a-z-]*)(?= |$)", command.partition("#")[0]):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@every_workflow
def test_no_expression_is_written_into_a_script(path: Path) -> None:
    """GitHub pastes expressions into scripts as text: values go through the environment."""
    for name, job in jobs(path).items():
        for step in job.get("steps", []):
            expressions = re.findall(r"\$\{\{ *([\w.]+)", step.get("run", ""))
            assert [
                expression for expression in expressions if not expression.startswith("matrix.")
            ] == [], name
