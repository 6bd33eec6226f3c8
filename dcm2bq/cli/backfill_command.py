"""`dcm2bq backfill`."""

import os
import re
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dcm2bq import config
from dcm2bq.cli.common import INTERRUPTED, complain, startable
from dcm2bq.errors import Dcm2BqError
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import printable, say

if TYPE_CHECKING:
    from dcm2bq.config import Config
    from dcm2bq.tools.backfill.backfill import Backfill, Runner, Summary
    from dcm2bq.tools.backfill.plan import Shard
    from dcm2bq.tools.backfill.run_records import Run

LOCAL, DATAFLOW = "local", "DataflowRunner"
_LINE_SECONDS = 30.0
_RUN_ID = re.compile("[a-z0-9_]{1,64}")  # it names a folder, a table and jobs
_BEGUN_WITH = {"source", "shard_objects", "resume", "dry_run", "beam_options"}


@click.command()
@click.argument("source", metavar="gs://BUCKET[/PREFIX]")
@click.option(
    "--staging",
    metavar="gs://BUCKET/PREFIX",
    help="Where rows wait for their load job, in the dataset's location. They hold what the "
    "headers hold: give this prefix a lifecycle, and no more readers than the table.",
)
@click.option("--dry-run", is_flag=True, help="Count, estimate cost and time, and do nothing.")
@click.option("--resume", metavar="RUN", help="Resume a run that did not finish.")
@click.option("--all", "takes_all", is_flag=True, help="Take what BigQuery has already as well.")
@click.option(
    "--runner",
    type=click.Choice([LOCAL, DATAFLOW]),
    default=LOCAL,
    show_default=True,
    help="Where the pipeline runs.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes of the local runner; use one per core.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=64),
    default=16,
    show_default=True,
    metavar="N",
    help="Objects that each process has in flight.",
)
@click.option(
    "--shard-objects",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Fewest objects of a shard: what is loaded, and resumed, as a whole.",
)
@click.option("--keep-staged", is_flag=True, help="Leave the staged rows where they are.")
@click.option("--project", metavar="ID", help="Dataflow: the project of the job.")
@click.option("--region", help="Dataflow: where the workers are; the bucket's region is best.")
@click.option("--service-account", metavar="EMAIL", help="Dataflow: who the workers are.")
@click.option(
    "--max-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Dataflow: scale up to N workers.",
)
@click.option("--no-wait", is_flag=True, help="Dataflow: end when the job is submitted.")
@click.argument("beam_options", nargs=-1, metavar="[-- BEAM_OPTION...]")
def backfill(
    source: str,
    *,
    staging: str | None,
    dry_run: bool,
    resume: str | None,
    takes_all: bool,
    runner: str,
    processes: int,
    threads: int,
    shard_objects: int,
    keep_staged: bool,
    beam_options: Sequence[str],
    **dataflow: Any,
) -> int:
    """Bring in the objects that a bucket holds already.

    Each object goes through the code of the function: what it reads, converts, ignores and
    refuses is the same. Rows go into BigQuery by load jobs, which cost nothing. Objects that
    have a row, or an open dead letter, at their generation are left out, so that the command
    can be run again at any time, and while events arrive.

    A run that ends early, by Ctrl-C for instance, can be resumed with --resume RUN; the command
    to type is shown. What was loaded is not loaded twice.

    The configuration must be that of the function. What stands behind -- goes to Apache Beam.

    \b
    Examples:
        dcm2bq backfill gs://my-bucket --dry-run
        dcm2bq backfill gs://my-bucket/2019/ --staging gs://my-staging/backfill
        dcm2bq backfill gs://my-bucket --staging gs://my-staging/backfill --processes 8
        dcm2bq backfill gs://my-bucket --staging gs://my-staging/backfill \\
            --runner DataflowRunner --project my-project --region europe-west1 \\
            --service-account worker@my-project.iam.gserviceaccount.com --max-workers 50 \\
            -- --no_use_public_ips
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq import extras  # noqa: PLC0415
    from dcm2bq.tools.backfill.run_records import Run, new_id  # noqa: PLC0415

    uri = GsUri.parse(source)
    if staging is not None:
        GsUri.parse(staging)
    elif not dry_run:
        raise click.UsageError("--staging is needed: gs://BUCKET/PREFIX, where rows may wait")
    _refuse_contradictions(runner, dataflow, resume=resume, dry_run=dry_run)
    options = config.load()
    if dry_run:
        return _estimate(options, uri, processes, dataflow["max_workers"], takes_all=takes_all)
    assert staging is not None
    startable(options, here=runner == "local")
    extras.require(extras.BACKFILL)
    _check_pipeline(options, runner, beam_options, dataflow)
    run = Run(
        id=resume or new_id(),
        source=source,
        staging=staging,
        config=options,
        takes_all=takes_all,
        keeps_files=keep_staged,
        threads=threads,
    )
    least = None if resume else shard_objects
    return _run(run, runner, processes, beam_options, dataflow, least=least)


def _run(
    run: "Run",
    runner: str,
    processes: int,
    beam_options: Sequence[str],
    dataflow: Mapping[str, Any],
    *,
    least: int | None,
) -> int:
    """Begin a run, or resume it where `least`, the fewest objects of a shard, is None."""
    from dcm2bq.tools.backfill.backfill import Backfill  # noqa: PLC0415

    again = _command(run.id, beam_options)
    work = Backfill(run)
    if least is None:
        work.resume()
    else:
        with _counting() as on_page:
            work.begin(least=least, on_page=on_page)
    _tell(f"run {run.id}: {work.total:,} objects in {len(work.shards):,} shards")
    try:
        if runner == LOCAL:
            summary = work.go(_locally(work, processes, beam_options))
        else:
            summary = work.go(_on_dataflow(beam_options, dataflow, again))
    except KeyboardInterrupt:
        _tell("", "interrupted; resume it with:", f"  {again}")
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # threads of Beam would go on; what they leave behind never counts
    except Exception:
        complain(f"run {run.id} did not finish; resume it with:", f"  {again}")
        raise
    if summary:
        _print(summary)
    return 0


def _refuse_contradictions(
    runner: str, dataflow: Mapping[str, Any], *, resume: str | None, dry_run: bool
) -> None:
    """Raise `click.UsageError` for options of which one makes another meaningless."""
    given = [_flag(name) for name, value in dataflow.items() if value]
    if runner == LOCAL and given and not dry_run:
        raise click.UsageError(f"{', '.join(given)}: for --runner {DATAFLOW} alone")
    if runner == DATAFLOW and _is_given("processes") and not dry_run:
        raise click.UsageError(f"--processes: for --runner {LOCAL} alone")
    if resume is None:
        return
    if dry_run:
        raise click.UsageError("--dry-run: a run that is resumed was counted when it began")
    if _is_given("shard_objects"):
        raise click.UsageError("--shard-objects: a run that is resumed has its shards already")
    if not _RUN_ID.fullmatch(resume):
        raise click.UsageError(f"--resume {resume}: is not the id of a run, 20260131_094500_1a2b3c")


def _check_pipeline(
    options: "Config", runner: str, beam_options: Sequence[str], dataflow: Mapping[str, Any]
) -> None:
    """Raise `ConfigError` for options that Beam or Dataflow would refuse later."""
    from dcm2bq.tools.backfill.runners import dataflow as tool  # noqa: PLC0415

    if runner == DATAFLOW:
        tool.Job(**dataflow, beam_options=beam_options).check(options)
    else:
        tool.parse_options(beam_options)


def _command(run_id: str, beam_options: Sequence[str]) -> str:
    """Return the command that resumes this run: what was given is given again."""
    context = click.get_current_context()
    words = ["dcm2bq", "backfill", context.params["source"]]
    for option in context.command.params:
        name = str(option.name)
        if name not in _BEGUN_WITH and _is_given(name):
            value = context.params[name]
            words += [_flag(name)] if value is True else [_flag(name), str(value)]
    words += ["--resume", run_id]
    return shlex.join([*words, *(["--", *beam_options] if beam_options else [])])


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _flag(name: str) -> str:
    """Return an option as it is typed, by its parameter's name."""
    for option in click.get_current_context().command.params:
        if option.name == name:
            return option.opts[0]
    raise KeyError(name)


