"""`dcm2bq try` of a deployment whose tables have hashes instead of names."""

import json
from pathlib import Path

import pytest

from dcm2bq import cli
from dcm2bq.tools.trial import delivery_steps
from tests.support.event_source import EventSource
from tests.support.function_stack import function_stack
from tests.support.patience import scaled
from tests.trial.conftest import OVERRIDES, Site
from tests.trial.test_trial import STEPS

HASHING = {
    "privacy": {"path": "hash"},
    "jsonOutput": {"explicitBulkDataRoot": True},
}


def test_a_deployment_without_names_is_confirmed(
    bigquery_url: str,
    storage_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "the key of this trial")
    monkeypatch.setattr(delivery_steps, "_PAUSE_SECONDS", 0.3)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    with (
        function_stack(tmp_path, bigquery_url, storage_url, {**OVERRIDES, **HASHING}) as stack,
        EventSource(storage_url, stack.url, [stack.versioned_bucket.name]).running() as events,
    ):
        site = Site(stack, events)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", events.url)
        monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(site.config(**HASHING)))
        status = cli.main(["try", f"gs://{site.bucket}", "--json", "--timeout", str(scaled(60))])
        out, err = capsys.readouterr()
        lines = {line["id"]: line for line in json.loads(out)["lines"]}
        assert status == 0, (out, err)
        confirmed = {name for name, line in lines.items() if line["verdict"] == "confirmed"}
        assert confirmed >= {"privacy-label", *STEPS}
        paths = stack.dataset.query("SELECT path FROM instances")
        assert paths
        assert all("/hmac-sha256-" in row["path"] for row in paths)
