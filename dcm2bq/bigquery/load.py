"""Load jobs: files in Cloud Storage become rows, each file once.

BigQuery accepts a job id only once. The ids of a job's attempts follow from its name, so that
another process, even a week later, finds an attempt that was made before.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
from google.cloud import bigquery

from dcm2bq.bigquery.dataset import connect
from dcm2bq.config import Config
from dcm2bq.errors import LoadFailedError, QuotaExceededError, ServiceError
from dcm2bq.google_errors import mapped
from dcm2bq.transport import is_reason

URIS_MAX = 10_000
"""Files of one job: BigQuery's own bound."""
BYTES_MAX = 50 * 10**9
"""Compressed bytes of one job, the rows of some 60 million objects.

BigQuery allows 15 TB, but ends a job after 6 hours, and a failed job loads nothing.
"""

_QUOTA = "quotaExceeded"
_PASSING = frozenset(
    {
        *("rateLimitExceeded", "jobRateLimitExceeded", "tableUnavailable"),
        *("backendError", "jobBackendError", "internalError", "jobInternalError"),
    }
)
"""Reasons after which another attempt may succeed within minutes.

After any other it would fail again, and failed jobs count towards the quota.
"""
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

    Raises `ServiceError` if BigQuery cannot be reached or refuses, and `QuotaExceededError` if it
    refuses because of a quota.
    """

    def __init__(self, config: Config) -> None:
        with mapped("BigQuery"):
            self._client = connect(config)
            self._dataset = self._client.get_dataset(
                f"{self._client.project}.{config.big_query.dataset_id}", timeout=_TIMEOUT_SECONDS
            )

    def start(self, job: LoadJob, *, is_again: bool = True) -> str:
        """Return the id of the attempt that runs or has succeeded, or of a new one.

        If all attempts failed, a new one is made only if `is_again`; otherwise the id is that of
        the first.
        """
        with _mapped(job.table_id):
            for attempt in count(1):
                job_id = f"{job.name}{attempt}"
                earlier = self._find(job_id)
                if earlier is None:
                    self._submit(job, job_id)
                    return job_id
                if not (earlier.error_result and is_again):
                    return job_id
        raise AssertionError

    def finish(
        self,
        job: LoadJob,
        job_id: str = "",
        *,
        pause: float = _PAUSE_SECONDS,
        on_wait: Callable[[], object] = lambda: None,
    ) -> Done:
        """Return when the rows are in the table; retry attempts that failed for a passing reason.

        `job_id` is the attempt that `start` returned; if it is empty, the job is started. `on_wait`
        is called at each look at a job. Raises `LoadFailedError` with the id of the last
        attempt, for `bq show -j`, and `QuotaExceededError` after the first that a quota ended.
        """
        for tries in range(_TRIES):
            job_id = job_id or self.start(job)
            ended = self._wait(job.table_id, job_id, on_wait)
            if not ended.error_result:
                return Done(job_id, int(ended.output_rows or 0))
            reason = _reason(ended.error_result)
            if reason not in _PASSING:
                break
            if tries < _TRIES - 1:
                time.sleep(pause * 2**tries)
                job_id = ""
        kind = QuotaExceededError if reason == _QUOTA else LoadFailedError
        raise kind(f"BigQuery: {job.table_id}: load job {job_id} failed ({reason})")

    def state(self, job: LoadJob) -> tuple[str, str]:
        """Return the id and state of the last attempt: pending, running, done, or why it failed.

        Both are empty if there was no attempt.
        """
        last = "", ""
        with mapped(f"BigQuery: {job.table_id}"):
            for attempt in count(1):
                earlier = self._find(f"{job.name}{attempt}")
                if earlier is None:
                    return last
                failure = earlier.error_result
                state = f"failed ({_reason(failure)})" if failure else str(earlier.state).lower()
                last = f"{job.name}{attempt}", state
        raise AssertionError

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

    def _wait(self, table_id: str, job_id: str, on_wait: Callable[[], object]) -> bigquery.LoadJob:
        pause, longest = _POLL_SECONDS
        while True:
            with _mapped(table_id):
                job = self._find(job_id)
            if job is None:
                raise ServiceError(f"BigQuery: {table_id}: load job {job_id} no longer exists")
            if job.state == "DONE":
                return job
            on_wait()
            time.sleep(pause)
            pause = min(2 * pause, longest)


@contextmanager
def _mapped(table_id: str) -> Iterator[None]:
    """Turn what a request raises into errors of this package, `QuotaExceededError` for a quota."""
    place = f"BigQuery: {table_id}"
    with mapped(place):
        try:
            yield
        except GoogleAPICallError as error:
            if any(_reason(detail) == _QUOTA for detail in error.errors):
                raise QuotaExceededError(f"{place}: HTTP {error.code} ({_QUOTA})") from None
            raise


def _reason(detail: Any) -> str:
    """Return the reason that an error of BigQuery gives, which is a code and never a value."""
    code = str(dict(detail).get("reason"))
    return code if is_reason(code) else "no reason"
