"""The dataset of the tables and views, for the tools, through google-cloud-bigquery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud import bigquery
from google.cloud.bigquery import DEFAULT_RETRY
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY
from google.cloud.bigquery.table import RowIterator

from dcm2bq import emulators
from dcm2bq.bigquery.access import DatasetAccess
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.google_errors import mapped

_PAGE_ROWS = 10_000
"""Rows that a query keeps in memory at once; BigQuery sends fewer if they are large."""

ERRORS_OF_VIEWS = ("objects was not refreshed in the last 7 days: run dcm2bq refresh",)
"""The texts of all calls of ERROR in our views. They hold no value, so they may be shown."""


class Dataset:
    """The dataset of the tables and views, for the tools.

    Resources are dicts as in BigQuery's REST API. `bytes_read` counts what the statements of this
    object have read, as BigQuery bills it. Raises `ServiceError` if BigQuery cannot be reached or
    refuses.
    """

    def __init__(self, config: Config) -> None:
        with mapped("BigQuery"):
            self._client = connect(config)
        self._timeout = config.big_query.timeout_seconds
        self.bytes_read = 0
        self._retry = DEFAULT_RETRY.with_timeout(self._timeout)
        # The default retries for 40 minutes, even if nothing answers.
        self._job_retry = DEFAULT_JOB_RETRY.with_timeout(self._timeout)
        self.project = self._client.project
        self.dataset_id = config.big_query.dataset_id
        self.access = DatasetAccess(self.project, self.dataset_id, self._timeout)

    @property
    def name(self) -> str:
        """`project.dataset`."""
        return f"{self.project}.{self.dataset_id}"

    def get(self) -> dict[str, Any] | None:
        """Return the dataset, or None if there is none."""
        return self._get(
            self.name, lambda **options: self._client.get_dataset(self.name, **options)
        )

    def create(self, location: str | None) -> None:
        """Create the dataset in `location`, by default in the location that BigQuery chooses."""
        dataset = bigquery.Dataset(self.name)
        if location:
            dataset.location = location
        with mapped(f"BigQuery: {self.name}"):
            self._client.create_dataset(dataset, retry=self._retry, timeout=self._timeout)

    def get_table(self, table_id: str) -> dict[str, Any] | None:
        """Return a table or view, or None if there is none."""
        table = f"{self.name}.{table_id}"
        return self._get(table, lambda **options: self._client.get_table(table, **options))

    def existing_table(self, table_id: str) -> dict[str, Any]:
        """Return a table or view; raise `ConfigError` if there is none."""
        table = self.get_table(table_id)
        if table is None:
            raise ConfigError(
                f"{self.name}.{table_id}: the table does not exist; create it with dcm2bq init"
            )
        return table

    def create_table(self, resource: Mapping[str, Any]) -> None:
        """Create a table or view."""
        table = bigquery.Table.from_api_repr(dict(resource))
        with mapped(f"BigQuery: {table.reference}"):
            self._client.create_table(table, retry=self._retry, timeout=self._timeout)

    def patch_table(self, resource: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Set the named fields of a table or view to those of `resource`.

        If `resource` has an `etag`, this raises `ServiceError` unless the table still has it.
        """
        table = bigquery.Table.from_api_repr(dict(resource))
        properties = ["view_query" if field == "view" else field for field in fields]
        with mapped(f"BigQuery: {table.reference}"):
            try:
                self._client.update_table(
                    table, properties, retry=self._retry, timeout=self._timeout
                )
            except PreconditionFailed:
                raise ServiceError(
                    f"BigQuery: {table.reference}: was changed by someone else: try again"
                ) from None

    def replace_rows(self, resource: Mapping[str, Any], lines: bytes) -> int:
        """Replace all rows of a table at once; return their number.

        `lines` is newline-delimited JSON. The columns and their descriptions are those of the
        resource: BigQuery takes them from the job that replaces the rows.
        """
        table = bigquery.Table.from_api_repr(dict(resource))
        options = bigquery.LoadJobConfig(
            schema=table.schema,
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        )
        with mapped(f"BigQuery: {table.table_id}"):
            job = self._client.load_table_from_file(
                BytesIO(lines), table.reference, job_config=options, timeout=self._timeout
            )
            job.result(retry=self._retry, timeout=self._timeout)
        return int(job.output_rows or 0)

    def get_routine(self, routine_id: str) -> dict[str, Any] | None:
        """Return a table function, or None if there is none."""
        routine = f"{self.name}.{routine_id}"
        return self._get(routine, lambda **options: self._client.get_routine(routine, **options))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement as `stream` does, and return all rows at once."""
        return list(self.stream(sql, parameters))

    def stream(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Run a statement with this dataset as the default, and yield its rows page by page.

        Raises `ConfigError` for a statement that BigQuery refuses, with BigQuery's own message
        if only the statement is at fault, or with one of `ERRORS_OF_VIEWS`. If a value is at
        fault, the message would quote it and is left out.
        """
        _, rows = self.read(sql, parameters)
        yield from rows

    def read(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
        """Run a statement as `stream` does; return its columns and its rows."""
        job_config = self._job_config(parameters)
        with self._explaining(sql, job_config):
            result = self._run(sql, job_config)
        self.bytes_read += result.total_bytes_processed or 0

        def rows() -> Iterator[dict[str, Any]]:
            with self._explaining(sql, job_config):
                for row in result:
                    yield dict(row.items())

        return [field.to_api_repr() for field in result.schema], rows()

    def change(self, sql: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run a DML statement as `stream` does; return how many rows it changed."""
        job_config = self._job_config(parameters)
        with self._explaining(sql, job_config):
            return self._run(sql, job_config).num_dml_affected_rows or 0

    def _job_config(self, parameters: Mapping[str, Any] | None) -> bigquery.QueryJobConfig:
        return bigquery.QueryJobConfig(
            default_dataset=self.name,
            query_parameters=[_parameter(*item) for item in (parameters or {}).items()],
        )

    def _run(self, sql: str, job_config: bigquery.QueryJobConfig) -> RowIterator:
        return self._client.query_and_wait(
            sql,
            job_config=job_config,
            retry=self._retry,
            job_retry=self._job_retry,
            api_timeout=self._timeout,
            page_size=_PAGE_ROWS,
        )

    @contextmanager
    def _explaining(self, sql: str, job_config: bigquery.QueryJobConfig) -> Iterator[None]:
        """Raise `ConfigError` for a statement that BigQuery refuses while it runs."""
        with mapped(f"BigQuery: {self.name}"):
            try:
                yield
            except (BadRequest, NotFound) as error:
                raise ConfigError(self._refusal(sql, job_config, error)) from None

    def bytes_processed(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, dry_run: bool = True
    ) -> int:
        """Return how many bytes a query reads.

        A dry run costs nothing; for clustered tables it returns an upper bound.
        """
        job_config = self._job_config(parameters)
        job_config.dry_run = dry_run
        job_config.use_query_cache = False
        with mapped(f"BigQuery: {self.name}"):
            job = self._client.query(
                sql,
                job_config=job_config,
                retry=self._retry,
                job_retry=None,  # the client would retry for ten minutes, even if nothing answers
                timeout=self._timeout,
            )
            if not dry_run:
                job.result(retry=self._retry, timeout=self._timeout)
        return int(job.total_bytes_processed or 0)

    def _refusal(
        self, sql: str, job_config: bigquery.QueryJobConfig, error: BadRequest | NotFound
    ) -> str:
        """Return what is wrong with a statement, by a dry run, which reads no value."""
        for text in ERRORS_OF_VIEWS:
            if text in _message(error):
                return text  # only our text: BigQuery's message may quote a value beside it
        job_config.dry_run = True
        try:
            self._client.query(
                sql,
                job_config=job_config,
                retry=self._retry,
                job_retry=None,  # the client would retry for ten minutes, even if nothing answers
                timeout=self._timeout,
            )
        except (BadRequest, NotFound) as same:
            return _message(same)
        return (
            f"the statement failed on a value, which is not shown (HTTP {error.code}): "
            "use SAFE_CAST, or SAFE. before a function, to get NULL instead"
        )

    def _get(self, name: str, call: Callable[..., Any]) -> dict[str, Any] | None:
        with mapped(f"BigQuery: {name}"):
            try:
                resource = call(retry=self._retry, timeout=self._timeout)
            except NotFound:
                return None
        representation: dict[str, Any] = resource.to_api_repr()
        return representation


def connect(config: Config) -> bigquery.Client:
    """Return a client of the configured project, or of the local server in its place."""
    project = config.big_query.project_id
    if not emulators.url(emulators.BIGQUERY):
        return bigquery.Client(project=project)
    return bigquery.Client(
        project=project or emulators.PROJECT, credentials=emulators.credentials()
    )


def _message(error: GoogleAPICallError) -> str:
    """Return BigQuery's own text, without the request that the client puts in front."""
    texts = [detail["message"] for detail in error.errors if detail.get("message")]
    return texts[0] if texts else str(error.message)


def _parameter(
    name: str, value: Any
) -> bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter:
    if isinstance(value, list):
        return bigquery.ArrayQueryParameter(name, "STRING", value)
    types = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING", bytes: "BYTES"}
    return bigquery.ScalarQueryParameter(name, types.get(type(value), "TIMESTAMP"), value)
