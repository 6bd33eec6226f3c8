"""What the local BigQuery looks up for each statement, without a scan of DuckDB's catalog."""

import functools
import importlib
from typing import Any

RESULTS = "query_results"
"""The database, in memory, with the result of each query as a table; no project has `_` in its id.
"""
RESULTS_SCHEMA = "_results"
_KEPT_VIEWS = 2_000
"""Tables and views whose columns are kept: more than a dataset has, for several versions of it."""


class Catalog:
    """What is defined, from DuckLake's metadata rather than from DuckDB's listings.

    For each table and view that a statement names, and for its result, local-bigquery asks these
    listings, and each time DuckDB describes all tables, views and columns of all databases.
    `database` is the module `local_bigquery.engine.database`.
    """

    def __init__(self, database: Any) -> None:
        self._fetch, self._quote = database.fetch, database.quote
        self._projects: set[str] = database._attached  # noqa: SLF001 - not to query for them
        self._not_found = importlib.import_module("duckdb").CatalogException

    def fetch(self, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; look up in the metadata what it asks of one table.

        That is which columns are required or, with a fourth parameter, whether one is there.
        """
        if " FROM duckdb_columns() " not in sql or not parameters:
            rows: list[tuple[Any, ...]] = self._fetch(sql, parameters)
            return rows
        project, dataset, table, *column = parameters
        if project == RESULTS:
            return []  # no column of a result is required or hidden
        return self._metadata(
            project,
            """SELECT column_name FROM {0}.ducklake_column c
            JOIN {0}.ducklake_table t USING (table_id)
            JOIN {0}.ducklake_schema s USING (schema_id)
            WHERE schema_name = $1 AND table_name = $2 AND parent_column IS NULL
            AND CASE WHEN $3 IS NULL THEN NOT nulls_allowed ELSE column_name = $3 END
            AND c.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL""",
            [dataset, table, *(column or [None])],
        )

    def objects(
        self, project: str, dataset: str, table: str | None = None
    ) -> list[tuple[str, str, int]]:
        """Return name, kind and number of rows of the tables and views, or of one of them."""
        if project == RESULTS:
            return self._results(dataset, table or "")
        return self._metadata(
            project,
            """SELECT table_name, 'TABLE', coalesce(record_count, 0) FROM {0}.ducklake_table t
            JOIN {0}.ducklake_schema s USING (schema_id)
            LEFT JOIN {0}.ducklake_table_stats USING (table_id)
            WHERE schema_name = $1 AND table_name = coalesce($2, table_name)
            AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
            UNION ALL SELECT view_name, 'VIEW', 0 FROM {0}.ducklake_view v
            JOIN {0}.ducklake_schema s USING (schema_id)
            WHERE schema_name = $1 AND view_name = coalesce($2, view_name)
            AND v.end_snapshot IS NULL AND s.end_snapshot IS NULL ORDER BY 1""",
            [dataset, table],
        )

    def schema_versions(self) -> tuple[int, ...]:
        """Return numbers that change with each definition of a project, not with its rows.

        They are those of all projects in use, since a view may read tables of another project.
        """
        sql = "SELECT max(schema_version) FROM {0}.ducklake_snapshot"
        return tuple(self._metadata(project, sql, [])[0][0] for project in sorted(self._projects))

    def _results(self, dataset: str, table: str) -> list[tuple[str, str, int]]:
        name = self._quote(RESULTS, dataset, table)
        try:
            ((count,),) = self._fetch(f"SELECT count(*) FROM {name}")  # noqa: S608
        except self._not_found:
            return []
        return [(table, "TABLE", count)]

    def _metadata(self, project: str, sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._fetch(
                sql.format(self._quote(f"__ducklake_metadata_{project}")), parameters
            )
        except self._not_found:  # no such project
            return []
        return rows


class KnownColumns:
    """The columns of a table or view; asked for by every statement, and the same until a change."""

    def __init__(self, catalog: Catalog, columns: Any) -> None:
        self._catalog, self._columns = catalog, columns
        self._at = functools.lru_cache(_KEPT_VIEWS)(self._columns_at)

    def __call__(self, project: str, dataset: str, table: str) -> list[Any]:
        """Return the fields in their order."""
        if dataset == RESULTS_SCHEMA:
            fields: list[Any] = self._columns(project, dataset, table)
            return fields
        return list(self._at(self._catalog.schema_versions(), project, dataset, table))

    def _columns_at(self, _versions: tuple[int, ...], *table: str) -> list[Any]:
        fields: list[Any] = self._columns(*table)
        return fields
