"""The set-up of the local BigQuery changes what its lookups cost, and nothing that they return."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dcm2bq.local import bigquery_jobs, bigquery_program, servers
from dcm2bq.local.bigquery_catalog import RESULTS, RESULTS_SCHEMA, Catalog

type Save = Callable[..., None]

LISTED = "FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ?"
REQUIRED = f"SELECT column_name {LISTED} AND NOT is_nullable"
SCHEMA = "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?"
PRESENT = f"SELECT 1 {LISTED} AND column_name = ?"
CHANGED = {
    "engine.database": ("_attach", "_connect", "connection", "fetch", "objects", "projects"),
    "catalog.metadata": ("fetch",),
    "catalog.row_access": ("fetch",),
    "catalog.tables": ("columns", "physical"),
    "jobs.store": ("save", "load", "list_", "delete"),
    "sql.rules.information_schema": ("JOBS",),
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
    fetch, objects, columns = database.fetch, database.objects, tables.columns
    bigquery_program.set_up()
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


def test_columns_of_a_view_follow_changes_in_another_project(modules: dict[str, Any]) -> None:
    database, tables = modules["engine.database"], modules["catalog.tables"]
    bigquery_program.set_up()
    database.attach("other")
    database.execute("CREATE TABLE other.main.t AS SELECT 1 AS n")
    database.execute("CREATE VIEW local.main.v AS SELECT * FROM other.main.t")
    (before,) = tables.columns("local", "main", "v")
    database.execute("CREATE OR REPLACE TABLE other.main.t AS SELECT 'x' AS n")
    (after,) = tables.columns("local", "main", "v")
    assert (before.type, after.type) == ("INTEGER", "STRING")


def test_resources_follow_every_change(modules: dict[str, Any]) -> None:
    metadata, row_access = modules["catalog.metadata"], modules["catalog.row_access"]
    models = pytest.importorskip("local_bigquery.models")
    bigquery_program.set_up()
    place = ("local", "d", "t")

    def described() -> tuple[str | None, int]:
        table = metadata.load(models.Table, *place)
        return table and table.description, len(row_access.secured())

    assert described() == (None, 0)
    metadata.save(models.Table(description="first"), *place)
    assert described() == ("first", 0)
    metadata.save(models.Table(description="second"), *place)
    metadata.save(models.RowAccessPolicy(filterPredicate="TRUE"), *place, "policy")
    assert described() == ("second", 1)
    metadata.delete(models.Table, *place)
    metadata.delete(models.RowAccessPolicy, *place)
    assert described() == (None, 0)


@pytest.mark.parametrize("name", [RESULTS, RESULTS_SCHEMA])
def test_datasets_and_tables_are_found_under_the_names_of_results(
    modules: dict[str, Any], name: str
) -> None:
    database, metadata = modules["engine.database"], modules["catalog.metadata"]
    models = pytest.importorskip("local_bigquery.models")
    bigquery_program.set_up()
    database.execute(f"CREATE SCHEMA local.{RESULTS}")
    database.execute(f"CREATE TABLE local.{RESULTS}.{name} (n INTEGER NOT NULL)")
    place = ("local", RESULTS, name)
    metadata.save(models.Table(description="kept"), *place)
    assert database.fetch(SCHEMA, [*place[:2]]) == [(1,)]
    assert database.fetch(REQUIRED, [*place]) == [("n",)]
    assert metadata.load(models.Table, *place).description == "kept"


def test_an_answer_from_before_a_change_is_not_kept(modules: dict[str, Any]) -> None:
    database, tables = modules["engine.database"], modules["catalog.tables"]
    described = tables.columns

    def changed_meanwhile(*place: str) -> Any:
        fields = described(*place)
        if not changes:
            changes.append("ALTER TABLE local.main.t ADD COLUMN b VARCHAR")
            database.execute(changes[0])
        return fields

    changes: list[str] = []
    tables.columns = changed_meanwhile
    bigquery_program.set_up()
    database.execute("CREATE TABLE local.main.t (a INTEGER)")
    before, after = (tables.columns("local", "main", "t") for _ in range(2))
    assert [field.name for field in before] == ["a"]
    assert [field.name for field in after] == ["a", "b"]


@pytest.mark.parametrize(
    ("statement", "keeps"),
    [
        ("SELECT 1", True),
        ("/* A comment. */ /* Another. */\n WITH t AS (SELECT 1) FROM t", True),
        ('INSERT INTO "local"."d"."t" SELECT 1', True),
        ("INSERT OR REPLACE INTO emulator.tables VALUES (?, ?)", False),
        ("DELETE FROM emulator.tables WHERE dataset_id = ?", False),
        ('DELETE FROM "local"."d"."emulator" WHERE TRUE', True),
        (f'CREATE OR REPLACE TABLE "{RESULTS}"."{RESULTS_SCHEMA}"."x" AS SELECT 1', True),
        (f'CREATE OR REPLACE TABLE "local"."{RESULTS}"."x" AS SELECT 1', False),
        ("CREATE OR REPLACE TEMP TABLE t AS SELECT 1", True),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", False),
        ("/* SELECT */ ALTER TABLE t ADD COLUMN b VARCHAR", False),
        ("DROP TABLE IF EXISTS t", False),
        ("COMMIT", False),
    ],
)
def test_only_changes_of_definitions_are_noted(statement: str, *, keeps: bool) -> None:
    asked: list[str] = []

    def columns(*place: str) -> list[Any]:
        asked.append(".".join(place))
        return []

    pytest.importorskip("duckdb")
    catalog = Catalog(SimpleNamespace(fetch=None, quote=None), columns)
    catalog.columns("local", "d", "t")
    catalog.note(statement)
    catalog.columns("local", "d", "t")
    assert asked == ["local.d.t"] * (1 if keeps else 2)


def test_every_project_is_found_again_after_a_restart(modules: dict[str, Any]) -> None:
    database = modules["engine.database"]
    original = database.connection, database.fetch
    bigquery_program.set_up()
    database.attach("example.com:other")
    database.execute('CREATE TABLE "example.com:other".main.t AS SELECT 7 AS n')
    database.connection().close()
    database._connect.cache_clear()
    database._attached.clear()
    database.connection, database.fetch = original
    bigquery_program.set_up()
    assert database.projects() == ["example.com:other", "local"]
    assert database.fetch('FROM "example.com:other".main.t') == [(7,)]


def test_an_insert_waits_for_a_change_of_its_table(modules: dict[str, Any]) -> None:
    database = modules["engine.database"]
    bigquery_program.set_up()
    database.execute("CREATE TABLE local.main.t (a INTEGER)")
    insert = "INSERT INTO local.main.t (a) SELECT 1"
    with database.cursor() as changing, ThreadPoolExecutor(1) as pool:
        changing.execute("BEGIN")
        changing.execute("ALTER TABLE local.main.t ADD COLUMN b INTEGER")
        inserted = pool.submit(database.execute, insert)
        with database.cursor() as other:
            other.execute("BEGIN")
            with pytest.raises(Exception, match="altered by a different transaction"):
                other.execute(insert)
        changing.execute("COMMIT")
        inserted.result()
    assert database.fetch("FROM local.main.t") == [(1, None)]


@pytest.fixture
def save(modules: dict[str, Any]) -> Save:
    """Save a job of the project `local`, and make its result."""
    model = pytest.importorskip("local_bigquery.models").Job

    def save(
        number: int, state: str = "DONE", parent: str | None = None, result: str = "SELECT 1 AS n"
    ) -> None:
        database = modules["engine.database"]
        name = database.quote(RESULTS, RESULTS_SCHEMA, f"local:{number}")
        database.execute(f"CREATE OR REPLACE TABLE {name} AS {result}")
        modules["jobs.store"].save(
            model(
                jobReference={"projectId": "local", "jobId": str(number)},
                status={"state": state},
                statistics={"creationTime": str(number), "parentJobId": parent},
            )
        )

    return save


def with_results(database: Any) -> list[int]:
    """Return the numbers of the jobs that have results."""
    return [
        number
        for number in range(10)
        if database.objects(RESULTS, RESULTS_SCHEMA, f"local:{number}")
    ]


def test_only_the_last_jobs_and_their_results_are_kept(
    modules: dict[str, Any], save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, store = modules["engine.database"], modules["jobs.store"]
    monkeypatch.setattr(bigquery_jobs, "KEPT_JOBS", 2)
    monkeypatch.setattr(bigquery_jobs, "LEAST_KEPT", 1)
    bigquery_program.set_up()

    def identities(*conditions: Any) -> list[str]:
        return [job.jobReference.jobId for job in store.list_("local", *conditions)]

    save(0, state="RUNNING")
    for number in range(1, 4):
        save(number)
    assert identities() == ["3", "2", "0"]
    assert identities(["DONE"]) == identities(None, None, 1) == ["3", "2"]
    assert identities(None, None, None, 2) == ["2", "0"]
    assert store.load("local", "1") is None
    assert store.load("local", "0").status.state == "RUNNING"
    assert with_results(database) == [0, 2, 3]
    save(0)
    save(4, parent="0")
    assert identities(None, "0") == ["4"]
    assert with_results(database) == [0, 4]
    store.delete("local", "0")
    assert identities(None, "0") == identities() == []


def test_large_results_are_dropped_sooner(
    modules: dict[str, Any], save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_jobs, "KEPT_BYTES", 20 << 20)
    monkeypatch.setattr(bigquery_jobs, "LEAST_KEPT", 2)
    bigquery_program.set_up()
    large = "SELECT repeat('x', 1000) || n AS s FROM range(12_000) AS t(n)"
    for number in range(4):
        save(number)
    assert with_results(modules["engine.database"]) == [0, 1, 2, 3]
    save(4, result=large)
    assert with_results(modules["engine.database"]) == [0, 1, 2, 3, 4]
    save(5, result=large)
    assert with_results(modules["engine.database"]) == [4, 5]


def test_the_kept_jobs_can_be_queried(modules: dict[str, Any], save: Save) -> None:
    database = modules["engine.database"]
    bigquery_program.set_up()
    query = pytest.importorskip("local_bigquery.jobs.query")
    statement = "SELECT job_id, state, creation_time FROM `region-us`.INFORMATION_SCHEMA.JOBS"
    asked = pytest.importorskip("local_bigquery.models").JobConfigurationQuery(query=statement)
    shown = []
    for number, state in enumerate(("RUNNING", "DONE")):
        save(number, state=state)
        with database.cursor() as cursor:
            query.execute(cursor, "local", f"after {number}", asked)
        answer = database.quote(RESULTS, RESULTS_SCHEMA, f"local:after {number}")
        shown.append(database.fetch(f"SELECT job_id, state FROM {answer} ORDER BY creation_time"))
    assert shown == [[("0", "RUNNING")], [("0", "RUNNING"), ("1", "DONE")]]


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
