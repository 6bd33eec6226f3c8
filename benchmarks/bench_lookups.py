"""Daily questions to a large dataset: what they read of `instances_live` and of `objects_live`.

The dataset is simulated in DuckDB, the engine of the local BigQuery, and queried by the product's
own SQL. Its tables are sorted as BigQuery partitions and clusters them: DuckDB skips blocks by the
least and greatest values in them, as BigQuery does. Rows are those that the scans of a query have
read, by DuckDB's own counters; a table that a query names twice counts twice. Bytes are those of
the named columns of these rows, as BigQuery counts them, each column once, with headers of 10 KB.
"""

import argparse
import json
import os
import re
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.local.bigquery_files import keep_in_files
from dcm2bq.local.servers import provide_duckdb_extensions

PROJECT = "bench"
VECTOR = 2048
"""Rows of DuckDB's vectors, of which a block has a multiple."""
BLOCKS = 600
TYPES = {"STRING": "VARCHAR", "INTEGER": "BIGINT", "TIMESTAMP": "TIMESTAMPTZ"}
HEADER_BYTES = 10_000
INFO_BYTES = 39
"""Of `info`, the views name size, storage class and transfer syntax."""
FIXED_BYTES = 8
"""Of numbers, dates and times."""

# UIDs are made from random numbers and differ early, since DuckDB keeps the first 8 bytes of the
# least and greatest texts of a block.
ROWS = """
INSERT INTO instances BY NAME
WITH uploads AS (
  SELECT
    i,
    lpad(hash(i // 500)::VARCHAR, 20, '0') AS study,
    lpad((hash(i // 500) % {patients})::VARCHAR, 8, '0') AS PatientID,
    now() - to_seconds((({rows} - i) / {rows} * {months} * 30 * 86400)::BIGINT) AS made
  FROM range({rows}) AS numbers(i)
)
SELECT
  made AS timestamp,
  made AS ingested_at,
  event,
  'gs://hospital-images/archive/2024/' || md5(study) || '/' || i || '.dcm' AS path,
  '1700000000000000' AS version,
  IF(is_row, '2.25.' || study, NULL) AS StudyInstanceUID,
  IF(is_row, '2.25.' || study || '.' || i % 4, NULL) AS SeriesInstanceUID,
  IF(is_row, '2.25.' || lpad(hash(i)::VARCHAR, 20, '0') || '.' || i, NULL) AS SOPInstanceUID,
  IF(is_row, '1.2.840.10008.5.1.4.1.1.2', NULL) AS SOPClassUID,
  IF(is_row, ['CT', 'MR', 'DX', 'US'][1 + i // 500 % 4], NULL) AS Modality,
  IF(is_row, PatientID, NULL) AS PatientID,
  IF(is_row, made::DATE, NULL) AS StudyDate,
  IF(is_row, '{{}}', NULL) AS metadata
FROM (
  SELECT *, 'finalized' AS event, TRUE AS is_row FROM uploads
  UNION ALL
  SELECT *, 'deleted', FALSE FROM uploads WHERE i % 100 = 7
)
ORDER BY date_trunc('month', made), event, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID
"""
REFRESH = """
INSERT INTO objects BY NAME
SELECT * FROM ({source})
ORDER BY date_trunc('month', ingested_at), PatientID, StudyInstanceUID, SOPInstanceUID
"""


class SimulatedDataset:
    """The tables `instances` and `objects` in a database of DuckDB, and the views over them."""

    def __init__(self, folder: Path, rows: int, months: int) -> None:
        os.environ["HOME"] = str(folder)  # where DuckDB looks for its extensions
        provide_duckdb_extensions(folder)
        import_module("local_bigquery.settings").settings.data_dir = folder / "local"
        self._translation = import_module("local_bigquery.sql.translate")
        database = import_module("local_bigquery.engine.database")
        keep_in_files(database)
        self._connection = database.connection()
        block = max(rows // BLOCKS // VECTOR, 1) * VECTOR
        self._connection.execute(
            f"ATTACH '{folder / 'bench.duckdb'}' AS {PROJECT} (ROW_GROUP_SIZE {block});"
            f"CREATE SCHEMA {PROJECT}.dicom; USE {PROJECT}.dicom"
        )
        self.sql = {each.name: each.sql or "" for each in schema.load(Config(), PROJECT)}
        for table in ("instances", "objects"):
            self._create(table)
        self._connection.execute(ROWS.format(rows=rows, months=months, patients=rows // 1500))
        source = schema.statement("objects/refresh", Config(), PROJECT)
        source = source.partition("USING (")[2].partition(") AS s\n")[0]
        source = source.replace("@since", "TIMESTAMP '0001-01-01 00:00:00+00:00'")
        self._connection.execute(REFRESH.format(source=self._translated(source)))
        self._widths = {table: self._column_bytes(table) for table in ("instances", "objects")}

    def value(self, sql: str) -> Any:
        """Return the one value of a query in DuckDB's SQL."""
        (row,) = self._connection.execute(sql).fetchall()
        return row[0]

    def measure(self, sql: str) -> dict[str, int]:
        """Return the numbers of rows that a query returns and reads, and of bytes that it reads."""
        explained = self._connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT json) {self._translated(sql)}"
        )
        profile = json.loads(explained.fetchone()[1])
        columns: dict[tuple[str, str], int] = {}
        rows = 0
        for table, text, scanned in _scans(profile):
            rows += scanned
            for column in set(re.findall(r"\w+", text)) & self._widths[table].keys():
                columns[table, column] = max(scanned, columns.get((table, column), 0))
        return {
            "answers": _answers(profile),
            "rows": rows,
            "bytes": round(
                sum(count * self._widths[table][name] for (table, name), count in columns.items())
            ),
        }

    def _create(self, table: str) -> None:
        resources = {each.name: each.resource for each in schema.load(Config(), PROJECT)}
        columns = ", ".join(
            f'"{field["name"]}" {_type(field)}' for field in resources[table]["schema"]["fields"]
        )
        self._connection.execute(f"CREATE TABLE {table} ({columns})")

    def _column_bytes(self, table: str) -> dict[str, float]:
        """Return the mean bytes of each column; NULL takes none."""
        columns = self._connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            f"WHERE database_name = '{PROJECT}' AND table_name = '{table}'"
        ).fetchall()
        means = (
            f'coalesce(avg(IF("{name}" IS NULL, 0, {_bytes(name, kind)})), 0)'
            for name, kind in columns
        )
        sizes = self._connection.execute(f"SELECT {', '.join(means)} FROM {table}").fetchone()
        return {name: size for (name, _), size in zip(columns, sizes, strict=True)}

    def _translated(self, sql: str) -> str:
        (tree,) = self._translation.parse(sql)
        text, parameters = self._translation.translate(
            tree, self._translation.Context(PROJECT, "dicom")
        )
        assert not parameters
        return str(text)