def _locally(work: "Backfill", processes: int, beam_options: Sequence[str]) -> "Runner":
    from dcm2bq.tools.backfill import progress  # noqa: PLC0415
    from dcm2bq.tools.backfill.runners import in_process  # noqa: PLC0415

    started = time.monotonic()
    shown = Line()

    def show(counts: Counter[str]) -> None:
        seconds = time.monotonic() - started
        shown.show(progress.line(counts, work.total, seconds, work.before))

    def go(run: "Run", shards: "Sequence[Shard]") -> bool:
        in_process.run(run, shards, processes=processes, beam_options=beam_options, show=show)
        shown.end()
        return True

    return go


def _on_dataflow(beam_options: Sequence[str], dataflow: Mapping[str, Any], again: str) -> "Runner":
    from dcm2bq.tools.backfill.runners.dataflow import Job  # noqa: PLC0415

    job = Job(**dataflow, beam_options=beam_options)

    def go(run: "Run", shards: "Sequence[Shard]") -> bool:
        return job.run(run, shards, _tell, again=again)

    return go


def _estimate(
    options: "Config", uri: GsUri, processes: int, max_workers: int | None, *, takes_all: bool
) -> int:
    from dcm2bq.tools.backfill.backfill import count  # noqa: PLC0415
    from dcm2bq.tools.backfill.estimate import estimate  # noqa: PLC0415

    with _counting() as on_page:
        counted = count(options, uri.bucket, uri.name, on_page=on_page)
    known = None if takes_all else _count_known(options, uri)
    for line in estimate(counted, known=known, processes=processes, workers=max_workers):
        say(line)
    _tell("dry run: nothing was changed")
    return 0


