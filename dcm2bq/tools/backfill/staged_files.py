"""Rows for load jobs: compressed newline-delimited JSON in the run's folder."""

import threading
import uuid
import zlib
from collections import defaultdict

import msgspec

from dcm2bq.deadline import Deadline
from dcm2bq.endpoints import RowByRow
from dcm2bq.errors import RetryableError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.rows import DeadLetterRow, InstanceRow

INSTANCES, DEAD_LETTER = "instances", "dead_letter"
FILE_BYTES = 16 * 1024 * 1024
"""Compressed size at which a file is closed, as it is held in memory until then.

A load job accepts up to 4 GB.
"""

_GZIP = 31  # zlib's wbits for the gzip format
_LEVEL = 3  # of 9


class StagedFiles(RowByRow):
    """A sink for the handler that writes the rows of one shard; used by several threads.

    Each attempt has its own names, so files of a failed attempt are never mistaken for others.
    """

    def __init__(self, folder: RunFolder, shard: int) -> None:
        self._folder = folder
        self._place = f"rows/{shard:06}/{uuid.uuid4().hex}"
        self._open: dict[str, GzipFile] = defaultdict(GzipFile)
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self.files: dict[str, list[str]] = defaultdict(list)
        self.sizes: dict[str, int] = {}

    def insert(self, row: InstanceRow, deadline: Deadline) -> None:  # noqa: ARG002 - writes to memory
        """Write a row of `instances`."""
        self._write(INSTANCES, encode(row))

    def insert_dead_letter(self, row: DeadLetterRow, deadline: Deadline) -> None:  # noqa: ARG002
        """Write a row of `dead_letter`."""
        self._write(DEAD_LETTER, encode(row))

    def close(self) -> None:
        """Upload the remaining files; raise if any file could not be uploaded."""
        for table, file in list(self._open.items()):
            self._send(table, file)
        if self._failure:
            raise self._failure

    def _write(self, table: str, line: bytes) -> None:
        with self._lock:
            file = self._open[table]
            file.add(line)
            if file.size < FILE_BYTES:
                return
            del self._open[table]
        self._send(table, file)

    def _send(self, table: str, file: "GzipFile") -> None:
        """Upload a file without holding the lock: other threads fill the next one."""
        with self._lock:
            name = f"{self._place}/{table}-{len(self.sizes):06}.ndjson.gz"
            self.sizes[name] = 0
        try:
            content = file.close()
            self._folder.create(name, content)
        except RetryableError as error:
            self._failure = error
            raise
        with self._lock:
            self.files[table].append(name)
            self.sizes[name] = len(content)


class GzipFile:
    """A gzip file in memory; `size` is that of its compressed bytes so far."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, line: bytes) -> None:
        """Append bytes."""
        self._append(self._compressor.compress(line))

    def close(self) -> bytes:
        """Return the content of the file."""
        self._append(self._compressor.flush())
        return b"".join(self._parts)

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self.size += len(part)


def encode(row: InstanceRow | DeadLetterRow) -> bytes:
    """Return a row as a line of a load job, where a JSON column is an object, not a string."""
    content = msgspec.to_builtins(row)
    if isinstance(row, InstanceRow) and row.metadata is not None:
        content["metadata"] = msgspec.Raw(row.metadata.encode())
    return msgspec.json.encode(content) + b"\n"
