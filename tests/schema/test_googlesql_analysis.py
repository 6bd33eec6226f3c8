"""Google's own engine accepts every definition and statement, and the schema files match it."""

from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.tools.report.questions import OVERVIEW, SECTIONS, Question
from tests.support import googlesql, product_sql
from tests.support.catalog import DatasetCatalog, columns_of, whole_dataset
from tests.support.googlesql import SqlError, engine
from tests.support.googlesql_views import evaluate

pytestmark = pytest.mark.timeout(googlesql.TIMEOUT)

DEFINITIONS = {definition.name: definition for definition in schema.load(Config(), "project")}
STATEMENTS = product_sql.statements()
QUESTIONS = [OVERVIEW, *(question for section in SECTIONS for question in section.questions)]


@pytest.fixture(scope="module")
def catalog() -> DatasetCatalog:
    """The dataset, and the table of keys that a verification or a backfill makes."""
    catalog = whole_dataset()
    columns = dict.fromkeys(("shard", "marker", "members", "expanded"), "INTEGER")
    columns |= dict.fromkeys(("path", "version", "reason"), "STRING")
    columns |= dict.fromkeys(("dismissed", "known"), "BOOLEAN")
    fields: list[Any] = [{"name": name, "type": kind} for name, kind in columns.items()]
    catalog.add_resource(fields, [product_sql.KEYS_TABLE])
    return catalog


@pytest.mark.parametrize(
    "definition",
    [definition for definition in DEFINITIONS.values() if definition.kind is DefinitionKind.VIEW],
    ids=lambda each: each.name,
)
def test_a_view_has_the_columns_of_its_schema_file(
    catalog: DatasetCatalog, definition: Definition
) -> None:
    """The same names and types, in the same order, inside RECORDs and arrays as well."""
    assert catalog.columns[definition.name] == columns_of(definition.resource["schema"]["fields"])


def test_table_functions_have_the_columns_of_instances_live(catalog: DatasetCatalog) -> None:
    live = columns_of(DEFINITIONS["instances_live"].resource["schema"]["fields"])
    change = columns_of([{"name": "change", "type": "STRING"}])
    assert catalog.columns["study"] == live
    assert catalog.columns["ingested_between"] == live
    assert catalog.columns["changes_between"] == change + live


@pytest.mark.parametrize(
    "definition",
    [definition for definition in DEFINITIONS.values() if "columns" in definition.resource],
    ids=lambda each: each.name,
)
def test_a_table_function_has_the_columns_that_its_file_describes(
    catalog: DatasetCatalog, definition: Definition
) -> None:
    assert catalog.columns[definition.name] == columns_of(definition.resource["columns"])


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=lambda each: each.name)
def test_every_definition_can_be_evaluated(definition: Definition) -> None:
    arguments = {
        argument["name"]: "2024-01-01" for argument in definition.resource.get("arguments", [])
    }
    if definition.name == "objects_live":
        with pytest.raises(SqlError, match="run dcm2bq refresh"):
            evaluate("SELECT * FROM objects_live")
        return
    assert evaluate(f"SELECT * FROM {definition.name}", arguments=arguments) == []


def test_a_difference_in_names_types_or_order_is_detected(catalog: DatasetCatalog) -> None:
    fields = DEFINITIONS["studies"].resource["schema"]["fields"]
    columns = catalog.columns["studies"]
    assert columns != columns_of([{**fields[0], "name": "Study"}, *fields[1:]])
    assert columns != columns_of([{**fields[0], "type": "BYTES"}, *fields[1:]])
    assert columns != columns_of([fields[1], fields[0], *fields[2:]])
    assert columns != columns_of([{**field, "mode": "NULLABLE"} for field in fields])


@pytest.mark.parametrize(("place", "statement"), STATEMENTS, ids=[place for place, _ in STATEMENTS])
def test_a_statement_of_the_product_is_valid(
    catalog: DatasetCatalog, place: str, statement: str
) -> None:
    assert engine().analyze(statement, catalog.catalog), place


