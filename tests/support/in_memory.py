"""A store and a sink for a handler, in memory."""

from dataclasses import replace
from io import BytesIO

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.read.source import StreamSource
from dcm2bq.endpoints import RowByRow
from dcm2bq.rows import DeadLetterRow, InstanceRow
from dcm2bq.stored_object import StoredObject


class MemoryReader(StreamSource):
    """An object in memory."""

    bytes_read = 0


class MemoryStore:
    """Has the same content for every object."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:  # noqa: ARG002
        """Return the object with the size of the content."""
        return replace(stored, size=len(self._content))

    def open(self, stored: StoredObject, deadline: Deadline) -> MemoryReader:  # noqa: ARG002
        """Return a reader of the content."""
        return MemoryReader(BytesIO(self._content))


class MemorySink(RowByRow):
    """Keeps rows in a list."""

    def __init__(self) -> None:
        self.rows: list[InstanceRow | DeadLetterRow] = []

    def insert(self, row: InstanceRow, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep a row."""
        self.rows.append(row)

    def insert_dead_letter(self, row: DeadLetterRow, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep a dead letter."""
        self.rows.append(row)
