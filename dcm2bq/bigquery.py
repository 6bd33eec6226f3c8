"""BigQuery: the writer of rows, and the dataset as the tools see it.

Google's exceptions end here: each becomes an error of `dcm2bq.errors`, by its HTTP status
and structured reason, never by its text, which can quote the row.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery import DEFAULT_RETRY

from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ReadFailedError, RowTooLargeError, WriteFailedError
from dcm2bq.rows import DeadLetterRow, InstanceRow

EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST"
EMULATOR_PROJECT = "local"

ROW_LIMIT_BYTES = 10_000_000
"""BigQuery's limit for one streamed row: 10 MB."""

_CODE = re.compile(r"[A-Za-z0-9_.\[\]]{1,128}")
_FAILURES = (
    api.GoogleAPIError,
    auth.GoogleAuthError,
    requests.RequestException,
    ConnectionError,
    TimeoutError,
)


class _InsertableRow(Protocol):
    @property
    def insert_id(self) -> str: ...

    def to_json(self) -> dict[str, Any]: ...


class Writer:
    """Streams rows into the two tables; made once per process, used by all its threads.

    Each method returns when BigQuery has the row. It raises `RowTooLargeError` for a row
    that BigQuery can never take, and `WriteFailedError` for every other failure.
    """

    def __init__(self, config: Config) -> None:
        self._client = _connect(config)
        self._timeout = config.big_query.timeout_seconds
        dataset = f"{self._client.project}.{config.big_query.dataset_id}"
        self._instances = f"{dataset}.{config.big_query.instances_table_id}"
        self._dead_letter = f"{dataset}.{config.big_query.dead_letter_table_id}"

    def insert(self, row: InstanceRow, deadline: float) -> None:
        """Insert a row into `instances`, before `deadline` (of `time.monotonic`)."""
        self._insert(self._instances, row, deadline)

    def insert_dead_letter(self, row: DeadLetterRow, deadline: float) -> None:
        """Insert a row into `dead_letter`, before `deadline` (of `time.monotonic`)."""
        self._insert(self._dead_letter, row, deadline)

    def _insert(self, table: str, row: _InsertableRow, deadline: float) -> None:
        seconds = min(self._timeout, deadline - time.monotonic())
        if seconds <= 0:
            raise WriteFailedError(f"no time left to insert into {table}")
        content = row.to_json()
        with _mapped(table, WriteFailedError, too_large=lambda: _exceeds_limit(content)):
            # An attempt that begins at the last moment must still end in time.
            errors = self._client.insert_rows_json(
                table,
                [content],
                row_ids=[row.insert_id],
                retry=DEFAULT_RETRY.with_timeout(seconds / 2),
                timeout=seconds / 2,
            )
        if errors:
            _raise_row_error(table, errors[0]["errors"], content)


