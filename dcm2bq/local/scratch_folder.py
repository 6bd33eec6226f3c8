"""A temporary folder that does not outlive the process, even if the process is killed.

A helper process waits at the other end of a pipe. When this process ends, in whatever way, the
helper kills the servers that have left a `pid` file in the folder, and removes the folder. If the
helper is killed as well, the next start removes the folder. A folder in use is locked; the lock
disappears together with its holder.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "dcm2bq-local-"
_LOCK = "dcm2bq-local.lock"

# Each server is the leader of a process group, with its workers. Their last writes may recreate
# the folder, so it is removed until it stays away: for at most 10 s.
_SWEEPER = """
import os, pathlib, shutil, signal, sys, time
sys.stdin.read()
for file in pathlib.Path(sys.argv[1]).glob("*/pid"):
    try:
        os.killpg(int(file.read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        pass
for _ in range(100):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.lexists(sys.argv[1]):
        break
    time.sleep(0.1)
"""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is removed after the block; remove those of dead processes."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with _sweeping(folder), _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sweeping(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _SWEEPER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C, sent to this process's group, must not end it
    )
    try:
        yield
    finally:
        process.communicate()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. It gets its name once it is held, so nobody sees it free."""
    new = folder / f"{_LOCK}.new"
    with new.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)
        yield


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Return whether a folder is this user's scratch folder and its process has ended."""
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError while it is held
            return True
    return False
