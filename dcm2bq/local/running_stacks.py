"""The running local stacks of this user, so that `dcm2bq local --query` finds one.

Each stack has a file in a private folder: under XDG_RUNTIME_DIR, else under the temporary folder.
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


class RunningStack(msgspec.Struct, frozen=True, kw_only=True):
    """A stack's process, the port of its BigQuery, its folder and its configuration."""

    pid: int
    bigquery_port: int
    root: str
    config: Config


@contextmanager
def registered(stack: RunningStack) -> Iterator[None]:
    """Let other processes find the stack until the block ends."""
    find(None)  # removes the files of killed stacks
    path = _folder() / f"{stack.pid}.json"
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # left by a killed process that had the same id
    with os.fdopen(os.open(partial, _CREATE, mode=0o600), "wb") as file:
        file.write(msgspec.json.encode(stack))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(root: Path | None) -> RunningStack | None:
    """Return the stack that watches `root`, or the newest one; remove the files of ended ones."""
    paths = [path for path in _folder().glob("*.json") if _is_stack_file(path)]
    for path in sorted(paths, key=_modified_at, reverse=True):
        stack = _read(path)
        if stack is None or not _is_running(stack):
            path.unlink(missing_ok=True)
        elif root is None or stack.root == str(root):
            return stack
    return None


def _folder() -> Path:
    """Return the private folder; raise `ServerError` if it cannot be trusted."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        folder = Path(runtime, "dcm2bq")
    else:
        folder = Path(tempfile.gettempdir(), f".dcm2bq-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE)
    # Anybody can write to the temporary folder: this name may be a link into the user's own
    # files, or belong to another user who wants to answer in the stack's place.
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


def _is_stack_file(path: Path) -> bool:
    """Return whether `registered` wrote this file; any other must not be deleted."""
    return path.stem.isdecimal() and path.is_file() and not path.is_symlink()


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _read(path: Path) -> RunningStack | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunningStack)
    except (OSError, ValueError):
        return None


def _is_running(stack: RunningStack) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(stack.pid, 0)
        return servers.answers(stack.bigquery_port, servers.BIGQUERY_PROBE)
    return False
