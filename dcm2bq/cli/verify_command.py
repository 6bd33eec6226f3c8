"""`dcm2bq verify`."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from dcm2bq import config
from dcm2bq.cli.common import FINDINGS, complain, startable
from dcm2bq.errors import describe
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import say, say_json

if TYPE_CHECKING:
    from dcm2bq.tools.verify import Comparison, Repair

_EVERY = 1000  # objects between two looks of the bar


@click.command()
@click.argument("location", metavar="gs://BUCKET[/PREFIX]")
@click.option("--repair", is_flag=True, help="Index what is missing, mark what is gone.")
@click.option(
    "--settle",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="MINUTES",
    help="Younger objects may still be on their way: they are not called missing.",
)
@click.option("--allow-empty", is_flag=True, help="No object at all is as it should be.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of differences.")
def verify(location: str, *, repair: bool, settle: int, allow_empty: bool, as_json: bool) -> int:
    """Compare the objects of a bucket with the rows of instances_live.

    \b
    What can differ:
        missing        the object has no row, and no dead letter tells why
        dead-lettered  the object has no row; a dead letter tells why
        hidden         a delete marker of the same or a higher generation hides the object
        stale          the row's object is gone
        superseded     the row's object was overwritten
        dismissed      the object has no row, and somebody has accepted that; no difference

    With --repair, missing objects are indexed by the code of the function, and a row's object
    that is gone gets its delete marker, once Cloud Storage has said of exactly that generation
    that it is gone. What is reported as done was seen in instances_live afterwards; "unseen" was
    written, but does not show there. To handle dead letters, run dcm2bq dead-letters retry.
    Nothing is mended where a marker hides an object that exists, which only a forged event can
    bring about: docs/OPERATIONS.md shows how to remove it.

    The configuration must be that of the function: what it ignores is no difference. The exit
    status is 1 when there is a difference, with --repair when one is left, and when there is
    neither an object nor a row under the prefix, which may be mistyped.

    \b
    Examples:
        dcm2bq verify gs://my-bucket
        dcm2bq verify gs://my-bucket/2026/ --json | jq -r '.[].path'
        dcm2bq verify gs://my-bucket --repair
    """  # noqa: D301 - \b is click's mark for lines to keep
    GsUri.parse(location)  # before anything is asked of the network
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools import indexing  # noqa: PLC0415
    from dcm2bq.tools import verify as tool  # noqa: PLC0415

    options = startable(config.load()) if repair else config.load()
    dataset = Dataset(options)
    comparison = tool.Comparison(dataset, options, location, settle=timedelta(minutes=settle))
    if repair:
        indexing.require_table(dataset, options)
        repairs = tool.mend(comparison)
    else:
        repairs = (tool.Repair(each, None) for each in comparison)
    left, counts = 0, Counter[str]()
    show = _show_json if as_json else _show
    with click.progressbar(
        length=comparison.rows,
        label="objects",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=_EVERY,
    ) as bar:
        comparison.on_object = lambda: bar.update(1)
        for each in show(repairs):
            counts[each.difference.finding] += 1
            left += not each.is_mended
    _summarise(comparison, counts, left if repair else None)
    if not comparison.objects and not counts and not allow_empty:
        complain(f"{location}: no object under this prefix (--allow-empty if so)")
        return FINDINGS
    return FINDINGS if left else 0


def _show(repairs: Iterable["Repair"]) -> Iterator["Repair"]:
    for each in repairs:
        found = each.difference
        result = each.result or (f"failed: {describe(each.error)}" if each.error else None)
        details = ", ".join(filter(None, (found.reason, result)))
        path = f"{found.event.object.path}#{found.event.object.generation}"
        say(f"{found.finding:<15}{path}" + (f": {details}" if details else ""))
        yield each


def _show_json(repairs: Iterable["Repair"]) -> Iterator["Repair"]:
    """Write the array piece by piece: it may be longer than memory."""
    opening = "["
    for each in repairs:
        say_json(opening + _document(each), end="")
        opening = ",\n"
        yield each
    say_json("]" if opening != "[" else "[]")


def _document(repair: "Repair") -> str:
    found = repair.difference
    content = {
        "finding": found.finding,
        "path": found.event.object.path,
        "version": str(found.event.object.generation),
        "reason": found.reason,
        "result": repair.result,
        "error": describe(repair.error) if repair.error else None,
    }
    return msgspec.json.encode(content).decode()


def _summarise(comparison: "Comparison", counts: Counter[str], left: int | None) -> None:
    ignored = f" ({comparison.ignored} ignored)" if comparison.ignored else ""
    parts = [f"{comparison.objects} objects{ignored}"]
    parts += [f"{count} {finding}" for finding, count in sorted(counts.items())]
    if comparison.settling:
        parts.append(f"{comparison.settling} too young to be called missing")
    if left is not None:
        parts.append(f"{left} left")
    elif not counts:
        parts.append("no difference")
    say(", ".join(parts), err=True)
