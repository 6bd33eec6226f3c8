"""Make a report: ask the questions, and write the page."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from dcm2bq import emulators
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.tools.report.answers import Interviewer
from dcm2bq.tools.report.page import Report, render
from dcm2bq.tools.report.questions import SECTIONS


def question_count(*, identifiers: bool) -> int:
    """Return how many questions a report asks."""
    return 1 + sum(len(section.asked(identifiers=identifiers)) for section in SECTIONS)


def write(
    dataset: Dataset,
    config: Config,
    path: Path,
    *,
    budget: float,
    identifiers: bool = False,
    on_question: Callable[[], object] = lambda: None,
) -> float | None:
    """Write a report to `path`, and return what it cost in US dollars.

    A new file is readable by its owner alone. Returns None for the local BigQuery, which costs
    nothing. Raises the errors of `Dataset`, before anything is written.
    """
    interviewer = Interviewer(
        dataset, config, budget=budget, identifiers=identifiers, on_question=on_question
    )
    report = Report(
        dataset=dataset.name,
        made_at=datetime.now(UTC),
        overview=interviewer.overview(),
        sections=list(interviewer.sections()),
        usd=None if emulators.url(emulators.BIGQUERY) else interviewer.usd,
        identifiers=identifiers,
    )
    html = render(report)
    path.touch(mode=0o600)
    path.write_text(html, encoding="utf-8")
    return report.usd
