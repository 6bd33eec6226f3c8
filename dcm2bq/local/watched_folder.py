"""Which files of a folder are new, changed or deleted.

The folder is scanned again and again. Notifications of the operating system would need no
scanning, but they differ between systems, are not sent for network drives, and can overflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dcm2bq.files import walk
from dcm2bq.local.file_stamp import FileStamp


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Names relative to the folder, with `/` between their parts, sorted."""

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


class WatchedFolder:
    """The files under `root`, at every depth; `on_error` is called for unreadable folders.

    FIFOs, sockets and devices count as files: it is up to the reader to refuse them.
    """

    def __init__(self, root: Path, on_error: Callable[[OSError], object] = lambda _: None) -> None:
        self.root = root
        self._on_error = on_error
        self._reported: dict[str, FileStamp] | None = None
        self._last_scan: dict[str, FileStamp] = {}

    def changes(self) -> Changes:
        """Return the changes since the last call; the first call returns every file.

        A file that differs from the last scan is left to a later call, so that a copy in
        progress is reported once, when it is complete.
        """
        scan = self._scan()
        if self._reported is None:
            self._reported, self._last_scan = dict(scan), scan
            return Changes(written=tuple(sorted(scan)))
        written = sorted(
            name
            for name, stamp in scan.items()
            if self._reported.get(name) != stamp and self._last_scan.get(name) == stamp
        )
        removed = sorted(self._reported.keys() - scan.keys())
        self._last_scan = scan
        self._reported.update((name, scan[name]) for name in written)
        for name in removed:
            del self._reported[name]
        return Changes(written=tuple(written), removed=tuple(removed))

    def _scan(self) -> dict[str, FileStamp]:
        stamps = {}
        for path in walk(self.root, self._on_error):
            try:
                stamp = FileStamp.of(path.stat())
            except OSError:  # deleted since it was listed, or a dangling link
                continue
            stamps[path.relative_to(self.root).as_posix()] = stamp
        return stamps
