"""Ask BigQuery the questions of a report, each only if its price is within the budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dcm2bq import emulators, schema
from dcm2bq.config import Config
from dcm2bq.tools import query_prices
from dcm2bq.tools.report.questions import ENOUGH, OVERVIEW, SECTIONS, Question, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question, its query and its rows.

    `bytes_read` is BigQuery's upper bound, None on the local BigQuery. `rows` is None if the
    question was not asked; `reason` then says why.
    """

    question: Question
    sql: str
    bytes_read: int | None = None
    rows: Sequence[dict[str, Any]] | None = None
    reason: str | None = None

    @property
    def usd(self) -> float:
        """The price of the query, on demand."""
        return query_prices.usd(self.bytes_read or 0)


class Queryable(Protocol):
    """A dataset that can be asked: see `Dataset`."""

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""

    def bytes_processed(self, sql: str) -> int:
        """Return how many bytes a query would read."""


class Interviewer:
    """Asks the questions in their order, and stops short of the budget in US dollars.

    `on_question` is called before each question. Raises the errors of the dataset.
    """

    def __init__(
        self,
        dataset: Queryable,
        config: Config,
        *,
        budget: float,
        identifiers: bool = False,
        on_question: Callable[[], object] = lambda: None,
    ) -> None:
        self._dataset = dataset
        self._budget = budget
        self._identifiers = identifiers
        self._on_question = on_question
        self._names = {
            "instances": config.big_query.instances_table_id,
            "enough": 1 if identifiers else ENOUGH,
        }
        self._unmet = ", ".join(schema.unmet_needs(config.json_output))
        self.usd = 0.0

    def overview(self) -> Answered:
        """Return the answer that the numbers at the top of the page come from."""
        return self._answer(OVERVIEW)

    def sections(self) -> Iterator[tuple[Section, list[Answered]]]:
        """Yield each section with its answers."""
        for section in SECTIONS:
            asked = section.asked(identifiers=self._identifiers)
            yield section, [self._answer(question) for question in asked]

    def _answer(self, question: Question) -> Answered:
        self._on_question()
        sql = question.query(self._names)
        if question.reads_headers and self._unmet:
            reason = f"The dataset lacks the view for it, which needs {self._unmet}."
            return Answered(question=question, sql=sql, reason=reason)
        read = None if emulators.url(emulators.BIGQUERY) else self._dataset.bytes_processed(sql)
        answer = Answered(question=question, sql=sql, bytes_read=read)
        if self.usd + answer.usd > self._budget:
            reason = f"Not asked: it costs up to ${answer.usd:,.2f}. Raise --budget-usd to ask it."
            return Answered(question=question, sql=sql, bytes_read=read, reason=reason)
        self.usd += answer.usd
        rows = self._dataset.query(sql)
        return Answered(question=question, sql=sql, bytes_read=read, rows=rows)
