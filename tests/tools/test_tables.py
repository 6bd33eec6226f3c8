"""Tables as CSV and Parquet, read again by other programs."""

import base64
import csv
import datetime as dt
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli, extras
from dcm2bq.errors import ConfigError
from dcm2bq.tools import tables
from dcm2bq.tools.tables import TableFormat
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import zip_of
from tests.support.datasets import borrowed_dataset

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PAGE = Path(__file__).parents[2] / "docs" / "SCHEMA.md"

FIELDS: list[dict[str, Any]] = [
    {"name": "text", "type": "STRING", "description": "Words"},
    {"name": "whole", "type": "INTEGER"},
    {"name": "real", "type": "FLOAT64"},
    {"name": "flag", "type": "BOOLEAN"},
    {"name": "raw", "type": "BYTES"},
    {"name": "day", "type": "DATE"},
    {"name": "clock", "type": "TIME"},
    {"name": "local", "type": "DATETIME"},
    {"name": "moment", "type": "TIMESTAMP"},
    {"name": "exact", "type": "NUMERIC"},
    {"name": "json", "type": "JSON"},
    {"name": "words", "type": "STRING", "mode": "REPEATED"},
    {"name": "record", "type": "RECORD", "fields": [{"name": "inner", "type": "INTEGER"}]},
]
FULL: dict[str, Any] = {
    "text": '=1+1, "quoted"\nnext\x1b[2J line',
    "whole": 2**62,
    "real": 0.1,
    "flag": True,
    "raw": b"\x00\xff",
    "day": dt.date(2024, 2, 29),
    "clock": dt.time(9, 30, 15, 250000),
    "local": dt.datetime(2024, 2, 29, 9, 30),  # noqa: DTZ001 - a DATETIME has no zone
    "moment": dt.datetime(2024, 2, 29, 9, 30, tzinfo=dt.UTC),
    "exact": Decimal("1.5"),
    "json": {"a": [1, None]},
    "words": ["a", "b"],
    "record": {"inner": 5},
}
EMPTY: dict[str, Any] = {**dict.fromkeys(FULL), "words": []}