class Dataset:
    """The dataset of the tables and views, for the tools.

    Resources are dicts as in BigQuery's REST API. Raises `ReadFailedError` and
    `WriteFailedError` where BigQuery can not be reached or refuses.
    """

    def __init__(self, config: Config) -> None:
        with _mapped("BigQuery", ReadFailedError):
            self._client = _connect(config)
        self._timeout = config.big_query.timeout_seconds
        self._retry = DEFAULT_RETRY.with_timeout(self._timeout)
        self.project = self._client.project
        self.dataset_id = config.big_query.dataset_id

    @property
    def name(self) -> str:
        """`project.dataset`."""
        return f"{self.project}.{self.dataset_id}"

    def get(self) -> dict[str, Any] | None:
        """Return the dataset, or None where there is none."""
        return self._get(self.name, lambda **how: self._client.get_dataset(self.name, **how))

    def create(self, location: str | None) -> None:
        """Create the dataset in `location`, by default where BigQuery puts it."""
        dataset = bigquery.Dataset(self.name)
        if location:
            dataset.location = location
        with _mapped(self.name, WriteFailedError):
            self._client.create_dataset(dataset, retry=self._retry, timeout=self._timeout)

    def get_table(self, table_id: str) -> dict[str, Any] | None:
        """Return a table or view, or None where there is none."""
        table = f"{self.name}.{table_id}"
        return self._get(table, lambda **how: self._client.get_table(table, **how))

    def create_table(self, resource: Mapping[str, Any]) -> None:
        """Create a table or view."""
        table = bigquery.Table.from_api_repr(dict(resource))
        with _mapped(str(table.reference), WriteFailedError):
            self._client.create_table(table, retry=self._retry, timeout=self._timeout)

    def patch_table(self, resource: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Set the named fields of a table or view to those of `resource`."""
        table = bigquery.Table.from_api_repr(dict(resource))
        properties = ["view_query" if each == "view" else each for each in fields]
        with _mapped(str(table.reference), WriteFailedError):
            self._client.update_table(table, properties, retry=self._retry, timeout=self._timeout)

    def get_routine(self, routine_id: str) -> dict[str, Any] | None:
        """Return a table function, or None where there is none."""
        routine = f"{self.name}.{routine_id}"
        return self._get(routine, lambda **how: self._client.get_routine(routine, **how))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement with this dataset as the default one; return its rows.

        Raises `ConfigError` with BigQuery's own message for a statement that it refuses:
        show it to the person who wrote the statement, and to no log.
        """
        how = bigquery.QueryJobConfig(
            default_dataset=self.name,
            query_parameters=[_parameter(*each) for each in (parameters or {}).items()],
        )
        with _mapped(self.name, ReadFailedError):
            try:
                rows = self._client.query_and_wait(
                    sql, job_config=how, retry=self._retry, api_timeout=self._timeout
                )
                return [dict(row.items()) for row in rows]
            except (api.BadRequest, api.NotFound) as error:
                raise ConfigError(error.message) from None

    def _get(self, name: str, call: Callable[..., Any]) -> dict[str, Any] | None:
        with _mapped(name, ReadFailedError):
            try:
                resource = call(retry=self._retry, timeout=self._timeout)
            except api.NotFound:
                return None
        found: dict[str, Any] = resource.to_api_repr()
        return found


def _connect(config: Config) -> bigquery.Client:
    project = config.big_query.project_id
    if not os.environ.get(EMULATOR_VARIABLE):
        return bigquery.Client(project=project)
    return bigquery.Client(project=project or EMULATOR_PROJECT, credentials=AnonymousCredentials())


@contextmanager
def _mapped(
    what: str,
    failure: type[ReadFailedError | WriteFailedError],
    *,
    too_large: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Turn Google's exceptions, and those of the transport below, into `failure`."""
    try:
        yield
    except _FAILURES as error:
        reason = _describe(error)
        if isinstance(error, api.ClientError) and error.code in {400, 413} and too_large():
            raise RowTooLargeError(f"{what}: the row is above {ROW_LIMIT_BYTES} bytes") from None
        raise failure(f"{what}: {reason}") from None


def _describe(error: Exception) -> str:
    """Say what failed by status and reason code alone."""
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        return f"{_describe(error.cause)}, retried in vain"
    if not isinstance(error, api.GoogleAPICallError):
        return f"no answer ({type(error).__name__})"
    reasons = {str(each.get("reason")) for each in error.errors or () if isinstance(each, dict)}
    codes = ", ".join(sorted(each for each in reasons if _CODE.fullmatch(each)))
    return f"HTTP {error.code}" + (f" ({codes})" if codes else "")


def _raise_row_error(
    table: str, errors: Sequence[Mapping[str, Any]], content: Mapping[str, Any]
) -> None:
    """Raise what the errors of one row under HTTP 200 mean.

    Only a row that is too large stays so: `no such field`, for instance, passes when a
    schema change has spread.
    """
    if _exceeds_limit(content):
        raise RowTooLargeError(f"{table}: the row is above {ROW_LIMIT_BYTES} bytes")
    causes = {f"{each.get('reason')} {each.get('location') or ''}".strip() for each in errors}
    codes = ", ".join(sorted(c for c in causes if all(_CODE.fullmatch(p) for p in c.split())))
    raise WriteFailedError(f"{table}: the row was refused ({codes or 'no reason given'})")


def _exceeds_limit(content: Mapping[str, Any]) -> bool:
    return len(msgspec.json.encode(content)) > ROW_LIMIT_BYTES


def _parameter(name: str, value: Any) -> bigquery.ScalarQueryParameter:
    types = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING", bytes: "BYTES"}
    return bigquery.ScalarQueryParameter(name, types.get(type(value), "TIMESTAMP"), value)