def _count_known(options: "Config", uri: GsUri) -> int | None:
    """Return what BigQuery has already; None where it cannot be asked, which is said."""
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.backfill import known  # noqa: PLC0415

    try:
        return known.count(Dataset(options), uri)
    except Dcm2BqError as error:
        complain(f"what BigQuery has already cannot be counted, and is taken as new: {error}")
        return None


def _print(summary: "Summary") -> None:
    """Tell what all attempts of a run have done."""
    results = summary.results
    say(f"run {summary.run.id}: {summary.loaded:,} of {summary.shards:,} shards loaded")
    say(
        f"{sum(results.values()):,} objects: {results.get('inserted', 0):,} inserted, "
        f"{results.get('dead_lettered', 0):,} dead letters, "
        f"{results.get('skipped', 0):,} were there, {results.get('ignored', 0):,} ignored, "
        f"{results.get('superseded', 0):,} gone meanwhile"
    )
    rows = summary.rows
    say(
        f"{rows.get('instances', 0):,} rows loaded into instances, "
        f"{rows.get('dead_letter', 0):,} into dead_letter"
    )
    if results.get("dead_lettered"):
        _tell("what could not be converted, and why: dcm2bq dead-letters list")


class Line:
    """The line that tells how far something is: in its place on a terminal, else now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._text = ""

    def show(self, text: str) -> None:
        """Show the line as it is now."""
        self._text = text
        if self._is_terminal:
            click.echo(f"\r\033[K{printable(text)}", err=True, nl=False)
        elif time.monotonic() - self._shown > _LINE_SECONDS:
            self._shown = time.monotonic()
            _tell(text)

    def end(self) -> None:
        """Leave the line as it was last."""
        if self._text:
            click.echo(err=True) if self._is_terminal else _tell(self._text)


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    shown, lock = Line(), threading.Lock()
    total = 0

    def on_page(listed: int) -> None:
        nonlocal total
        with lock:
            total += listed
            shown.show(f"{total:,} objects counted")

    yield on_page
    shown.end()


def _tell(*lines: str) -> None:
    for line in lines:
        say(line, err=True)
