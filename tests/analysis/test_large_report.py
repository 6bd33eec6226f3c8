"""A report of 2 MB, with `--long` only: it takes the local BigQuery half a minute."""

import pytest

from tests.analysis.conftest import load
from tests.support.analysis_objects import AnalysisObject
from tests.support.datasets import borrowed_dataset
from tests.support.dicom_made import reports

EVENTS = 600


def test_a_report_of_two_megabytes_is_read_within_memory(
    bigquery_url: str, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("run with --long")
    events = (reports.ct_event(f"600.{n}", ctdi=1, dlp=2) for n in range(EVENTS))
    content = reports.report(600, "113701", *reports.OBSERVER, *events)
    large = AnalysisObject("large.dcm", content)
    assert len(large.conversion.text) > 2 * 1024 * 1024
    with borrowed_dataset(bigquery_url) as dataset:
        load(bigquery_url, dataset, [large])
        (row,) = dataset.query("SELECT ct_events, dlp_mGy_cm FROM dose_summary")
    assert row == {"ct_events": EVENTS, "dlp_mGy_cm": 2.0 * EVENTS}
