"""`dcm2bq dead-letters`."""

import base64
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq import config
from dcm2bq.cli.common import FINDINGS, Group, complain, startable
from dcm2bq.errors import InvalidEventError, describe
from dcm2bq.events import EventKind, decode
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.display import say, say_json

if TYPE_CHECKING:
    from dcm2bq.bigquery.dataset import Dataset
    from dcm2bq.tools.dead_letters import Attempt, Entry, Filter, Letter

_BECAUSE_MAX_CHARS = 1000  # a sentence or two: it is read in lists

type Command = Callable[..., int | None]

FILTERS = (
    click.option("--path", metavar="GLOB", help="Objects whose gs:// path fits; * spans / too."),
    click.option(
        "--event",
        type=click.Choice([each.value for each in EventKind]),
        help="What had happened to the object.",
    ),
    click.option("--reason", metavar="TYPE", help="The type of error, in any case."),
    click.option(
        "--source",
        type=click.Choice(["function", "subscription"]),
        help="Who gave up: the function, or the trigger's subscription.",
    ),
    click.option(
        "--since",
        type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
        metavar="DAY[THH:MM]",
        help="Those that failed at this time (UTC) or later.",
    ),
)


def filtered(command: Command) -> Command:
    """Give a command the options that choose entries."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Explain and mend what could not be handled.

    An event that cannot become a row is kept in the table dead_letter with the reason: by the
    function, or by Pub/Sub when the function never acknowledged it. The view dead_letters, and
    this command, show what is still open: one entry for each change of an object.

    An entry closes when its event succeeds at last, when the object is deleted or replaced, or
    when it is dismissed.

    \b
    Examples:
        dcm2bq dead-letters list
        dcm2bq dead-letters show gs://my-bucket/2026/scan.dcm
        dcm2bq dead-letters retry --all
    """  # noqa: D301 - \b is click's mark for lines to keep


@dead_letters.command("list")
@filtered
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show at most N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of entries.")
def show_all(*, limit: int | None, as_json: bool, **chosen: Any) -> None:
    """List the open entries, the one that failed last first.

    \b
    Examples:
        dcm2bq dead-letters list
        dcm2bq dead-letters list --reason UnreadableDicomError --since 2026-01-31
        dcm2bq dead-letters list --path 'gs://my-bucket/2026/*' --json | jq -r .[].path
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.tools.dead_letters import find  # noqa: PLC0415

    dataset = _connect(config.load())
    meant = _filter(dataset, **chosen)
    entries = find(dataset, meant, limit=limit)
    count = 0
    if as_json:
        found = list(entries)
        count = len(found)
        say_json(msgspec.json.encode(found))
    else:
        for entry in entries:
            say(_line(entry))
            count += 1
        if count:
            say(f"{count} open", err=True)
    if not count:
        say(_nothing(dataset), err=True)


@dead_letters.command()
@click.argument("path_or_id", metavar="PATH|MESSAGE_ID")
def show(path_or_id: str) -> int:
    """Show the open entries of one object, or of one message, with the event as it came.

    \b
    Examples:
        dcm2bq dead-letters show gs://my-bucket/2026/scan.dcm
        dcm2bq dead-letters show 7391024431029482
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.tools.dead_letters import Filter, read  # noqa: PLC0415

    is_path = is_uri(path_or_id)
    if is_path:
        GsUri.parse(path_or_id)
    options = config.load()
    dataset = _connect(options)
    chosen = Filter(path=path_or_id) if is_path else Filter(message_id=path_or_id)
    letters = list(read(dataset, options, chosen))
    for letter in letters:
        say_json(_document(letter))
    if not letters:
        complain(f"{path_or_id}: no entry is open")
    return 0 if letters else FINDINGS


