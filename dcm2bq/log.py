"""Structured logs for Cloud Logging: one JSON object per line, with allow-listed fields.

Lines of other libraries are reduced to their logger, their severity, and the type and frames of an
exception: their texts can quote values, and values are patient data.
"""

import atexit
import hashlib
import hmac
import logging
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import msgspec

from dcm2bq.config import Config
from dcm2bq.errors import RetryableError, describe
from dcm2bq.hash_key import hash_key
from dcm2bq.row_names import row_names
from dcm2bq.terminal import printable_json

FIELDS = (
    "event_id",
    "event_type",
    "path",
    "generation",
    "outcome",
    "ignored",
    "bytes_read",
    "archive",
    "size",
    "memory_bytes",
    "milliseconds",
    "warnings",
    "error_type",
    "error",
    "logging.googleapis.com/trace",
)
"""Fields that a line may have beside `severity`, `time`, `logger` and `message`."""

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_MAX_CHARS = 4096
"""Longest text of a field, in characters: no path is longer, and a log entry may have 256 KiB."""
_TALLY_SECONDS = 60  # soon enough for anyone who misses an object, and cheap under any load
_LOGGER = logging.getLogger("dcm2bq")


def setup(config: Config) -> None:
    """Send everything that this process logs to stdout, one JSON object per line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter(_logged_path(config)))
    handler.addFilter(_is_new)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _LOGGER.setLevel(config.log.level)


def write(severity: Severity, message: str, **fields: Any) -> None:
    """Log a line with a constant text and some of `FIELDS`; None leaves a field out."""
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"fields not allowed in logs: {', '.join(sorted(unknown))}")
    _LOGGER.log(getattr(logging, severity), message, extra={"fields": fields})


class Tally:
    """Counts events that have no line of their own at INFO, in at most one line per minute.

    A line is written with the first count, then with the first event after a minute, and when the
    process ends. No thread waits for that minute, because Cloud Run gives a process CPU only
    during requests. Used by several threads.
    """

    def __init__(self, message: str, field: str) -> None:
        self._message = message
        self._field = field
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._due = -math.inf
        atexit.register(self.flush)

    def add(self, reason: str) -> None:
        """Count one event."""
        with self._lock:
            self._counts[reason] += 1

    def write_if_due(self) -> None:
        """Log the counts since the last line, if that is at least a minute ago."""
        if self._counts:  # without the lock, so that ordinary events never wait
            self._write(time.monotonic())

    def flush(self) -> None:
        """Log the counts since the last line."""
        self._write(math.inf)

    def _write(self, now: float) -> None:
        with self._lock:
            if not self._counts or now < self._due:
                return
            counts, self._counts = dict(self._counts), Counter()
            self._due = now + _TALLY_SECONDS
        write("INFO", self._message, **{self._field: counts})


class _JsonFormatter(logging.Formatter):
    def __init__(self, logged_path: Callable[[str], str] | None) -> None:
        super().__init__()
        self._logged_path = logged_path

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"severity": record.levelname, "time": _rfc3339(record.created)}
        if record.name == _LOGGER.name:
            line["message"] = record.msg
            fields = record.__dict__["fields"]
            line |= {name: _bounded(value) for name, value in fields.items() if value is not None}
        else:
            line["logger"] = record.name
            if record.exc_info and record.exc_info[1]:
                line["message"] = describe(record.exc_info[1])
        if self._logged_path and "path" in line:
            line["path"] = self._logged_path(line["path"])
        return printable_json(msgspec.json.encode(line).decode())


def _logged_path(config: Config) -> Callable[[str], str] | None:
    """Return what hashes the paths in lines; None if they are logged in full.

    Where rows have hashes, too, lines have the same, so that a line leads to its row.
    """
    if config.log.path == "full":
        return None
    if config.privacy.hashes_paths:
        return row_names(config.privacy).path
    return partial(_hashed, hash_key(config.privacy))


def _hashed(key: bytes, path: str) -> str:
    """Return a hash of a path; without a key, anyone who can guess the path can confirm it."""
    if key:
        return "hmac-sha256:" + hmac.digest(key, path.encode(), hashlib.sha256).hex()
    return "sha256:" + hashlib.sha256(path.encode()).hexdigest()


def _bounded(value: Any) -> Any:
    """Cut text that a hostile event made too long, and escape what UTF-8 cannot encode."""
    if not isinstance(value, str):
        return value
    value = value[:_MAX_CHARS]
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()


def _is_new(record: logging.LogRecord) -> bool:
    """Return whether a line is new: Flask logs exceptions that an event's own line has shown."""
    return not (record.exc_info and isinstance(record.exc_info[1], RetryableError))


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
