"""Part files of an export: written under temporary names, and rewritten without some rows."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dcm2bq.tools.export.ledger import PartFile
from dcm2bq.tools.tables import GROUP_ROWS, Field, ParquetTable, Row

BUFFERED_BYTES = 32 * 1024 * 1024
"""Memory of the rows that wait for their row groups, of all files together."""
PART_BYTES = 512 * 1024 * 1024
"""Rows of a file before compression, which leaves about a tenth: a good size for every reader."""
OPEN_FILES = 256
"""Files that are open at once: those of 256 years. Headers can have any year, however."""

_FOR_EVERY_READER = {"JSON": "STRING", "TIME": "STRING"}
"""Types that are written as others: Spark before 4.1 cannot read a file with a TIME."""


@dataclass(slots=True)
class _OpenPart:
    """A part that takes rows; its file is opened for the first group of them."""

    number: int
    file: str
    columns: Sequence[Field]
    temporary: Path
    stream: BinaryIO | None = None
    table: ParquetTable | None = None
    waiting: list[Row] = field(default_factory=list)
    waiting_bytes: int = 0
    rows: int = 0
    bytes: int = 0

    def write(self) -> None:
        """Write the waiting rows as a group."""
        with named(self.temporary):
            if self.stream is None:
                self.stream = self.temporary.open("wb")
            if self.table is None:
                self.table = ParquetTable(self.stream, self.columns)
            self.table.write(self.waiting)
        self.rows += len(self.waiting)
        self.waiting, self.waiting_bytes = [], 0

    def end(self) -> PartFile:
        """Complete the file."""
        if self.waiting:
            self.write()
        assert self.table is not None
        assert self.stream is not None
        with named(self.temporary):
            self.table.close()
            with self.stream:
                size = _sync(self.stream)
        return PartFile(self.number, self.file, self.rows, size)

    def discard(self) -> None:
        """Delete the file, whose disk may be full."""
        if self.stream is not None:
            with suppress(Exception), self.stream:
                if self.table is not None:
                    self.table.close()
        self.temporary.unlink(missing_ok=True)


class PartFiles:
    """Writes rows into part files of the folder `scratch`, a file for each folder of the export.

    `columns` are the fields of each table, and `number` is that of the first part. Files are
    complete once `finish` has returned them. Memory is bounded, whatever the number of rows.
    """

    def __init__(self, scratch: Path, columns: Mapping[str, Sequence[Field]], number: int) -> None:
        self._scratch = scratch
        self._columns = columns
        self._next = number
        self._parts: dict[str, _OpenPart] = {}  # by folder
        self._written: dict[str, None] = {}  # folders with open files; written last is at the end
        self._finished: list[PartFile] = []
        self._waiting_bytes = 0
        self.bytes = 0

    def add(self, table: str, folder: str, row: Row, size: int) -> int:
        """Add a row of about `size` bytes to a file in a folder; return the number of the part."""
        part = self._parts.get(folder) or self._begin(table, folder)
        part.waiting.append(row)
        part.waiting_bytes += size
        part.bytes += size
        self._waiting_bytes += size
        self.bytes += size
        if len(part.waiting) >= GROUP_ROWS:
            self._write(folder)
        while self._waiting_bytes > BUFFERED_BYTES:
            self._write(max(self._parts, key=lambda name: self._parts[name].waiting_bytes))
        if part.bytes > PART_BYTES and self._parts.get(folder) is part:
            self._end(folder)
        return part.number

    def finish(self) -> list[PartFile]:
        """Complete all files; return those that were not released."""
        for folder in list(self._parts):
            self._end(folder)
        self.bytes = 0
        return self._finished

    def release(self) -> None:
        """Leave the completed files to the caller."""
        self._finished = []

    def discard(self) -> None:
        """Delete the files that were not released."""
        for part in self._parts.values():
            part.discard()
        for finished in self._finished:
            temporary(self._scratch, finished.number).unlink(missing_ok=True)

    def _begin(self, table: str, folder: str) -> _OpenPart:
        number = self._next
        self._next += 1
        file = str(PurePosixPath(folder, f"part-{number:06}.parquet"))
        part = _OpenPart(number, file, self._columns[table], temporary(self._scratch, number))
        self._parts[folder] = part
        return part

    def _write(self, folder: str) -> None:
        part = self._parts[folder]
        self._written.pop(folder, None)
        if len(self._written) >= OPEN_FILES:
            self._end(next(iter(self._written)))
        self._waiting_bytes -= part.waiting_bytes
        part.write()
        self._written[folder] = None

    def _end(self, folder: str) -> None:
        part = self._parts[folder]
        self._waiting_bytes -= part.waiting_bytes
        self._finished.append(part.end())
        del self._parts[folder]
        self._written.pop(folder, None)


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
        with named(target), parquet.ParquetFile(source) as file, target.open("wb") as stream:
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
def named(path: Path) -> Iterator[None]:
    """Name a path in the errors of the system that writing to it raises."""
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
