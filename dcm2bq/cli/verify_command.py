"""`dcm2bq verify`."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

import click
import msgspec

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, complain, startable
from dcm2bq.errors import describe
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.tools.ignored_names import SampleFindings
    from dcm2bq.tools.verify.comparison import Comparison, Repair

_EXAMPLES = 3  # of ignored objects that begin with DICM; --json has all of the sample
_BAR_OBJECTS = 1000  # objects between two updates of the progress bar


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
@click.option("--json", "as_json", is_flag=True, help="Print the differences as a JSON array.")
def verify(
    location: str,
    *,
    repair: bool,
    settle: int,
    allow_empty: bool,
    no_sample: bool,
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

    The exit status is 1 if there is a difference (with --repair: if one remains), if more than 3
    of the sampled objects begin with DICM, or if there is neither an object nor a row under the
    prefix, which may be mistyped.

    \b
    Examples:
        dcm2bq verify gs://my-bucket
        dcm2bq verify gs://my-bucket/2026/ --json | jq -r '.[].path'
        dcm2bq verify gs://my-bucket --repair
    """  # noqa: D301 - \b tells click to keep the line breaks
    GsUri.parse(location)  # before any request
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools import indexing  # noqa: PLC0415
    from dcm2bq.tools.verify import comparison as tool  # noqa: PLC0415

    config = startable(configuration.load()) if repair else configuration.load()
    dataset = Dataset(config)
    comparison = tool.Comparison(dataset, config, location, settle=timedelta(minutes=settle))
    if repair:
        indexing.require_table(dataset, config)
        repairs = tool.repair_all(comparison)
    else:
        repairs = (tool.Repair(difference, None) for difference in comparison)
    unresolved, counts = 0, Counter[str]()
    sample: list[SampleFindings] = []

    def sampled() -> Iterator[tool.Repair]:
        findings, ignored = comparison.examine_ignored()
        sample.append(findings)
        for difference in islice(ignored, None if as_json else _EXAMPLES):
            yield tool.Repair(difference, None)

    show = _show_json if as_json else _show
    with click.progressbar(
        length=comparison.rows,
        label="objects",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=_BAR_OBJECTS,
    ) as bar:
        comparison.on_object = lambda: bar.update(1)
        for shown in show(repairs if no_sample else chain(repairs, sampled())):
            if shown.difference.finding is not tool.Finding.IGNORED:
                counts[shown.difference.finding] += 1
                unresolved += not shown.is_resolved
    _summarise(comparison, counts, unresolved if repair else None)
    for findings in sample:
        for sentence in findings.sentences():
            say(sentence, err=True)
    if not comparison.objects and not counts and not allow_empty:
        complain(
            f"{location}: there is no object and no row under this prefix; "
            "if that is right, use --allow-empty"
        )
        return FINDINGS
    is_alarming = any(findings.is_alarming for findings in sample)
    return FINDINGS if unresolved or is_alarming else 0


def _show(repairs: Iterable["Repair"]) -> Iterator["Repair"]:
    for repair in repairs:
        difference = repair.difference
        result = repair.result or (f"failed: {describe(repair.error)}" if repair.error else None)
        details = ", ".join(filter(None, (difference.reason, result)))
        name = f"{difference.object.path}#{difference.object.generation}"
        say(f"{difference.finding:<15}{name}" + (f": {details}" if details else ""))
        yield repair


def _show_json(repairs: Iterable["Repair"]) -> Iterator["Repair"]:
    """Print the array element by element: it may be larger than memory."""
    opening = "["
    for repair in repairs:
        say_json(opening + _document(repair), end="")
        opening = ",\n"
        yield repair
    say_json("]" if opening != "[" else "[]")


def _document(repair: "Repair") -> str:
    difference = repair.difference
    content = {
        "finding": difference.finding,
        "path": difference.object.path,
        "version": str(difference.object.generation),
        "reason": difference.reason,
        "result": repair.result,
        "error": describe(repair.error) if repair.error else None,
    }
    return msgspec.json.encode(content).decode()


def _summarise(comparison: "Comparison", counts: Counter[str], unresolved: int | None) -> None:
    ignored = f" ({comparison.ignored:,} ignored)" if comparison.ignored else ""
    parts = [f"{counted(comparison.objects, 'object')}{ignored}"]
    parts += [f"{count:,} {finding}" for finding, count in sorted(counts.items())]
    if comparison.unread:
        parts.append(f"{comparison.unread:,} in Nearline, Coldline or Archive not read")
    if comparison.settling:
        parts.append(f"{comparison.settling:,} too new to be reported as missing")
    if unresolved is not None:
        parts.append(f"{unresolved:,} not repaired")
    elif not counts:
        parts.append("no differences")
    say(", ".join(parts), err=True)
