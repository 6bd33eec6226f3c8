"""Tables of rows as CSV and Parquet files; rows are read once, and few are in memory at a time.

Columns are fields as in BigQuery's REST API: `name`, `type`, `mode` and, of a RECORD, `fields`.
"""

import base64
import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, TextIO

import msgspec

from dcm2bq import extras
from dcm2bq.tools.display import printable_json, say

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
Field = Mapping[str, Any]

GROUP_ROWS = 5000
"""Rows in a row group: with headers of 10 KB, 50 MB in memory."""


_ALIASES = {
    **dict.fromkeys(("INTEGER", "INT64"), "int64"),
    **dict.fromkeys(("FLOAT", "FLOAT64"), "float64"),
    **dict.fromkeys(("BOOLEAN", "BOOL"), "bool"),
    "BYTES": "binary",
    "DATE": "date32",
    "TIME": "time64[us]",
    "DATETIME": "timestamp[us]",
}
"""Arrow's names of types. Types that Arrow lacks, such as JSON and GEOGRAPHY, become text."""
_PARSERS: Mapping[str, Callable[[str], Any]] = {"DATE": date.fromisoformat, "INTEGER": int}
"""What reads the text of a value that Arrow does not read."""


class TableFormat(StrEnum):
    """The formats of files with tables."""

    CSV = "csv"
    PARQUET = "parquet"


class _Lines(Protocol):
    def write(self, text: str, /) -> Any: ...


def require(kind: TableFormat) -> None:
    """Raise `ConfigError` if a package for the format is not installed."""
    if kind is TableFormat.PARQUET:
        extras.require(extras.TABLES)


def deliver(
    kind: TableFormat, fields: Sequence[Field], rows: Iterable[Row], path: Path | None
) -> None:
    """Write a table to a file, with values unchanged; an existing file is replaced at the end.

    Without `path`, CSV is printed, like all output with escapes for what could steer a terminal.
    """
    if path is None:
        write_csv(_Printed(), fields, rows)
        return
    with _replacing(path) as stream:
        if kind is TableFormat.PARQUET:
            with ParquetTable(stream, fields) as table:
                for batch in itertools.batched(rows, GROUP_ROWS):
                    table.write(batch)
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            write_csv(text, fields, rows)
            text.detach()  # flushes


def write_csv(lines: TextIO | _Lines, fields: Sequence[Field], rows: Iterable[Row]) -> None:
    """Write a line with names and a line for each row (RFC 4180, but with line feeds).

    NULL is empty. Arrays, records and JSON are JSON; times are in ISO 8601, bytes in base64.
    """
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([field["name"] for field in fields])
    for row in rows:
        writer.writerow([_csv_cell(row[field["name"]], field) for field in fields])


def to_json(value: Any) -> str:
    """Return a row or rows as JSON: times in ISO 8601, bytes in base64, NUMERIC as text."""
    return msgspec.json.encode(value, enc_hook=str).decode()


class _Printed:
    """Prints each line that is written to it."""

    def write(self, text: str) -> None:
        say(text.removesuffix("\n"))


def _csv_cell(value: Any, field: Field) -> Any:
    if value is None:
        return None
    if field["type"] == "JSON" or isinstance(value, list | dict):
        return printable_json(to_json(value))  # still the same JSON if it is printed
    match value:
        case bool():
            return str(value).lower()
        case bytes():
            return base64.b64encode(value).decode()
        case date() | time():
            return value.isoformat()
    return value


class ParquetTable:
    """A Parquet file to which rows are written; each call of `write` makes a row group.

    Values of the types DATE and INTEGER may be text as BigQuery writes it.
    """

    def __init__(self, stream: BinaryIO, fields: Sequence[Field]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415

        self._fields = fields
        self._schema = pa.schema([_arrow_field(field) for field in fields])
        self._writer = parquet.ParquetWriter(stream, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows as one group."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        columns = [
            pa.array(
                [_arrow_value(row[field["name"]], field) for row in rows],
                type=self._schema.field(at).type,
            )
            for at, field in enumerate(self._fields)
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file; the stream stays open."""
        self._writer.close()


def _arrow_field(field: Field) -> "pa.Field":
    import pyarrow as pa  # noqa: PLC0415 - an extra

    kind = _arrow_type(field)
    if field.get("mode") == "REPEATED":
        kind = pa.list_(kind)
    description = field.get("description")
    metadata = {"description": description} if description else None
    return pa.field(field["name"], kind, metadata=metadata)


def _arrow_type(field: Field) -> "pa.DataType":
    import pyarrow as pa  # noqa: PLC0415 - an extra

    match field["type"]:
        case "RECORD" | "STRUCT":
            return pa.struct([_arrow_field(inner) for inner in field["fields"]])
        case "TIMESTAMP":
            return pa.timestamp("us", tz="UTC")
        case "NUMERIC" | "DECIMAL":
            return pa.decimal128(38, 9)
        case "BIGNUMERIC" | "BIGDECIMAL":
            return pa.decimal256(76, 38)
    return pa.type_for_alias(_ALIASES.get(field["type"], "string"))


def _arrow_value(value: Any, field: Field) -> Any:
    """Return a value for Arrow, which converts anything but JSON by itself."""
    if value is None:
        return None
    if field.get("mode") == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        return [_arrow_value(element, single) for element in value]
    if field["type"] in {"RECORD", "STRUCT"}:
        inner = field["fields"]
        return {each["name"]: _arrow_value(value.get(each["name"]), each) for each in inner}
    kind = field["type"]
    if isinstance(value, str) and kind in _PARSERS:
        return _PARSERS[kind](value)
    is_text = kind not in _ALIASES and "NUMERIC" not in kind and "DECIMAL" not in kind
    if kind == "JSON" or (is_text and kind != "TIMESTAMP" and not isinstance(value, str)):
        return to_json(value)
    return value


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is complete; a device is opened itself."""
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
