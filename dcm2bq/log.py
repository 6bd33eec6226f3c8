"""Structured logs for Cloud Logging: one JSON object a line, of allow-listed fields.

What other libraries log is reduced to the logger, the severity, and an exception's type and
frames: their texts can quote values, and values are patient data.
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
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from dcm2bq.config import Config, hash_key
from dcm2bq.errors import RetryableError, describe
from dcm2bq.terminal import printable_json

FIELDS = (
    "event_id",
    "event_type",
    "path",
    "generation",
    "outcome",
    "ignored",
    "bytes_read",
    "size",
    "memory_bytes",
    "milliseconds",
    "warnings",
    "error_type",
    "error",
    "logging.googleapis.com/trace",
)
"""What a line may hold beside `severity`, `time`, `logger` and `message`."""

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_MAX_CHARS = 4096
_TALLY_SECONDS = 60  # soon enough for whoever waits for an object, and cheap under any load
_LOGGER = logging.getLogger("dcm2bq")


def setup(config: Config) -> None:
    """Send everything that this process logs to stdout, one JSON object a line."""
    handler = logging.StreamHandler(sys.stdout)
    key = hash_key(config.privacy)
    handler.setFormatter(_JsonFormatter(hash_paths=config.log.path == "hash", key=key))
    handler.addFilter(_not_told_yet)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _LOGGER.setLevel(config.log.level)


def write(severity: Severity, message: str, **fields: Any) -> None:
    """Log a line; `message` is a constant text, `fields` are of `FIELDS`."""
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"not allowed in logs: {', '.join(sorted(unknown))}")
    _LOGGER.log(getattr(logging, severity), message, extra={"fields": fields})


class Tally:
    """Counts what has no line of its own at INFO: a line at most once a minute and process.

    A line comes with the first count, then with the first event after a minute, and at the end of
    the process: no thread waits for it, since Cloud Run gives CPU to a process during requests
    alone. Used by several threads.
    """

    def __init__(self, message: str, field: str) -> None:
        self._message = message
        self._field = field
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._due = -math.inf
        atexit.register(self.flush)

    def add(self, reason: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[reason] += 1

    def write_if_due(self) -> None:
        """Log what was counted since the last line, if that was a minute ago."""
        if self._counts:  # without the lock: an ordinary event has nothing to wait for
            self._write(time.monotonic())

    def flush(self) -> None:
        """Log what was counted since the last line."""
        self._write(math.inf)

    def _write(self, now: float) -> None:
        with self._lock:
            if not self._counts or now < self._due:
                return
            counts, self._counts = dict(self._counts), Counter()
            self._due = now + _TALLY_SECONDS
        write("INFO", self._message, **{self._field: counts})


class _JsonFormatter(logging.Formatter):
    def __init__(self, *, hash_paths: bool, key: bytes) -> None:
        super().__init__()
        self._hash_paths = hash_paths
        self._key = key

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
        if self._hash_paths and "path" in line:
            line["path"] = _hashed(line["path"].encode(), self._key)
        return printable_json(msgspec.json.encode(line).decode())


def _hashed(path: bytes, key: bytes) -> str:
    """Return what stands for a name: who knows names could find it, unless there is a key."""
    if key:
        return "hmac-sha256:" + hmac.digest(key, path, hashlib.sha256).hex()
    return "sha256:" + hashlib.sha256(path).hexdigest()


def _bounded(value: Any) -> Any:
    """Cut what a hostile event could make too long, and escape what UTF-8 cannot hold."""
    if not isinstance(value, str):
        return value
    value = value[:_MAX_CHARS]
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()


def _not_told_yet(record: logging.LogRecord) -> bool:
    """Whether a line is news: Flask logs again what an event's own line has told."""
    return not (record.exc_info and isinstance(record.exc_info[1], RetryableError))


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
