"""Listing folders and opening local files safely."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; raise `OSError` at once for anything else.

    Opening a FIFO would block until something writes to it, and opening a device can have any
    effect.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def walk(
    folder: Path,
    on_error: Callable[[OSError], object] = lambda _: None,
    *,
    is_left_out: Callable[[Path], bool] = lambda _: False,
) -> Iterator[Path]:
    """Yield the files of a folder at every depth, in no particular order.

    Links to folders are not followed. `on_error` is called for each folder that cannot be listed.
    Memory grows with the number of folders only.
    """
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        if not is_left_out(path):
                            pending.append(entry.path)
                    elif not (entry.is_symlink() and os.path.isdir(path)):  # noqa: PTH112 - never raises
                        yield path
        except OSError as error:
            on_error(error)
