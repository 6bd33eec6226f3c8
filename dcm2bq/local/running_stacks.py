"""What a running stack tells about itself, so that `dcm2bq local --query` finds it.

A file for each running stack in a folder of this user's: under XDG_RUNTIME_DIR, else under
the temporary folder.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dcm2bq.config import Config
from dcm2bq.local import servers

_PRIVATE = 0o700
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A running stack: its process, its BigQuery, the files it serves, its configuration."""

    pid: int
    bigquery_port: int
    root: str
    config: Config


@contextmanager
def published(state: State) -> Iterator[None]:
    """Let others find the stack until the block ends."""
    find(None)  # forgets those that were killed
    path = _folder() / f"{state.pid}.json"
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # of a dead process that had the same id
    with os.fdopen(os.open(partial, _CREATE, mode=0o600), "wb") as file:
        file.write(msgspec.json.encode(state))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(root: Path | None) -> State | None:
    """Return the stack that serves `root`, or the latest one; forget those that are gone."""
    published = (path for path in _folder().glob("*.json") if _is_own(path))
    for path in sorted(published, key=_age):
        state = _read(path)
        if state is None or not _is_running(state):
            path.unlink(missing_ok=True)
        elif root is None or state.root == str(root):
            return state
    return None


def _folder() -> Path:
    """Return the folder, private to this user; raises `ServerError` for any other."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        folder = Path(runtime, "dcm2bq")
    else:
        folder = Path(tempfile.gettempdir(), f".dcm2bq-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE)
    # The temporary folder is everybody's: what stands there can be a link into this user's own
    # files, or be another user's who wants to be asked in this stack's place.
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        reason = "is a link, not a folder" if folder.is_symlink() else error.strerror
        raise servers.ServerError(f"{folder}: {reason}; remove it") from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid():
            raise servers.ServerError(f"{folder} belongs to another user")
        if stat.S_IMODE(status.st_mode) != _PRIVATE:
            os.fchmod(descriptor, _PRIVATE)
    finally:
        os.close(descriptor)
    return folder


def _is_own(path: Path) -> bool:
    """Whether a file is what `published` writes: anything else here is not ours to delete."""
    return path.stem.isdecimal() and path.is_file() and not path.is_symlink()


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
