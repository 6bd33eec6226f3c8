"""What README shows is what there is."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dcm2bq import config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def between(start: str, end: str) -> str:
    return README.partition(f"<!-- {start} -->\n")[2].partition(f"<!-- {end} -->")[0]


def options_table() -> str:
    """Return the table of options, as README must show it."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in config.options():
        default = json.dumps(option.default).replace("|", "\\|")
        lines.append(f"| `{option.path}` | `{default}` | {option.description} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_options_is_generated_from_the_code() -> None:
    assert between("options", "end of options") == options_table(), (
        "README's table must read:\n\n" + options_table()
    )


def test_the_first_answer_is_a_part_of_what_make_run_prints() -> None:
    """What `make run` prints is compared in `tests/local/test_shown.py`."""
    answer = README.partition("\n## Ask\n")[2].partition("<!-- answers -->")[0]
    run = between("output of make run", "end of output")
    (sql,) = re.findall(r"```sql\n(.*?)\n```", answer, re.DOTALL)
    assert " ".join(sql.split()).replace("dicom.", "") in run
    rows = re.findall(r"^ {4}\S.*\n", answer, re.MULTILINE)
    assert len(rows) == 7
    assert "".join(f"  {row}" for row in rows) in run


def test_each_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    for target in set(re.findall(r"(?:`|^ {4}|^- run: )make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_each_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not link.startswith("https://"):
            assert (document.parent / link).exists(), link


def test_requirements_are_exact_and_hold_every_dependency() -> None:
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in map(Requirement, project["dependencies"]):
        assert locked[dependency.name] in dependency.specifier, dependency
    pins = re.findall(r"^[a-z0-9-]+[^\n]*", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert all("==" in pin for pin in pins)
    developers = (ROOT / "requirements-dev.txt").read_text()
    for name, version in locked.items():
        assert f"\n{name}=={version} " in developers


def test_each_measured_table_holds_figures() -> None:
    page = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    blocks = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", page, re.DOTALL)
    names = [
        *("conversion", "privacy", "reading", "archives", "function", "cold_start", "backfill"),
        "lookups",
    ]
    assert [name for name, _ in blocks] == names
    assert all(re.search(r"\| [\d.,]+ \|", table) for _, table in blocks)


def test_every_price_is_one_of_those_that_the_pages_derive() -> None:
    section = README.partition("\n## What it costs\n")[2].partition("\n## ")[0]
    prices = re.findall(r"\$([\d.]+\d)", section)
    pages = ("PERFORMANCE.md", "BACKFILL.md", "SCHEMA.md")
    derived = "\n".join((ROOT / "docs" / page).read_text() for page in pages)
    assert len(prices) == 9
    assert [
        price for price in prices if not re.search(rf"(?<![\d.]){price}(?![\d.]*\d)", derived)
    ] == []


def test_the_comparison_has_the_figures_of_the_benchmarks() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.,]+) \| ([\d.,]+) \| ([\d.]+) \|$",
        (ROOT / "docs" / "COMPARISON.md").read_text(),
        re.MULTILINE,
    )
    measured = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    assert len(rows) == 3
    for obvious, ours, ratio in rows:
        assert f" {obvious} |" in measured
        assert f" {ours} |" in measured
        assert f"{number(obvious) / number(ours):.1f}" == ratio


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_deployment_by_hand_installs_by_hash_and_names_each_identity() -> None:
    (commands,) = re.findall(r"By hand instead.*?```sh\n(.*?)```", README, re.DOTALL)
    installs = re.findall(r"^pip install (.*)$", commands, re.MULTILINE)
    assert installs == ["--require-hashes -r requirements.txt", "--no-deps ."]
    deploy, create = commands.split("gcloud ")[1:]
    for identity in ("", "build-", "trigger-"):
        assert f"\n  --{identity}service-account " in deploy
    assert "--service-account " in create
