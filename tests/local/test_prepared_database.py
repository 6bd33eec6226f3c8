"""The tables of a new stack are made once, and copied for each later start."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from dcm2bq import emulators, schema
from dcm2bq.config import Config, from_overrides
from dcm2bq.local import bigquery_program, prepared_database, servers
from dcm2bq.local.prepared_database import MAKERS, MOST_KEPT, PreparedDatabase
from dcm2bq.tools.init import SchemaAction, init
from tests.support.datasets import connect
from tests.support.function_stack import ROOT
from tests.unit.test_architecture import imports

CONFIG = from_overrides({"bigQuery": {"projectId": emulators.PROJECT}})
IMPORTED = {
    "bigquery/row_sink.py",
    "config.py",
    "deadline.py",
    "emulators.py",
    "errors.py",
    "google_errors.py",
    "local/bigquery_jobs.py",
    "schema/__init__.py",
    "secret_manager.py",
    "transport.py",
}
"""Modules that the makers import but that do not decide how a table is made.

The definitions, which `schema` loads, are in the name of a copy themselves.
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the copies, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dcm2bq" / "local"


FILE = Path("bigquery", "data", "projects", "local.duckdb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a server that has something like a database."""
    file = tmp_path / "server" / FILE
    file.parent.mkdir(parents=True)
    file.write_text("tables")
    return tmp_path / "server"


def start(folder: Path) -> tuple[bool, set[SchemaAction]]:
    """Start the BigQuery of a stack and run `init`, which a stack leaves out if it has the tables.

    Return whether it has the tables, and what `init` did to each object.
    """
    prepared = PreparedDatabase(CONFIG)
    with ExitStack() as exits:
        url, has_tables = prepared.start_server(exits, folder)
        dataset = connect(url, CONFIG)
        entries = init(dataset, CONFIG)
        prepared.keep(folder)
        dataset.query("INSERT INTO dead_letter (message_id) VALUES ('x')")
        assert dataset.query("SELECT COUNT(*) AS n FROM dead_letter") == [{"n": 1}]
    return has_tables, {entry.action for entry in entries}


def test_later_starts_begin_with_empty_tables(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the copy has been damaged."""
    monkeypatch.setattr(
        schema, "NAMES", ("tables/instances", "tables/dead_letter")
    )  # views take seconds
    assert start(tmp_path / "first") == (False, {SchemaAction.CREATED})
    assert start(tmp_path / "second") == (True, {SchemaAction.UNCHANGED})
    (file,) = cache.glob("*/projects/*.duckdb")
    file.write_text("damaged")
    assert start(tmp_path / "third") == (False, {SchemaAction.CREATED})
    assert file.read_bytes() != b"damaged"


def test_a_copy_is_not_blamed_if_the_server_does_not_start_without_it_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PreparedDatabase(CONFIG).keep(folder)
    monkeypatch.setattr(bigquery_program, "__file__", "/dev/null")
    with ExitStack() as exits, pytest.raises(servers.ServerError):
        PreparedDatabase(CONFIG).start_server(exits, tmp_path / "new")
    assert PreparedDatabase(CONFIG).lend(tmp_path / "lent")


def test_another_configuration_has_another_copy(folder: Path, tmp_path: Path) -> None:
    PreparedDatabase(CONFIG).keep(folder)
    other = from_overrides({"bigQuery": {"datasetId": "other"}})
    assert not PreparedDatabase(other).lend(tmp_path / "lent")
    assert PreparedDatabase(CONFIG).lend(tmp_path / "lent")
    assert (tmp_path / "lent" / FILE).read_text() == "tables"


def test_no_digest_of_a_key_is_kept(folder: Path, cache: Path) -> None:
    PreparedDatabase(from_overrides({"privacy": {"hash": ["PatientID"]}})).keep(folder)
    assert not cache.exists()


def test_the_copies_are_private_and_few(folder: Path, cache: Path) -> None:
    for number in range(MOST_KEPT + 2):
        PreparedDatabase(from_overrides({"bigQuery": {"datasetId": f"d{number}"}})).keep(folder)
    assert len([*cache.iterdir()]) == MOST_KEPT
    assert cache.stat().st_mode & 0o777 == 0o700


def test_without_a_cache_folder_nothing_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / FILE))  # a file
    prepared = PreparedDatabase(Config())
    prepared.keep(folder)
    assert not prepared.lend(tmp_path / "lent")
    assert not (tmp_path / "lent").exists()


def test_a_module_that_makers_import_makes_tables_or_is_known_not_to() -> None:
    """So that a copy which another version of a module made is never lent."""
    imported = {
        file.relative_to(ROOT / "dcm2bq").as_posix()
        for maker in MAKERS
        for name in imports(ROOT / "dcm2bq" / maker)
        for file in module_files(name)
    }
    assert imported - {*MAKERS} == IMPORTED


def module_files(name: str) -> list[Path]:
    """Return the file of the module of this package that has that name, or that has the name."""
    path = ROOT.joinpath(*name.split("."))
    files = (
        file
        for module in (path, path.parent)
        for file in (module.with_suffix(".py"), module / "__init__.py")
    )
    return [file for file in files if file.is_relative_to(ROOT / "dcm2bq") and file.is_file()][:1]


def test_the_code_of_the_makers_decides_about_the_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PreparedDatabase(CONFIG).keep(folder)
    monkeypatch.setattr(prepared_database, "MAKERS", ("schema/__init__.py", *MAKERS[1:]))
    assert not PreparedDatabase(CONFIG).lend(tmp_path / "lent")
