"""The docs name the lines of `dcm2bq try` by their ids, and explain each of them."""

import re
from pathlib import Path

import pytest

from dcm2bq.tools.trial import delivery_steps, deployment_checks
from dcm2bq.tools.trial.lines import TrialLine

DOCS = Path(__file__).parents[2] / "docs"
HEADER = re.compile(
    r"^\|(?: [^|\n]+ \|)+ line of `dcm2bq try` \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE
)


def table(marker: str) -> list[tuple[str, ...]]:
    """Return the cells of a table of docs/OPERATIONS.md."""
    text = (DOCS / "OPERATIONS.md").read_text()
    body = text.partition(f"<!-- {marker} -->\n")[2].partition(f"<!-- end of {marker} -->")[0]
    return [tuple(line.strip("| ").split(" | ")) for line in body.splitlines()[2:]]


def ids_of_rows(page: str) -> list[set[str]]:
    """Return the ids in the last column of a page's list of what must be confirmed, by row."""
    (body,) = HEADER.findall((DOCS / page).read_text())
    return [
        set(re.findall(r"`([\w-]+)`", line.rstrip("| ").rpartition(" | ")[2]))
        for line in body.splitlines()
    ]


def test_the_tables_of_lines_are_those_of_the_code() -> None:
    assert table("lines of try") == [
        (f"`{line}`", line.claim) for line in TrialLine if not line.shown_by
    ]
    assert table("other lines of try") == [
        (f"`{line}`", line.claim, line.shown_by) for line in TrialLine if line.shown_by
    ]


@pytest.mark.parametrize(("page", "rows"), [("ARCHITECTURE.md", 9), ("DEPLOY.md", 20)])
def test_whatever_must_be_confirmed_names_the_lines_that_do(page: str, rows: int) -> None:
    named = ids_of_rows(page)
    assert len(named) >= rows
    assert all(named), named
    assert set().union(*named) <= set(TrialLine)


def test_every_line_that_a_trial_cannot_decide_is_on_a_list_of_the_docs() -> None:
    named = set().union(*ids_of_rows("ARCHITECTURE.md"), *ids_of_rows("DEPLOY.md"))
    assert {line for line in TrialLine if line.shown_by} <= named


def test_every_line_is_decided_in_one_place() -> None:
    decided = [*deployment_checks.LINES, *delivery_steps.LINES]
    assert len(set(decided)) == len(decided)
    assert not [line for line in decided if line.shown_by]


def test_every_section_that_advice_names_exists() -> None:
    """Such as "docs/OPERATIONS.md, Lost triggers"."""
    package = Path(delivery_steps.__file__).parent
    named = {
        match
        for file in package.glob("*.py")
        for match in re.findall(r"docs/([A-Z]+\.md), ([A-Z][a-z/A-Z ]+)", file.read_text())
    }
    assert len(named) > 4
    for page, section in named:
        title = section.removesuffix(" lists the causes").strip()
        assert re.search(rf"^#+ {re.escape(title)}$", (DOCS / page).read_text(), re.MULTILINE), (
            title
        )
