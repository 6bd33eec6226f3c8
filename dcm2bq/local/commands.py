"""`dcm2bq local`: ingest a folder, show what came of it and watch it, or answer a question."""

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dcm2bq.config import Config
from dcm2bq.errors import ConfigError
from dcm2bq.local import running_stacks, servers, summary
from dcm2bq.local.samples import write_samples
from dcm2bq.local.scratch_folder import own_folder
from dcm2bq.local.sql import QUERIES, keyword
from dcm2bq.local.stack import Change, Stack, connect, environment, running
from dcm2bq.local.watched_folder import Changes, Folder
from dcm2bq.tools.display import say, say_json

_LOOK_SECONDS = 0.4


@dataclass(frozen=True, kw_only=True)
class _Session:
    """A stack that has ingested a folder; `failures` are the names that went wrong, and why."""

    stack: Stack
    folder: Folder
    failures: dict[str, str]

    @property
    def status(self) -> int:
        """The exit status: 1 when a file or an event got lost on its way."""
        return 1 if self.failures else 0

    def apply(self, changes: Changes) -> Iterator[Change]:
        """Make the bucket follow the changes; yield each as it is done."""
        for change in self.stack.apply(changes, self.folder.root):
            self.failures.pop(change.name, None)
            if change.failure:
                self.failures[change.name] = change.failure
            yield change


def run(root: Path | None, config: Config, *, once: bool) -> int:
    """Ingest the files under `root`, by default samples, and show a summary on stdout.

    Unless `once`, then follow the changes of the files until a signal. Return the exit
    status: 1 when a file could not be uploaded or an event was not acknowledged, else 0.
    """
    started = time.monotonic()
    out = summary.console(sys.stdout)
    with _session(root, config, notes=Console(stderr=True)) as session:
        again = f"{_command()} local" + (f" {shlex.quote(str(root))}" if once and root else "")
        seconds = time.monotonic() - started
        summary.print_summary(out, session.stack, session.failures, seconds=seconds, again=again)
        if not once:
            with suppress(KeyboardInterrupt), _published(session):
                _watch(out, session)
        return session.status


def ask(root: Path | None, config: Config, sql: str, *, as_json: bool, fresh: bool) -> int:
    """Print the rows that a statement gives, of the running stack or else of one for it alone.

    With `root`, only a stack that serves this folder is asked; with `fresh`, none. Return the
    exit status as `run` does. Raises `ConfigError` with BigQuery's message for a statement that
    it refuses.
    """
    found = None if fresh else running_stacks.find(root and root.resolve())
    if found:
        with environment({"BIGQUERY_EMULATOR_HOST": servers.url(found.bigquery_port)}):
            _answer(connect(found.config).query, sql, as_json=as_json)
        return 0
    if not fresh:
        _say_fresh(root)
    with _session(root, config, notes=Console(stderr=True, quiet=True)) as session:
        _answer(session.stack.dataset.query, sql, as_json=as_json, is_kept=False)
        for name, failure in session.failures.items():
            say(f"{name}: {failure}", err=True)
        return session.status


def _command() -> str:
    """Return what to type for this command, here."""
    return "dcm2bq" if shutil.which("dcm2bq") else os.path.relpath(sys.argv[0])


def _say_fresh(root: Path | None) -> None:
    """Say that the answer is not that of a stack which the caller may believe to be running."""
    missing = f"no dcm2bq local runs on {root}" if root else "no dcm2bq local is running"
    asked = "a fresh one is asked" if root else "a fresh one with the samples is asked"
    say(f"{missing}: {asked}", err=True)


def _answer(
    query: Callable[[str], list[dict[str, Any]]], sql: str, *, as_json: bool, is_kept: bool = True
) -> None:
    """Print what a statement gives; `is_kept` tells whether what it changes outlives it."""
    try:
        rows = query(sql)
    except ConfigError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if as_json:
        say_json(summary.to_json(rows))
    elif rows:
        summary.print_rows(summary.console(sys.stdout), rows)
    kind = keyword(sql)
    if not rows and kind not in QUERIES:
        lost = "" if is_kept else "; what it changed ends with this stack"
        text = f"{kind}: done; it is not a query, and gives no rows{lost}"
        say(text, err=True)
    elif not rows and not as_json:
        say("no rows", err=True)


@contextmanager
def _session(root: Path | None, config: Config, *, notes: Console) -> Iterator[_Session]:
    """Start a stack, ingest the files, and end the stack afterwards, come what may."""
    failures: dict[str, str] = {}
    with _Interrupts() as interrupts, _files(root) as files, ExitStack() as ends:
        folder = Folder(
            files, on_error=lambda e: failures.update({str(e.filename): str(e.strerror)})
        )
        changes = folder.changes()
        with notes.status("starting BigQuery, Cloud Storage and the function"):
            stack = ends.enter_context(running(config))
        try:
            interrupts.check()
            session = _Session(stack=stack, folder=folder, failures=failures)
            _ingest(session, changes, notes)
            yield session
        finally:
            interrupts.hold()


def _ingest(session: _Session, changes: Changes, notes: Console) -> None:
    columns = (TextColumn("ingesting"), BarColumn(), MofNCompleteColumn())
    silent = notes.quiet or not notes.is_terminal
    with Progress(*columns, console=notes, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(changes.written))
        for _ in session.apply(changes):
            progress.advance(task)


def _watch(out: Console, session: _Session) -> None:
    summary.print_watching(out, session.stack, session.folder.root)
    while True:
        time.sleep(_LOOK_SECONDS)
        session.stack.ports.check()
        if changes := session.folder.changes():
            summary.print_changes(out, session.stack, session.apply(changes))


def _published(session: _Session) -> AbstractContextManager[None]:
    return running_stacks.published(
        running_stacks.State(
            pid=os.getpid(),
            bigquery_port=session.stack.ports.bigquery,
            root=str(session.folder.root.resolve()),
            config=session.stack.config,
        )
    )


def _files(root: Path | None) -> AbstractContextManager[Path]:
    return nullcontext(root) if root else _samples()


@contextmanager
def _samples() -> Iterator[Path]:
    with own_folder() as folder:
        samples = folder / "samples"
        write_samples(samples)
        yield samples


class _Interrupts:
    """Turns the first signal that asks for an end into `KeyboardInterrupt`; holds later ones."""

    def __init__(self) -> None:
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is under nohup
            self._before[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
        self._came = False

    def __enter__(self) -> Self:
        for each in self._before:
            signal.signal(each, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def hold(self) -> None:
        """Hold the first one, too: what ends the servers must not be interrupted."""
        for each in self._before:
            signal.signal(each, signal.SIG_IGN)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if there was one, which the code that it met may have lost.

        An import can: libraries that look for optional packages catch everything.
        """
        if self._came:
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        self._came = True
        self.hold()
        raise KeyboardInterrupt
