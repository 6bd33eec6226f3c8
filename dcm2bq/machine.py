"""What the machine lets this process use: memory, in bytes."""

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
_ARENAS = 2
_UNLIMITED = 2**62
"""Control groups without a limit say so by `max`, or by a number near 2^63."""


def memory_limit(root: Path = _SLASH) -> int:
    """Return the most memory that the process may use.

    That is the least of its control groups' limits (version 2 or 1, its own group and those
    around it), of its address space (`RLIMIT_AS`), and of the physical memory. `root` is
    where `/proc` and `/sys` are looked for.
    """
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [_physical(), *_group_limits(root)]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def resident_bytes(root: Path = _SLASH) -> int:
    """Return the memory that the process has now; 0 where the system does not tell."""
    try:
        pages = (root / "proc/self/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def keep_memory_together() -> None:
    """Have the allocator put large blocks apart, so that they go back when they are freed.

    By default glibc learns from the first large block that is freed to keep such blocks, for
    each thread in an arena of its own: eight threads then hold twice what they use (measured).
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def return_memory() -> None:
    """Give the system back what is free but scattered; takes milliseconds."""
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
    """Yield the limits of the control groups that the process is in."""
    mounted = root / "sys/fs/cgroup"
    for controllers, group in _groups(root):
        if controllers == "":
            yield from _limits_up(mounted, group, _V2_LIMIT)
        elif "memory" in controllers.split(","):
            yield from _limits_up(mounted / "memory", group, _V1_LIMIT)


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the controllers (none for version 2) and the path of each group."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        yield controllers, group
    if not lines:  # some sandboxes show the files, but not which group is theirs
        yield from (("", "/"), ("memory", "/"))


def _limits_up(mounted: Path, group: str, name: str) -> Iterator[int]:
    """Yield the limit of a group and of each around it.

    A container may see the host's name of its group, but not the folder: then the mounted
    folder itself is its group.
    """
    folder = mounted / group.strip("/")
    for each in (folder, *folder.parents):
        if (limit := _read(each / name)) is not None:
            yield limit
        if each == mounted:
            return


def _read(file: Path) -> int | None:
    """Return the limit that a file holds; None if it holds none."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and 0 < int(text) < _UNLIMITED else None
