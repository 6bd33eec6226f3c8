"""What `dcm2bq local` does: ingest a folder and watch it, or answer a query."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dcm2bq import emulators
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError
from dcm2bq.local import running_stacks, servers, summary
from dcm2bq.local.session import Session, open_session
from dcm2bq.local.stack import connect, environment
from dcm2bq.local.user_cache import user_cache
from dcm2bq.tools import tables
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.tables import TableFormat, to_json
from dcm2bq.tools.terminal_tables import console, print_rows

_REPORT = "report.html"
_POLL_SECONDS = 0.4  # a change is shown within a second: it must look the same in two scans


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """How the rows of a query are shown: as a table for people unless something else is set.

    `table` is written to `path`; only CSV can be printed instead.
    """

    as_json: bool = False
    table: TableFormat | None = None
    path: Path | None = None


def ingest(
    root: Path | None, config: Config, *, once: bool, report_path: Path | None = None
) -> int:
    """Ingest the files under `root`, by default samples, and print a summary.

    Unless `once` is set, watch the folder until a signal arrives. Write a report to `report_path`,
    by default to the user's cache folder if `once` is set. Return the exit status: 1 if a file
    could not be uploaded or an event was not acknowledged, else 0.
    """
    started = time.monotonic()
    out = console(sys.stdout)
    with open_session(root, config, notes=Console(stderr=True)) as session:
        command = f"{_command()} local" + (f" {shlex.quote(str(root))}" if once and root else "")
        seconds = time.monotonic() - started
        summary.print_summary(
            out, session.stack, session.failures, seconds=seconds, command=command
        )
        if not session.stack.objects and not session.failures:
            summary.print_no_files(out, session.folder.root)
        if report_path or once:
            summary.print_report(out, _write_report(session, report_path))
        if not once:
            with suppress(KeyboardInterrupt), _registered(session):
                _watch(out, session)
        return session.exit_status


def query(root: Path | None, config: Config, sql: str, answer: AnswerFormat, *, fresh: bool) -> int:
    """Print the rows of a query of the running stack, or of a new one if none is running.

    With `root`, only a stack that watches this folder counts as running; with `fresh`, none does.
    Return the exit status as `ingest` does. Raises `ConfigError` with BigQuery's message if
    BigQuery refuses the query.
    """
    stack = None if fresh else running_stacks.find(root and root.resolve())
    if stack:
        with environment({emulators.BIGQUERY: servers.url(stack.bigquery_port)}):
            _print_answer(connect(stack.config).read, sql, answer)
        return 0
    if not fresh:
        _say_that_none_runs(root)
    with open_session(root, config, notes=Console(stderr=True, quiet=True)) as session:
        _print_answer(session.stack.dataset.read, sql, answer)
        for name, failure in session.failures.items():
            say(f"{name}: {failure}", err=True)
        return session.exit_status


def _write_report(session: Session, path: Path | None) -> Path:
    """Write a report about the dataset, and return its path."""
    # With Google's client, which is slow to import and is so while the servers start.
    from dcm2bq.tools.report import report  # noqa: PLC0415

    if path is None:
        path = user_cache() / _REPORT
        path.parent.mkdir(parents=True, exist_ok=True)
    report.write(session.stack.dataset, session.stack.config, path, budget=0)
    return path


def _command() -> str:
    """Return how to call this command from the current folder."""
    return "dcm2bq" if shutil.which("dcm2bq") else os.path.relpath(sys.argv[0])


def _say_that_none_runs(root: Path | None) -> None:
    """Say that the answer does not come from a stack that the caller may believe to be running."""
    if root:
        say(f"no dcm2bq local is watching {root}: querying a new stack", err=True)
    else:
        say("no dcm2bq local is running: querying a new stack with the samples", err=True)


def _print_answer(
    read: Callable[[str], tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]],
    sql: str,
    answer: AnswerFormat,
) -> None:
    try:
        fields, stream = read(sql)
        if answer.table:
            tables.deliver(answer.table, fields, stream, answer.path)
            return
        rows = list(stream)
    except ConfigError as error:
        raise ConfigError(" ".join(str(error).split())) from None  # BigQuery's has line breaks
    if answer.as_json:
        say_json(to_json(rows))
    elif rows:
        print_rows(console(sys.stdout), rows)
    else:
        say("no rows", err=True)


def _watch(out: Console, session: Session) -> None:
    summary.print_watching(out, session.stack, session.folder.root)
    while True:
        time.sleep(_POLL_SECONDS)
        session.stack.ports.check()
        if changes := session.folder.changes():
            summary.print_changes(out, session.stack, session.apply(changes))


def _registered(session: Session) -> AbstractContextManager[None]:
    return running_stacks.registered(
        running_stacks.RunningStack(
            pid=os.getpid(),
            bigquery_port=session.stack.ports.bigquery,
            root=str(session.folder.root.resolve()),
            config=session.stack.config,
        )
    )
