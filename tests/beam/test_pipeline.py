"""The pipeline, run by Beam's own test runner and checked by its assertions."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as BeamTestPipeline
from apache_beam.testing.util import assert_that, equal_to

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ReadFailedError
from dcm2bq.tools.backfill.launch import Backfill
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.run_records import Run, RunRecords, new_id
from dcm2bq.tools.backfill.runners import pipeline
from dcm2bq.tools.backfill.runners.in_process import run as run_locally
from tests.support.backfill_site import CT_SMALL, Site
from tests.support.datasets import borrowed_dataset
from tests.support.patience import until
from tests.support.proxy import Fault, LoadingBigQuery, Proxy

SHARDS = [
    Shard(number=n, start=start, end=end, listed=10, objects=10, bytes=0)
    for n, (start, end) in enumerate([("", "2"), ("2", "4"), ("4", "")])
]


@pytest.fixture(scope="module")
def dataset(bigquery_url: str) -> Iterator[Dataset]:
    """The tables and views."""
    with borrowed_dataset(bigquery_url) as dataset:
        yield dataset


@pytest.fixture
def site(
    storage_url: str, bigquery_url: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Fresh buckets with five objects and a bad one, which this process uses."""
    with Proxy(storage_url).running() as proxy, LoadingBigQuery(bigquery_url).running() as bigquery:
        made = Site(proxy, storage_url, bigquery.url, dataset)
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        for number in range(5):
            made.upload(f"{number}.dcm", CT_SMALL)
        made.upload("5.dcm", b"not DICOM")
        yield made


def run_of(site: Site, **changes: Any) -> Run:
    given: dict[str, Any] = {
        "id": new_id(),
        "source": f"gs://{site.source.name}",
        "staging": f"gs://{site.staging.name}/b",
        "config": site.config,
        "takes_all": True,
        "threads": 2,
    }
    return Run(**{**given, **changes})


def test_all_shards_are_staged_and_loaded_together(site: Site) -> None:
    run = run_of(site)
    with BeamTestPipeline(runner=FnApiRunner()) as graph:
        loaded = pipeline.build(graph, run, SHARDS)
        rows = loaded | "Rows" >> beam.Map(lambda batch: (batch.batch, sorted(batch.rows.items())))
        assert_that(rows, equal_to([(0, [("dead_letter", 1), ("instances", 5)])]))
    (batch,) = RunRecords(run).batches()
    assert sorted(batch.shards) == [0, 1, 2]
    assert batch.results == {"inserted": 5, "dead_lettered": 1}
    metrics = graph.result.metrics().query(MetricsFilter().with_namespace(pipeline.NAMESPACE))
    counters: dict[str, int] = {}
    for each in metrics["counters"]:
        name = each.key.metric.name
        counters[name] = counters.get(name, 0) + each.result
    assert counters == {
        "inserted": 5,
        "dead_lettered": 1,
        "instances_rows": 5,
        "dead_letter_rows": 1,
    }
    assert len(site.live()) == 5


def test_the_pipeline_has_these_steps(site: Site) -> None:
    graph = BeamTestPipeline(runner=FnApiRunner())
    pipeline.build(graph, run_of(site), SHARDS)
    names = [
        each.unique_name
        for each in graph.to_runner_api().components.transforms.values()
        if "/" not in each.unique_name and not each.unique_name.startswith("ref_")
    ]
    assert sorted(names) == sorted(
        ["Shards", "Spread", "Stage", "Start load jobs", "Wait for all", "Finish load jobs"]
    )


def test_the_error_of_a_step_contains_no_value(site: Site) -> None:
    run = run_of(site, config=Config(big_query=site.config.big_query))
    site.storage.faults = [Fault(f"/b/{site.source.name}/o?", 403, b"SECRET")]
    with pytest.raises(Exception, match=r"^Cloud Storage: HTTP 403$"):
        run_locally(run, SHARDS)
    with pytest.raises(ReadFailedError) as caught, BeamTestPipeline(runner=FnApiRunner()) as graph:
        pipeline.build(graph, run, SHARDS)
    assert "Cloud Storage: HTTP 403" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert site.live() == []


def test_a_repeated_bundle_loads_nothing_twice(site: Site) -> None:
    run = run_of(site)
    for _ in range(2):
        with BeamTestPipeline(
            runner=FnApiRunner(), options=PipelineOptions(["--direct_runner_bundle_repeat=2"])
        ) as graph:
            pipeline.build(graph, run, SHARDS)
    assert len(site.live()) == len(site.rows()) == 5
    assert [each["attempts"] for each in site.dead_letters()] == [1]


def test_a_run_without_new_objects_loads_nothing(site: Site) -> None:
    first = Backfill(run_of(site, takes_all=False))
    first.begin()
    seen: list[int] = []

    def run(backfill: Run, shards: Any) -> bool:
        seen.append(len(shards))
        run_locally(backfill, shards)
        return True

    assert first.prepare() == 0
    summary = first.go(run)
    assert summary is not None
    assert summary.is_complete
    again = Backfill(first.run)
    assert again.resume().objects == 0
    assert again.prepare() is None
    assert again.go(run) == replace(summary, run=again.run)
    assert seen == [1]
    second = Backfill(run_of(site, takes_all=False))
    second.begin()
    assert second.prepare() == 6
    summary = second.go(run)
    assert summary is not None
    assert (summary.results, summary.rows) == ({"skipped": 6}, {})
    tables = site.dataset.query("SELECT table_name FROM INFORMATION_SCHEMA.TABLES")
    assert not [each for each in tables if each["table_name"].startswith("backfill_")]


def test_an_interrupt_gets_through_while_steps_still_write_their_counts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that appear in the folder during its deletion cause no error in its place."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    is_over = threading.Event()

    def write(folder: Path) -> None:
        with suppress(FileNotFoundError):  # deleted
            while not is_over.is_set():
                (folder / f"{time.monotonic_ns()}.json").write_bytes(b"{}")

    def interrupt(_: Counter[str]) -> None:
        (folder,) = tmp_path.iterdir()
        pool.submit(write, folder)
        until(lambda: any(folder.iterdir()))
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        try:
            with pytest.raises(KeyboardInterrupt):
                run_locally(run_of(site), [], show=interrupt)
        finally:
            is_over.set()
