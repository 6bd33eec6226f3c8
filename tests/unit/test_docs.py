"""The documentation points to tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\(([\w./-]*\.md)?#([^)]+)\)")
PATH = re.compile(r"`((?:tests|docs|dcm2bq|benchmarks|scripts|tf)/[\w/.]+)[`:]")


def test_every_test_that_is_named_exists() -> None:
    named = {match for doc in DOCS for match in TEST.findall(doc.read_text())}
    assert len(named) > 20
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if f"def {test}(" not in (ROOT / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_every_path_that_is_named_exists(doc: Path) -> None:
    named = set(PATH.findall(doc.read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def anchors(doc: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", doc.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_every_heading_that_is_linked_exists(doc: Path) -> None:
    linked = {
        (doc.parent / (page or doc.name), anchor) for page, anchor in LINK.findall(doc.read_text())
    }
    assert [
        f"{page.name}#{anchor}" for page, anchor in sorted(linked) if anchor not in anchors(page)
    ] == []
