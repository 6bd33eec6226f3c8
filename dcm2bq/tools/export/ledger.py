"""What an export holds: each object with its version, and the part files with its rows.

A SQLite database in the folder of the export. What is written to it counts from the next `commit`
on, so that a process that ends at any moment leaves a consistent state.
"""

import errno
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from dcm2bq.errors import ConfigError

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
  path TEXT PRIMARY KEY, version TEXT, parts TEXT NOT NULL, seen INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  number INTEGER PRIMARY KEY, file TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
  state INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS stale (part INTEGER, path TEXT, PRIMARY KEY (part, path)) WITHOUT ROWID;
"""
_RUN = "run"
_ROWS_OF_PATH = "SELECT path, parts FROM objects WHERE path = ? AND parts != ''"
_ROWS_OF_UNSEEN = "SELECT path, parts FROM objects WHERE seen < ? AND parts != ''"
_SYSTEM_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
"""What SQLite's results mean in terms of the operating system."""


class PartState(IntEnum):
    """What must still be done with a part file."""

    WRITTEN = 0  # under a temporary name: rename it
    PUBLISHED = 1
    DOOMED = 2  # delete it


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part file, relative to the folder of the export; `bytes` is its size."""

    number: int
    file: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class KnownObject:
    """What is known of a listed object: the `version` that was exported, None if there is none.

    It `has_failed` if it was tried and has dead letters. One that `is_repeated` was listed before
    in this run.
    """

    version: str | None
    has_failed: bool
    is_repeated: bool


class Ledger:
    """The ledger of one export; used by one thread.

    `facts` say what the export is made of: an export made of others raises `ConfigError`. Raises
    `ConfigError` if another process uses the ledger or if it is damaged, and `OSError` if it
    cannot be written.
    """

    def __init__(self, file: Path, facts: Mapping[str, str]) -> None:
        self._file = file
        with self._mapped():
            self._base = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            self._run = self._begin(facts)
        except BaseException:
            self._base.close()
            raise

    def see(self, path: str) -> KnownObject:
        """Note that an object is listed."""
        with self._mapped():
            query = "SELECT version, parts, seen FROM objects WHERE path = ?"
            version, parts, seen = self._base.execute(query, (path,)).fetchone() or (None, "", 0)
            self._base.execute(
                "INSERT INTO objects VALUES (?1, NULL, '', ?2) "
                "ON CONFLICT (path) DO UPDATE SET seen = ?2",
                (path, self._run),
            )
        return KnownObject(version, version is None and parts != "", seen == self._run)

    def record(self, path: str, version: str | None, parts: Collection[int]) -> None:
        """Note that a listed object was exported into `parts`; rows in others become stale.

        Without a version, the object is exported again by the next run.
        """
        with self._mapped():
            self._expire(_ROWS_OF_PATH, path)
            self._base.execute(
                "UPDATE objects SET version = ?, parts = ? WHERE path = ?",
                (version, ",".join(map(str, sorted(parts))), path),
            )

    def forget_unseen(self) -> int:
        """Make the rows of objects that this run has not listed stale; return how many had rows."""
        with self._mapped():
            count = self._expire(_ROWS_OF_UNSEEN, self._run)
            self._base.execute("DELETE FROM objects WHERE seen < ?", (self._run,))
        return count

    def next_part(self) -> int:
        """Return the first number that no part has had since the last one was deleted."""
        with self._mapped():
            (last,) = self._base.execute("SELECT MAX(number) FROM parts").fetchone()
        return (last or 0) + 1

    def add(self, part: PartFile, state: PartState) -> None:
        """Note a part file, or another state of it."""
        with self._mapped():
            self._base.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)",
                (part.number, part.file, part.rows, part.bytes, state),
            )

    def drop(self, part: PartFile) -> None:
        """Forget a part file that was deleted."""
        with self._mapped():
            self._base.execute("DELETE FROM parts WHERE number = ?", (part.number,))

    def parts(self, state: PartState | None = None) -> list[PartFile]:
        """Return the part files in a state, or all."""
        with self._mapped():
            query = "SELECT number, file, rows, bytes FROM parts WHERE state = ? OR ?1 IS NULL"
            return [PartFile(*row) for row in self._base.execute(query, (state,))]

    def stale_parts(self) -> list[PartFile]:
        """Return the part files with stale rows."""
        with self._mapped():
            query = (
                "SELECT number, file, rows, bytes FROM parts "
                "WHERE number IN (SELECT part FROM stale) ORDER BY number"
            )
            return [PartFile(*row) for row in self._base.execute(query)]

    def stale_paths(self, part: PartFile) -> set[str]:
        """Return the paths of the stale rows of a part file: all rows with these paths are."""
        with self._mapped():
            query = "SELECT path FROM stale WHERE part = ?"
            return {path for (path,) in self._base.execute(query, (part.number,))}

    def refresh(self, part: PartFile) -> None:
        """Note that a part file has no stale rows any more."""
        with self._mapped():
            self._base.execute("DELETE FROM stale WHERE part = ?", (part.number,))

    def commit(self) -> None:
        """Make everything since the last commit count."""
        with self._mapped():
            self._base.execute("COMMIT")
            self._base.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Drop what is not committed, and let others use the ledger."""
        self._base.close()

    def _begin(self, facts: Mapping[str, str]) -> int:
        """Lock the ledger; return the number of the run."""
        with self._mapped():
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Names of deleted files may identify patients; not every build has this as its default.
            self._base.execute("PRAGMA secure_delete = ON")
            self._base.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._base.execute(statement)
            known = dict(self._base.execute("SELECT name, value FROM facts"))
            run = int(known.pop(_RUN, 0)) + 1
            (is_begun,) = self._base.execute("SELECT EXISTS (SELECT 1 FROM objects)").fetchone()
            differing = sorted({name for name, _ in known.items() ^ facts.items()})
            if is_begun and differing:
                raise ConfigError(
                    f"{self._file.parents[1]}: holds an export that differs in "
                    f"{', '.join(differing)}: use the same sources and options, or another folder"
                )
            values = {**facts, _RUN: str(run)}.items()
            self._base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)
        return run

    def _expire(self, query: str, value: str | int) -> int:
        """Make all rows of the objects that a query returns stale; return how many these are."""
        count = 0
        for path, parts in self._base.execute(query, (value,)):
            count += 1
            stale = ((int(number), path) for number in parts.split(","))
            self._base.executemany("INSERT OR IGNORE INTO stale VALUES (?, ?)", stale)
        return count

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF  # without the extension
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise ConfigError(
                    f"{self._file.parents[1]}: another export writes to this folder: wait for it"
                ) from None
            number = _SYSTEM_ERRORS.get(code, errno.EIO)
            raise OSError(number, os.strerror(number), str(self._file)) from None
        except sqlite3.DatabaseError:
            raise ConfigError(
                f"{self._file}: the record of the export is damaged: export into another folder"
            ) from None
