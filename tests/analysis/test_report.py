"""The report: its answers are true, its page is safe and readable, and it keeps to the budget."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from dcm2bq.tools import query_prices
from dcm2bq.tools.report import report as tool
from dcm2bq.tools.report.answers import Answered, Interviewer
from dcm2bq.tools.report.charts import draw
from dcm2bq.tools.report.page import Report, render
from dcm2bq.tools.report.questions import (
    OVERVIEW,
    SECTIONS,
    Bars,
    Columns,
    Question,
    Rows,
    Step,
)
from tests.analysis import test_quality_findings as findings
from tests.support.analysis_objects import AnalysisObject, published_objects
from tests.support.browser import Browser, running_browser

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = (
    '</svg><script>alert("x")</script><img src=http://example.com/a onerror=alert(1)>{{7*7}}\\"'
)
_IDENTIFIER_LENGTH = 5  # shorter ones occur in texts by chance


@dataclass
class Answers:
    """A dataset that knows some answers, by words of the query, and has one price for all."""

    rows: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    bytes_each: int = 0
    asked: list[str] = field(default_factory=list)

    def query(self, sql: str) -> list[dict[str, Any]]:
        self.asked.append(sql)
        return next((rows for words, rows in self.rows.items() if words in sql), [])

    def bytes_processed(self, sql: str) -> int:  # noqa: ARG002
        return self.bytes_each


@pytest.fixture(autouse=True)
def on_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if BigQuery were Google's, which has prices."""
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)


def page(dataset: Any, *, identifiers: bool = False, budget: float = 1, **config: Any) -> str:
    interviewer = Interviewer(
        dataset, from_overrides(config), budget=budget, identifiers=identifiers
    )
    return render(
        Report(
            dataset="project.dicom",
            made_at=NOW,
            overview=interviewer.overview(),
            sections=list(interviewer.sections()),
            usd=interviewer.usd,
            identifiers=identifiers,
        )
    )


def sample_rows(question: Question, label: str, count: int = 15) -> list[dict[str, Any]]:
    """Return rows that a question could have, with a text in each place for one."""
    return [
        {column: _value(column, label, number) for column in question.headings}
        for number in range(1, count + 1)
    ]


def _value(column: str, label: str, number: int) -> Any:
    if column in _TEXTS:
        return f"{label}{number}"
    if column in _FRACTIONS:
        return number + _FRACTIONS[column]
    others = {
        "year": 2000 + number,
        "day": date(2026, 1, 1) + timedelta(days=number),
        "first_study": date(2020, 1, number),
        "last_study": date(2020, 1, number),
        "StudyDate": date(2020, 1, number),
        "last_row": NOW,
        "last_seen": NOW,
    }
    return others.get(column, number * 1_000_003)


_FRACTIONS = {
    "low": 0.25,
    "median": 0.5,
    "high": 0.75,
    "usual_share": 0.75,
    "dlp_mGy_cm": 0.75,
    "dap_Gy_m2": 0.75,
}
_TEXTS = {
    *("modality", "model", "storage_class", "sop_class", "event", "lag", "reason", "kind"),
    *("protocol", "parameter", "usual_value", "PatientID", "StudyDescription", "path", "member"),
}


def every_question() -> Iterator[Question]:
    yield OVERVIEW
    for section in SECTIONS:
        yield from section.questions


def full_dataset(label: str, enough: int = 3) -> Answers:
    """A dataset with an answer to every question."""
    config = {"instances": "instances", "enough": enough}
    return Answers(
        {question.query(config): sample_rows(question, label) for question in every_question()}
    )


