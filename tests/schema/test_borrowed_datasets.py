"""The datasets that tests lend one another."""

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import from_overrides
from dcm2bq.tools.trial.dataset_checks import DatasetChecks
from dcm2bq.tools.trial.lines import TrialLine, Verdict
from tests.support.datasets import borrowed_dataset, in_dataset

ROWS = "SELECT COUNT(*) AS n FROM instances UNION ALL SELECT COUNT(*) FROM dead_letter"


def test_a_dataset_is_lent_again_without_its_rows(core_bigquery_url: str) -> None:
    with borrowed_dataset(core_bigquery_url) as dataset:
        dataset.query(
            "INSERT INTO instances (timestamp, ingested_at, path, version, event) VALUES "
            "(CURRENT_TIMESTAMP(), CURRENT_TIMESTAMP(), 'gs://b/a', '1', 'finalized'); "
            "INSERT INTO dead_letter (message_id) VALUES ('x')"
        )
        assert dataset.query(ROWS) == [{"n": 1}, {"n": 1}]
    with borrowed_dataset(core_bigquery_url) as again, borrowed_dataset(core_bigquery_url) as other:
        assert again.dataset_id == dataset.dataset_id
        assert again.query(ROWS) == [{"n": 0}, {"n": 0}]
        assert other.dataset_id != dataset.dataset_id
        other.query("CREATE VIEW more AS SELECT 1 AS one")
    with borrowed_dataset(core_bigquery_url) as again:
        assert again.dataset_id != other.dataset_id  # it was changed, and dropped


def test_a_trial_confirms_a_dataset_with_every_view(dataset: Dataset) -> None:
    """The trials in tests/trial have only the views that the commands use."""
    settings = from_overrides(in_dataset(dataset.dataset_id, {}))
    results = {result.line: result for result in DatasetChecks(dataset, settings).results()}
    verdicts = {line: results[line].verdict for line in (TrialLine.TABLES, TrialLine.VIEWS)}
    assert set(verdicts.values()) == {Verdict.CONFIRMED}, results
