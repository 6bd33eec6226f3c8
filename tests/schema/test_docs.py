"""docs/SCHEMA.md: its columns are those of the files, its queries run; those of OPERATIONS, too."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.schema import Definition, Kind

PAGE = Path(__file__).parents[2] / "docs" / "SCHEMA.md"
BEGIN, END = "<!-- columns -->\n", "<!-- end of columns -->\n"
OPERATIONS = (PAGE.parent / "OPERATIONS.md").read_text()
OPERATORS_QUERIES = [
    *re.findall(r"```sql\n(SELECT.*?)```", OPERATIONS, re.DOTALL),
    *re.findall(r"`(SELECT [^`]+)`", OPERATIONS),
]
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)

Insert = Callable[..., None]
MakeRow = Callable[..., dict[str, Any]]


def columns() -> str:
    """Return every table, view and function with its columns, as Markdown."""
    definitions = schema.load(Config(), "project")
    return "\n".join(line for each in definitions for line in _section(each))


def _section(definition: Definition) -> Iterator[str]:
    resource = definition.resource
    arguments = ""
    if definition.kind is Kind.FUNCTION:
        pairs = [f"{each['name']} {each['dataType']['typeKind']}" for each in resource["arguments"]]
        arguments = f"({', '.join(pairs)})"
    yield from ("", f"### `{definition.name}{arguments}` ({definition.kind})")
    yield from ("", resource["description"], "")
    if definition.kind is Kind.FUNCTION:
        yield "Its columns are those of `instances_live`."
        return
    yield from ("| column | type | |", "|---|---|---|")
    yield from _rows(resource["schema"]["fields"])


def _rows(fields: list[Mapping[str, Any]], prefix: str = "") -> Iterator[str]:
    for each in fields:
        mode = {"NULLABLE": "", "REQUIRED": ", required", "REPEATED": ", repeated"}[each["mode"]]
        yield f"| `{prefix}{each['name']}` | {each['type']}{mode} | {each['description']} |"
        yield from _rows(each.get("fields", []), f"{prefix}{each['name']}.")


def page() -> str:
    """Return the page with its columns made anew."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}{columns()}\n\n{END}{rest.split(END)[1]}"


def test_columns_are_those_of_the_files() -> None:
    assert PAGE.read_text() == page(), f"run: python {Path(__file__).relative_to(PAGE.parents[1])}"


@pytest.fixture(scope="module")
def filled(dataset: Dataset, insert: Insert, row: MakeRow) -> Dataset:
    """One study, with something for every query to find."""
    header = """{"Manufacturer": "Acme", "InstanceNumber": 1, "SliceThickness": 5.0,
        "ProcedureCodeSequence": [{"CodeMeaning": "Knee"}],
        "PixelData": {"BulkDataURI": "?offset=1&length=2"}}"""
    info = {"warnings": ["odd"], "input": {"size": 5}}
    about: dict[str, Any] = {"metadata": header, "info": info, "study": "1.2.3", "PatientID": "P"}
    insert(
        dataset,
        "instances",
        row("gs://bucket/a.dcm", 2, PatientName="Doe^Jane", **about),
        row("gs://bucket/copy.dcm", 1, PatientName="DOE^JANE", **about),
        row("gs://bucket/gone.dcm", 1, **about),
        row("gs://bucket/gone.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/bad.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/half.dcm", 1, **about),
        row("gs://bucket/half.dcm", 2, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/half.dcm", 3, **about),
        row("gs://bucket/notified.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://bucket/wide.dcm", 1, "deleted", study=None, series=None, instance=None),
        row("gs://other/bad.dcm", 1, "deleted", study=None, series=None, instance=None),
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
        dataset,
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
    return dataset


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def run(dataset: Dataset, query: str) -> list[dict[str, Any]]:
    return dataset.query(re.sub(r"\bdicom\.", f"{dataset.name}.", query))


def state(dataset: Dataset) -> list[dict[str, Any]]:
    live = "SELECT path, version, TO_JSON_STRING(metadata) AS metadata FROM dicom.instances_live"
    letters = "SELECT path, version, CAST(attempts AS STRING) FROM dicom.dead_letters"
    return [*run(dataset, f"{live} ORDER BY path"), *run(dataset, f"{letters} ORDER BY path")]


@pytest.mark.parametrize(
    "query", [each for each in QUERIES if each.startswith("SELECT")], ids=lambda each: each[:40]
)
def test_queries_find_something(filled: Dataset, query: str) -> None:
    found = run(filled, query)
    assert found
    assert all(any(value not in (None, []) for value in each.values()) for each in found)


@pytest.mark.parametrize("query", OPERATORS_QUERIES, ids=lambda each: each[:60])
def test_queries_of_operators_find_something(filled: Dataset, query: str) -> None:
    name = "worse.dcm" if "dead_letters" in query else "a.dcm"
    assert run(filled, query.replace("gs://BUCKET/NAME", f"gs://bucket/{name}"))


def test_compacting_reads_a_dead_letters_path_as_the_view_does() -> None:
    """The local BigQuery parses some numbers in every mode that Google's takes in one alone."""
    (statement,) = (each for each in QUERIES if each.startswith("DELETE") and "dead_letter" in each)
    view = next(each for each in schema.load(Config(), "p") if each.name == "dead_letters").sql
    assert view is not None
    parses = re.findall(r"SAFE\.PARSE_JSON\(.*?\) AS \w+", view)
    assert len(parses) == 2
    path = re.search(r"CONCAT\(\s*'gs://'.*?\) AS path", view, re.DOTALL)
    assert path is not None
    ours = re.sub(r"\bd\.", "", " ".join(statement.split()))
    for each in (*parses, path[0].removesuffix(" AS path")):
        assert " ".join(each.split()) in ours


def test_compacting_leaves_what_is_live_and_what_is_open(filled: Dataset) -> None:
    """Hidden rows go, then markers that hide nothing; one that closes a dead letter stays."""
    statements = [each for each in QUERIES if each.startswith("DELETE")]
    assert len(statements) == 2
    before = state(filled)
    assert len(before) == 4
    for statement in statements:
        run(filled, statement)
        assert state(filled) == before
    rows = run(filled, "SELECT path, version, event FROM dicom.instances ORDER BY path, version")
    assert [tuple(each.values()) for each in rows] == [
        ("gs://bucket/a.dcm", "2", "finalized"),
        ("gs://bucket/bad.dcm", "1", "deleted"),
        ("gs://bucket/copy.dcm", "1", "finalized"),
        ("gs://bucket/half.dcm", "3", "finalized"),
        ("gs://bucket/notified.dcm", "1", "deleted"),
        ("gs://bucket/wide.dcm", "1", "deleted"),
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
