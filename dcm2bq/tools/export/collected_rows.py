"""The rows of one object, from the handler to the files of an export."""

import tempfile
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import IO, Any

import msgspec

from dcm2bq.deadline import Deadline
from dcm2bq.endpoints import RowByRow
from dcm2bq.lifted import LIFTED
from dcm2bq.rows import EXPANDED, DeadLetterRow, InstanceRow
from dcm2bq.tools.export.local_files import path_of
from dcm2bq.tools.export.part_files import named

INSTANCES, DEAD_LETTERS = "instances", "dead_letters"

_MEMORY_BYTES = 4_000_000
"""Encoded rows that are kept in memory; more wait in a temporary file, as those of archives do."""
_LENGTH_BYTES = 4
"""Of the number before each row in the file."""
_TIMES = [column.keyword for column in LIFTED if column.type == "TIME"]

type TableRow = tuple[str, dict[str, Any]]
"""The name of a table, and a row with values by column."""


class CollectedRows(RowByRow):
    """A sink that keeps the rows of one object, whose rows count all or not at all.

    The record that an archive was expanded is left out, as in `instances_live`. The methods are
    called by one thread at a time. Close it to delete the temporary file.
    """

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._kept: list[bytes] = []
        self._size = 0
        self._spilled: IO[bytes] | None = None

    def insert(self, row: InstanceRow, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep a row of `instances`."""
        if row.event != EXPANDED:
            self._add(INSTANCES, _columns(row))

    def insert_dead_letter(self, row: DeadLetterRow, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep a dead letter, as the view `dead_letters` shows it."""
        self._add(DEAD_LETTERS, _open_letter(row))

    def __iter__(self) -> Iterator[TableRow]:
        """Yield the rows, once."""
        decode = msgspec.msgpack.Decoder(TableRow.__value__).decode
        if self._spilled is not None:
            self._spilled.seek(0)
            while length := self._spilled.read(_LENGTH_BYTES):
                yield decode(self._spilled.read(int.from_bytes(length)))
        yield from map(decode, self._kept)

    def clear(self) -> None:
        """Drop the rows."""
        self._kept, self._size = [], 0
        if self._spilled is not None:
            self._spilled.close()
            self._spilled = None

    def _add(self, table: str, row: dict[str, Any]) -> None:
        encoded = self._encode((table, row))
        self._kept.append(encoded)
        self._size += len(encoded)
        if self._size < _MEMORY_BYTES:
            return
        with named(Path(tempfile.gettempdir())):
            if self._spilled is None:
                self._spilled = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `clear`
            for kept in self._kept:
                self._spilled.write(len(kept).to_bytes(_LENGTH_BYTES))
                self._spilled.write(kept)
        self._kept, self._size = [], 0


def _columns(row: InstanceRow) -> dict[str, Any]:
    """Return a row by column, with times written in one way, as BigQuery does."""
    columns: dict[str, Any] = msgspec.to_builtins(row, builtin_types=(datetime,))
    for name in _TIMES:
        if columns[name] is not None:
            columns[name] = time.fromisoformat(columns[name]).isoformat()
    return columns


def _open_letter(row: DeadLetterRow) -> dict[str, Any]:
    """Return a dead letter in the columns of the view: this one is its event's first and last."""
    attributes = msgspec.json.decode(row.attributes)
    content = msgspec.json.decode(row.data)
    return {
        "path": path_of(content["bucket"], content["name"]),
        "version": content["generation"],
        "event": "finalized",
        "reason": attributes["error_type"],
        "message": attributes["error"],
        "first_seen": row.publish_time,
        "last_seen": row.publish_time,
        "attempts": 1,
        "source": "export",
        "message_id": row.message_id,
        "member": attributes.get("member"),
    }