def test_parquet_keeps_values_and_types(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    tables.deliver(TableFormat.PARQUET, FIELDS, [FULL, EMPTY], file)
    table = parquet.read_table(file)
    assert table.to_pylist() == [{**FULL, "json": '{"a":[1,null]}'}, EMPTY]
    assert [str(kind) for kind in table.schema.types] == [
        *("string", "int64", "double", "bool", "binary", "date32[day]", "time64[us]"),
        *("timestamp[us]", "timestamp[us, tz=UTC]", "decimal128(38, 9)", "string"),
        *("list<element: string>", "struct<inner: int64>"),
    ]
    assert table.schema.field("text").metadata == {b"description": b"Words"}


def test_a_csv_file_has_the_values_unchanged(tmp_path: Path) -> None:
    """Formulas included: what a header holds is not the writer's to change."""
    file = tmp_path / "t.csv"
    tables.deliver(TableFormat.CSV, FIELDS, [FULL, EMPTY], file)
    with file.open(encoding="utf-8", newline="") as stream:
        names, full, empty = csv.reader(stream)
    assert names == [field["name"] for field in FIELDS]
    assert full == [
        *(FULL["text"], "4611686018427387904", "0.1", "true"),
        *(base64.b64encode(FULL["raw"]).decode(), "2024-02-29", "09:30:15.250000"),
        *("2024-02-29T09:30:00", "2024-02-29T09:30:00+00:00", "1.5", '{"a":[1,null]}'),
        *('["a","b"]', '{"inner":5}'),
    ]
    assert empty == [""] * 11 + ["[]", ""]


def test_printed_csv_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tables.deliver(TableFormat.CSV, FIELDS[:1], [FULL], None)
    out = capsys.readouterr().out
    assert out == 'text\n"=1+1, ""quoted""\\nnext\\x1b[2J line"\n'


@pytest.mark.parametrize("kind", list(TableFormat))
def test_a_table_that_is_not_complete_leaves_the_old_file(
    kind: TableFormat, tmp_path: Path
) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield FULL
        raise ConfigError("broken")

    file = tmp_path / "t"
    file.write_text("before")
    with pytest.raises(ConfigError, match="broken"):
        tables.deliver(kind, FIELDS, broken(), file)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_csv_takes_no_memory_for_its_rows() -> None:
    class Nowhere(io.TextIOBase):
        def write(self, text: str) -> int:
            return len(text)

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(20_000):
            yield {**FULL, "text": f"{n}" * 100}

    tables.write_csv(Nowhere(), FIELDS, ())
    tracemalloc.start()
    tables.write_csv(Nowhere(), FIELDS, rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000  # of 10 MB


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two files and an archive."""
    study = tmp_path / "study"
    study.mkdir()
    for n, thickness in enumerate(("1.5", "thin")):
        content = dicom(
            identity(),
            element(0x00080008, "CS", "ORIGINAL\\AXIAL"),
            element(0x00080020, "DA", "20240229"),
            element(0x00100020, "LO", f"=P{n}"),
            element(0x00180050, "DS", thickness),
        )
        (study / f"{n}.dcm").write_bytes(content)
    (study / "more.zip").write_bytes(zip_of({"inner": content}))
    (study / "broken.dcm").write_bytes(b"SENTINEL")
    return study


COLUMNS = "PatientID,StudyDate,SliceThickness,ImageType[1]"


def test_dump_prints_a_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dump", "--columns", COLUMNS, str(study)]) == 1
    out, err = capsys.readouterr()
    names, _, first, second = out.splitlines()
    assert names.split() == ["path", *COLUMNS.split(",")]
    assert first.split() == [f"{study}/0.dcm", "=P0", "2024-02-29", "1.5", "AXIAL"]
    assert second.split() == [f"{study}/1.dcm", "=P1", "2024-02-29", "NULL", "AXIAL"]
    assert "SENTINEL" not in err
    assert "broken.dcm: no DICM prefix" in err


def test_duckdb_reads_what_dump_has_written(study: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    options = ["--option", "input.archives=read", str(study)]
    expected = [
        (None, "=P0", dt.date(2024, 2, 29), 1.5, "AXIAL"),
        (None, "=P1", dt.date(2024, 2, 29), None, "AXIAL"),
        ("inner", "=P1", dt.date(2024, 2, 29), None, "AXIAL"),
    ]
    for kind in ("csv", "parquet"):
        file = tmp_path / f"study.{kind}"
        assert cli.main(["dump", "--columns", COLUMNS, f"--{kind}", "-o", str(file), *options]) == 1
        rows = duckdb.sql(f"SELECT * EXCLUDE (path) FROM '{file}'").fetchall()
        assert rows == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["dump", "--csv", "x"], "--csv and --parquet need --columns"),
        (["dump", "--columns", "Rows", "--envelope", "x"], "--columns prints no JSON"),
        (["dump", "--columns", "Rows", "--parquet", "x"], "--parquet needs --output FILE"),
        (["dump", "--columns", "Rows", "-o", "f", "x"], "--output needs --csv or --parquet"),
        (["dump", "--columns", "Rows,Rows", "x"], "Rows: named more than once"),
        (["dump", "--columns", "Rows,", "x"], "an attribute is missing"),
        (["dump", "--columns", "Rows", "--csv", "-o", "absent/x", "x"], "absent is not a folder"),
        (["dump", "--columns", "Row,Modalty", "x"], "did you mean Modality"),
        (["dump", "--columns", "Rows", "--csv", "--parquet", "x"], "are both given: use one"),
        (["local", "--csv"], "--csv and --parquet need --query"),
        (["local", "--query", "SELECT 1", "--json", "--csv"], "--json and another format"),
    ],
)
def test_wrong_usage_of_tables_is_explained(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(args) == 2
    assert message in capsys.readouterr().err


def test_parquet_without_arrow_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = extras.Extra("tables", ("no_such_package",), command="dump")
    monkeypatch.setattr(extras, "TABLES", missing)
    args = ["dump", "--columns", "Rows", "--parquet", "-o", "f", "x"]
    assert cli.main(args) == 2
    assert "dump needs packages that are not installed (no_such_package)" in (
        capsys.readouterr().err
    )


def test_the_columns_of_a_query_keep_their_types(bigquery_url: str, tmp_path: Path) -> None:
    sql = (
        "SELECT 'text' AS text, 5 AS whole, 0.5 AS real, TRUE AS flag, DATE '2024-02-29' AS day, "
        "TIME '09:30:00' AS clock, DATETIME '2024-02-29 09:30:00' AS local, "
        "TIMESTAMP '2024-02-29 09:30:00+00' AS moment, PARSE_JSON('{\"a\": [1]}') AS json, "
        "['a', 'b'] AS words, STRUCT(5 AS inner) AS record, CAST(NULL AS INT64) AS nothing"
    )
    with borrowed_dataset(bigquery_url) as dataset:
        fields, rows = dataset.read(sql)
        tables.deliver(TableFormat.PARQUET, fields, rows, tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    names = ("text", "whole", "real", "flag", "day", "clock", "local", "moment", "words", "record")
    (row,) = table.to_pylist()
    assert {name: row[name] for name in names} == {
        **{name: FULL[name] for name in names},
        "text": "text",
        "whole": 5,
        "real": 0.5,
        "clock": dt.time(9, 30),
    }
    assert (json.loads(row["json"]), row["nothing"]) == ({"a": [1]}, None)
    assert str(table.schema.field("nothing").type) == "int64"


@pytest.mark.parametrize("library", ["duckdb", "pandas"])
def test_the_programs_on_the_page_read_the_files(
    library: str, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    (program,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if text.startswith(f"import {library}\n")
    )
    monkeypatch.chdir(study.parent)
    (study / "broken.dcm").unlink()
    (study / "2.dcm").write_bytes(
        dicom(
            identity(),
            element(0x00080060, "CS", "CT"),
            element(0x00100020, "LO", "THIN"),
            element(0x00180050, "DS", "0.5"),
        )
    )
    for kind in ("csv", "parquet"):
        command = ["dump", "--columns", "PatientID,Modality,SliceThickness", f"--{kind}"]
        assert cli.main([*command, "-o", f"study.{kind}", "study"]) == 0
    capsys.readouterr()
    exec(program, {})
    out = capsys.readouterr().out
    assert out.count("THIN" if library == "duckdb" else "CT") == 2
    assert "=P" not in out
