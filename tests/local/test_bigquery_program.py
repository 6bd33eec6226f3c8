"""The set-up of the local BigQuery changes what its lookups cost, and nothing that they return."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcm2bq.local import bigquery_program, servers

COLUMNS = "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ?"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """local-bigquery's module of its database, with one in a new folder."""
    module = pytest.importorskip("local_bigquery.engine.database")
    servers.provide_duckdb_extensions(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module.settings, "data_dir", tmp_path / "data")
    yield module
    module.reset()


def set_up(database: Any) -> SimpleNamespace:
    """Set up a copy of the module."""
    copy = SimpleNamespace(**vars(database))
    bigquery_program.set_up(copy)
    return copy


def test_lookups_find_what_a_scan_of_the_catalog_finds(database: Any) -> None:
    database.execute("CREATE TABLE emulator._results.\"p:a\" AS SELECT 1 AS n, 'x' AS s")
    database.execute('CREATE TABLE emulator._results."p:b" AS SELECT 1 AS n WHERE FALSE')
    database.execute("CREATE SCHEMA local.d")
    database.execute("CREATE TABLE local.d.t (n INTEGER NOT NULL, s VARCHAR)")
    database.execute("CREATE VIEW local.d.v AS SELECT * FROM local.d.t")
    known = set_up(database)
    places = [
        *(("emulator", "_results", name) for name in ("p:a", "p:b", "p:absent")),
        *(("local", "d", name) for name in ("t", "v", "absent", None)),
        ("emulator", "_results", None),
    ]
    for place in places:
        assert known.objects(*place) == database.objects(*place)
        required = f"{COLUMNS} AND NOT is_nullable", [place[0], place[2]]
        assert known.fetch(*required) == database.fetch(*required)
    assert len(known.fetch(f"{COLUMNS} AND NOT is_nullable", ["local", "t"])) == 1


def test_the_settings_hold_for_every_connection(database: Any) -> None:
    set_up(database)
    with database.cursor() as cursor:
        query = "SELECT current_setting('threads'), current_setting('disabled_optimizers')"
        assert cursor.execute(query).fetchone() == (1, "join_order,statistics_propagation")
