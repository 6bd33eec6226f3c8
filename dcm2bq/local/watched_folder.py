"""A folder as a bucket sees it: which files are new, changed or gone.

By looking again and again rather than by the system's notifications: these differ from one
system to the next, lack on network drives, and overflow.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_Stamp = tuple[int, int, int]  # of a file's content: it changes when the content does


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Names relative to the folder, with `/` between their parts, in order."""

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


class Folder:
    """The files under `root`, at every depth; `on_error` hears of folders that cannot be read."""

    def __init__(self, root: Path, on_error: Callable[[OSError], object] | None = None) -> None:
        self.root = root
        self._on_error = on_error
        self._known: dict[str, _Stamp] | None = None
        self._seen: dict[str, _Stamp] = {}

    def changes(self) -> Changes:
        """Return what has changed since the last call; the first one returns every file.

        A file that changes from one call to the next is left to the call that finds it at
        rest, so that a copy in progress is taken once, when it is complete.
        """
        found = self._scan()
        if self._known is None:
            self._known, self._seen = dict(found), found
            return Changes(written=tuple(sorted(found)))
        written = sorted(
            name
            for name, stamp in found.items()
            if self._known.get(name) != stamp and self._seen.get(name) == stamp
        )
        removed = sorted(self._known.keys() - found.keys())
        self._seen = found
        self._known.update((name, found[name]) for name in written)
        for name in removed:
            del self._known[name]
        return Changes(written=tuple(written), removed=tuple(removed))

    def _scan(self) -> dict[str, _Stamp]:
        found = {}
        for folder, _, names in os.walk(self.root, onerror=self._on_error):
            for name in names:
                path = Path(folder, name)
                try:
                    status = path.stat()
                except OSError:  # gone since it was listed, or a link to nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    stamp = status.st_size, status.st_mtime_ns, status.st_ino
                    found[path.relative_to(self.root).as_posix()] = stamp
        return found
