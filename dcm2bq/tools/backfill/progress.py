"""How far a run on this machine is: each step of each process keeps a file of counts."""

import time
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dcm2bq.errors import ConfigError, Dcm2BqError, RetryableError, ServiceError, describe

_WRITE_SECONDS = 0.5
_FEW = 1.5  # of a unit: less than that is told in the next smaller one


class _Failure(msgspec.Struct, frozen=True):
    kind: str
    text: str


class Meter:
    """Counts for one step of one process, in a file of `folder` (none: nowhere)."""

    def __init__(self, folder: str | None) -> None:
        self._file = Path(folder, f"{uuid.uuid4().hex}.json") if folder else None
        self._counts: Counter[str] = Counter()
        self._written = time.monotonic()

    def count(self, what: str, number: int = 1) -> None:
        """Count something; it is written down now and then."""
        self._counts[what] += number
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the counts down now."""
        self._written = time.monotonic()
        if self._file:
            _write(self._file, msgspec.json.encode(self._counts))

    def fail(self, error: Exception) -> None:
        """Leave word why the step failed."""
        if self._file:
            kind = "ConfigError" if isinstance(error, ConfigError) else ""
            kind = "RetryableError" if isinstance(error, RetryableError) else kind
            failure = _Failure(kind, describe(error))
            _write(self._file.with_suffix(".failure"), msgspec.json.encode(failure))


def counted(folder: Path) -> Counter[str]:
    """Return what was counted by all."""
    total: Counter[str] = Counter()
    for file in folder.glob("*.json"):
        total.update(msgspec.json.decode(file.read_bytes(), type=dict[str, int]))
    return total


def failure(folder: Path) -> Dcm2BqError | None:
    """Return why a step failed, if one did."""
    kinds = {"ConfigError": ConfigError, "RetryableError": ServiceError}
    for file in folder.glob("*.failure"):
        found = msgspec.json.decode(file.read_bytes(), type=_Failure)
        return kinds.get(found.kind, Dcm2BqError)(found.text)
    return None


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.replace(file)


def line(counts: Counter[str], total: int, seconds: float, before: int = 0) -> str:
    """Return what a person wants to know, on one line.

    `total` counts the objects that there are, `before` those of an earlier run, which tell
    nothing of the rate.
    """
    done = handled(counts)
    rate = done / seconds if seconds > 0 else 0.0
    left = total - before - done
    remaining = f", {duration(left / rate)} left" if rate and left > 0 else ""
    return (
        f"{before + done:,} of {total:,} objects, {counts['inserted']:,} rows, "
        f"{counts['dead_lettered']:,} failed, {rate:,.0f} objects/s{remaining}"
    )


def handled(
    counts: Counter[str], but: Iterable[str] = ("instances rows", "dead_letter rows")
) -> int:
    """Return how many objects were handled, one way or the other."""
    return sum(number for what, number in counts.items() if what not in set(but))


def duration(seconds: float) -> str:
    """Return a time as people say it: 45 s, 12 min, 3.4 h."""
    minutes = seconds / 60
    if minutes < _FEW:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes / 60 < _FEW else f"{minutes / 60:.1f} h"
