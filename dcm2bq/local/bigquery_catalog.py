"""What the local BigQuery looks up for each statement, without a scan of DuckDB's catalog."""

import importlib
import re
from collections.abc import Callable
from typing import Any

RESULTS = "query_results"
"""The database, in memory, with the result of each query as a table; no project has `_` in its id.
"""
RESULTS_SCHEMA = "_results"

# What is asked for each statement: DuckDB's listings, and the resources of the datasets and tables.
_LOOKUPS = (" FROM duckdb_columns() ", " FROM duckdb_schemas() ", " FROM emulator.")
_KINDS = """
SELECT table_name, 'TABLE' FROM duckdb_tables() WHERE database_name = $1 AND schema_name = $2
UNION ALL
SELECT view_name, 'VIEW' FROM duckdb_views() WHERE database_name = $1 AND schema_name = $2
ORDER BY 1
"""
# Statements that change rows, results of queries or temporary tables only, after any comments.
_CHANGES_NO_DEFINITION = re.compile(
    rf"""(?:\s|/\*.*?\*/)*+(?:
        (?:BEGIN|DELETE|EXPLAIN|FROM|INSERT|SELECT|SET|TRUNCATE|UPDATE|USE|WITH)\b
        (?!\ (?:OR\ REPLACE\ INTO|FROM)\ emulator\.)
        |CREATE\ OR\ REPLACE\ (?:TEMP\ |TABLE\ "?{RESULTS}\b)
        |DROP\ TABLE\ IF\ EXISTS\ (?:temp\.|"?{RESULTS}\b)
    )""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)


class Catalog:
    """The definitions in the database; DuckDB is asked for them again only after a change.

    For each table and view that a statement names, and for its result, local-bigquery asks for
    listings, and each time DuckDB describes all tables, views and columns of all databases.
    `database` is the module `local_bigquery.engine.database`, and `columns` the function that
    describes the columns of a table.
    """

    def __init__(self, database: Any, columns: Callable[[str, str, str], list[Any]]) -> None:
        self._fetch, self._quote, self._columns = database.fetch, database.quote, columns
        self._not_found = importlib.import_module("duckdb").CatalogException
        self._answers: dict[Any, Any] = {}

    def note(self, statement: str) -> None:
        """Forget the answers if `statement`, which has ended, may have changed a definition."""
        if not _CHANGES_NO_DEFINITION.match(statement):
            self._answers = {}

    def fetch(self, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, from the known answers if it looks up a definition."""
        if not any(lookup in sql for lookup in _LOOKUPS):
            rows: list[tuple[Any, ...]] = self._fetch(sql, parameters)
            return rows
        project, dataset = [*(parameters or []), None, None][:2]
        if project == RESULTS or dataset == RESULTS_SCHEMA:
            return []  # no column of a result is required or hidden, and it has no resource
        key = sql, *(parameters or ())
        return list(self._known(key, lambda: self._fetch(sql, parameters)))

    def objects(
        self, project: str, dataset: str, table: str | None = None
    ) -> list[tuple[str, str, int]]:
        """Return name, kind and number of rows of the tables and views, or of one of them."""
        if project == RESULTS:
            kinds = {table or "": "TABLE"}
        else:
            key = _KINDS, project, dataset
            kinds = self._known(key, lambda: dict(self._fetch(_KINDS, [project, dataset])))
        return [
            (name, kind, count)
            for name, kind in kinds.items()
            if table in {name, None}
            and (count := self._count(project, dataset, name) if kind == "TABLE" else 0) is not None
        ]

    def columns(self, project: str, dataset: str, table: str) -> list[Any]:
        """Return the fields of a table, view or result in their order."""
        place = project, dataset, table
        if dataset == RESULTS_SCHEMA:
            return self._columns(*place)
        return list(self._known(place, lambda: self._columns(*place)))

    def _known[T](self, key: tuple[str, ...], ask: Callable[[], T]) -> T:
        answers = self._answers  # if it is replaced while we ask, the answer may be out of date
        if key not in answers:
            answers[key] = ask()
        answer: T = answers[key]
        return answer

    def _count(self, *place: str) -> int | None:
        """Return the number of rows of a table, or None if there is no such table."""
        try:
            ((count,),) = self._fetch(f"SELECT count(*) FROM {self._quote(*place)}")  # noqa: S608
        except self._not_found:
            return None
        return int(count)
