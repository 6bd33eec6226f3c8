"""A function with an event source, and `dcm2bq try` on its bucket."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dcm2bq import cli, schema
from dcm2bq.tools.trial import delivery_steps
from tests.support.commands import Done
from tests.support.datasets import CORE
from tests.support.event_source import ALL_TRIGGERS, EventSource
from tests.support.function_stack import Stack, function_stack
from tests.support.leaping import LeapingTime
from tests.support.patience import scaled

OVERRIDES = {"bigQuery": {"timeoutSeconds": scaled(3)}, "limits": {"deadlineSeconds": scaled(4)}}
FAULT_SECONDS = 10
"""How long a trial waits for what a planted fault prevents, by its own clock."""


@dataclass(frozen=True)
class Site:
    """A deployment: the function with its bucket, tables and triggers."""

    stack: Stack
    events: EventSource

    @property
    def bucket(self) -> str:
        return self.stack.bucket.name

    def config(self, **overrides: Any) -> dict[str, Any]:
        """Return the configuration of the function, overridden."""
        big_query = {**OVERRIDES["bigQuery"], "datasetId": self.stack.dataset.dataset_id}
        return {**OVERRIDES, "bigQuery": big_query, **overrides}


@dataclass(frozen=True)
class Report:
    """What `dcm2bq try --json` printed."""

    done: Done

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.done.out))

    @property
    def lines(self) -> dict[str, dict[str, Any]]:
        return {line["id"]: line for line in self.document["lines"]}

    def ids(self, verdict: str) -> set[str]:
        return {name for name, line in self.lines.items() if line["verdict"] == verdict}


Try = Callable[..., Report]


@pytest.fixture(autouse=True)
def core_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect the views that the datasets of the running BigQuery have."""
    monkeypatch.setattr(schema, "NAMES", CORE)


@pytest.fixture(scope="package")
def running_site(
    tmp_path_factory: pytest.TempPathFactory, bigquery_url: str, storage_url: str
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("trial")
    with (
        function_stack(folder, bigquery_url, storage_url, OVERRIDES) as stack,
        EventSource(storage_url, stack.url, [stack.versioned_bucket.name]).running() as events,
    ):
        yield Site(stack, events)


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    """The running deployment; faults planted by a test are removed after it."""
    yield running_site
    running_site.events.triggers = ALL_TRIGGERS
    running_site.events.through_pubsub = False
    running_site.stack.storage.faults.clear()
    running_site.stack.bigquery.faults.clear()


@pytest.fixture
def try_it(
    site: Site,
    bigquery_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Try:
    """Run `dcm2bq try --json` with the function's configuration, overridden."""
    clock = LeapingTime(site.events.settle)
    monkeypatch.setattr(delivery_steps, "time", clock)
    monkeypatch.setattr(delivery_steps, "_PAUSE_SECONDS", FAULT_SECONDS / 2)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.events.url)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)

    def run(
        prefix: str = "",
        *,
        bucket: str = site.bucket,
        seconds: int = 60,
        events: EventSource = site.events,
        **overrides: Any,
    ) -> Report:
        clock.rest = events.settle
        monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(site.config(**overrides)))
        location = f"gs://{bucket}{prefix}"
        status = cli.main(["try", location, "--json", "--timeout", str(seconds)])
        return Report(Done(status, *capsys.readouterr()))

    return run
