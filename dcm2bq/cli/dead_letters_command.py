"""`dcm2bq dead-letters`."""

import base64
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, Group, complain, startable
from dcm2bq.cli.progress_line import ListingProgress
from dcm2bq.config import Config
from dcm2bq.delivery import decode
from dcm2bq.errors import Dcm2BqError, InvalidEventError, describe
from dcm2bq.events import EventKind
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.display import say, say_json

if TYPE_CHECKING:
    from dcm2bq.bigquery.dataset import Dataset
    from dcm2bq.tools.dead_letters import ClosingAttempt, DeadLetter, Entry, Filter

_BECAUSE_MAX_CHARS = 1000  # some sentences: it is shown in lists
_SELECT = "select entries either by a filter, such as --path, or by --all"

type Command = Callable[..., int | None]

FILTERS = (
    click.option(
        "--path", metavar="GLOB", help="Objects whose gs:// path matches; * also matches /."
    ),
    click.option(
        "--event",
        type=click.Choice([kind.value for kind in EventKind]),
        help="Type of the event.",
    ),
    click.option("--reason", metavar="TYPE", help="Type of the error; case is ignored."),
    click.option(
        "--source",
        type=click.Choice(["function", "subscription"]),
        help="Who gave up on the event: the function or the trigger's subscription.",
    ),
    click.option(
        "--since",
        type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
        metavar="DAY[THH:MM]",
        help="Failed at this time (UTC) or later.",
    ),
)


def filtered(command: Command) -> Command:
    """Add the options that select entries to a command."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """List, explain, retry or dismiss events that could not be handled.

    An event that cannot become a row is stored in the table dead_letter with the reason: by the
    function or, if the function never acknowledged it, by Pub/Sub. The view dead_letters and this
    command show the open entries, one for each change of an object, or of a member of an archive.

    An entry closes when its event succeeds, when the object is deleted or replaced, or when it is
    dismissed.

    \b
    Examples:
        dcm2bq dead-letters list
        dcm2bq dead-letters show gs://my-bucket/2026/scan.dcm
        dcm2bq dead-letters retry --all
    """  # noqa: D301 - \b tells click to keep the line breaks


@dead_letters.command("list")
@filtered
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="List at most N.")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as a JSON array.")
def show_all(*, limit: int | None, as_json: bool, **chosen: Any) -> None:
    """List the open entries, latest failure first.

    Nothing is changed. The exit status is 0 whether or not there are entries.

    \b
    Examples:
        dcm2bq dead-letters list
        dcm2bq dead-letters list --reason UnreadableDicomError --since 2026-01-31
        dcm2bq dead-letters list --path 'gs://my-bucket/2026/*' --json | jq -r .[].path
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.tools.dead_letters import find  # noqa: PLC0415

    dataset, selected = _select(configuration.load(), **chosen)
    entries = find(dataset, selected, limit=limit)
    count = 0
    if as_json:
        listed = list(entries)
        count = len(listed)
        say_json(msgspec.json.encode(listed))
    else:
        for entry in entries:
            say(_line(entry))
            count += 1
        if count:
            say(f"{count:,} open", err=True)
    if not count:
        say(_nothing(dataset), err=True)


@dead_letters.command()
@click.argument("path_or_id", metavar="PATH|MESSAGE_ID")
def show(path_or_id: str) -> int:
    """Show the open entries of an object, or of a Pub/Sub message, with the recorded event.

    The event can contain the object's name and metadata, but nothing of its header. The exit
    status is 1 if there is no open entry.

    \b
    Examples:
        dcm2bq dead-letters show gs://my-bucket/2026/scan.dcm
        dcm2bq dead-letters show 7391024431029482
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.tools.dead_letters import Filter, read  # noqa: PLC0415

    is_path = is_uri(path_or_id)
    if is_path:
        GsUri.parse(path_or_id)
    config = configuration.load()
    selected = Filter(path=path_or_id) if is_path else Filter(message_id=path_or_id)
    letters = list(read(_connect(config), config, selected))
    for letter in letters:
        say_json(_document(letter))
    if not letters:
        complain(f"{path_or_id}: there is no open entry")
    return 0 if letters else FINDINGS


@dead_letters.command()
@filtered
@click.option("--all", "everything", is_flag=True, help="Retry every open entry.")
def retry(*, everything: bool, **chosen: Any) -> int:
    """Handle the recorded events again, with the code of the function.

    Retry once the cause is removed: a missing role, a limit that was too low, a fault fixed by a
    new release. An event that succeeds gets its row or marker, and its entry is closed; one that
    fails stays open. Of an archive with an entry for a member, only that member is read again. The
    command can be interrupted and repeated.

    Use the configuration of the function: its name pattern, limits and privacy options apply.

    With privacy.path: hash, entries have no names. The bucket is listed until the objects with
    their hashes are found, which takes one request for each 1,000 objects. An object that was
    deleted or replaced since then is superseded.

    The exit status is 1 if a selected entry is still open, and 3 if a service is down.

    \b
    Examples:
        dcm2bq dead-letters retry --path 'gs://my-bucket/2026/*'
        dcm2bq dead-letters retry --reason DeliveryExhausted
        dcm2bq dead-letters retry --all
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.tools import dead_letters as tool  # noqa: PLC0415

    if everything == any(chosen.values()):
        raise click.UsageError(_SELECT)
    config = startable(configuration.load())
    dataset, selected = _select(config, **chosen)
    listing = ListingProgress()
    attempts = tool.retry(dataset, config, selected, listing.add)
    listing.end()
    return _close(dataset, selected, attempts)


