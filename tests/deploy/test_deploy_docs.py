"""What the pages for those who deploy, operate and migrate say is what there is."""

import base64
import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.handler import Result
from dcm2bq.ignored import Ignored
from tests.support.datasets import borrowed_dataset
from tests.support.function_stack import ROOT
from tests.support.terraform_blocks import parsed

DEPLOY = ROOT / "docs" / "DEPLOY.md"
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
MIGRATION = (ROOT / "docs" / "MIGRATION.md").read_text()


def blocks(kind: str) -> dict[str, dict[str, Any]]:
    """Return what tf/ declares of a kind, by name."""
    found: dict[str, dict[str, Any]] = {}
    for content in parsed():
        for each in content.get(kind, []):
            ((name, body),) = each.items()
            found[name.strip('"')] = body
    return found


def variables() -> str:
    """Return the table of variables; fields of objects stand under their object."""
    lines = ["| variable | type | default | |", "|---|---|---|---|"]
    for name, body in blocks("variable").items():
        kind, fields = body["type"].removeprefix("${").removesuffix("}"), ""
        if "object(" in kind:
            kind, fields = "map(object)" if kind.startswith("map(") else "object", kind
        default = "required" if "default" not in body else _default(body["default"])
        lines.append(f"| `{name}` | {kind} | {default} | {_text(body['description'])} |")
        lines += [
            f"| `{name}.{field}` | {type_} | {value} | |" for field, type_, value in _fields(fields)
        ]
    return "\n".join(lines)


def outputs() -> str:
    """Return the table of outputs."""
    rows = (
        f"| `{name}` | {_text(body['description'])} |" for name, body in blocks("output").items()
    )
    return "\n".join(["| output | |", "|---|---|", *rows])


