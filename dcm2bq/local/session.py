"""A local stack that has ingested a folder, from its start to its end."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dcm2bq.config import Config
from dcm2bq.local.interrupts import Interrupts
from dcm2bq.local.samples import write_samples
from dcm2bq.local.scratch_folder import scratch_folder
from dcm2bq.local.stack import Change, Stack, running
from dcm2bq.local.watched_folder import Changes, WatchedFolder


@dataclass(frozen=True, kw_only=True)
class Session:
    """A running stack and the folder that it mirrors.

    `failures` gives the reason for each file that is not in the bucket or whose event was not
    acknowledged, and for each folder that could not be read.
    """

    stack: Stack
    folder: WatchedFolder
    failures: dict[str, str]

    @property
    def exit_status(self) -> int:
        """1 if there are failures, else 0."""
        return 1 if self.failures else 0

    def apply(self, changes: Changes) -> Iterator[Change]:
        """Apply the changes to the bucket; yield each one when it is done."""
        for name in changes.removed:
            self.failures.pop(name, None)
        for change in self.stack.apply(changes, self.folder.root):
            self.failures.pop(change.name, None)
            if change.failure:
                self.failures[change.name] = change.failure
            yield change


@contextmanager
def open_session(root: Path | None, config: Config, *, notes: Console) -> Iterator[Session]:
    """Start a stack and ingest the files under `root`, by default the samples.

    The stack ends with the block, whatever happens. Progress goes to `notes`.
    """
    failures: dict[str, str] = {}
    with Interrupts() as interrupts, _folder_or_samples(root) as files, ExitStack() as exits:
        folder = WatchedFolder(
            files, on_error=lambda e: failures.update({str(e.filename): str(e.strerror)})
        )
        changes = folder.changes()
        with notes.status("starting BigQuery, Cloud Storage and the function"):
            stack = exits.enter_context(running(config))
        try:
            interrupts.check()
            session = Session(stack=stack, folder=folder, failures=failures)
            _ingest(session, changes, notes)
            yield session
        finally:
            interrupts.ignore()


def _ingest(session: Session, changes: Changes, notes: Console) -> None:
    columns = (TextColumn("ingesting"), BarColumn(), MofNCompleteColumn())
    is_silent = notes.quiet or not notes.is_terminal
    with Progress(*columns, console=notes, transient=True, disable=is_silent) as progress:
        task = progress.add_task("", total=len(changes.written))
        for _ in session.apply(changes):
            progress.advance(task)


def _folder_or_samples(root: Path | None) -> AbstractContextManager[Path]:
    return nullcontext(root) if root else _samples()


@contextmanager
def _samples() -> Iterator[Path]:
    with scratch_folder() as folder:
        samples = folder / "samples"
        write_samples(samples)
        yield samples