def _type(field: dict[str, Any]) -> str:
    """Return DuckDB's type of a column."""
    if field["type"] == "RECORD":
        inner = ", ".join(f'"{each["name"]}" {_type(each)}' for each in field["fields"])
        return f"STRUCT({inner})"
    kind = TYPES.get(field["type"], field["type"])
    return f"{kind}[]" if field["mode"] == "REPEATED" else kind


def _bytes(name: str, kind: str) -> str:
    """Return the SQL for the bytes of a value, as BigQuery counts them."""
    if kind == "VARCHAR":
        return f'2 + strlen("{name}")'
    if kind == "JSON":
        return str(HEADER_BYTES)
    return str(INFO_BYTES if kind.startswith("STRUCT") else FIXED_BYTES)


def _answers(profile: dict[str, Any]) -> int:
    """Return how many rows the query of a profile returned."""
    (explain,) = profile["children"]
    (result,) = explain["children"]
    number: int = result["operator_cardinality"]
    return number


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield table, columns and filters, and rows read of each scan in a profile of DuckDB."""
    if "Table" in (details := node.get("extra_info") or {}):
        table = details["Table"].rpartition(".")[2]
        named = f"{details.get('Projections', '')} {details.get('Filters', '')}"
        yield table, named, node["operator_rows_scanned"]
    for child in node.get("children", []):
        yield from _scans(child)


def questions(dataset: SimulatedDataset) -> dict[str, tuple[str, str]]:
    """Return each question with its query before and after `objects_live`."""
    patient, instance = (
        dataset.value(f"SELECT {column} FROM objects WHERE path IS NOT NULL ORDER BY key LIMIT 1")
        for column in ("PatientID", "SOPInstanceUID")
    )
    studies = dataset.value(
        f"SELECT list(DISTINCT StudyInstanceUID) FROM objects WHERE PatientID = '{patient}'"
    )

    def of(columns: str, condition: str) -> tuple[str, str]:
        before, after = (
            f"SELECT {columns} FROM ({dataset.sql[view]}) WHERE {condition}"
            for view in ("instances_live", "objects_live")
        )
        return before, after

    since = "TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY)"
    recent = f"WHERE ingested_at >= {since}"
    names = "path, version, StudyInstanceUID, SOPInstanceUID"
    read = re.sub(r"\buntil\b", "CURRENT_TIMESTAMP()", dataset.sql["ingested_between"])
    read = re.sub(r"\bsince\b", since, read)
    headers = [re.sub(r"\buid\b", f"'{study}'", dataset.sql["study"]) for study in studies]
    return {
        "objects of a patient": of(f"{names}, Modality", f"PatientID = '{patient}'"),
        # The studies of the patient are known from the question before.
        "headers of a patient": (
            of("path, metadata", f"PatientID = '{patient}'")[0],
            " UNION ALL ".join(f"SELECT path, metadata FROM ({sql})" for sql in headers),
        ),
        "an object by SOPInstanceUID": of(names, f"SOPInstanceUID = '{instance}'"),
        "objects of the last day": of(names, f"ingested_at >= {since}"),
        "changes of the last day": (
            f"SELECT {names} FROM ({read})",
            f"SELECT event, timestamp, {names} FROM {PROJECT}.dicom.instances {recent}",
        ),
    }


def main() -> None:
    """Simulate the dataset, ask the questions, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=10_000_000, help="objects that were uploaded")
    parser.add_argument("--months", type=int, default=60, help="months of uploads")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = SimulatedDataset(Path(folder), arguments.rows, arguments.months)
        results: list[dict[str, Any]] = [
            {"question": question, "before": dataset.measure(old), "after": dataset.measure(new)}
            for question, (old, new) in questions(dataset).items()
        ]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| question | rows before | rows now | MB before | MB now | ratio of bytes |")
    print("|---|---:|---:|---:|---:|---:|")
    for result in results:
        old, new = result["before"], result["after"]
        print(
            f"| {result['question']} | {old['rows']:,} | {new['rows']:,} "
            f"| {old['bytes'] / 1e6:,.0f} | {new['bytes'] / 1e6:,.1f} "
            f"| {old['bytes'] / new['bytes']:,.1f} |"
        )


if __name__ == "__main__":
    main()
