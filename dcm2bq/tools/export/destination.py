"""The folder of an export: `instances/study_year=YYYY/` and `dead_letters/`, and the ledger.

Part files appear under their names by a rename, after the ledger has noted them. A run that finds
noted files under temporary names finishes the renames of the one before; it deletes all others.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcm2bq.errors import ConfigError
from dcm2bq.tools.export.collected_rows import DEAD_LETTERS, INSTANCES, TableRow
from dcm2bq.tools.export.ledger import KnownObject, Ledger, PartFile, PartState
from dcm2bq.tools.export.part_files import PartFiles, rewrite, temporary
from dcm2bq.tools.tables import Field

NO_YEAR = "0"
"""The year of objects without StudyDate.

`__HIVE_DEFAULT_PARTITION__` is NULL in Hive, Spark and DuckDB, but `pandas.read_parquet` fails on a
folder that has it (pyarrow 26: "Cannot yet unify dictionaries with nulls").
"""

_RECORD = "_export"
"""The folder of the ledger and of temporary files: readers skip names that begin with `_`."""
_LEDGER = "ledger.sqlite"
_COMMIT_OBJECTS = 50_000
"""Most objects that a run repeats if it is killed, and also most that share a part file."""
_COMMIT_BYTES = 2 * 1024**3
"""The same in bytes of rows before compression: 50,000 objects with headers of 40 KB."""
_COMMIT_SECONDS = 300.0
"""The same in time: reads from Cloud Storage may be slow."""
_COLUMNS_BYTES = 4_000
"""Memory of a row without its metadata: the objects of Python for 35 values (measured)."""


class Destination:
    """The folder of an export, open for one run.

    Raises `ConfigError` for a folder that holds something else, an export with other `facts`, or
    one that another process writes to, and `OSError` if it cannot be written. Close it at the end.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, str], columns: Mapping[str, Sequence[Field]]
    ) -> None:
        self.folder = folder
        self._record = folder / _RECORD
        ledger = self._record / _LEDGER
        if not ledger.exists() or not ledger.stat().st_size:
            _refuse_content(folder)
            self._record.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(ledger, facts)
        try:
            self._recover()
            self._parts = PartFiles(self._record, columns, self._ledger.next_part())
        except BaseException:
            self._ledger.close()
            raise
        self._objects = 0
        self._committed = time.monotonic()
        self._is_torn = False

    def see(self, path: str) -> KnownObject:
        """Note that an object is listed; return what is known of it."""
        return self._ledger.see(path)

    def store(self, path: str, version: str | None, rows: Iterable[TableRow]) -> Counter[str]:
        """Store the rows of an object in place of those it had; return their number by table.

        Without a version, the next run replaces them.
        """
        counts: Counter[str] = Counter()
        parts = set()
        with self._in_whole():
            for table, row in rows:
                counts[table] += 1
                parts.add(self._parts.add(table, _folder(table, row), row, _size(row)))
            self._ledger.record(path, version, parts)
        self._objects += 1
        is_due = time.monotonic() - self._committed > _COMMIT_SECONDS
        if is_due or self._objects >= _COMMIT_OBJECTS or self._parts.bytes >= _COMMIT_BYTES:
            self.commit()
        return counts

    def commit(self) -> None:
        """Make everything that was stored appear; a run that is killed later does not repeat it.

        After an error in the midst of `store` or of this, it does nothing.
        """
        if self._is_torn:
            return
        with self._in_whole():
            for part in self._parts.finish():
                self._ledger.add(part, PartState.WRITTEN)
            self._ledger.commit()
            self._parts.release()
            self._publish()
        self._objects = 0
        self._committed = time.monotonic()

    def forget_unseen(self) -> int:
        """Remove the objects that this run has not listed; return how many had rows."""
        return self._ledger.forget_unseen()

    def sweep(self) -> None:
        """Rewrite the part files that hold rows of earlier versions or of objects that are gone."""
        self.commit()
        for part in self._ledger.stale_parts():
            target = temporary(self._record, part.number)
            rows, size = rewrite(self.folder / part.file, target, self._ledger.stale_paths(part))
            state = PartState.WRITTEN if rows else PartState.DOOMED
            self._ledger.add(PartFile(part.number, part.file, rows, size), state)
            self._ledger.refresh(part)
            self._ledger.commit()
            self._publish()

    def totals(self) -> tuple[Mapping[str, int], int, int]:
        """Return the number of rows by table, of part files and of their bytes."""
        rows: Counter[str] = Counter({INSTANCES: 0, DEAD_LETTERS: 0})
        parts = self._ledger.parts()
        for part in parts:
            rows[part.file.partition("/")[0]] += part.rows
        return rows, len(parts), sum(part.bytes for part in parts)

    def close(self) -> None:
        """Delete what was not committed, and let other processes use the folder."""
        self._parts.discard()
        self._ledger.close()

    @contextmanager
    def _in_whole(self) -> Iterator[None]:
        """Delay an interrupt until a block has ended; note if an error ends it."""
        self._is_torn = True
        with _uninterrupted():
            yield
            self._is_torn = False

    def _recover(self) -> None:
        """Finish what an earlier run has begun; delete what it did not commit."""
        self._publish()
        for left in self._record.glob("part-*.parquet"):
            left.unlink()
        for part in self._ledger.parts():
            if not (self.folder / part.file).exists():
                raise ConfigError(
                    f"{self.folder / part.file}: is missing, so its rows are lost: "
                    "export into another folder"
                )

    def _publish(self) -> None:
        """Rename the files that are written, and delete those that are doomed."""
        for part in self._ledger.parts(PartState.WRITTEN):
            target = self.folder / part.file
            target.parent.mkdir(parents=True, exist_ok=True)
            source = temporary(self._record, part.number)
            if source.exists():  # otherwise it was renamed before the last run was killed
                source.replace(target)
            self._ledger.add(part, PartState.PUBLISHED)
        for part in self._ledger.parts(PartState.DOOMED):
            temporary(self._record, part.number).unlink(missing_ok=True)
            target = self.folder / part.file
            target.unlink(missing_ok=True)
            if target.parent.exists() and not any(target.parent.iterdir()):
                target.parent.rmdir()
            self._ledger.drop(part)
        self._ledger.commit()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay SIGINT until a block has ended; only the main thread receives it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        signal.raise_signal(signal.SIGINT)


def _refuse_content(folder: Path) -> None:
    """Raise `ConfigError` unless a folder is absent, empty, or was just begun to be an export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder")
    if folder.exists() and any(entry.name != _RECORD for entry in folder.iterdir()):
        raise ConfigError(f"{folder}: holds something else than an export: use another folder")


def _folder(table: str, row: Mapping[str, Any]) -> str:
    if table != INSTANCES:
        return table
    return f"{table}/study_year={(row['StudyDate'] or NO_YEAR).partition('-')[0]}"


def _size(row: Mapping[str, Any]) -> int:
    """Return how much memory a row takes, in bytes."""
    return len(row.get("metadata") or "") + _COLUMNS_BYTES
