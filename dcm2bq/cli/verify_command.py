"""`dcm2bq verify`."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, complain, startable
from dcm2bq.config import Config
from dcm2bq.errors import describe
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.bigquery.dataset import Dataset
    from dcm2bq.tools.ignored_names import SampleFindings
    from dcm2bq.tools.verify.comparison import Comparison
    from dcm2bq.tools.verify.repair import Repair

_EXAMPLES = 3  # of ignored objects that begin with DICM; --json has all of the sample
_BAR_OBJECTS = 1000  # objects between two updates of the progress bar
_NOT_STALE = (
    "with hashed names, only verifying the whole bucket finds rows of objects that were deleted"
)
_NOTABLE_BYTES = 10**9  # read from BigQuery: $0.006, the least that is worth a line


@dataclass(slots=True)
class _Outcome:
    """What was shown: numbers by finding, `unresolved` ones, and the sample, if it was taken.

    `bytes_read` is what BigQuery read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    unresolved: int = 0
    sample: "SampleFindings | None" = None
    bytes_read: int = 0


def _scratch(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check the name of a dataset, which becomes a part of a statement."""
    if value is not None and not re.fullmatch(r"([a-z][a-z0-9-]*\.)?\w+", value, re.ASCII):
        raise click.BadParameter("DATASET or PROJECT.DATASET is expected")
    return value


@click.command()
@click.argument("location", metavar="gs://BUCKET[/PREFIX]")
@click.option(
    "--repair", is_flag=True, help="Index missing objects; write markers for deleted ones."
)
@click.option(
    "--settle",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="MINUTES",
    help="Do not report younger objects as missing: their events may be on their way.",
)
@click.option("--allow-empty", is_flag=True, help="Accept a prefix without objects and rows.")
@click.option(
    "--no-sample", is_flag=True, help="Do not read a sample of the objects ignored by their names."
)
@click.option(
    "--scratch",
    metavar="[PROJECT.]DATASET",
    callback=_scratch,
    help="Create the run's table in this dataset, by default in that of the rows.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line of JSON for each difference at once, then one for the summary.",
)
def verify(
    location: str,
    *,
    repair: bool,
    settle: int,
    allow_empty: bool,
    no_sample: bool,
    scratch: str | None,
    as_json: bool,
) -> int:
    """Compare the objects of a bucket with the rows of instances_live.

    \b
    Findings:
        missing        an object has no row and no dead letter
        dead-lettered  an object has no row; its dead letter has the reason
        hidden         a delete marker of the same or a higher generation hides an object
        stale          the object of a row was deleted
        superseded     the object of a row was overwritten
        dismissed      an object has no row, and its dead letter was dismissed; accepted
        ignored        a sampled object begins with DICM, but is ignored because of its name

    Each DICOM member of an archive that is read needs a row or a dead letter, and the archive the
    record that it was expanded; otherwise it is missing.

    Without --repair, nothing is changed. With --repair, missing objects are indexed by the code of
    the function, and stale and superseded rows get a delete marker, provided Cloud Storage confirms
    that exactly this generation no longer exists. Each repair is looked up in instances_live
    afterwards; "unseen" means that it was written but did not appear there in time.

    Two findings are not repaired. For dead letters, run dcm2bq dead-letters retry. For hidden
    objects, see "Forged events" in docs/OPERATIONS.md: only a forged event can hide an object that
    exists.

    Use the configuration of the function: objects that it ignores need no row. Of those that it
    ignores because of their names, up to 200 are read, 132 bytes each, to see whether they begin
    with DICM; objects in Nearline, Coldline and Archive are left out. With input.otherNames: sniff,
    each object of another name that has no row is read instead, 64 KiB at most.

    With privacy.path: hash, differences show the hashed paths of the rows; dcm2bq privacy name
    finds the object of a hash. The listing is sorted in a temporary file of some 0.7 kB for each
    object. Stale rows are found only if the whole bucket is verified, since a hash does not show
    the prefix, and are marked by the listing alone.

    The exit status is 1 if there is a difference (with --repair: if one remains), if more than 3
    of the sampled objects begin with DICM, or if there is neither an object nor a row under the
    prefix, which may be mistyped.

    One statement of BigQuery reads the keys of all rows. If the prefix has more than a million, it
    stores them in a table verify_..., which needs roles/bigquery.dataEditor on the dataset; the
    table is dropped at the end, or expires after 7 days. Without that role, name a dataset of the
    same location with --scratch, or verify prefixes with fewer rows. Before it reads gigabytes, the
    command says how many.

    With --json, each line but the last has finding, path, version, reason, result and error, the
    last has summary: {"objects", "ignored", "settling", "unread", "findings", "unresolved",
    "sample", "bigquery_bytes"}. A command that fails before the end prints no summary.

    \b
    Examples:
        dcm2bq verify gs://my-bucket
        dcm2bq verify gs://my-bucket/2026/ --json | jq -r '.path // empty'
        dcm2bq verify gs://my-bucket --repair
    """  # noqa: D301 - \b tells click to keep the line breaks
    GsUri.parse(location)  # before any request
    from dcm2bq.tools.verify.comparison import Comparison  # noqa: PLC0415
    from dcm2bq.tools.verify.findings import Finding  # noqa: PLC0415
    from dcm2bq.tools.verify.repair import Repair, Repairer, repair_all  # noqa: PLC0415

    config = configuration.load()
    dataset = _connect(config, converts=repair)
    comparison = Comparison(
        dataset, config, location, settle=timedelta(minutes=settle), scratch=scratch
    )
    comparison.keys.on_estimate = _say_estimate
    if not comparison.listed.is_whole:
        say(_NOT_STALE, err=True)
    if repair:
        repairs = repair_all(Repairer(dataset, config), comparison)
    else:
        repairs = (Repair(difference, None) for difference in comparison)
    outcome = _Outcome()

    def sampled() -> Iterator[Repair]:
        outcome.sample, ignored = comparison.examine_ignored()
        for difference in islice(ignored, None if as_json else _EXAMPLES):
            yield Repair(difference, None)

    show: Callable[[Repair], None] = _show_json if as_json else _show
    with (
        closing(comparison.keys),
        click.progressbar(
            length=comparison.keys.rows,
            label="objects",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
            update_min_steps=_BAR_OBJECTS,
        ) as bar,
    ):
        comparison.listed.on_object = lambda: bar.update(1)
        for shown in repairs if no_sample else chain(repairs, sampled()):
            show(shown)
            if shown.difference.finding is not Finding.IGNORED:
                outcome.counts[shown.difference.finding] += 1
                outcome.unresolved += not shown.is_resolved
    outcome.bytes_read = dataset.bytes_read
    if as_json:
        say_json(msgspec.json.encode({"summary": _summary(comparison, outcome)}))
    _summarise(comparison, outcome, is_repaired=repair)
    if not comparison.objects and not outcome.counts and not allow_empty:
        complain(
            f"{location}: there is no object and no row under this prefix; "
            "if that is right, use --allow-empty"
        )
        return FINDINGS
    is_alarming = outcome.sample is not None and outcome.sample.is_alarming
    return FINDINGS if outcome.unresolved or is_alarming else 0


def _connect(config: Config, *, converts: bool) -> "Dataset":
    """Return the dataset; check the key and the table if rows are made or names hashed here."""
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools import indexing  # noqa: PLC0415

    if not (converts or config.privacy.hashes_paths):
        return Dataset(config)
    startable(config, here=converts)
    dataset = Dataset(config)
    indexing.require_table(dataset, config)
    return dataset


def _say_estimate(count: int) -> None:
    from dcm2bq.tools.query_prices import priced  # noqa: PLC0415

    say(f"BigQuery reads up to {priced(count)}, for the keys of all rows", err=True)


def _show(repair: "Repair") -> None:
    difference = repair.difference
    result = repair.result or (f"failed: {describe(repair.error)}" if repair.error else None)
    details = ", ".join(filter(None, (difference.reason, result)))
    name = f"{difference.path}#{difference.object.generation}"
    say(f"{difference.finding:<15}{name}" + (f": {details}" if details else ""))


def _show_json(repair: "Repair") -> None:
    difference = repair.difference
    content = {
        "finding": difference.finding,
        "path": difference.path,
        "version": str(difference.object.generation),
        "reason": difference.reason,
        "result": repair.result,
        "error": describe(repair.error) if repair.error else None,
    }
    say_json(msgspec.json.encode(content))


def _summary(comparison: "Comparison", outcome: _Outcome) -> dict[str, Any]:
    """Return the summary of --json; its `sample` has numbers, since names have their own lines."""
    sample = outcome.sample
    return {
        "objects": comparison.objects,
        "ignored": comparison.ignored,
        "settling": comparison.settling,
        "unread": comparison.unread,
        "findings": dict(sorted(outcome.counts.items())),
        "unresolved": outcome.unresolved,
        "sample": sample
        and {
            "ignored": sample.ignored,
            "cold": sample.cold,
            "read": sample.read,
            "failed": sample.failed,
            "dicom": len(sample.dicom),
        },
        "bigquery_bytes": outcome.bytes_read,
    }


def _summarise(comparison: "Comparison", outcome: _Outcome, *, is_repaired: bool) -> None:
    ignored = f" ({comparison.ignored:,} ignored)" if comparison.ignored else ""
    parts = [f"{counted(comparison.objects, 'object')}{ignored}"]
    parts += [f"{count:,} {finding}" for finding, count in sorted(outcome.counts.items())]
    if comparison.unread:
        parts.append(f"{comparison.unread:,} in Nearline, Coldline or Archive not read")
    if comparison.settling:
        parts.append(f"{comparison.settling:,} too new to be reported as missing")
    if is_repaired:
        parts.append(f"{outcome.unresolved:,} not repaired")
    elif not outcome.counts:
        parts.append("no differences")
    say(", ".join(parts), err=True)
    if outcome.bytes_read >= _NOTABLE_BYTES:
        from dcm2bq.tools.query_prices import priced  # noqa: PLC0415

        say(f"BigQuery read {priced(outcome.bytes_read)}", err=True)
    for sentence in outcome.sample.sentences() if outcome.sample else ():
        say(sentence, err=True)
