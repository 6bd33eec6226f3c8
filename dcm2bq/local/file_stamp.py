"""What tells whether a file has changed, without reading it."""

import os
from typing import NamedTuple, Self


class FileStamp(NamedTuple):
    """Size in bytes, time of modification in nanoseconds, and inode of a file.

    A replacement by a file of the same size and time has another inode.
    """

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the stamp in what `stat` returns."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)
