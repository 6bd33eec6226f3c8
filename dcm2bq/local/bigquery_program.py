"""The program of the local BigQuery: local-bigquery, set up for many statements on few rows.

`servers.bigquery_server` runs this file.
"""

import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from dcm2bq.local.bigquery_catalog import RESULTS, RESULTS_SCHEMA, Catalog, KnownColumns

SETTINGS = (
    # Handing the tasks of a small query to other threads costs more than the tasks.
    "SET threads = 1",
    # For the live view, these take three fifths of the time of a query; they pay only for large
    # tables. Plans are otherwise optimized as always.
    "SET disabled_optimizers = 'join_order,statistics_propagation'",
)
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

_TEMPORARY_TABLES = "SELECT table_name FROM duckdb_tables() WHERE temporary"


def main() -> None:
    """Serve the database in the folder `sys.argv[3]` on the host and port before it."""
    host, port, data = sys.argv[1:]
    # DuckDB looks for pandas whenever a statement has parameters, and does not remember the answer.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    settings = importlib.import_module("local_bigquery.settings").settings
    settings.data_dir = Path(data)  # the default project is `local`, as ours
    set_up()
    uvicorn: Any = importlib.import_module("uvicorn")
    uvicorn.run("local_bigquery:app", host=host, port=int(port), access_log=False)


def set_up() -> None:
    """Open the database with `SETTINGS`, and keep in memory what a restart need not find."""
    database: Any = importlib.import_module("local_bigquery.engine.database")
    tables: Any = importlib.import_module("local_bigquery.catalog.tables")
    store: Any = importlib.import_module("local_bigquery.jobs.store")
    views: Any = importlib.import_module("local_bigquery.sql.rules.information_schema")
    for statement in (*SETTINGS, f"ATTACH ':memory:' AS {RESULTS}"):
        database.connection().execute(statement)
    database.connection().execute(f"CREATE SCHEMA {RESULTS}.{RESULTS_SCHEMA}")

    def physical(project: str, dataset: str, table: str) -> tuple[str, str, str]:
        if dataset == RESULTS_SCHEMA:
            return RESULTS, dataset, _result(project, table)
        return project, dataset, table

    connection = Connection(database.connection())
    database.connection = lambda: connection
    catalog, jobs = Catalog(database), Jobs(database)

    def objects(project: str, dataset: str, table: str | None = None) -> list[tuple[str, str, int]]:
        if (project, dataset, table) == (RESULTS, "main", JOBS_TABLE):
            jobs.show()
        return catalog.objects(project, dataset, table)

    database.fetch, database.objects = catalog.fetch, objects
    tables.columns, tables.physical = KnownColumns(catalog, tables.columns), physical
    views.JOBS = views.JOBS.replace("emulator.main.jobs", f"{RESULTS}.main.{JOBS_TABLE}")
    store.save, store.load, store.list_, store.delete = jobs.save, jobs.load, jobs.list, jobs.delete


def _result(project: str, job: str) -> str:
    """Return the name of the table with the result of a job."""
    return f"{project}:{job}"


class Connection:
    """DuckDB's connection, with cursors that need not look for temporary tables at first."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def cursor(self) -> "Cursor":
        """Return another connection to the same databases."""
        return Cursor(self._connection.cursor())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Cursor(Connection):
    """A connection for one statement or script.

    local-bigquery asks each time which temporary tables it has, and twice in a row which columns a
    query has. Both take as long as a small query: the first would scan the catalog, the second
    plans the query.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._new = True
        self._last: tuple[str, Description] | None = None

    def execute(self, *arguments: Any) -> Any:
        """Run a statement, which may change what a query returns."""
        self._new, self._last = False, None
        return self._connection.execute(*arguments)

    def sql(self, query: str, params: dict[str, Any] | None = None) -> Any:
        """Return the relation of a query.

        DuckDB runs the query at once if there are parameters, even an empty mapping of them, but
        local-bigquery often needs no more than the relation's columns.
        """
        if query == _TEMPORARY_TABLES and self._new:
            query = "SELECT '' WHERE false"
        self._new = False
        if params:
            return self._connection.sql(query, params=params)
        if self._last and self._last[0] == query:
            return self._last[1]
        relation = self._connection.sql(query)
        self._last = query, Description(relation, lambda: self._connection.sql(query))
        return relation


class Description:
    """The columns of a relation, which is made again for everything else."""

    def __init__(self, relation: Any, make: Callable[[], Any]) -> None:
        self.columns, self.types, self._make = relation.columns, relation.types, make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


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
            name = self._database.quote(RESULTS, RESULTS_SCHEMA, _result(*old))
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


if __name__ == "__main__":
    main()
