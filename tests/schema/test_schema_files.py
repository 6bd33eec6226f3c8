"""The schema files: readable by Python and Terraform, complete, and fully qualified."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from dcm2bq import schema
from dcm2bq.bigquery.dataset import ERRORS_OF_VIEWS
from dcm2bq.config import Config, from_overrides
from dcm2bq.schema import Definition, DefinitionKind

FOLDER = Path(schema.__file__).parent
NAME_PLACEHOLDERS = {"${project}", "${dataset}", "${instances}", "${dead_letter}", "${since}"}
FILES = [path for path in sorted(FOLDER.rglob("*.*")) if path.suffix in {".json", ".sql"}]
FRAGMENTS = [file.rpartition("/")[2] for file in schema.FRAGMENTS]
PLACEHOLDERS = NAME_PLACEHOLDERS | {f"${{{name}}}" for name in FRAGMENTS}
DEFINITIONS = {definition.name: definition for definition in schema.load(Config(), "my-project")}


def queries() -> list[Definition]:
    return [definition for definition in DEFINITIONS.values() if definition.sql is not None]


def unqualified(sql: str) -> set[str]:
    """Return the tables that a query names without project and dataset."""
    tree = sqlglot.parse_one(sql, dialect="bigquery")
    named = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = [
        table_node
        for table_node in tree.find_all(exp.Table)
        if table_node.db or table_node.name not in named
    ]
    assert tables
    return {table.sql() for table in tables if not (table.catalog and table.db)}


def columns(fields: list[dict[str, Any]], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for field in fields:
        yield prefix + field["name"], field
        yield from columns(field.get("fields", []), f"{prefix}{field['name']}.")


def test_every_schema_file_is_loaded() -> None:
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES}
    assert files == {*schema.NAMES, *schema.FRAGMENTS, *schema.STATEMENTS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python_and_terraform_substitute_the_same_names(path: Path) -> None:
    """`string.Template` and `templatefile` differ in every other use of `$` and in `%{`.

    A fragment is no template: only regular expressions in it have a `$`.
    """
    text = path.read_text()
    if path.stem in FRAGMENTS:
        assert "${" not in text
        return
    assert set(re.findall(r"\$\{\w+\}|\$", text)) <= PLACEHOLDERS
    assert "%{" not in text


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_every_fragment_is_shared(fragment: str) -> None:
    users = [path for path in FILES if f"${{{fragment}}}" in path.read_text()]
    assert len(users) > 1


def test_names_come_from_the_configuration() -> None:
    config = from_overrides(
        {"bigQuery": {"datasetId": "d", "instancesTableId": "i", "deadLetterTableId": "x"}}
    )
    definitions = {definition.name: definition for definition in schema.load(config, "p")}
    assert list(definitions)[:2] == ["i", "x"]
    assert definitions["i"].qualified_name == "p.d.i"
    assert definitions["i"].resource["tableReference"] == {
        "projectId": "p",
        "datasetId": "d",
        "tableId": "i",
    }
    assert definitions["study"].resource["routineReference"]["datasetId"] == "d"
    tables = {
        table.sql()
        for definition in definitions.values()
        for table in sqlglot.parse_one(definition.sql or "SELECT 1", dialect="bigquery").find_all(
            exp.Table
        )
        if table.db
    }
    named = {re.split(" AS ", table)[0].replace('"', "") for table in tables}
    assert {"p.d.i", "p.d.x", "p.d.instances_live", "p.d.dead_letters"} <= named
    assert named <= {definition.qualified_name for definition in definitions.values()}


@pytest.mark.parametrize("definition", queries(), ids=lambda each: each.name)
def test_every_table_name_in_a_query_is_fully_qualified(definition: Definition) -> None:
    """BigQuery refuses other names in views; the local one takes them."""
    assert definition.sql is not None
    assert unqualified(definition.sql) == set()


def test_an_unqualified_table_name_is_detected() -> None:
    sql = "WITH a AS (SELECT * FROM p.d.t) SELECT * FROM a WHERE EXISTS (SELECT 1 FROM d.t)"
    assert unqualified(sql) == {"d.t"}


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=lambda each: each.name)
def test_every_object_and_column_has_a_description(definition: Definition) -> None:
    assert len(definition.resource["description"]) > 20
    described = definition.resource.get("columns") or []
    described += definition.resource.get("schema", {}).get("fields", [])
    for name, column in columns(described):
        assert column["description"], name
        assert len(column["description"]) <= 1024, name


@pytest.mark.parametrize("definition", queries(), ids=lambda each: each.name)
def test_the_json_of_views_and_functions_contains_no_query(definition: Definition) -> None:
    (file,) = FOLDER.glob(f"*/**/{definition.name}.json")
    raw = json.loads(file.read_text())
    assert raw.keys() & {"view", "definitionBody"} == set()


@pytest.mark.parametrize("definition", queries(), ids=lambda each: each.name)
def test_view_columns_are_never_required(definition: Definition) -> None:
    """BigQuery refuses any other mode on a view's columns."""
    for name, column in columns(definition.resource.get("schema", {}).get("fields", [])):
        assert column["mode"] in {"NULLABLE", "REPEATED"}, name


