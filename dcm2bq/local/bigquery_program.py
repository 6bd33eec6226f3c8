"""The program of the local BigQuery: local-bigquery, set up for many statements on few rows.

`servers.bigquery_server` runs this file.
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcm2bq.local.bigquery_catalog import RESULTS, RESULTS_SCHEMA, Catalog
from dcm2bq.local.bigquery_files import keep_in_files
from dcm2bq.local.bigquery_jobs import JOBS_TABLE, Jobs, result_name

SETTINGS = (
    # Handing the tasks of a small query to other threads costs more than the tasks.
    "SET threads = 1",
    # For the live view, these take three fifths of the time of a query; they pay only for large
    # tables. Plans are otherwise optimized as always.
    "SET disabled_optimizers = 'join_order,statistics_propagation'",
)
_REPEATS, _PAUSE_SECONDS = 100, 0.02
"""Attempts of an insert into a table that is being changed, and the pause after each. A change
takes milliseconds."""
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
    metadata: Any = importlib.import_module("local_bigquery.catalog.metadata")
    row_access: Any = importlib.import_module("local_bigquery.catalog.row_access")
    tables: Any = importlib.import_module("local_bigquery.catalog.tables")
    store: Any = importlib.import_module("local_bigquery.jobs.store")
    views: Any = importlib.import_module("local_bigquery.sql.rules.information_schema")
    keep_in_files(database)
    for statement in (*SETTINGS, f"ATTACH ':memory:' AS {RESULTS}"):
        database.connection().execute(statement)
    database.connection().execute(f"CREATE SCHEMA {RESULTS}.{RESULTS_SCHEMA}")

    def physical(project: str, dataset: str, table: str) -> tuple[str, str, str]:
        if dataset == RESULTS_SCHEMA:
            return RESULTS, dataset, result_name(project, table)
        return project, dataset, table

    catalog, jobs = Catalog(database, tables.columns), Jobs(database)
    connection = Connection(database.connection(), catalog.note)
    database.connection = lambda: connection

    def objects(project: str, dataset: str, table: str | None = None) -> list[tuple[str, str, int]]:
        if (project, dataset, table) == (RESULTS, "main", JOBS_TABLE):
            jobs.show()
        return catalog.objects(project, dataset, table)

    database.objects = objects
    for module in (database, metadata, row_access):
        module.fetch = catalog.fetch
    tables.columns, tables.physical = catalog.columns, physical
    views.JOBS = views.JOBS.replace("emulator.main.jobs", f"{RESULTS}.main.{JOBS_TABLE}")
    store.save, store.load, store.list_, store.delete = jobs.save, jobs.load, jobs.list, jobs.delete


class Connection:
    """DuckDB's connection, with cursors that need not look for temporary tables at first.

    `note` is called with each statement that a cursor has run.
    """

    def __init__(self, connection: Any, note: Callable[[str], None]) -> None:
        self._connection, self._note = connection, note

    def cursor(self) -> "Cursor":
        """Return another connection to the same databases."""
        return Cursor(self._connection.cursor(), self._note)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Cursor(Connection):
    """A connection for one statement or script.

    local-bigquery asks each time which temporary tables it has, and twice in a row which columns a
    query has. Both take as long as a small query: the first would scan the catalog, the second
    plans the query.
    """

    def __init__(self, connection: Any, note: Callable[[str], None]) -> None:
        super().__init__(connection, note)
        self._new, self._in_transaction = True, False
        self._last: tuple[str, Description] | None = None

    def execute(self, statement: str, *parameters: Any) -> Any:
        """Run a statement, which may change what a query returns."""
        self._new, self._last = False, None
        self._in_transaction |= statement.startswith("BEGIN")
        try:
            return self._repeated(statement, *parameters)
        finally:
            self._note(statement)

    def _repeated(self, statement: str, *parameters: Any) -> Any:
        """Run a statement; repeat an insert while other statements change the table's columns.

        local-bigquery would take the rows of a failed request for duplicates in the next one.
        """
        if self._in_transaction or not statement.startswith("INSERT INTO "):
            return self._connection.execute(statement, *parameters)
        for _ in range(_REPEATS):
            try:
                return self._connection.execute(statement, *parameters)
            except importlib.import_module("duckdb").TransactionException:
                time.sleep(_PAUSE_SECONDS)
        return self._connection.execute(statement, *parameters)

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


if __name__ == "__main__":
    main()
