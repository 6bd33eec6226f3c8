"""Google's SQL engine in the tests: like BigQuery, compiled once, and required in CI."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import googlesql
from tests.support.googlesql import SqlError, engine

pytestmark = pytest.mark.timeout(googlesql.TIMEOUT)

NO_FUNCTIONS = b"\0asm\1\0\0\0"
"""The smallest WebAssembly module."""


def test_a_query_is_evaluated() -> None:
    rows = engine().query(
        "SELECT id, [name], STRUCT(TRUE AS yes, NULL AS none) FROM UNNEST(@names) AS name"
        " WITH OFFSET AS id WHERE name != @other ORDER BY id",
        names=["a", "b", "c"],
        other="b",
    )
    assert rows == [(0, ["a"], (True, None)), (2, ["c"], (True, None))]


def test_a_statement_of_any_kind_can_be_analysed() -> None:
    found = engine().analyze("CREATE VIEW dataset.view AS SELECT 1 AS one")
    assert "one" in str(found)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT JSON '1' = JSON '1'",
        "SELECT DISTINCT x FROM UNNEST([JSON '1']) AS x",
        "SELECT DISTINCT x FROM (SELECT [1] AS x)",
        "SELECT x FROM UNNEST([JSON '1']) AS x GROUP BY x",
        "SELECT x FROM UNNEST([JSON '1']) AS x ORDER BY x",
        "SELECT ROW_NUMBER() OVER (PARTITION BY x) FROM UNNEST([JSON '1']) AS x",
        "SELECT JSON_VALUE(x, path) FROM (SELECT JSON '1' AS x, '$.a' AS path)",
        "SELECT [1] = [1]",
        "SELECT COUNT(*) FILTER (WHERE TRUE)",
        "SELECT CONCAT('a', 1)",
        "SELECT 1 AS one, one + 1 AS two",
        "SELECT * FROM UNNEST([1]) AS x, LATERAL (SELECT x)",
        "SELECT 1 + 'a'",
        "SELECT missing FROM (SELECT 1 AS one)",
    ],
)
def test_a_statement_that_bigquery_refuses_is_refused(statement: str) -> None:
    with pytest.raises(SqlError):
        engine().analyze(statement)


def test_a_module_is_compiled_once_and_recompiled_if_the_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()
    import wasmtime  # noqa: PLC0415 - it need not be installed

    monkeypatch.setenv(googlesql.CACHE_VARIABLE, str(tmp_path / "cache"))
    source = tmp_path / "least.wasm"
    source.write_bytes(NO_FUNCTIONS)
    machine = wasmtime.Engine()
    with ThreadPoolExecutor(8) as pool:
        modules = list(pool.map(lambda _: googlesql.compiled(machine, source), range(8)))
    assert all(isinstance(module, wasmtime.Module) for module in modules)
    (file,) = (tmp_path / "cache").glob("*.cwasm")
    inode, content = file.stat().st_ino, file.read_bytes()
    googlesql.compiled(machine, source)
    assert file.stat().st_ino == inode
    file.write_bytes(content[:100])
    googlesql.compiled(machine, source)
    assert file.read_bytes() == content
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_the_engine_a_test_is_skipped_but_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "zetasql", None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed: zetasql"):
        engine.__wrapped__()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not installed: zetasql"):
        engine.__wrapped__()
