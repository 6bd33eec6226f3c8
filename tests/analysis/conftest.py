"""One dataset with the rows of all objects, for every test of the views to read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO

import msgspec
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.tools import dictionary_rows
from dcm2bq.tools.backfill import staged_files
from tests.support.analysis_objects import AnalysisObject, all_objects, published_objects
from tests.support.datasets import borrowed_dataset
from tests.support.googlesql_views import EngineDataset


@pytest.fixture(scope="session")
def bigquery_url(complete_bigquery_url: str) -> str:
    """A running BigQuery, whose datasets have every view."""
    return complete_bigquery_url


@pytest.fixture(scope="package")
def analysis_dataset(bigquery_url: str) -> Iterator[Dataset]:
    """A dataset of the local BigQuery with a row for each of `all_objects()`, for reading only.

    Query it with `analysis_dataset.query("SELECT ... FROM sr_content")`. A statement costs the
    server 0.1 s of CPU: read a view whole, once, by a fixture of the module.
    """
    with borrowed_dataset(bigquery_url) as dataset:
        load(bigquery_url, dataset, all_objects())
        _fill_dictionary(dataset)
        dataset.query(f"INSERT INTO protocol_reference VALUES {REFERENCE}")
        yield dataset


@pytest.fixture(scope="module")
def published_dataset(bigquery_url: str, analysis_dataset: Dataset) -> Iterator[Dataset]:
    """The dataset with a row for each of `published_objects()`, whose answers never vary.

    It is `analysis_dataset`, which has these rows until the end of the module.
    """
    if all_objects() == published_objects():
        yield analysis_dataset
        return
    with other_objects(bigquery_url, analysis_dataset, published_objects()):
        yield analysis_dataset


@contextmanager
def other_objects(
    bigquery_url: str, dataset: Dataset, objects: Iterable[AnalysisObject]
) -> Iterator[None]:
    """Let `analysis_dataset` have the rows of other objects while the block runs.

    To make another dataset with every view would cost the local BigQuery 5 s of CPU.
    """
    try:
        dataset.query("TRUNCATE TABLE instances")
        load(bigquery_url, dataset, objects)
        yield
    finally:
        dataset.query("TRUNCATE TABLE instances; TRUNCATE TABLE objects")
        load(bigquery_url, dataset, all_objects())


REFERENCE = """
    ('Acme', 'Fleet CT', 'CT', 'Reference', 'SliceThickness', '1.20', 0.1, 'within the tolerance'),
    ('Acme', NULL, NULL, 'Reference', 'SliceThickness', '9', NULL, 'less specific'),
    (NULL, NULL, 'CT', 'Reference', 'ConvolutionKernel', 'B31f', NULL, NULL)"""
"""Rows of `protocol_reference`, for the protocol Reference of `dicom_made.fleet`."""


def _fill_dictionary(dataset: Dataset) -> None:
    """Load the rows without their label, which would make the dataset look changed."""
    (definition,) = (d for d in schema.load(Config(), "local") if d.name == "dicom_dictionary")
    reference = {**definition.resource["tableReference"], "datasetId": dataset.dataset_id}
    dataset.replace_rows(
        {**definition.resource, "tableReference": reference}, dictionary_rows.encoded()
    )


def load(bigquery_url: str, dataset: Dataset, objects: Iterable[AnalysisObject]) -> None:
    """Load the rows of objects into `instances` by one job."""
    lines = b"".join(staged_files.encode(each.row) for each in objects)
    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": bigquery_url},
    )
    table = client.get_table(f"{dataset.name}.instances")
    options = bigquery.LoadJobConfig(
        schema=table.schema,
        source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
        write_disposition="WRITE_APPEND",
    )
    client.load_table_from_file(BytesIO(lines), table, job_config=options).result()
    client.close()


def engine_dataset(prefix: str) -> EngineDataset:
    """Return a dataset on Google's evaluator with the made objects whose names have a prefix.

    Keep to some 40 objects: the engine evaluates anti-joins as nested loops.
    """
    dataset = EngineDataset()
    for each in all_objects():
        if each.name.startswith(prefix):
            dataset.insert("instances", msgspec.to_builtins(each.row))
    return dataset
