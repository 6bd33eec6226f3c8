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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, INTERRUPTED, complain, startable
from dcm2bq.cli.progress_line import ProgressLine
from dcm2bq.errors import Dcm2BqError, QuotaExceededError
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.config import Config
    from dcm2bq.gcs.bucket_settings import BucketSettings
    from dcm2bq.tools.backfill.estimate import Estimate
    from dcm2bq.tools.backfill.launch import Backfill, BucketCount, Runner, RunSummary
    from dcm2bq.tools.backfill.plan import Shard
    from dcm2bq.tools.backfill.read_sample import ReadRate
    from dcm2bq.tools.backfill.run_records import Run
    from dcm2bq.tools.prices import Prices

LOCAL, DATAFLOW = "local", "DataflowRunner"
_RUN_ID = re.compile("[a-z0-9_]{1,64}")  # part of the names of a folder, a table and jobs
_NOT_REPEATED = {"source", "shard_objects", "resume", "dry_run", "beam_options"}
"""Parameters that the command for resuming a run places itself, or leaves out."""
_NEWEST = "the last ones"  # --status without a run; not a run id
_OF_STATUS = {"status", "staging", "as_json"}
"""Parameters that go with --status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """What the user says about cost; `region` is that of Dataflow's workers, if these are used."""

    prices: "Prices"
    classes: tuple[str, ...]
    budget: float | None
    accepts_autoclass: bool
    region: str | None
    processes: int
    workers: int | None


