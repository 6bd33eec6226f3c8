"""Places that events are handled between: where objects are read, and where rows go.

In the function they are those of `gcs` and `bigquery`; the tools may pass others.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from dcm2bq import rows
from dcm2bq.deadline import Deadline
from dcm2bq.stored_object import StoredObject


class ObjectContent(Protocol):
    """The content of one generation, for random access; sizes are in bytes."""

    @property
    def size(self) -> int:
        """Length of the content."""

    @property
    def bytes_read(self) -> int:
        """How much has been fetched so far."""

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`; fewer only at the object's end."""


class ObjectStore(Protocol):
    """A place to read objects from."""

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:
        """Return the object with its size, type, encoding and check sums."""

    def open(self, stored: StoredObject, deadline: Deadline) -> ObjectContent:
        """Return the content of exactly that generation, whose size is known."""


class Sink(Protocol):
    """A place for rows; a method returns when its rows are durable, and raises otherwise.

    The methods for several rows return the error of each row that is not durable.
    """

    def insert(self, row: rows.InstanceRow, deadline: Deadline) -> None:
        """Insert a row into `instances`."""

    def insert_dead_letter(self, row: rows.DeadLetterRow, deadline: Deadline) -> None:
        """Insert a row into `dead_letter`."""

    def insert_all(
        self, rows: Sequence[rows.InstanceRow], deadline: Deadline
    ) -> Sequence[Exception | None]:
        """Insert rows into `instances`."""

    def insert_dead_letters(
        self, rows: Sequence[rows.DeadLetterRow], deadline: Deadline
    ) -> Sequence[Exception | None]:
        """Insert rows into `dead_letter`."""


class RowByRow(ABC):
    """The methods for several rows of a sink that takes them one by one, and any number of them."""

    @abstractmethod
    def insert(self, row: rows.InstanceRow, deadline: Deadline) -> None:
        """Insert a row into `instances`."""

    @abstractmethod
    def insert_dead_letter(self, row: rows.DeadLetterRow, deadline: Deadline) -> None:
        """Insert a row into `dead_letter`."""

    def insert_all(
        self, rows: Sequence[rows.InstanceRow], deadline: Deadline
    ) -> Sequence[Exception | None]:
        """Insert rows into `instances`."""
        for row in rows:
            self.insert(row, deadline)
        return [None] * len(rows)

    def insert_dead_letters(
        self, rows: Sequence[rows.DeadLetterRow], deadline: Deadline
    ) -> Sequence[Exception | None]:
        """Insert rows into `dead_letter`."""
        for row in rows:
            self.insert_dead_letter(row, deadline)
        return [None] * len(rows)
