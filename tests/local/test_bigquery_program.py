"""The set-up of the local BigQuery changes what its lookups cost, and nothing that they return."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dcm2bq.local import bigquery_program, servers
from dcm2bq.local.bigquery_catalog import RESULTS, RESULTS_SCHEMA

LISTED = "FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ?"
REQUIRED = f"SELECT column_name {LISTED} AND NOT is_nullable"
PRESENT = f"SELECT 1 {LISTED} AND column_name = ?"
CHANGED = {
    "engine.database": ("connection", "fetch", "objects"),
    "catalog.tables": ("columns", "physical"),
    "jobs.store": ("save", "load", "list_", "delete"),
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of local-bigquery that the set-up changes, with a database in a new folder."""
    changed: dict[str, ModuleType] = {}
    for name, attributes in CHANGED.items():
        changed[name] = pytest.importorskip(f"local_bigquery.{name}")
        for attribute in attributes:
            monkeypatch.setattr(changed[name], attribute, getattr(changed[name], attribute))
    database: Any = changed["engine.database"]
    servers.provide_duckdb_extensions(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(database.settings, "data_dir", tmp_path / "data")
    yield dict(changed)
    database.reset()


def test_lookups_find_what_a_scan_of_the_catalog_finds(modules: dict[str, Any]) -> None:
    database, tables = modules["engine.database"], modules["catalog.tables"]
    for statement in (
        "CREATE SCHEMA local.d",
        "CREATE TABLE local.d.t (n INTEGER NOT NULL, s VARCHAR, r STRUCT(n INTEGER))",
        "INSERT INTO local.d.t VALUES (1, 'x', NULL), (2, 'y', NULL)",
        "CREATE VIEW local.d.v AS SELECT * FROM local.d.t",
        "CREATE TABLE local.d.dropped (n INTEGER NOT NULL)",
        "DROP TABLE local.d.dropped",
        "CREATE TABLE local.d.altered (n INTEGER NOT NULL)",
        "ALTER TABLE local.d.altered ALTER n DROP NOT NULL",
        "CREATE SCHEMA local.e",
        "CREATE VIEW local.e.t AS SELECT 1 AS other",
    ):
        database.execute(statement)
    fetch, objects, columns = database.fetch, database.objects, tables.columns
    bigquery_program.set_up()
    for dataset in ("d", "e", "absent"):
        assert database.objects("local", dataset) == objects("local", dataset)
        for table in ("t", "v", "dropped", "altered", "absent"):
            place = ("local", dataset, table)
            assert database.objects(*place) == objects(*place)
            assert database.fetch(REQUIRED, list(place)) == fetch(REQUIRED, list(place))
            for column in ("n", "absent") if dataset == "d" and table != "v" else ():
                present = PRESENT, [*place, column]
                assert bool(database.fetch(*present)) == bool(fetch(*present))
            if objects(*place):
                assert tables.columns(*place) == columns(*place) == tables.columns(*place)
    assert database.objects("local", "d", "t") == [("t", "TABLE", 2)]
    assert database.fetch(REQUIRED, ["local", "d", "t"]) == [("n",)]


def test_columns_follow_every_change_of_a_definition(modules: dict[str, Any]) -> None:
    database, tables = modules["engine.database"], modules["catalog.tables"]
    bigquery_program.set_up()
    database.execute("CREATE SCHEMA local.d")
    database.execute("CREATE TABLE local.d.t (a INTEGER)")
    database.execute("CREATE VIEW local.d.v AS SELECT a FROM local.d.t")

    def names(table: str) -> list[str]:
        return [field.name for field in tables.columns("local", "d", table)]

    assert (names("t"), names("v")) == (["a"], ["a"])
    database.execute("ALTER TABLE local.d.t ADD COLUMN b VARCHAR")
    database.execute("CREATE OR REPLACE VIEW local.d.v AS SELECT a, b FROM local.d.t")
    assert (names("t"), names("v")) == (["a", "b"], ["a", "b"])
    database.execute("DROP VIEW local.d.v")
    with pytest.raises(Exception, match="Not found: Table local:d\\.v"):
        names("v")


def test_only_the_last_jobs_and_their_results_are_kept(
    modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store = modules["engine.database"], modules["jobs.store"]
    monkeypatch.setattr(bigquery_program, "KEPT_JOBS", 2)
    bigquery_program.set_up()
    model = pytest.importorskip("local_bigquery.models").Job

    def save(number: int, state: str = "DONE", parent: str | None = None) -> None:
        store.save(
            model(
                jobReference={"projectId": "p", "jobId": str(number)},
                status={"state": state},
                statistics={"creationTime": str(number), "parentJobId": parent},
            )
        )
        name = database.quote(RESULTS, RESULTS_SCHEMA, f"p:{number}")
        database.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT 1 AS n")

    def identities(*conditions: Any) -> list[str]:
        return [job.jobReference.jobId for job in store.list_("p", *conditions)]

    for number in range(1, 4):
        save(number)
    save(3, state="RUNNING")
    assert identities() == ["3", "2"]
    assert identities(["DONE"]) == identities(None, None, None, 2) == ["2"]
    assert store.load("p", "1") is None
    assert store.load("p", "3").status.state == "RUNNING"
    kept = [bool(database.objects(RESULTS, RESULTS_SCHEMA, f"p:{number}")) for number in (1, 2, 3)]
    assert kept == [False, True, True]
    save(4, parent="3")
    assert identities(None, "3") == ["4"]
    store.delete("p", "3")
    assert identities(None, "3") == identities() == []


def test_the_settings_hold_for_every_connection(modules: dict[str, Any]) -> None:
    bigquery_program.set_up()
    with modules["engine.database"].cursor() as cursor:
        query = "SELECT current_setting('threads'), current_setting('disabled_optimizers')"
        assert cursor.execute(query).fetchone() == (1, "join_order,statistics_propagation")


def test_a_connection_knows_its_temporary_tables(modules: dict[str, Any]) -> None:
    bigquery_program.set_up()
    question = "SELECT table_name FROM duckdb_tables() WHERE temporary"
    with modules["engine.database"].cursor() as cursor:
        assert cursor.sql(question).fetchall() == []
        cursor.execute("CREATE TEMP TABLE t AS SELECT 1 AS n")
        assert cursor.sql(question).fetchall() == [("t",)]
        assert cursor.sql("SELECT $n AS n", params={"n": 7}).fetchall() == [(7,)]


def test_a_query_that_is_asked_again_is_described_and_run_anew(modules: dict[str, Any]) -> None:
    bigquery_program.set_up()
    with modules["engine.database"].cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t AS SELECT 1 AS n")
        first, second = cursor.sql("FROM t"), cursor.sql("FROM t")
        assert first.columns == second.columns == ["n"]
        assert first.types == second.types
        assert [relation.fetchall() for relation in (first, second, second)] == [[(1,)]] * 3
        cursor.execute("CREATE OR REPLACE TEMP TABLE t AS SELECT 'x' AS s")
        assert cursor.sql("FROM t").columns == ["s"]
