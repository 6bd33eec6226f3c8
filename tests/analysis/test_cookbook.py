"""Each query of the pages of questions runs, and has the rows shown there among its answers.

Google's own engine analyses them in tests/schema.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dcm2bq.bigquery.dataset import Dataset

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "ANALYSIS.md", DOCS / "FOR_ANALYSTS.md")
_QUESTION = re.compile(
    r"### (?P<title>.*?)\n(?P<text>.*?)```sql\n(?P<query>.*?)```\n\n(?P<table>(?:\|[^\n]*\n)+)",
    re.DOTALL,
)


class Question(NamedTuple):
    """A question of a page with its query and the answer that is shown."""

    title: str
    text: str
    query: str
    table: str

    @property
    def columns(self) -> list[str]:
        return _cells(self.table.splitlines()[0])

    @property
    def answer(self) -> list[list[str]]:
        return [_cells(line) for line in self.table.splitlines()[2:]]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case list():
            return ", ".join(map(_shown, value))
    return str(value)


def questions(page: Path) -> list[Question]:
    return [Question(**match.groupdict()) for match in _QUESTION.finditer(page.read_text())]


QUESTIONS = [question for page in PAGES for question in questions(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_query_of_a_page_is_part_of_a_question(page: Path) -> None:
    text = page.read_text()
    assert len(questions(page)) == text.count("```sql\n") == text.count("\n### ")


def test_no_question_is_on_two_pages() -> None:
    assert len({question.query for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_what_a_query_reads_is_stated(question: Question) -> None:
    assert re.search(
        r"Reads keys( and headers)? of (all rows|one study)\b", " ".join(question.text.split())
    )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_the_rows_shown_are_among_the_answers(
    published_dataset: Dataset, question: Question
) -> None:
    rows = published_dataset.query(
        re.sub(r"\bdicom\.", f"{published_dataset.name}.", question.query)
    )
    assert question.answer
    assert list(rows[0]) == question.columns
    answers = [[_shown(value) for value in row.values()] for row in rows]
    assert [row for row in question.answer if row not in answers] == []
