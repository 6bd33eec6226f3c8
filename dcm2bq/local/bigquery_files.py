"""The files of the local BigQuery: one for each project, in DuckDB's own format.

local-bigquery would keep a project in a DuckLake, which is for large tables on object storage and
takes half the time of a small statement.
"""

import functools
import importlib
from pathlib import Path
from typing import Any

_LEFT_OUT = "geography"
"""Functions that need an extension of 80 MB, which would take a fifth of the time of a start."""


def keep_in_files(database: Any) -> None:
    """Let the module `local_bigquery.engine.database` keep projects in such files."""
    files = ProjectFiles(database)
    database._connect, database._attach = functools.cache(files.connect), files.attach  # noqa: SLF001
    database.projects = files.projects


class ProjectFiles:
    """Opens what `local_bigquery.engine.database`, the module `database`, keeps."""

    def __init__(self, database: Any) -> None:
        self._database, self._settings = database, database.settings
        self._projects = self._settings.data_dir / "projects"

    def connect(self) -> Any:
        """Open the database with BigQuery's functions, and with each project that has a file."""
        duckdb: Any = importlib.import_module("duckdb")
        native: Any = importlib.import_module("local_bigquery.sql.native")
        connection = duckdb.connect(config={"TimeZone": "UTC"})
        self._projects.mkdir(parents=True, exist_ok=True)
        resources = _literal(self._settings.data_dir / "emulator.duckdb")
        connection.execute(f"ATTACH {resources} AS emulator")
        connection.execute(self._database.EMULATOR_SCHEMA)
        connection.execute("ATTACH ':memory:' AS bq")
        native.register(connection)
        _define_functions(connection)
        default = self._settings.default_project_id
        for project in {default, *(file.stem for file in self._projects.glob("*.duckdb"))}:
            self.attach(connection, project)
        dataset = self._database.quote(default, self._settings.default_dataset_id)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {dataset}")
        return connection

    def attach(self, connection: Any, project: str) -> None:
        """Open the file of a project; make it if there is none."""
        file = _literal(self._projects / f"{project}.duckdb")
        name = self._database.quote(project)
        # Since this version, the parameters of table functions can have types.
        connection.execute(f"ATTACH IF NOT EXISTS {file} AS {name} (STORAGE_VERSION 'v1.4.0')")
        self._database._attached.add(project)  # noqa: SLF001

    def projects(self) -> list[str]:
        """Return the names of the projects."""
        return sorted(self._database._attached)  # noqa: SLF001


def _define_functions(connection: Any) -> None:
    dialect: Any = importlib.import_module("local_bigquery.sql.dialect")
    for file in dialect.FUNCTIONS:
        if file.stem != _LEFT_OUT:
            connection.execute(dialect.MACRO.sub(r"CREATE MACRO bq.main.\1", file.read_text()))


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
