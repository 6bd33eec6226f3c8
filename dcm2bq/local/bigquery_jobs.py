"""The jobs of the local BigQuery and their results, in memory: no restart looks for them."""

import importlib
import json
from collections import OrderedDict
from threading import Lock
from typing import Any

from dcm2bq.local.bigquery_catalog import RESULTS, RESULTS_SCHEMA

KEPT_JOBS = 1_000
"""Jobs that are kept after their end: a client reads a result soon after its statement."""
KEPT_BYTES = 512 << 20
"""Memory of all results; if they need more, those of the oldest jobs are dropped."""
LEAST_KEPT = 16
"""Jobs that are kept even so, twice as many as run at once: their clients still read results."""
JOBS_TABLE = "jobs"

_SHOW_JOBS = f"""
CREATE OR REPLACE TABLE {RESULTS}.main.{JOBS_TABLE} AS
SELECT
    job ->> '$.jobReference.projectId' AS project_id,
    job ->> '$.jobReference.jobId' AS job_id,
    job ->> '$.statistics.parentJobId' AS parent_job_id,
    job ->> '$.status.state' AS state,
    CAST(job ->> '$.statistics.creationTime' AS BIGINT) AS creation_time,
    job AS resource
FROM (SELECT CAST(UNNEST(CAST(? AS VARCHAR[])) AS JSON) AS job)
"""  # noqa: S608
_MEMORY = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"


def result_name(project: str, job: str) -> str:
    """Return the name of the table with the result of a job."""
    return f"{project}:{job}"


class Jobs:
    """The last jobs, with the functions of `local_bigquery.jobs.store`; results go with them."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._model = importlib.import_module("local_bigquery.models").Job
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock, self._table_lock = Lock(), Lock()

    def save(self, job: Any) -> Any:
        """Keep the state of a job; forget the jobs that ended long ago."""
        key = job.jobReference.projectId, job.jobReference.jobId
        with self._lock:
            self._jobs[key] = json.dumps(job.dump())
            if job.status.state != "DONE":
                return job
            self._ended[key] = None
        while old := self._oldest():
            name = self._database.quote(RESULTS, RESULTS_SCHEMA, result_name(*old))
            self._database.execute(f"DROP TABLE IF EXISTS {name}")
        return job

    def _oldest(self) -> tuple[str, str] | None:
        """Forget the job that ended first, and return it, if there are too many or too large."""
        with self._lock:
            if len(self._ended) <= LEAST_KEPT:
                return None
            if len(self._ended) <= KEPT_JOBS:
                ((used,),) = self._database.fetch(_MEMORY)
                if used <= KEPT_BYTES:
                    return None
            old, _ = self._ended.popitem(last=False)
            self._jobs.pop(old, None)
            return old

    def show(self) -> None:
        """Make the table that INFORMATION_SCHEMA.JOBS reads."""
        with self._lock:
            resources = list(self._jobs.values())
        with self._table_lock:
            self._database.execute(_SHOW_JOBS, [resources])

    def load(self, project: str, identity: str) -> Any:
        """Return a job, or None."""
        text = self._jobs.get((project, identity))
        return self._model.model_validate_json(text) if text else None

    def list(  # noqa: D102 - as in `store`
        self,
        project: str,
        states: list[str] | None = None,
        parent: str | None = None,
        earliest: int | None = None,
        latest: int | None = None,
    ) -> list[Any]:
        with self._lock:
            kept = list(self._jobs.items())
        jobs = [
            self._model.model_validate_json(text) for (owner, _), text in kept if owner == project
        ]
        return sorted(
            (
                job
                for job in jobs
                if job.statistics.parentJobId == parent
                and (states is None or job.status.state in states)
                and (earliest is None or int(job.statistics.creationTime) >= earliest)
                and (latest is None or int(job.statistics.creationTime) <= latest)
            ),
            key=lambda job: (-int(job.statistics.creationTime), job.jobReference.jobId),
        )

    def delete(self, project: str, identity: str) -> None:
        """Forget a job and its children."""
        children = [job.jobReference.jobId for job in self.list(project, parent=identity)]
        with self._lock:
            for each in (identity, *children):
                self._jobs.pop((project, each), None)
                self._ended.pop((project, each), None)