def _default(value: Any) -> str:
    if value in (None, {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(quoted: str) -> str:
    return str(json.loads(quoted)).replace("|", "\\|")


def _fields(kind: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default of each field of an object's type."""
    inside = re.sub(r"^(?:map\()?object\(\{|\}\)\)?$", "", kind)
    inside = re.sub(r"optional\(object\(\{.*?\}\)\)", "optional(object)", inside)
    for field, text in re.findall(r"(\w+) = (optional\((?:\w+\(\w+\)|\w+)[^)]*\)|\w+)", inside):
        match = re.fullmatch(r"optional\((\w+\(\w+\)|\w+)(?:, (.*))?\)", text)
        if match is None:
            yield field, text, "required"
        else:
            yield field, match[1], "" if match[2] is None else f"`{match[2]}`"


def page() -> str:
    """Return docs/DEPLOY.md with its tables rebuilt."""
    text = DEPLOY.read_text()
    for name, table in (("variables", variables()), ("outputs", outputs())):
        before, rest = text.split(f"<!-- {name} -->\n")
        after = rest.split(f"<!-- end of {name} -->")[1]
        text = f"{before}<!-- {name} -->\n{table}\n<!-- end of {name} -->{after}"
    return text


def test_variables_and_outputs_are_those_of_the_code() -> None:
    assert DEPLOY.read_text() == page(), "run: .venv/bin/python -m tests.deploy.test_deploy_docs"


def test_each_variable_and_each_output_is_described() -> None:
    for kind in ("variable", "output"):
        for name, body in blocks(kind).items():
            assert _text(body["description"]).endswith("."), name


def test_each_alert_has_its_section() -> None:
    monitoring = (ROOT / "tf" / "monitoring.tf").read_text()
    names = re.findall(
        r'display_name +: "\$\{local.name\}: ([^$"]+)"', monitoring.replace("=", ":")
    )
    assert len(names) == monitoring.count('resource "google_monitoring_alert_policy"')
    for name in names:
        assert f"\n### {name.capitalize()}\n" in OPERATIONS, name
    for section in re.findall(r'OPERATIONS.md, \\"(.+?)\\"', monitoring):
        assert f"\n### {section}\n" in OPERATIONS, section


def test_each_outcome_is_explained() -> None:
    for outcome in [*Result, "failed", "refused"]:
        assert f"\n| `{outcome}` | " in OPERATIONS


def test_each_reason_to_ignore_an_event_is_explained() -> None:
    section = OPERATIONS.partition("\n### Ignored events\n")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)
    assert sorted(shown) == sorted(Ignored)


def test_each_reason_to_ignore_an_event_is_a_metric() -> None:
    text = (ROOT / "tf" / "monitoring.tf").read_text()
    reasons = re.search(r"^  ignored = (\[.*\])$", text, re.MULTILINE)
    assert reasons
    assert sorted(json.loads(reasons[1])) == sorted(Ignored)


def test_the_picture_is_that_of_its_source() -> None:
    source = (ROOT / "docs" / "architecture.dot").read_text()
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    labels = re.findall(r'label="([^"]+)"', source)
    assert len(labels) > 10
    for line in (line for label in labels for line in label.split("\\n")):
        assert f">{line}</text>" in html.unescape(picture), f"{line}: make picture"


@pytest.fixture(scope="module")
def dataset(complete_bigquery_url: str) -> Iterator[Dataset]:
    """The new dataset, and the old tables of the Node service in it, under other names."""
    with borrowed_dataset(complete_bigquery_url) as made:
        for statement in OLD_TABLES:
            made.query(statement.replace("old.", f"{made.name}.old_"))
        yield made


HEADER = """JSON '{"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID":
    "1.2.3.4", "SOPClassUID": "1.9", "Modality": "CT", "PatientID": "P1", "StudyDate": "20240131",
    "TransferSyntaxUID": "1.2.840.10008.1.2.1"}'"""

OLD_TABLES = (
    """CREATE TABLE old.instances (
        id STRING NOT NULL, timestamp TIMESTAMP NOT NULL, path STRING NOT NULL, version STRING,
        info STRUCT<event STRING, input STRUCT<size INT64, type STRING, storageClass STRING>>,
        metadata JSON
    )""",
    """CREATE TABLE old.metadata (
        timestamp TIMESTAMP NOT NULL, path STRING NOT NULL, version STRING, info JSON NOT NULL,
        metadata JSON
    )""",
    """CREATE TABLE old.dead_letter (
        data BYTES, attributes STRING, message_id STRING, subscription_name STRING,
        publish_time TIMESTAMP
    )""",
    *(
        f"""INSERT INTO old.instances (id, timestamp, path, version, info, metadata)
        SELECT 'x', TIMESTAMP '{when}', '{path}', {version},
            STRUCT('{event}' AS event,
                STRUCT({size} AS size, '{kind}' AS type, 'STANDARD' AS storageClass) AS input),
            {metadata}"""
        for when, path, version, event, size, kind, metadata in (
            ("2024-02-01", "gs://b/a.dcm", "'1'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-02", "gs://b/a.dcm", "'1'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "gs://b/gone.dcm", "'7'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-03", "gs://b/gone.dcm", "'7'", "OBJECT_DELETE", "NULL", "GCS", "NULL"),
            ("2024-02-01", "gs://b/new.dcm", "'3'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "gs://b/new.dcm", "'reprocess-17'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "gs://b/odd.dcm", "'undefined'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "gs://b/odd.dcm", "'index-1-a'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-02", "gs://b/odd.dcm", "'index-2-b'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "gs://b/all.ZIP#x.dcm", "'1'", "OBJECT_FINALIZE", 5, "GCS", HEADER),
            ("2024-02-01", "projects/p/dicom", "NULL", "HCAPI_FINALIZE", 5, "HCAPI_DICOM", HEADER),
        )
    ),
    *(
        f"""INSERT INTO old.metadata (timestamp, path, version, info, metadata)
        SELECT TIMESTAMP '2024-02-01', '{path}', '{version}', JSON '{info}', {metadata}"""
        for path, version, info, metadata in (
            (
                "b/early.dcm",
                "2",
                '{"event": "OBJECT_FINALIZE", "storage": {"size": 9, "type": "GCS"}}',
                HEADER,
            ),
            (
                "b/went.dcm",
                "2",
                '{"event": "OBJECT_FINALIZE", "storage": {"size": 9, "type": "GCS"}}',
                HEADER,
            ),
            (
                "b/went.dcm",
                "2",
                '{"event": "OBJECT_ARCHIVE", "storage": {"type": "GCS"}}',
                "NULL",
            ),
        )
    ),
)


def statements() -> tuple[str, str, str]:
    """Return what copies the newer table, the older table and the dead letters."""
    newer, first_step, letters = (
        each
        for each in re.findall(r"```sql\n(.*?)```", MIGRATION, re.DOTALL)
        if "old." in each and not each.startswith("SELECT")
    )
    step = re.compile(r"^WITH renamed AS \(\n.*?^\)\n", re.DOTALL | re.MULTILINE)
    return newer, step.sub(lambda _: first_step, newer), letters


def run(dataset: Dataset, statement: str) -> list[dict[str, Any]]:
    named = statement.replace("old.", f"{dataset.name}.old_")
    return dataset.query(re.sub(r"\bdicom\.", f"{dataset.name}.", named))


def test_old_rows_are_copied_once_and_yield_to_new_ones(dataset: Dataset) -> None:
    dataset.query(
        """INSERT INTO instances (timestamp, ingested_at, event, path, version, PatientID)
        SELECT TIMESTAMP '2024-03-01', CURRENT_TIMESTAMP(), 'metadataUpdated', 'gs://b/new.dcm',
            '3', 'indexed here'"""
    )
    newer, older, _ = statements()
    assert newer != older
    for _time in range(2):
        for statement in (newer, older):
            run(dataset, statement)
    assert count(dataset, "instances") == 7
    live = run(dataset, "SELECT path, PatientID FROM dicom.instances_live ORDER BY path")
    assert [tuple(each.values()) for each in live] == [
        ("gs://b/a.dcm", "P1"),
        ("gs://b/early.dcm", "P1"),
        ("gs://b/new.dcm", "indexed here"),
    ]


def asked(what: str) -> str:
    """Return the query of the page that has something in it."""
    queries: list[str] = re.findall(r"```sql\n(SELECT.*?)```", MIGRATION, re.DOTALL)
    (found,) = (each for each in queries if what in each)
    return found


def test_versions_that_are_no_generations_are_counted_and_named(dataset: Dataset) -> None:
    counted = run(dataset, asked("AS kind"))
    assert {each["kind"]: (each["old_rows"], each["paths"]) for each in counted} == {
        "index-...": (2, 1),
        "undefined": (1, 1),
        "reprocess-...": (1, 1),
        "none": (1, 1),
    }
    named = run(dataset, asked("SELECT DISTINCT o.path"))
    assert {tuple(each.values()) for each in named} == {
        ("gs://b/odd.dcm", "undefined"),
        ("gs://b/odd.dcm", "index-1-a"),
        ("gs://b/odd.dcm", "index-2-b"),
        ("projects/p/dicom", None),
    }
    older = asked("AS kind").replace("old.instances", "old.metadata")
    assert run(dataset, older) == []


def test_an_instance_at_two_paths_is_one_row_for_those_who_count_instances(
    dataset: Dataset,
) -> None:
    dataset.query(
        """INSERT INTO instances (timestamp, ingested_at, event, path, version, SOPInstanceUID)
        SELECT TIMESTAMP_ADD(TIMESTAMP '2024-03-01', INTERVAL version DAY), CURRENT_TIMESTAMP(),
            'finalized', path, CAST(version AS STRING), uid
        FROM UNNEST([
            STRUCT('gs://twice/a.dcm' AS path, 1 AS version, '9.9' AS uid),
            STRUCT('gs://twice/b.dcm', 2, '9.9'),
            STRUCT('gs://twice/none.dcm', 3, NULL)
        ])"""
    )
    mapped = run(dataset, asked("QUALIFY"))
    ours = [each["path"] for each in mapped if each["path"].startswith("gs://twice/")]
    assert ours == ["gs://twice/b.dcm"]
    dataset.query("DELETE FROM instances WHERE STARTS_WITH(path, 'gs://twice/')")


def test_a_copied_row_has_everything_that_the_old_one_had(dataset: Dataset) -> None:
    newer, older, _ = statements()
    for statement in (newer, older):
        run(dataset, statement)
    (row,) = run(dataset, "SELECT * FROM dicom.instances WHERE path = 'gs://b/a.dcm'")
    assert (row["event"], row["version"], row["timestamp"].isoformat()) == (
        "finalized",
        "1",
        "2024-02-02T00:00:00+00:00",
    )
    assert [row[name] for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")] == [
        "1.2",
        "1.2.3",
        "1.2.3.4",
    ]
    assert (row["SOPClassUID"], row["Modality"], row["StudyDate"].isoformat()) == (
        "1.9",
        "CT",
        "2024-01-31",
    )
    assert row["info"]["input"]["size"] == 5
    assert row["info"]["input"]["storage_class"] == "STANDARD"
    assert row["info"]["transfer_syntax_uid"] == "1.2.840.10008.1.2.1"
    assert row["info"]["warnings"] == ["copied from the Node service"]
    (early,) = run(dataset, "SELECT info FROM dicom.instances WHERE path = 'gs://b/early.dcm'")
    assert early["info"]["input"]["size"] == 9


def test_old_dead_letters_keep_their_meaning(dataset: Dataset) -> None:
    data = base64.b64encode(b'{"bucket": "b", "name": "bad.dcm", "generation": "4"}').decode()
    attributes = json.dumps({"eventType": "OBJECT_FINALIZE", "bucketId": "b"})
    dataset.query(
        f"""INSERT INTO old_dead_letter (data, attributes, message_id, subscription_name,
            publish_time)
        SELECT FROM_BASE64('{data}'), '{attributes}', '1', 'subscription',
            TIMESTAMP '2024-02-01'"""
    )
    for _time in range(2):
        run(dataset, statements()[2])
    assert count(dataset, "dead_letter") == 1
    (entry,) = run(dataset, "SELECT path, version, event, reason FROM dicom.dead_letters")
    assert tuple(entry.values()) == ("gs://b/bad.dcm", "4", "finalized", "DeliveryExhausted")


@pytest.mark.parametrize(
    "query",
    re.findall(r"```sql\n(SELECT.*?)```", OPERATIONS + MIGRATION, re.DOTALL)
    + re.findall(r"`(SELECT [^`]+)`", OPERATIONS),
    ids=lambda each: each[:40],
)
def test_the_queries_are_valid(dataset: Dataset, query: str) -> None:
    assert isinstance(run(dataset, query), list)


def count(dataset: Dataset, table: str) -> int:
    (row,) = dataset.query(f"SELECT COUNT(*) AS n FROM {table}")
    return int(row["n"])


if __name__ == "__main__":
    DEPLOY.write_text(page())