@dead_letters.command()
@filtered
@click.option("--all", "everything", is_flag=True, help="Every open entry.")
def retry(*, everything: bool, **chosen: Any) -> int:
    """Handle the recorded events once more, by the code of the function.

    Do so when the cause is gone: a permission that was missing, a limit that was too low, a
    release that reads what the last one could not. What succeeds is recorded as resolved and
    leaves the view; what fails stays as it is. It can be interrupted and run again.

    The configuration must be that of the function: its name pattern, limits and privacy options
    apply.

    \b
    Examples:
        dcm2bq dead-letters retry --path 'gs://my-bucket/2026/*'
        dcm2bq dead-letters retry --reason DeliveryExhausted
        dcm2bq dead-letters retry --all
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.tools import dead_letters as tool  # noqa: PLC0415

    if everything == any(chosen.values()):
        raise click.UsageError("say which entries: by the filters, --path for instance, or --all")
    options = startable(config.load())
    dataset = _connect(options)
    meant = _filter(dataset, **chosen)
    return _close(dataset, meant, tool.retry(dataset, options, meant))


@dead_letters.command()
@filtered
@click.option("--all", "everything", is_flag=True, help="Every open entry.")
@click.option(
    "--because",
    required=True,
    metavar="TEXT",
    help="Why; it is kept with the entry, up to 1,000 characters.",
)
def dismiss(*, everything: bool, because: str, **chosen: Any) -> int:
    """Close entries for what stays bad, with a reason.

    A file that is broken for good, or that was never DICOM, need not stay open. What is
    dismissed leaves the view dead_letters and is in dismissed_letters; its rows stay, verify
    calls it dismissed, and backfill leaves it out. If the same event fails again, its entry is
    open again.

    \b
    Examples:
        dcm2bq dead-letters dismiss --path gs://my-bucket/2026/bad.dcm --because 'cut at the source'
        dcm2bq dead-letters dismiss --reason NotDicomError --because 'exports of the old PACS'
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.tools import dead_letters as tool  # noqa: PLC0415

    if everything == any(chosen.values()):
        raise click.UsageError("say which entries: by the filters, --path for instance, or --all")
    if not 0 < len(because.strip()) <= _BECAUSE_MAX_CHARS:
        raise click.UsageError(f"--because: 1 to {_BECAUSE_MAX_CHARS:,} characters are expected")
    options = config.load()
    dataset = _connect(options)
    meant = _filter(dataset, **chosen)
    return _close(dataset, meant, tool.dismiss(dataset, options, meant, because.strip()))


def _close(dataset: "Dataset", meant: "Filter", attempts: "Iterator[Attempt]") -> int:
    """Show what becomes of each entry; return the exit status."""
    from dcm2bq.tools.dead_letters import count  # noqa: PLC0415

    results: Counter[str] = Counter()
    try:
        for attempt in _progress(attempts, count(dataset, meant)):
            results[attempt.result or "still open"] += 1
            if attempt.error:
                complain(f"{attempt.entry.name}: {describe(attempt.error)}")
    finally:
        if results:
            say(", ".join(f"{count} {result}" for result, count in results.items()))
    if not results:
        say(_nothing(dataset))
    return FINDINGS if results["still open"] else 0


def _connect(options: config.Config) -> "Dataset":
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415

    return Dataset(options)


def _filter(dataset: "Dataset", *, since: datetime | None, **chosen: str | None) -> "Filter":
    """Return the filter; refuse a reason that no entry has by design, and none has by chance."""
    from dcm2bq.tools.dead_letters import REASONS, Filter, reasons  # noqa: PLC0415

    reason = chosen.get("reason")
    if reason is not None and not _is_among(reason, REASONS):
        known = reasons(dataset)
        if not _is_among(reason, known):
            raise click.UsageError(f"--reason {reason}: no such reason; use {', '.join(known)}")
    return Filter(since=since and since.replace(tzinfo=UTC), **chosen)


def _is_among(name: str, names: Sequence[str]) -> bool:
    return name.casefold() in {each.casefold() for each in names}


def _nothing(dataset: "Dataset") -> str:
    """Say that nothing was found: because nothing is open, or because nothing matches."""
    from dcm2bq.tools.dead_letters import Filter, count  # noqa: PLC0415

    number = count(dataset, Filter())
    return f"none of {number:,} open entries matches" if number else "nothing is open"


def _line(entry: "Entry") -> str:
    """Return an entry as columns, of which only the last has no set width."""
    seen = f"{entry.last_seen:%Y-%m-%d %H:%M:%S}" if entry.last_seen else "-"
    return f"{seen:<20} {entry.attempts:>4}x  {entry.reason:<20}  {entry.name}: {entry.message}"


def _document(letter: "Letter") -> bytes:
    """Return a letter as JSON; data that is no JSON stands in it as base64."""
    try:
        data = decode(letter.data)
    except InvalidEventError:
        data = base64.b64encode(letter.data).decode()
    entry = msgspec.to_builtins(letter.entry, builtin_types=(datetime,))
    content = {**entry, "attributes": letter.attributes, "data": data}
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


def _progress[T](items: Iterator[T], length: int) -> Iterator[T]:
    """Yield the items, with a bar on a terminal."""
    with click.progressbar(
        items, length=length, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as shown:
        yield from shown
