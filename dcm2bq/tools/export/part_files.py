"""Part files of an export: written under temporary names, and rewritten without some rows."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dcm2bq.tools.export.ledger import Part
from dcm2bq.tools.tables import GROUP_ROWS, Field, ParquetTable, Row

BUFFERED_BYTES = 32 * 1024 * 1024
"""Memory of the rows that wait for their row groups, of all files together."""
PART_BYTES = 512 * 1024 * 1024
"""Rows of a file before compression, which leaves about a tenth: a good size for every reader."""
OPEN_FILES = 64
"""Files that are written at once: studies of 64 years. Headers can have any year."""

_FOR_EVERY_READER = {"JSON": "STRING", "TIME": "STRING"}
"""Types that are written as others: Spark before 4.1 cannot read a file with a TIME."""


@dataclass(slots=True)
class _OpenPart:
    number: int
    file: str
    stream: BinaryIO
    table: ParquetTable
    waiting: list[Row] = field(default_factory=list)
    waiting_bytes: int = 0
    rows: int = 0
    bytes: int = 0


class PartFiles:
    """Writes rows into part files of the folder `scratch`, a file for each folder of the export.

    `columns` are the fields of each table, and `number` is that of the first part. Files are
    complete once `finish` has returned them. Memory is bounded, whatever the number of rows.
    """

    def __init__(self, scratch: Path, columns: Mapping[str, Sequence[Field]], number: int) -> None:
        self._scratch = scratch
        self._columns = columns
        self._next = number
        self._open: dict[str, _OpenPart] = {}  # by folder; the one used last is at the end
        self._finished: list[Part] = []
        self.waiting_bytes = self.bytes = 0

    def add(self, table: str, folder: str, row: Row, size: int) -> int:
        """Add a row of about `size` bytes to a file in a folder; return the number of the part."""
        part = self._open.pop(folder, None) or self._start(table, folder)
        self._open[folder] = part
        part.waiting.append(row)
        part.waiting_bytes += size
        part.bytes += size
        self.waiting_bytes += size
        self.bytes += size
        if len(part.waiting) >= GROUP_ROWS:
            self._write(part)
        while self.waiting_bytes > BUFFERED_BYTES:
            self._write(max(self._open.values(), key=lambda each: each.waiting_bytes))
        if part.bytes > PART_BYTES:
            self._end(folder)
        return part.number

    def finish(self) -> list[Part]:
        """Complete all files; return those that were completed since the last call."""
        for folder in list(self._open):
            self._end(folder)
        finished, self._finished, self.bytes = self._finished, [], 0
        return finished

    def discard(self) -> None:
        """Delete the files that `finish` has not returned."""
        for part in self._open.values():
            with suppress(Exception), part.stream:  # the disk may be full: the file goes anyway
                part.table.close()
            temporary(self._scratch, part.number).unlink(missing_ok=True)
        for finished in self._finished:
            temporary(self._scratch, finished.number).unlink(missing_ok=True)
        self._open, self._finished = {}, []

    def _start(self, table: str, folder: str) -> _OpenPart:
        if len(self._open) >= OPEN_FILES:
            self._end(next(iter(self._open)))
        number = self._next
        self._next += 1
        stream = temporary(self._scratch, number).open("wb")
        file = str(PurePosixPath(folder, f"part-{number:06}.parquet"))
        return _OpenPart(number, file, stream, ParquetTable(stream, self._columns[table]))

    def _write(self, part: _OpenPart) -> None:
        with _named(temporary(self._scratch, part.number)):
            part.table.write(part.waiting)
        part.rows += len(part.waiting)
        self.waiting_bytes -= part.waiting_bytes
        part.waiting, part.waiting_bytes = [], 0

    def _end(self, folder: str) -> None:
        part = self._open[folder]
        if part.waiting:
            self._write(part)
        with _named(temporary(self._scratch, part.number)):
            part.table.close()
            with part.stream:
                size = _sync(part.stream)
        del self._open[folder]
        self._finished.append(Part(part.number, part.file, part.rows, size))


def columns_of(fields: Sequence[Field]) -> list[Field]:
    """Return the fields of a table with types that every reader of Parquet has."""
    return [
        {**each, "type": _FOR_EVERY_READER.get(each["type"], each["type"])}
        | ({"fields": columns_of(each["fields"])} if "fields" in each else {})
        for each in fields
    ]


def temporary(scratch: Path, number: int) -> Path:
    """Return the temporary name of a part file."""
    return scratch / f"part-{number:06}.parquet"


def rewrite(source: Path, target: Path, without: Collection[str]) -> tuple[int, int]:
    """Write a part file again without the rows of some paths; return its rows and its bytes.

    One row group is in memory at a time. A file that cannot be completed is deleted.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.compute as pc  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    rows = 0
    unwanted = pa.array(sorted(without), pa.string())
    try:
        with _named(target), parquet.ParquetFile(source) as file, target.open("wb") as stream:
            with parquet.ParquetWriter(stream, file.schema_arrow, compression="zstd") as writer:
                for number in range(file.num_row_groups):
                    group = file.read_row_group(number)
                    kept = group.filter(pc.invert(pc.is_in(group["path"], unwanted)))
                    if kept.num_rows:
                        writer.write_table(kept)
                    rows += kept.num_rows
            return rows, _sync(stream)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a file in the errors of the system that writing it raises."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def _sync(stream: BinaryIO) -> int:
    """Wait until the content of a file is on the disk; return its size."""
    stream.flush()
    os.fsync(stream.fileno())
    return stream.tell()
