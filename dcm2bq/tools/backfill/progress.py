"""The progress of a run on this machine: each step of each process writes a file of counts."""

import time
import uuid
from collections import Counter
from pathlib import Path

import msgspec

from dcm2bq.errors import (
    ConfigError,
    Dcm2BqError,
    LoadFailedError,
    QuotaExceededError,
    RetryableError,
    ServiceError,
    describe,
)
from dcm2bq.tools.wording import counted, duration

_WRITE_SECONDS = 0.5  # as often as the progress is shown (`in_process`)
_ROW_COUNTS = {"instances rows", "dead_letter rows"}
"""Counts of rows that were loaded; all others are of objects, by result."""
_KINDS: tuple[tuple[type[Exception], type[Dcm2BqError]], ...] = (
    (QuotaExceededError, QuotaExceededError),
    (LoadFailedError, LoadFailedError),
    (RetryableError, ServiceError),
    (ConfigError, ConfigError),
    (Exception, Dcm2BqError),
)
"""The error of a step, and the one that is raised for it; the first that fits counts."""


class _Failure(msgspec.Struct, frozen=True):
    kind: str
    text: str


class Meter:
    """Counts for one step of one process, written to a file in `folder`, if there is one."""

    def __init__(self, folder: str | None) -> None:
        self._file = Path(folder, f"{uuid.uuid4().hex}.json") if folder else None
        self._counts: Counter[str] = Counter()
        self._written = time.monotonic()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count; the file is written every `_WRITE_SECONDS`."""
        self._counts[name] += number
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        self._written = time.monotonic()
        if self._file:
            _write(self._file, msgspec.json.encode(self._counts))

    def fail(self, error: Exception) -> None:
        """Record why the step failed."""
        if self._file:
            raised = next(raised for kind, raised in _KINDS if isinstance(error, kind))
            failure = _Failure(raised.__name__, describe(error))
            _write(self._file.with_suffix(".failure"), msgspec.json.encode(failure))


def totals(folder: Path) -> Counter[str]:
    """Return the sum of all counts in a folder."""
    total: Counter[str] = Counter()
    for file in folder.glob("*.json"):
        total.update(msgspec.json.decode(file.read_bytes(), type=dict[str, int]))
    return total


def failure(folder: Path) -> Dcm2BqError | None:
    """Return the error of a step that failed; None if there is none."""
    kinds = {raised.__name__: raised for _, raised in _KINDS}
    for file in folder.glob("*.failure"):
        recorded = msgspec.json.decode(file.read_bytes(), type=_Failure)
        return kinds[recorded.kind](recorded.text)
    return None


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.replace(file)


def line(counts: Counter[str], total: int, seconds: float, before: int = 0) -> str:
    """Return the progress of a run as one line.

    `total` is the number of all objects, and `before` the number of those that an earlier attempt
    has handled; they do not count towards the rate.
    """
    done = _handled(counts)
    rate = done / seconds if seconds > 0 else 0.0
    left = total - before - done
    remaining = f", {duration(left / rate)} left" if rate and left > 0 else ""
    return (
        f"{before + done:,} of {counted(total, 'object')}, "
        f"{counted(counts['inserted'], 'row')}, "
        f"{counted(counts['dead_lettered'], 'dead letter')}, {rate:,.0f} objects/s{remaining}"
    )


def _handled(counts: Counter[str]) -> int:
    """Return how many objects were handled, whatever the result."""
    return sum(number for name, number in counts.items() if name not in _ROW_COUNTS)
