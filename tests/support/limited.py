"""Run a process under a hard limit of memory, in a control group if one can be created."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_ADDRESS_SPACE = 1024 * 1024 * 1024
"""Addresses that libraries, stacks and the allocator's arenas take beyond the memory."""


@dataclass(frozen=True)
class Limited:
    """How to start a process under the limit: `prefix` goes before its command."""

    prefix: tuple[str, ...]
    kind: str
    group: Path | None

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the group has used, in bytes; None if it is not counted."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            if self.group and (self.group / name).exists():
                return int((self.group / name).read_text())
        return None


@contextmanager
def limited(limit: int) -> Iterator[Limited]:
    """Yield how to start a process that is killed when it uses more than `limit` bytes."""
    made = _make_group(limit)
    if made is None:
        most = limit + _ADDRESS_SPACE
        yield Limited(("prlimit", f"--as={most}"), "RLIMIT_AS", None)
        return
    try:
        enter = f'echo $$ > {made}/cgroup.procs && exec "$@"'
        yield Limited(("sh", "-c", enter, "sh"), "cgroup", made)
    finally:
        with suppress(OSError):
            made.rmdir()


def _make_group(limit: int) -> Path | None:
    """Create a control group within that of this process; None if that is not allowed."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = _ROOT / controllers / group.strip("/") / f"dcm2bq-{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir()
        except OSError:
            continue
        with suppress(OSError):
            (folder / name).write_text(str(limit))
            with suppress(OSError):  # what is swapped out does not count
                (folder / "memory.swap.max").write_text("0")
            return folder
        folder.rmdir()
    return None
