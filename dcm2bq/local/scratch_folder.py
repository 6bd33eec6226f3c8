"""A temporary folder of this process's own, which does not outlive it, however it ends.

A helper process holds one end of a pipe: when this process is gone, killed even, it kills the
servers that have left their `pid` in the folder, and removes the folder. Should the helper be
killed as well, the next start does. A lock that dies with its holder tells a folder in use from
a dead one's.
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

# A server's process is a group of its own, with its workers. What they still write may bring the
# folder back: it can take a few attempts until it stays away.
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
def own_folder() -> Iterator[Path]:
    """Make a folder that is gone after the block; clear what dead processes left."""
    _clear_dead()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with _sweeper(folder), _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sweeper(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _SWEEPER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what is sent to this process's group is not for it
    )
    try:
        yield
    finally:
        process.communicate()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which appears under its name only when it is held."""
    new = folder / f"{_LOCK}.new"
    with new.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)
        yield


def _clear_dead() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_dead(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    """Whether a folder is one of this user's, made here, that nobody holds any longer."""
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError while it is held
            return True
    return False
