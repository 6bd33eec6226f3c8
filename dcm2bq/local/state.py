"""What a running stack tells about itself, so that `dcm2bq local --query` finds it.

A file for each running stack in a folder of this user's: under XDG_RUNTIME_DIR, else under
the temporary folder.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dcm2bq.config import Config
from dcm2bq.local import servers

_PRIVATE = 0o700


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A running stack: its process, its BigQuery, the files it serves, its configuration."""

    pid: int
    bigquery_port: int
    root: str
    config: Config


@contextmanager
def published(state: State) -> Iterator[None]:
    """Let others find the stack until the block ends."""
    path = _folder() / f"{state.pid}.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(state))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(root: Path | None) -> State | None:
    """Return the stack that serves `root`, or the latest one; forget those that are gone."""
    for path in sorted(_folder().glob("*.json"), key=_age):
        state = _read(path)
        if state is None or not _is_running(state):
            path.unlink(missing_ok=True)
        elif root is None or state.root == str(root):
            return state
    return None


def _folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        folder = Path(runtime, "dcm2bq")
    else:
        folder = Path(tempfile.gettempdir(), f".dcm2bq-{os.getuid()}")
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise servers.ServerError(f"{folder} belongs to another user")
    return folder


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _read(path: Path) -> State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, ValueError):
        return None


def _is_running(state: State) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(state.pid, 0)
        return servers.answers(state.bigquery_port, servers.BIGQUERY_PROBE)
    return False
