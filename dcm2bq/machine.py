"""The memory that this process may use, and how it returns memory to the system."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_SLASH = Path("/")
_V1_LIMIT, _V2_LIMIT = "memory.limit_in_bytes", "memory.max"
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of malloc.h
_LARGE_BLOCK = 128 * 1024
"""glibc's initial threshold, which it would otherwise raise."""
_ARENAS = 2
"""With one, eight threads would wait for each other; each further one may hold free memory."""
_UNLIMITED = 2**62
"""Control groups without a limit show `max`, or a number near 2^63."""


def memory_limit(root: Path = _SLASH) -> int:
    """Return how many bytes of memory the process may use.

    This is the least of the limits of its control group and all parents (version 2 or 1), of
    its address space (`RLIMIT_AS`) and of the physical memory. `root` has `/proc` and `/sys`.
    """
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [_physical(), *_group_limits(root)]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def resident_bytes(root: Path = _SLASH) -> int:
    """Return how many bytes of memory the process uses now; 0 if the system does not show it."""
    try:
        pages = (root / "proc/self/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def keep_memory_together() -> None:
    """Make the allocator return large blocks to the system when they are freed.

    By default glibc stops doing so after the first large block that is freed, and has an arena for
    each thread: eight threads then hold twice the memory that they use (measured).
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def return_memory() -> None:
    """Return memory that is free but scattered to the system; takes milliseconds."""
    if libc := _glibc():
        libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None


def _physical() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the control groups of this process."""
    mounted = root / "sys/fs/cgroup"
    for controllers, group in _groups(root):
        if controllers == "":
            yield from _limits_up(mounted, group, _V2_LIMIT)
        elif "memory" in controllers.split(","):
            yield from _limits_up(mounted / "memory", group, _V1_LIMIT)


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the controllers ("" for version 2) and the path of each group."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        yield controllers, group
    if not lines:  # some sandboxes have the limits, but do not show the group of the process
        yield from (("", "/"), ("memory", "/"))


def _limits_up(mounted: Path, group: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and of its parents.

    A container may see the host's path of its group but not that folder. Then the mounted folder
    itself is its group.
    """
    folder = mounted / group.strip("/")
    for parent in (folder, *folder.parents):
        if (limit := _read(parent / name)) is not None:
            yield limit
        if parent == mounted:
            return


def _read(file: Path) -> int | None:
    """Return the limit in a file; None if there is no file or no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and 0 < int(text) < _UNLIMITED else None