class Tags(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def answers(published_dataset: Dataset) -> dict[str, Answered]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
        interviewer = Interviewer(published_dataset, Config(), budget=0, identifiers=True)
        every = [interviewer.overview(), *itertools.chain(*(a for _, a in interviewer.sections()))]
    return {answer.question.name: answer for answer in every}


def rows_of(answer: Answered) -> list[dict[str, Any]]:
    assert answer.reason is None
    assert answer.rows is not None
    return list(answer.rows)


def groups(*keywords: str) -> dict[Any, list[AnalysisObject]]:
    """Return the objects by the text of attributes, as pydicom reads them."""
    by_text = defaultdict(list)
    for each in published_objects():
        by_text[tuple(findings.text(each.header, keyword) for keyword in keywords)].append(each)
    return by_text


def test_the_numbers_are_those_of_the_files(answers: Mapping[str, Answered]) -> None:
    (numbers,) = rows_of(answers["overview"])
    assert numbers["instances"] == len(published_objects())
    for column, keyword in (
        ("patients", "PatientID"),
        ("studies", "StudyInstanceUID"),
        ("series", "SeriesInstanceUID"),
    ):
        assert numbers[column] == len(groups(keyword).keys() - {(None,)}), column


def test_modalities_are_those_of_the_files(answers: Mapping[str, Answered]) -> None:
    expected = {}
    for (modality,), objects in groups("Modality").items():
        studies = {findings.text(each.header, "StudyInstanceUID") for each in objects} - {None}
        expected[modality or "(none)"] = (len(studies), len(objects))
    rows = rows_of(answers["modalities"])
    assert {row["modality"]: (row["studies"], row["instances"]) for row in rows}.items() <= (
        expected.items()
    )
    assert len(rows) == min(len(expected), 15)
    assert [row["studies"] for row in rows] == sorted(
        (studies for studies, _ in expected.values()), reverse=True
    )[: len(rows)]


def test_years_are_those_of_the_study_dates(answers: Mapping[str, Answered]) -> None:
    expected = Counter[int]()
    seen = set()
    for each in published_objects():
        day = findings.day(findings.text(each.header, "StudyDate"))
        study = findings.text(each.header, "StudyInstanceUID")
        key = (day and day.year, findings.text(each.header, "Modality"), study)
        if day and study and key not in seen:
            seen.add(key)
            expected[day.year] += 1
    shown = Counter[int]()
    for row in rows_of(answers["years"]):
        shown[row["year"]] += row["studies"]
    assert +shown == +expected


def test_bytes_are_those_of_the_files(answers: Mapping[str, Answered]) -> None:
    (row,) = rows_of(answers["storage"])
    assert row["storage_class"] == "STANDARD"
    assert row["bytes"] == sum(len(each.content) for each in published_objects())


def test_every_question_is_answered_about_the_objects(answers: Mapping[str, Answered]) -> None:
    empty = {"dead-letters", "dead-letter-list"}  # the objects have rows without a function
    assert {name for name, answer in answers.items() if not rows_of(answer)} == empty


def test_a_page_without_identifiers_has_no_identifier_of_the_objects(
    answers: Mapping[str, Answered],
) -> None:
    shown = Answers({a.sql: rows_of(a) for a in answers.values()})
    html = page(shown)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
        for (value,) in groups(keyword):
            if value and len(value) > _IDENTIFIER_LENGTH:
                assert value not in html, keyword
    assert not any(each.name in html for each in published_objects())
    assert "This page names no patient" in html
    overview = Answers({answers["overview"].sql: rows_of(answers["overview"])})
    assert "This page names patients" in page(overview, identifiers=True)


def test_names_cannot_inject_anything_into_the_page() -> None:
    html = page(full_dataset(HOSTILE, enough=1), identifiers=True)
    tags = Tags(html)
    assert not {"script", "img", "iframe", "object", "embed", "a href"} & set(tags.names)
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert "49" not in re.sub(r"\d[\d,.:-]*\d", "", tags.text)
    targets = {value for name, value in tags.attributes if name in {"src", "href", "xlink:href"}}
    assert all(target and target.startswith(("#", "data:")) for target in targets)
    assert HOSTILE in tags.text


def test_an_empty_dataset_has_a_page_that_says_so() -> None:
    empty = dict.fromkeys(OVERVIEW.headings) | {"instances": 0}
    text = Tags(page(Answers({OVERVIEW.query({}): [empty]}))).text
    assert "no rows yet" in text
    for question in every_question():
        if question is not OVERVIEW and not question.identifies:
            assert question.when_empty in text


def test_one_object_has_a_page() -> None:
    config = {"instances": "instances", "enough": 3}
    html = page(Answers({q.query(config): sample_rows(q, "CT", 1) for q in every_question()}))
    assert html.count("<svg") == charts()


def test_missing_values_are_shown_as_such() -> None:
    missing = {"PatientID": None, "StudyDate": None, "StudyDescription": None}
    rows = [{**missing, "instances": 1, "bytes": None}]
    assert "The largest studies" in page(Answers({"bytes DESC, Study": rows}), identifiers=True)


def test_labels_that_are_cut_to_the_same_text_have_bars_of_their_own() -> None:
    config = {"instances": "instances", "enough": 3}
    question = next(q for q in every_question() if q.name == "scanners")
    label = "A manufacturer with a very long name, model "
    html = page(Answers({question.query(config): sample_rows(question, label, 9)}))
    assert len(set(re.findall(rf'aria-label="{label}\d: ', html))) == 9


@pytest.mark.parametrize("count", range(1, 8))
def test_axes_of_small_counts_have_no_fractions(count: int) -> None:
    bars = Bars(label="modality", value="studies", unit="studies")
    columns = Columns(
        x="year", step=Step.YEAR, least=10, value="studies", part="modality", unit="studies"
    )
    row = {"modality": "CT", "year": 2026, "studies": count}
    for drawing in (bars, columns):
        svg = draw(drawing, [row])
        assert svg is not None
        assert ">1</text>" in svg or ">2</text>" in svg
        assert not re.search(r"\d\.\d+</text>", svg)


def charts() -> int:
    """Return how many charts a page without identifiers has if every question has an answer."""
    return sum(
        not isinstance(question.drawing, Rows) and not question.identifies
        for question in every_question()
    )


def test_questions_beyond_the_budget_are_not_asked() -> None:
    price = 1.5
    dataset = Answers(bytes_each=int(price / query_prices.usd(2**40) * 2**40))
    html = page(dataset, budget=4)
    assert len(dataset.asked) == 2
    assert (
        html.count("Not asked: it costs up to $1.50") == tool.question_count(identifiers=False) - 2
    )
    assert "cost at most $3.00" in html


def test_questions_about_headers_are_left_out_where_the_views_are() -> None:
    dataset = Answers()
    html = page(dataset, jsonOutput={"format": "dicom-json"})
    assert not any("dose_events" in sql or "quality_findings" in sql for sql in dataset.asked)
    assert "The dataset lacks the view for it, which needs jsonOutput.format" in html


def test_a_page_is_small_even_with_the_most_rows() -> None:
    config = {"instances": "instances", "enough": 3}
    rows = {q.query(config): sample_rows(q, "x" * 64, 28) for q in every_question()}
    assert len(page(Answers(rows), identifiers=True)) < 1_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def test_a_browser_draws_every_chart_and_requests_nothing(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(full_dataset(HOSTILE)))
    for width, dark, paper in ((1280, False, False), (390, True, False), (1000, False, True)):
        browser.open(file, width=width, dark=dark, paper=paper)
        assert browser.complaints() == []
        requested = browser.run("return performance.getEntriesByType('resource').length")
        assert requested == 0
        drawn = browser.run(
            "return [...document.querySelectorAll('.chart svg')].map(svg => "
            "[...svg.querySelectorAll('.mark-rect path, .mark-rule line, .mark-symbol path')]"
            ".filter(mark => mark.getBoundingClientRect().width > 0).length)"
        )
        assert len(drawn) == charts()
        assert all(drawn)
        overflow = browser.run(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"


def test_every_colour_can_be_told_from_its_ground(browser: Browser, tmp_path: Path) -> None:
    """3:1 for what is drawn, 4.5:1 for text (WCAG 2.2, 1.4.3 and 1.4.11)."""
    file = tmp_path / "report.html"
    file.write_text(page(full_dataset("CT")))
    colours = [*(f"--series-{number}" for number in range(1, 9)), "--ink", "--muted", "--accent"]
    for dark in (False, True):
        browser.open(file, width=1000, dark=dark)
        values = browser.run(
            "const style = getComputedStyle(document.documentElement);"
            f"return {['--card', *colours]}.map(name => style.getPropertyValue(name).trim())"
        )
        ground = _luminance(values[0])
        for name, value in zip(colours, values[1:], strict=True):
            lighter, darker = sorted((ground, _luminance(value)), reverse=True)
            least = 3 if name.startswith("--series") else 4.5
            assert (lighter + 0.05) / (darker + 0.05) >= least, (name, dark)


def _luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