def test_the_scheduled_refresh_is_valid(catalog: DatasetCatalog) -> None:
    """The engine analyses no scripts: the variable is a constant of the catalogue instead."""
    script = product_sql.scheduled_refresh()
    engine().check_script(script)
    with pytest.raises(SqlError, match="Syntax error"):
        engine().check_script(script.replace("DEFAULT (", "DEFAULT"))

    declaration, merge = script.split(";\n")
    _, first, since = declaration.partition("DECLARE since TIMESTAMP DEFAULT (")
    assert first
    (column,) = (
        engine()
        .analyze(since.rstrip().removesuffix(")"), catalog.catalog)
        .resolved_query_stmt_node.output_column_list
    )
    with pytest.raises(SqlError, match="Unrecognized name: since"):  # so no column hides it
        engine().analyze(merge, catalog.catalog)
    with_variable = type(catalog.catalog)()
    with_variable.CopyFrom(catalog.catalog)
    variable = with_variable.constant.add(name_path=["since"], type=column.column.type)
    variable.value.timestamp_value.seconds = 0
    assert engine().analyze(merge, with_variable)


def test_the_statements_of_every_module_are_found() -> None:
    assert {place.partition(":")[0] for place, _ in STATEMENTS} == {
        "dcm2bq/local/summary.py",
        "dcm2bq/tools/backfill/listed_paths.py",
        "dcm2bq/tools/compact.py",
        "dcm2bq/tools/dead_letters.py",
        "dcm2bq/tools/key_layout.py",
        "dcm2bq/tools/refresh.py",
        "dcm2bq/tools/trial/sightings.py",
        "dcm2bq/tools/verify/key_ranges.py",
        "dcm2bq/tools/verify/late_markers.py",
        "dcm2bq/tools/verify/repair.py",
    }
    assert product_sql.skipped() == product_sql.NOT_OURS


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_question_of_the_report_gives_the_columns_that_it_names(
    catalog: DatasetCatalog, question: Question
) -> None:
    statement = question.query({"instances": "instances", "enough": 3})
    query = engine().analyze(statement, catalog.catalog).resolved_query_stmt_node
    assert [column.name for column in query.output_column_list] == list(question.headings)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT DISTINCT metadata FROM dicom.instances_live", "DISTINCT"),
        ("SELECT COUNT(*) FROM dicom.instances_live GROUP BY metadata", "Grouping"),
        ("SELECT path FROM dicom.instances_live ORDER BY metadata", "ORDER BY"),
        (
            "SELECT ROW_NUMBER() OVER (PARTITION BY metadata) FROM dicom.instances_live",
            "Partitioning",
        ),
        (
            "SELECT 1 FROM dicom.instances AS a JOIN dicom.study('1') AS b USING (metadata)",
            "JSON",
        ),
        ("SELECT JSON_VALUE(metadata, path) FROM dicom.instances", "literal"),
        ("SELECT DISTINCT ModalitiesInStudy FROM dicom.studies", "DISTINCT"),
        ("SELECT path FROM dicom.instances WHERE version > 5", "operator >"),
        ("SELECT path FROM dicom.instances WHERE ingested_at = DATE '2024-01-01'", "operator ="),
        ("SELECT NoSuchColumn FROM dicom.instances_live", "NoSuchColumn"),
        ("SELECT info.nothing FROM dicom.instances_live", "nothing"),
        ("SELECT path FROM dicom.nothing", "not found"),
        ("SELECT path FROM dicom.study(5)", "study"),
        ("SELECT path FROM dicom.study()", "study"),
        ("SELECT path FROM dicom.study('1', '2')", "study"),
        ("SELECT path FROM dicom.no_function('1')", "no_function"),
        ("SELECT NO_FUNCTION(path) FROM dicom.instances", "NO_FUNCTION"),
        ("CREATE VIEW dicom.view AS SELECT path FROM dicom.nothing", "not found"),
        ("CREATE VIEW dicom.view AS SELECT nothing FROM dicom.instances", "nothing"),
        ("CREATE TABLE dicom.new (a NO_TYPE)", "NO_TYPE"),
        (
            "CREATE TABLE FUNCTION dicom.new(a NO_TYPE) AS SELECT path FROM dicom.instances",
            "NO_TYPE",
        ),
        ("CREATE WIDGET dicom.new AS SELECT 1", "WIDGET"),
        ("INSERT INTO dicom.instances (path, version) VALUES ('a', 1)", "type"),
        ("INSERT INTO dicom.instances (nothing) VALUES ('a')", "nothing"),
        ("UPDATE dicom.instances SET path = 1 WHERE TRUE", "type"),
    ],
)
def test_a_wrong_statement_about_the_dataset_is_refused(
    catalog: DatasetCatalog, statement: str, message: str
) -> None:
    with pytest.raises(SqlError, match=message):
        engine().analyze(statement, catalog.catalog)