def test_instances_live_has_the_columns_of_instances() -> None:
    def shape(name: str) -> list[tuple[str, str, bool]]:
        fields = DEFINITIONS[name].resource["schema"]["fields"]
        return [(c, f["type"], f["mode"] == "REPEATED") for c, f in columns(fields)]

    assert shape("instances_live") == shape("instances")


def test_dead_letter_has_the_columns_that_pub_sub_writes() -> None:
    """The columns of a BigQuery subscription with metadata; none may be REQUIRED."""
    fields: list[Mapping[str, Any]] = DEFINITIONS["dead_letter"].resource["schema"]["fields"]
    assert [(field["name"], field["type"], field["mode"]) for field in fields] == [
        ("subscription_name", "STRING", "NULLABLE"),
        ("message_id", "STRING", "NULLABLE"),
        ("publish_time", "TIMESTAMP", "NULLABLE"),
        ("attributes", "STRING", "NULLABLE"),
        ("data", "BYTES", "NULLABLE"),
    ]


def test_instances_is_partitioned_and_clustered() -> None:
    table = DEFINITIONS["instances"].resource
    assert table["timePartitioning"] == {"type": "MONTH", "field": "ingested_at"}
    assert table["clustering"]["fields"] == [
        "event",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ]


def test_objects_are_created_after_those_they_read() -> None:
    """Each object comes after those it reads, and functions come last."""
    seen: set[str] = set()
    for definition in DEFINITIONS.values():
        tree = sqlglot.parse_one(definition.sql or "SELECT 1", dialect="bigquery")
        assert {table_node.name for table_node in tree.find_all(exp.Table) if table_node.db} <= seen
        seen.add(definition.name)
    kinds = [definition.kind for definition in DEFINITIONS.values()]
    assert kinds == sorted(kinds, key=list(DefinitionKind).index)


def test_the_ddl_of_a_table_function() -> None:
    lines = DEFINITIONS["ingested_between"].ddl.splitlines()
    assert lines[0] == (
        "CREATE OR REPLACE TABLE FUNCTION `my-project.dicom.ingested_between`"
        "(since TIMESTAMP, until TIMESTAMP)"
    )
    assert lines[1].startswith('OPTIONS (description = "The rows of instances_live')


def test_the_errors_of_views_that_may_be_shown_are_those_that_views_raise() -> None:
    """Texts without a value: a call with anything but a literal is not found by the expression."""
    sql = "".join(file.read_text() for file in FILES if file.suffix == ".sql")
    assert re.findall(r"\bERROR\(\s*'([^']*)'\s*\)", sql) == [*ERRORS_OF_VIEWS]
    assert len(re.findall(r"\bERROR\(", sql)) == len(ERRORS_OF_VIEWS)
