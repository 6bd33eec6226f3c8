"""docs/SCHEMA.md matches the schema files, and its queries run, like those of other pages.

Google's own engine analyses every statement that a page or a help text shows.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.tools import compact, refresh
from tests.support import googlesql, pages
from tests.support.catalog import DatasetCatalog, whole_dataset
from tests.support.googlesql import engine

PAGE = Path(__file__).parents[2] / "docs" / "SCHEMA.md"
BEGIN, END = "<!-- columns -->\n", "<!-- end of columns -->\n"
OPERATIONS = (PAGE.parent / "OPERATIONS.md").read_text()
OPERATORS_QUERIES = [
    *re.findall(r"```sql\n(SELECT.*?)```", OPERATIONS, re.DOTALL),
    *re.findall(r"`(SELECT [^`]+)`", OPERATIONS),
]
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
STATEMENTS = pages.statements()
ELSEWHERE = [
    statement
    for place, statement in STATEMENTS
    if place not in {"SCHEMA.md", "OPERATIONS.md", "MIGRATION.md", "ANALYSIS.md", "FOR_ANALYSTS.md"}
]
"""The statements of other pages and of help texts; tests/deploy runs those of MIGRATION.md, and
tests/analysis those of ANALYSIS.md and FOR_ANALYSTS.md."""

Insert = Callable[..., None]
MakeRow = Callable[..., dict[str, Any]]


def columns() -> str:
    """Return every table, view and function with its columns, as Markdown."""
    definitions = schema.load(Config(), "project")
    return "\n".join(line for definition in definitions for line in _section(definition))


def _section(definition: Definition) -> Iterator[str]:
    resource = definition.resource
    arguments = ""
    if definition.kind is DefinitionKind.FUNCTION:
        pairs = [
            f"{argument['name']} {argument['dataType']['typeKind']}"
            for argument in resource["arguments"]
        ]
        arguments = f"({', '.join(pairs)})"
    yield from ("", f"### `{definition.name}{arguments}` ({definition.kind})")
    yield from ("", resource["description"], "")
    if definition.name == "changes_between":
        yield "Its columns are `change` (STRING) and those of `instances_live`."
        return
    described = resource.get("columns") or resource.get("schema", {}).get("fields")
    if not described:
        yield "Its columns are those of `instances_live`."
        return
    yield from ("| column | type | |", "|---|---|---|")
    yield from _rows(described)


def _rows(fields: list[Mapping[str, Any]], prefix: str = "") -> Iterator[str]:
    for field in fields:
        mode = {"NULLABLE": "", "REQUIRED": ", required", "REPEATED": ", repeated"}[field["mode"]]
        yield f"| `{prefix}{field['name']}` | {field['type']}{mode} | {field['description']} |"
        yield from _rows(field.get("fields", []), f"{prefix}{field['name']}.")


def page() -> str:
    """Return the page with newly generated column tables."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}{columns()}\n\n{END}{rest.split(END)[1]}"


def test_the_column_tables_match_the_schema_files() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.schema.test_schema_docs"


