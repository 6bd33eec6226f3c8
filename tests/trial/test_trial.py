"""`dcm2bq try` on a deployment that works, and on ones with a planted fault each."""

from dcm2bq.tools.trial.delivery_steps import LINES
from dcm2bq.tools.trial.lines import TrialLine
from tests.trial.conftest import Site, Try


def test_a_working_deployment_is_confirmed(site: Site, try_it: Try) -> None:
    report = try_it()
    assert report.done.status == 0, report.done
    assert report.ids("refuted") == set()
    assert report.ids("confirmed") == {
        "tables",
        "views",
        "privacy-label",
        "admission",
        *(set(LINES) - {TrialLine.LARGE_ROW}),
    }
    assert set(report.lines) == set(TrialLine)
    assert site.stack.bucket.names("dcm2bq-try/") == {}