def _listed(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:  # noqa: ARG001
    """Return the storage classes of --classes, in upper case, sorted and each once."""
    names = {name.strip().upper() for name in (value or "").split(",")} - {""}
    if value is not None and not names:
        raise click.BadParameter("names no storage class")
    return tuple(sorted(names))


@click.command()
@click.argument("source", metavar="gs://BUCKET[/PREFIX]", required=False)
@click.option(
    "--staging",
    metavar="gs://BUCKET/PREFIX",
    help="Where rows are stored until they are loaded; the bucket must be in the dataset's "
    "location. Rows contain patient data: restrict access as for the table, and add a lifecycle "
    "rule that deletes them.",
)
@click.option("--dry-run", is_flag=True, help="Count, estimate cost and time, and change nothing.")
@click.option(
    "--no-sample",
    is_flag=True,
    help="With --dry-run: do not read samples, of objects to load or ignored by their names.",
)
@click.option("--resume", metavar="RUN", help="Resume a run that did not finish.")
@click.option(
    "--status",
    is_flag=False,
    flag_value=_NEWEST,
    metavar="[RUN]",
    help="Show how far a run is, or the last 10 runs; needs only --staging. Works on any machine.",
)
@click.option("--all", "takes_all", is_flag=True, help="Include objects that BigQuery already has.")
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
    help="Objects handled at once by each process.",
)
@click.option(
    "--shard-objects",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Minimum number of objects in a shard, the unit that is loaded and resumed.",
)
@click.option(
    "--classes",
    metavar="CLASS[,CLASS...]",
    callback=_listed,
    help="Load only the objects in these storage classes: STANDARD, NEARLINE, COLDLINE, ARCHIVE.",
)
@click.option(
    "--budget-usd",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="Stop before the estimated cost exceeds this; --resume goes on.",
)
@click.option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Prices to use instead of the list prices that are part of dcm2bq.",
)
@click.option(
    "--yes-autoclass",
    is_flag=True,
    help="Read a bucket that has Autoclass, although this moves its objects to Standard storage.",
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run or --status: print JSON.")
@click.option("--keep-staged", is_flag=True, help="Keep the staged rows after they are loaded.")
@click.option("--project", metavar="ID", help="Dataflow: project of the job.")
@click.option("--region", help="Dataflow: region of the workers, best that of the bucket.")
@click.option(
    "--service-account", metavar="EMAIL", help="Dataflow: service account of the workers."
)
@click.option(
    "--max-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Dataflow: scale up to N workers.",
)
@click.option("--no-wait", is_flag=True, help="Dataflow: exit once the job is submitted.")
@click.argument("beam_options", nargs=-1, metavar="[-- BEAM_OPTION...]")
def backfill(
    source: str | None,
    *,
    staging: str | None,
    dry_run: bool,
    no_sample: bool,
    resume: str | None,
    status: str | None,
    takes_all: bool,
    runner: str,
    processes: int,
    threads: int,
    shard_objects: int,
    keep_staged: bool,
    classes: tuple[str, ...],
    budget_usd: float | None,
    prices: Path | None,
    yes_autoclass: bool,
    as_json: bool,
    beam_options: Sequence[str],
    **dataflow: Any,
) -> int:
    """Load the objects that a bucket already holds into BigQuery.

    Each object goes through the code of the function, so it is converted, ignored or refused in
    the same way. Rows and dead letters are stored under --staging and then appended to the tables
    by load jobs, which are free. Objects whose generation has a live row or a dead letter are
    skipped, so the command can be repeated at any time, and run while events arrive. Archives are
    skipped once they were expanded; they may take longer here than in the function.

    A run that ends early, for example by Ctrl-C, can be resumed with --resume RUN; the command is
    printed. Nothing is loaded twice. --status shows the progress of a run to everybody who may read
    the staging bucket.

    Use the configuration of the function. Arguments after -- are passed to Apache Beam.

    Besides the tables instances and dead_letter, a run changes only the folder --staging/RUN and
    the table backfill_RUN, which is dropped at the end; with privacy.path: hash, also a table
    backfill_RUN_paths_..., which is dropped at once. --dry-run changes nothing and needs no
    staging.
    It reads the first 132 bytes of up to 200 objects that are ignored because of their names, to
    see whether they begin with DICM; objects in Nearline, Coldline and Archive are left out.

    The estimate is printed before a run, too: what each storage class costs to read, and what that
    assumes. To estimate better, the headers of up to 50 objects in Standard storage are read first.
    Objects in expensive storage classes can be left out with --classes. With --budget-usd, a run
    loads as many shards as the budget covers, in the order of names; resume it with a new budget.
    In a bucket with Autoclass, reading an object moves it to Standard storage, so --yes-autoclass
    is required.

    The exit status is 0 once everything is in BigQuery, including dead letters; 1 if the budget
    ended the run, 3 if a service did not answer, 4 if the Dataflow job failed, and 5 if BigQuery's
    quota of load jobs is used up: resume the run, tomorrow in the last case.

    \b
    Examples:
        dcm2bq backfill gs://my-bucket --dry-run
        dcm2bq backfill gs://my-bucket/2019/ --staging gs://my-staging/backfill
        dcm2bq backfill gs://my-bucket --staging gs://my-staging/backfill --processes 8
        dcm2bq backfill --status --staging gs://my-staging/backfill
        dcm2bq backfill gs://my-bucket --staging gs://my-staging/backfill \\
            --classes STANDARD,NEARLINE --budget-usd 50
        dcm2bq backfill gs://my-bucket --staging gs://my-staging/backfill \\
            --runner DataflowRunner --project my-project --region europe-west1 \\
            --service-account worker@my-project.iam.gserviceaccount.com --max-workers 50 \\
            -- --no_use_public_ips
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq import extras  # noqa: PLC0415
    from dcm2bq.tools.backfill.run_records import Run, new_id  # noqa: PLC0415
    from dcm2bq.tools.prices import read_prices  # noqa: PLC0415

    if status is not None:
        return _show_status(status, staging, as_json=as_json)
    if source is None:
        raise click.UsageError("gs://BUCKET[/PREFIX] is required: the objects to load")
    uri = GsUri.parse(source)
    if staging is not None:
        GsUri.parse(staging)
    elif not dry_run:
        raise click.UsageError("--staging gs://BUCKET/PREFIX is required: rows are stored there")
    _refuse_contradictions(runner, dataflow, resume=resume, dry_run=dry_run)
    known_prices = read_prices(prices)
    if unknown := [name for name in classes if name not in known_prices.storage_classes]:
        names = ", ".join(known_prices.storage_classes)
        raise click.UsageError(f"--classes: {', '.join(unknown)}: not one of {names}")
    cost = CostOptions(
        prices=known_prices,
        classes=classes,
        budget=budget_usd,
        accepts_autoclass=yes_autoclass,
        region=dataflow["region"] if runner == DATAFLOW else None,
        processes=processes,
        workers=dataflow["max_workers"],
    )
    config = configuration.load()
    if dry_run:
        return _dry_run(
            config,
            uri,
            GsUri.parse(staging) if staging else None,
            cost,
            takes_all=takes_all,
            samples=not no_sample,
            as_json=as_json,
        )
    assert staging is not None
    startable(config, here=runner == LOCAL)
    extras.require(extras.BACKFILL)
    _check_pipeline(config, runner, beam_options, dataflow)
    run = Run(
        id=resume or new_id(),
        source=source,
        staging=staging,
        config=config,
        takes_all=takes_all,
        keeps_files=keep_staged,
        classes=classes,
        threads=threads,
    )
    least = None if resume else shard_objects
    return _run(run, runner, cost, beam_options, dataflow, least=least)


def _run(
    run: "Run",
    runner: str,
    cost: CostOptions,
    beam_options: Sequence[str],
    dataflow: Mapping[str, Any],
    *,
    least: int | None,
) -> int:
    """Begin a run with shards of at least `least` objects; resume it if that is None."""
    from dcm2bq.tools.backfill.launch import Backfill  # noqa: PLC0415

    again = _command(run.id, beam_options)
    launch = Backfill(run, runner=runner, is_remote=runner == DATAFLOW)
    source, staging = launch.settings()
    count = _begin(launch, source, cost, least)
    shards = counted(len(launch.shards), "shard")
    _tell(f"run {run.id}: {counted(launch.total, 'object')} in {shards}")
    try:
        estimate = _estimate(count, cost, source, staging, launch.rate, known=launch.prepare())
        _tell(*estimate.lines())
        chosen = launch.remaining
        if cost.budget is not None:
            chosen = _within_budget(launch, estimate, cost.budget)
        if runner == LOCAL:
            summary = launch.go(_locally(launch, cost.processes, beam_options), chosen)
        else:
            summary = launch.go(_on_dataflow(beam_options, dataflow, again), chosen)
    except KeyboardInterrupt:
        _tell("", "interrupted; resume it with:", f"  {again}")
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # Beam's threads would keep running; what they staged does not count
    except QuotaExceededError:
        complain(f"run {run.id}: BigQuery's quota of load jobs is used up; resume tomorrow:")
        complain(f"  {again}")
        raise
    except Exception:
        complain(f"run {run.id} did not finish; resume it with:", f"  {again}")
        raise
    if summary is None:
        return 0
    _print(summary)
    if summary.is_complete or cost.budget is None:
        return 0
    remain = counted(summary.shards - summary.loaded, "shard")
    _tell(f"{remain} beyond the budget; resume the run with a new one:", f"  {again}")
    return FINDINGS


def _begin(
    launch: "Backfill", source: "BucketSettings | None", cost: CostOptions, least: int | None
) -> "BucketCount":
    """Count the objects and record the run, or resume it; refuse to move objects unasked."""
    from dcm2bq.tools.backfill import autoclass  # noqa: PLC0415
    from dcm2bq.tools.backfill.storage_classes import only, total  # noqa: PLC0415

    bucket = launch.run.bucket

    def check(count: "BucketCount") -> None:
        chosen = only(total(shard.classes for shard in count.shards), cost.classes)
        if not cost.accepts_autoclass:
            autoclass.require_knowledge(bucket, source, chosen)

    if not cost.accepts_autoclass:
        autoclass.require_consent(bucket, source)
    if least is None:
        return launch.resume(check=check)
    has_autoclass = source is not None and source.autoclass.enabled
    with _counting() as on_page:
        return launch.begin(least=least, on_page=on_page, check=check, samples=not has_autoclass)


def _within_budget(launch: "Backfill", estimate: "Estimate", budget: float) -> "Sequence[Shard]":
    """Return the remaining shards that a budget covers, after what the count has cost."""
    spent = estimate.dollars_before
    shards, cost, rest = launch.afford(estimate.terms, budget - spent)
    _tell(
        f"budget of ${budget:,.2f}: covers {len(shards):,} of "
        f"{counted(len(launch.remaining), 'remaining shard')}, at ${spent + cost:,.2f} with the "
        f"count; the rest costs ${rest:,.2f}"
    )
    return shards


def _show_status(run_id: str, staging: str | None, *, as_json: bool) -> int:
    """Print the status of a run, or of the last ones."""
    from dcm2bq.cli import backfill_status  # noqa: PLC0415

    names = [str(option.name) for option in click.get_current_context().command.params]
    given = [_flag(name) for name in names if _is_given(name) and name not in _OF_STATUS]
    if given:
        raise click.UsageError(f"{', '.join(given)}: not valid with --status")
    if staging is None:
        raise click.UsageError("--staging gs://BUCKET/PREFIX is required: it holds the records")
    GsUri.parse(staging)
    if run_id == _NEWEST:
        return backfill_status.show_recent(staging, as_json=as_json)
    _require_run_id("--status", run_id)
    return backfill_status.show(staging, run_id, as_json=as_json)


def _refuse_contradictions(
    runner: str, dataflow: Mapping[str, Any], *, resume: str | None, dry_run: bool
) -> None:
    """Raise `click.UsageError` for options that cannot be combined."""
    given = [_flag(name) for name, value in dataflow.items() if value]
    if runner == LOCAL and given and not dry_run:
        raise click.UsageError(f"{', '.join(given)}: only valid with --runner {DATAFLOW}")
    if _is_given("no_sample") and not dry_run:
        raise click.UsageError("--no-sample: only valid with --dry-run")
    if _is_given("as_json") and not dry_run:
        raise click.UsageError("--json: only valid with --dry-run or --status")
    if dry_run and _is_given("budget_usd"):
        raise click.UsageError("--budget-usd: not valid with --dry-run: it reads nothing to limit")
    if runner == DATAFLOW and _is_given("processes") and not dry_run:
        raise click.UsageError(f"--processes: only valid with --runner {LOCAL}")
    if resume is None:
        return
    if dry_run:
        raise click.UsageError("--dry-run: not valid with --resume: the run is already counted")
    if _is_given("shard_objects"):
        raise click.UsageError("--shard-objects: not valid with --resume: the run has its shards")
    _require_run_id("--resume", resume)


def _require_run_id(option: str, run_id: str) -> None:
    if not _RUN_ID.fullmatch(run_id):
        raise click.UsageError(f"{option} {run_id}: not a run id like 20260131_094500_1a2b3c")


def _check_pipeline(
    config: "Config", runner: str, beam_options: Sequence[str], dataflow: Mapping[str, Any]
) -> None:
    """Raise `ConfigError` for options that Beam or Dataflow would refuse later on."""
    from dcm2bq.tools.backfill.runners import dataflow as tool  # noqa: PLC0415

    if runner == DATAFLOW:
        tool.DataflowJob(**dataflow, beam_options=beam_options).check(config)
    else:
        tool.parse_options(beam_options)


def _command(run_id: str, beam_options: Sequence[str]) -> str:
    """Return the command that resumes this run, with the options of this command."""
    context = click.get_current_context()
    words = ["dcm2bq", "backfill", context.params["source"]]
    for option in context.command.params:
        name = str(option.name)
        if name not in _NOT_REPEATED and _is_given(name):
            value = context.params[name]
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            words += [_flag(name)] if value is True else [_flag(name), text]
    words += ["--resume", run_id]
    return shlex.join([*words, *(["--", *beam_options] if beam_options else [])])


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _flag(name: str) -> str:
    """Return an option as it is typed, given the name of its parameter."""
    for option in click.get_current_context().command.params:
        if option.name == name:
            return option.opts[0]
    raise KeyError(name)


def _locally(launch: "Backfill", processes: int, beam_options: Sequence[str]) -> "Runner":
    from dcm2bq.tools.backfill import progress  # noqa: PLC0415
    from dcm2bq.tools.backfill.runners import in_process  # noqa: PLC0415

    started = time.monotonic()
    shown = ProgressLine()

    def show(counts: Counter[str]) -> None:
        seconds = time.monotonic() - started
        shown.show(progress.line(counts, launch.total, seconds, launch.before))

    def go(run: "Run", shards: "Sequence[Shard]") -> bool:
        in_process.run(run, shards, processes=processes, beam_options=beam_options, show=show)
        shown.end()
        return True

    return go


def _on_dataflow(beam_options: Sequence[str], dataflow: Mapping[str, Any], again: str) -> "Runner":
    from dcm2bq.tools.backfill.runners.dataflow import DataflowJob  # noqa: PLC0415

    job = DataflowJob(**dataflow, beam_options=beam_options)

    def go(run: "Run", shards: "Sequence[Shard]") -> bool:
        return job.run(run, shards, _tell, again=again)

    return go


def _dry_run(
    config: "Config",
    uri: GsUri,
    staging: GsUri | None,
    cost: CostOptions,
    *,
    takes_all: bool,
    samples: bool,
    as_json: bool,
) -> int:
    import msgspec  # noqa: PLC0415

    from dcm2bq.gcs.store import Store  # noqa: PLC0415
    from dcm2bq.tools import indexing  # noqa: PLC0415
    from dcm2bq.tools.backfill.launch import count, examine_ignored  # noqa: PLC0415
    from dcm2bq.tools.backfill.read_sample import UNMEASURED, measure  # noqa: PLC0415

    indexing.require_bucket(uri.bucket, config)
    store = Store(config)
    source = store.settings(uri.bucket)
    with _counting() as on_page:
        total = count(config, uri.bucket, uri.name, on_page=on_page)
    known, queried = (None, 0) if takes_all else _count_known(config, uri)
    may_read = samples and not (source and source.autoclass.enabled)
    estimate = _estimate(
        total,
        cost,
        source,
        store.settings(staging.bucket) if staging else None,
        measure(config, total.sample) if may_read else UNMEASURED,
        known=known,
        queried=queried,
    )
    findings = examine_ignored(config, total).sentences() if may_read else []
    if as_json:
        document = {**estimate.document(), "findings": findings}
        say_json(msgspec.json.format(msgspec.json.encode(document)))
    else:
        for line in [*estimate.lines(), *findings]:
            say(line)
    _tell("dry run: nothing was changed")
    return 0


def _estimate(
    count: "BucketCount",
    cost: CostOptions,
    source: "BucketSettings | None",
    staging: "BucketSettings | None",
    rate: "ReadRate",
    *,
    known: int | None,
    queried: int = 0,
) -> "Estimate":
    from dcm2bq.gcs.bucket_settings import ASSUMED  # noqa: PLC0415
    from dcm2bq.tools.backfill.costs import Terms  # noqa: PLC0415
    from dcm2bq.tools.backfill.estimate import Estimate  # noqa: PLC0415

    return Estimate(
        count=count,
        terms=Terms(
            prices=cost.prices,
            source=source or ASSUMED,
            staging=staging or ASSUMED,
            rate=rate,
            region=cost.region,
        ),
        classes=cost.classes,
        known=known,
        queried=queried,
        processes=cost.processes,
        workers=cost.workers,
    )


def _count_known(config: "Config", uri: GsUri) -> tuple[int | None, int]:
    """Return how many generations BigQuery already has, and the bytes that finding them reads.

    Returns None and 0, with a message, if that fails.
    """
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.backfill import known  # noqa: PLC0415

    try:
        dataset = Dataset(config)
        return known.count(dataset, config, uri), known.bytes_queried(dataset, config, uri)
    except Dcm2BqError as error:
        complain(f"cannot count what BigQuery already has, so all objects count as new: {error}")
        return None, 0


def _print(summary: "RunSummary") -> None:
    """Print what all attempts of a run have done."""
    results = summary.results
    shards = counted(summary.shards, "shard")
    say(f"run {summary.run.id}: {summary.loaded:,} of {shards} loaded")
    say(
        f"{counted(sum(results.values()), 'object')}: {results.get('inserted', 0):,} inserted, "
        f"{counted(results.get('dead_lettered', 0), 'dead letter')}, "
        f"{results.get('skipped', 0):,} already present, {results.get('ignored', 0):,} ignored, "
        f"{results.get('superseded', 0):,} deleted in the meantime"
    )
    if left_out := results.get("left_out"):
        say(f"{counted(left_out, 'object')} left out by --classes")
    if archives := results.get("expanded"):
        say(f"{counted(archives, 'archive')} expanded; their members count as rows")
    rows = summary.rows
    say(
        f"{counted(rows.get('instances', 0), 'row')} loaded into instances, "
        f"{rows.get('dead_letter', 0):,} into dead_letter"
    )
    if rows.get("dead_letter"):
        _tell("to see what was not converted and why, run: dcm2bq dead-letters list")


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    shown, lock = ProgressLine(), threading.Lock()
    total = 0

    def on_page(listed: int) -> None:
        nonlocal total
        with lock:
            total += listed
            shown.show(f"{counted(total, 'object')} counted")

    yield on_page
    shown.end()


def _tell(*lines: str) -> None:
    for line in lines:
        say(line, err=True)