@dead_letters.command()
@filtered
@click.option("--all", "everything", is_flag=True, help="Dismiss every open entry.")
@click.option(
    "--because",
    required=True,
    metavar="TEXT",
    help="Why; stored with the entry, at most 1,000 characters.",
)
def dismiss(*, everything: bool, because: str, **chosen: Any) -> int:
    """Close entries that cannot be fixed, with a reason.

    For example, a file that is broken at its source, or that was never DICOM. A dismissed entry
    moves from the view dead_letters to dismissed_letters; its rows in the table stay. verify
    reports the object as dismissed, and backfill skips it. If the same event fails again, the
    entry is open again.

    \b
    Examples:
        dcm2bq dead-letters dismiss --path gs://my-bucket/2026/bad.dcm --because 'cut at the source'
        dcm2bq dead-letters dismiss --reason NotDicomError --because 'exports of the old PACS'
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.tools import dead_letters as tool  # noqa: PLC0415

    if everything == any(chosen.values()):
        raise click.UsageError(_SELECT)
    if not 0 < len(because.strip()) <= _BECAUSE_MAX_CHARS:
        raise click.UsageError(f"--because: expected 1 to {_BECAUSE_MAX_CHARS:,} characters")
    config = configuration.load()
    dataset, selected = _select(config, **chosen)
    return _close(dataset, selected, tool.dismiss(dataset, config, selected, because.strip()))


def _close(dataset: "Dataset", selected: "Filter", attempts: "Iterator[ClosingAttempt]") -> int:
    """Print the failures and a summary of the results; return the exit status."""
    from dcm2bq.tools.dead_letters import count  # noqa: PLC0415

    results: Counter[str] = Counter()
    try:
        for attempt in _progress(attempts, count(dataset, selected)):
            results[attempt.result or "still open"] += 1
            if attempt.error:
                complain(f"{attempt.entry.name}: {describe(attempt.error)}")
    finally:
        if results:
            say(", ".join(f"{number:,} {result}" for result, number in results.items()))
    if not results:
        say(_nothing(dataset))
    return FINDINGS if results["still open"] else 0


def _connect(config: Config) -> "Dataset":
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415

    return Dataset(config)


def _select(
    config: Config, *, since: datetime | None, **chosen: str | None
) -> "tuple[Dataset, Filter]":
    """Return the dataset and the filter; raise `click.UsageError` for an unknown reason.

    A reason can also be the name of an unforeseen exception, which only the open entries show.
    """
    from dcm2bq.tools.dead_letters import REASONS, Filter, reasons  # noqa: PLC0415

    reason = chosen.get("reason")
    is_foreseen = reason is None or _is_among(reason, REASONS)
    try:
        dataset = _connect(config)
    except Dcm2BqError:
        if is_foreseen:
            raise
        # A typing error is more likely, and must not be hidden by missing credentials.
        raise click.UsageError(_unknown_reason(reason, REASONS)) from None
    if not is_foreseen and not _is_among(str(reason), known := reasons(dataset)):
        raise click.UsageError(_unknown_reason(reason, known))
    return dataset, Filter(since=since and since.replace(tzinfo=UTC), **chosen)


def _unknown_reason(reason: str | None, known: Sequence[str]) -> str:
    return f"--reason {reason}: no such reason; use one of {', '.join(known)}"


def _is_among(name: str, names: Sequence[str]) -> bool:
    return name.casefold() in {known.casefold() for known in names}


def _nothing(dataset: "Dataset") -> str:
    """Return why no entry was selected: none is open, or none of the open ones matches."""
    from dcm2bq.tools.dead_letters import Filter, count  # noqa: PLC0415

    number = count(dataset, Filter())
    return f"no open entry matches ({number:,} open)" if number else "there are no open entries"


def _line(entry: "Entry") -> str:
    """Return an entry as a line of columns."""
    seen = f"{entry.last_seen:%Y-%m-%d %H:%M:%S}" if entry.last_seen else "-"
    return f"{seen:<20} {entry.attempts:>4}x  {entry.reason:<20}  {entry.name}: {entry.message}"


def _document(letter: "DeadLetter") -> bytes:
    """Return a dead letter as JSON; data that is not JSON is encoded as base64."""
    try:
        data = decode(letter.data)
    except InvalidEventError:
        data = base64.b64encode(letter.data).decode()
    entry = msgspec.to_builtins(letter.entry, builtin_types=(datetime,))
    content = {**entry, "attributes": letter.attributes, "data": data}
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


def _progress[T](items: Iterator[T], length: int) -> Iterator[T]:
    """Yield the items, with a progress bar on a terminal."""
    with click.progressbar(
        items, length=length, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as shown:
        yield from shown