@pytest.fixture(scope="module")
def filled(refreshed: Dataset, insert: Insert, row: MakeRow) -> Dataset:
    """A study for which every query returns rows."""
    header = """{"Manufacturer": "Acme", "InstanceNumber": 1, "SliceThickness": 5.0,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "WindowCenter": 40,
        "AcquisitionTime": "093015.25",
        "ProcedureCodeSequence": [{"CodeMeaning": "Knee"}],
        "PixelData": {"BulkDataURI": "?offset=1&length=2"}}"""
    info = {"warnings": ["odd"], "input": {"size": 5}}
    counts = {"members": 3, "instances": 1, "dead_letters": 1, "others": 1}
    about: dict[str, Any] = {"metadata": header, "info": info, "study": "1.2.3", "PatientID": "P"}
    insert(
        refreshed,
        "instances",
        row("gs://bucket/a.dcm", 2, PatientName="Doe^Jane", **about),
        row("gs://bucket/copy.dcm", 1, PatientName="DOE^JANE", **about),
        row("gs://bucket/no uid.dcm", 1, metadata="{}", series=None, instance=None),
        row("gs://bucket/gone.dcm", 1, **about),
        row("gs://bucket/gone.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/bad.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/forged.dcm", 2**62, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/half.dcm", 1, **about),
        row("gs://bucket/half.dcm", 2, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/half.dcm", 3, **about),
        row("gs://bucket/notified.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/wide.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://other/bad.dcm", 1, "deleted", study=None, series=None, instance=None),
        *(
            row(f"gs://bucket/{name}.zip", 1, event, study=None, series=None, instance=None, info=i)
            for name, event, i in (
                ("full", "expanded", {"archive": counts}),
                ("gone", "expanded", {"archive": counts}),
                ("gone", "deleted", None),
            )
        ),
        row("gs://planted", 9 * 10**15, "deleted", study=None, series=None, instance=None),
    )
    notified = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": "bucket",
        "objectId": "notified.dcm",
        "objectGeneration": "1",
    }
    letters = {
        name: f'{{"bucket": "bucket", "name": "{name}", "generation": 1{wide}}}'
        for name, wide in (("bad.dcm", ""), ("worse.dcm", ""), ("wide.dcm", f', "w": {"9" * 40}.5'))
    }
    insert(
        refreshed,
        "dead_letter",
        *(
            {
                "message_id": name,
                "publish_time": "2024-01-01T00:00:00Z",
                "attributes": '{"ce-type": "google.cloud.storage.object.v1.finalized"}',
                "data": _base64(data),
            }
            for name, data in letters.items()
        ),
        {
            "message_id": "notified.dcm",
            "publish_time": "2024-01-01T00:00:00Z",
            "attributes": json.dumps(notified),
        },
    )
    refresh.refresh(refreshed, from_overrides({"bigQuery": {"datasetId": refreshed.dataset_id}}))
    return refreshed


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def run(dataset: Dataset, query: str) -> list[dict[str, Any]]:
    return dataset.query(re.sub(r"\bdicom\.", f"{dataset.name}.", query))


def state(dataset: Dataset) -> list[dict[str, Any]]:
    live = "SELECT path, version, TO_JSON_STRING(metadata) AS metadata FROM dicom.instances_live"
    letters = "SELECT path, version, CAST(attempts AS STRING) FROM dicom.dead_letters"
    return [*run(dataset, f"{live} ORDER BY path"), *run(dataset, f"{letters} ORDER BY path")]


@pytest.mark.parametrize(
    "query",
    [query for query in QUERIES if query.startswith(("SELECT", "WITH"))],
    ids=lambda each: each[:40],
)
def test_a_cookbook_query_returns_rows(filled: Dataset, query: str) -> None:
    found = run(filled, query)
    assert found
    assert all(any(value not in (None, []) for value in row.values()) for row in found)


@pytest.mark.parametrize("query", OPERATORS_QUERIES, ids=lambda each: each[:60])
def test_an_operations_query_returns_rows(filled: Dataset, query: str) -> None:
    name = "worse.dcm" if "dead_letters" in query else "a.dcm"
    assert run(filled, query.replace("gs://BUCKET/NAME", f"gs://bucket/{name}"))


@pytest.mark.parametrize("query", ELSEWHERE, ids=lambda each: each[:60])
def test_a_query_of_another_page_or_help_text_runs(filled: Dataset, query: str) -> None:
    assert query.startswith("SELECT")
    assert isinstance(run(filled, query), list)


@pytest.fixture(scope="module")
def tables() -> DatasetCatalog:
    """The dataset, and the tables of the older service that MIGRATION.md mentions."""
    found = whole_dataset()
    common = [
        {"name": "timestamp", "type": "TIMESTAMP"},
        {"name": "path", "type": "STRING"},
        {"name": "version", "type": "STRING"},
        {"name": "metadata", "type": "JSON"},
    ]
    about = [{"name": name, "type": "STRING"} for name in ("type", "storageClass")]
    record = [
        {"name": "event", "type": "STRING"},
        {
            "name": "input",
            "type": "RECORD",
            "fields": [{"name": "size", "type": "INTEGER"}, *about],
        },
    ]
    info: list[dict[str, Any]] = [{"name": "info", "type": "RECORD", "fields": record}]
    found.add_resource([*common, *info], ["old", "instances"])
    found.add_resource([*common, {"name": "info", "type": "JSON"}], ["old", "metadata"])
    letters = next(
        definition for definition in schema.load(Config(), "p") if definition.name == "dead_letter"
    )
    found.add_resource(letters.resource["schema"]["fields"], ["old", "dead_letter"])
    live = next(
        definition
        for definition in schema.load(Config(), "p")
        if definition.name == "instances_live"
    )
    found.add_resource(live.resource["schema"]["fields"], ["research", "headers"])  # a copy of it
    return found


@pytest.mark.timeout(googlesql.TIMEOUT)
@pytest.mark.parametrize(
    ("place", "statement"), STATEMENTS, ids=[f"{place}: {sql[:40]}" for place, sql in STATEMENTS]
)
def test_a_documented_statement_is_valid_on_googles_engine(
    tables: DatasetCatalog, place: str, statement: str
) -> None:
    if statement.startswith("WITH renamed"):  # the first step of the statement before
        statement += "\nSELECT * FROM renamed"
    assert engine().analyze(statement, tables.catalog), place


def test_every_sql_block_is_analysed() -> None:
    counts = Counter(place for place, _ in STATEMENTS)
    for page in pages.PAGES:
        blocks = page.read_text().count("```sql\n")
        assert counts[page.name] >= blocks, page.name
    assert len(QUERIES) == PAGE.read_text().count("```sql\n")
    shown = {" ".join(sql.split()) for _, sql in STATEMENTS}
    assert {" ".join(sql.split()) for sql in OPERATORS_QUERIES} <= shown


def test_compaction_reads_the_path_of_a_dead_letter_like_the_view() -> None:
    """The local BigQuery would not notice a wrong `wide_number_mode`; the real one would."""
    statement = schema.statement("compaction/compaction", Config(), "p")
    view = next(
        definition for definition in schema.load(Config(), "p") if definition.name == "dead_letters"
    ).sql
    assert view is not None
    parses = re.findall(r"SAFE\.PARSE_JSON\(.*?\) AS \w+", view)
    assert len(parses) == 2
    path = re.search(r"CONCAT\(\s*'gs://'.*?\) AS path", view, re.DOTALL)
    assert path is not None
    for text in (*parses, path[0]):
        assert " ".join(text.split()) in " ".join(statement.split())


def test_compaction_changes_neither_live_rows_nor_open_dead_letters(filled: Dataset) -> None:
    """Hidden rows are deleted, and markers that hide nothing, unless they close a dead letter."""
    config = from_overrides({"bigQuery": {"datasetId": filled.dataset_id}})
    before = state(filled)
    assert len(before) == 5
    (month,) = compact.plan(filled, config)
    assert (f"{month.month:%Y-%m}", month.hidden) == ("2024-01", 3)
    ((_, removed),) = compact.compact(filled, config, [month])
    assert removed == month.rows - 8
    assert state(filled) == before
    rows = run(filled, "SELECT path, version, event FROM dicom.instances ORDER BY path, version")
    assert [tuple(row.values()) for row in rows] == [
        ("gs://bucket/a.dcm", "2", "finalized"),
        ("gs://bucket/bad.dcm", "1", "deleted"),
        ("gs://bucket/copy.dcm", "1", "finalized"),
        ("gs://bucket/full.zip", "1", "expanded"),
        ("gs://bucket/half.dcm", "3", "finalized"),
        ("gs://bucket/no uid.dcm", "1", "finalized"),
        ("gs://bucket/notified.dcm", "1", "deleted"),
        ("gs://bucket/wide.dcm", "1", "deleted"),
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
