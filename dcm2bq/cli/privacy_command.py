"""`dcm2bq privacy`."""

import click

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, Group, complain, startable
from dcm2bq.cli.progress_line import ListingProgress
from dcm2bq.gcs.uri import GsUri
from dcm2bq.row_names import row_names
from dcm2bq.tools.display import say


@click.group("privacy", cls=Group)
def privacy() -> None:
    """Show what the privacy options do.

    \b
    Examples:
        dcm2bq privacy path gs://my-bucket/2026/scan.dcm
        dcm2bq privacy name gs://my-bucket/hmac-sha256-3f9c...
    """  # noqa: D301 - \b tells click to keep the line breaks


@privacy.command()
@click.argument("uri", metavar="gs://BUCKET/NAME")
@click.option("--member", metavar="NAME", help="Print the column member of this member instead.")
def path(uri: str, *, member: str | None) -> None:
    """Print the path that rows and dead letters have for an object.

    With privacy.path: hash, this is the hash that verify, dead-letters and, with log.path: hash,
    the log show. Nothing is requested but the key, if it is in a secret. Use the configuration and
    the key of the function.

    \b
    Examples:
        dcm2bq privacy path gs://my-bucket/2026/scan.dcm
        dcm2bq privacy path gs://my-bucket/study.zip --member DICOM/IM0001
    """  # noqa: D301 - \b tells click to keep the line breaks
    _require_name(uri)
    names = row_names(startable(configuration.load(), here=False).privacy)
    row_path = names.path(uri)
    say(row_path if member is None else names.member(row_path, member))


@privacy.command()
@click.argument("uri", metavar="gs://BUCKET/HASH")
def name(uri: str) -> int:
    """Print the object whose hashed path is in a row, a dead letter or the log.

    A hash cannot be reversed. The bucket is listed until an object has this hash, which takes one
    request for each 1,000 objects. With privacy.path: full, a path has the name itself. Use the
    configuration and the key of the function.

    The exit status is 1 if no live object of the bucket has this hash.

    \b
    Example:
        dcm2bq privacy name gs://my-bucket/hmac-sha256-3f9c...
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.gcs.store import Store  # noqa: PLC0415 - slow to import
    from dcm2bq.tools.hashed_names import find_objects  # noqa: PLC0415

    _require_name(uri)
    config = startable(configuration.load(), here=False)
    names = row_names(config.privacy)
    if not names.are_hashed:
        say(uri)
        return 0
    progress = ListingProgress()
    objects = find_objects(Store(config), names, [uri], lambda: progress.add(1))
    progress.end()
    for stored in objects.values():
        say(f"{stored.path}#{stored.generation}")
    if not objects:
        complain(f"{uri}: no live object of the bucket has this hash")
    return 0 if objects else FINDINGS


def _require_name(uri: str) -> None:
    if not GsUri.parse(uri).name:
        raise click.UsageError(f"{uri}: gs://BUCKET/NAME is expected")
