"""Load jobs: files in Cloud Storage become rows, each file once.

BigQuery accepts a job id only once. The ids of a job's attempts follow from its name, so that
another process, even a week later, finds an attempt that was made before.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from google.api_core.exceptions import Conflict, NotFound
from google.cloud import bigquery

from dcm2bq.bigquery.dataset import connect
from dcm2bq.config import Config
from dcm2bq.errors import ServiceError
from dcm2bq.google_errors import mapped
from dcm2bq.transport import is_reason

URIS_MAX = 10_000
BYTES_MAX = 10**12
"""Bounds of one job: BigQuery's own for the number of files, and far below its 15 TB."""

_TRIES = 4
_PAUSE_SECONDS = 5.0
"""Before the second attempt; doubled before each further one: 35 seconds in all."""
_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.1, 10.0
"""First and longest pause between two looks at a job: it takes seconds to hours."""


@dataclass(frozen=True, slots=True)
class LoadJob:
    """A load of `uris`, compressed newline-delimited JSON, into a table; ids begin with `name`."""

    name: str
    table_id: str
    uris: Sequence[str]


@dataclass(frozen=True, slots=True)
class Done:
    """A successful attempt, and the number of rows that it loaded."""

    job_id: str
    rows: int


class Loader:
    """Runs load jobs into the dataset; made once per process, used by all its threads.

    Raises `ServiceError` if BigQuery cannot be reached or refuses.
    """

    def __init__(self, config: Config) -> None:
        with mapped("BigQuery"):
            self._client = connect(config)
            self._dataset = self._client.get_dataset(
                f"{self._client.project}.{config.big_query.dataset_id}", timeout=_TIMEOUT_SECONDS
            )

    def start(self, job: LoadJob) -> str:
        """Return the id of the attempt that runs or has succeeded, or of a new one."""
        with mapped(f"BigQuery: {job.table_id}"):
            for attempt in count(1):
                job_id = f"{job.name}{attempt}"
                earlier = self._find(job_id)
                if earlier is None:
                    self._submit(job, job_id)
                    return job_id
                if not earlier.error_result:
                    return job_id
        raise AssertionError

    def finish(self, job: LoadJob, *, pause: float = _PAUSE_SECONDS) -> Done:
        """Return when the rows are in the table; retry failed attempts a few times.

        Raises `ServiceError` with the id of the last attempt, for `bq show -j`.
        """
        for tries in range(_TRIES):
            job_id = self.start(job)
            ended = self._wait(job.table_id, job_id)
            if not ended.error_result:
                return Done(job_id, int(ended.output_rows or 0))
            if tries < _TRIES - 1:
                time.sleep(pause * 2**tries)
        code = str(ended.error_result.get("reason"))
        reason = code if is_reason(code) else "no reason"
        raise ServiceError(f"BigQuery: {job.table_id}: load job {job_id} failed ({reason})")

    def _find(self, job_id: str) -> bigquery.LoadJob | None:
        try:
            job = self._client.get_job(
                job_id, location=self._dataset.location, timeout=_TIMEOUT_SECONDS
            )
        except NotFound:
            return None
        assert isinstance(job, bigquery.LoadJob)
        return job

    def _submit(self, job: LoadJob, job_id: str) -> None:
        # Without a schema: rows go into the columns of the table as they are. A schema would set
        # the columns' properties, and BigQuery would ask for the right to set policy tags.
        options = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
        )
        try:
            self._client.load_table_from_uri(
                list(job.uris),
                self._dataset.table(job.table_id),
                job_id=job_id,
                location=self._dataset.location,
                job_config=options,
                timeout=_TIMEOUT_SECONDS,
            )
        except Conflict:
            return  # another process was faster, or an earlier answer was lost

    def _wait(self, table_id: str, job_id: str) -> bigquery.LoadJob:
        pause, longest = _POLL_SECONDS
        while True:
            with mapped(f"BigQuery: {table_id}"):
                job = self._find(job_id)
            if job is None:
                raise ServiceError(f"BigQuery: {table_id}: load job {job_id} no longer exists")
            if job.state == "DONE":
                return job
            time.sleep(pause)
            pause = min(2 * pause, longest)
