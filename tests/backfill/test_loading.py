"""Load jobs load each file once, whatever process asks for it, and however often."""

import gzip
import json
from collections.abc import Iterator

import pytest

from dcm2bq.bigquery.load import Done, Loader, LoadJob
from dcm2bq.errors import LoadFailedError
from tests.support.backfill_site import Site
from tests.support.function_stack import unique
from tests.support.proxy import Fault, Proxy

ROW = (
    b'{"timestamp":"2026-01-01T00:00:00Z","ingested_at":"2026-01-01T00:00:00Z",'
    b'"event":"finalized","path":"gs://BUCKET/n","version":"1","metadata":{"A":[1,2.5]}}\n'
)


@pytest.fixture
def bigquery(site: Site) -> Iterator[Proxy]:
    with Proxy(site.bigquery_url).running() as proxy:
        yield proxy


@pytest.fixture
def loader(site: Site, bigquery: Proxy, monkeypatch: pytest.MonkeyPatch) -> Loader:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.url)
    return Loader(site.config)


def stage(site: Site, line: bytes) -> None:
    """Stage a file of rows about objects of the source."""
    content = line.replace(b"BUCKET", site.source.name.encode())
    site.staging.upload("rows.gz", gzip.compress(content))


def job_of(site: Site, name: str = "rows.gz") -> LoadJob:
    return LoadJob(unique("job-") + "-", "instances", [f"gs://{site.staging.name}/{name}"])


def test_a_file_is_loaded_once(site: Site, loader: Loader, bigquery: Proxy) -> None:
    stage(site, ROW * 3)
    job = job_of(site)
    assert loader.start(job) == loader.start(job) == f"{job.name}1"
    assert loader.finish(job) == Done(f"{job.name}1", 3)
    assert loader.finish(job) == Done(f"{job.name}1", 3)
    assert Loader(site.config).finish(job) == Done(f"{job.name}1", 3)
    assert [row["metadata"] for row in site.rows()] == [{"A": [1, 2.5]}] * 3
    assert sum("POST" in each and "/jobs" in each for each in bigquery.requests) == 1


def test_a_job_leaves_the_columns_of_its_table_to_the_table(
    site: Site, loader: Loader, bigquery: Proxy
) -> None:
    """A schema in the job would set properties of columns that are not ours: policy tags."""
    stage(site, ROW)
    loader.finish(job_of(site))
    (body,) = (
        body
        for line, body in zip(bigquery.requests, bigquery.bodies, strict=True)
        if "POST" in line and "/jobs" in line
    )
    load_options = json.loads(body)["configuration"]["load"]
    assert load_options["createDisposition"] == "CREATE_NEVER"
    assert load_options["writeDisposition"] == "WRITE_APPEND"
    assert not {"schema", "schemaUpdateOptions", "autodetect"} & load_options.keys()


def test_a_lost_answer_loads_nothing_twice(site: Site, loader: Loader, bigquery: Proxy) -> None:
    stage(site, ROW)
    bigquery.faults = [Fault("POST /bigquery/v2/projects/local/jobs", after=True, times=1)]
    job = job_of(site)
    assert loader.finish(job) == Done(f"{job.name}1", 1)
    assert len(site.rows()) == 1


def test_a_job_that_failed_gets_another_attempt(site: Site, loader: Loader) -> None:
    job = job_of(site)
    with pytest.raises(
        LoadFailedError, match=rf"^BigQuery: instances: load job {job.name}1 failed \(inv"
    ):
        loader.finish(job)
    stage(site, ROW)
    assert loader.finish(job) == Done(f"{job.name}2", 1)
    assert len(site.rows()) == 1


def test_errors_of_a_job_contain_no_value(site: Site, loader: Loader) -> None:
    stage(site, ROW.replace(b"2026-01-01T00:00:00Z", b"SECRET"))
    with pytest.raises(LoadFailedError) as caught:
        loader.finish(job_of(site))
    assert "SECRET" not in str(caught.value)
