"""`dcm2bq privacy`."""

from dataclasses import replace

import click
import msgspec

from dcm2bq import config as configuration
from dcm2bq.cli.common import FINDINGS, Group, complain, startable, warn
from dcm2bq.cli.progress_line import ListingProgress
from dcm2bq.config import Config
from dcm2bq.errors import RejectedEventError, describe
from dcm2bq.gcs.uri import GsUri
from dcm2bq.row_names import row_names
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

_BASIC = "Table E.1-1, basic"
"""What decides rows that no option changes."""


@click.group("privacy", cls=Group)
def privacy() -> None:
    """Show what the privacy options do.

    \b
    Examples:
        dcm2bq privacy explain
        dcm2bq privacy explain scan.dcm
        dcm2bq privacy path gs://my-bucket/2026/scan.dcm
        dcm2bq privacy name gs://my-bucket/hmac-sha256-3f9c...
    """  # noqa: D301 - \b tells click to keep the line breaks


@privacy.command()
@click.argument("file", required=False, metavar="[FILE|gs://BUCKET/NAME]")
@click.option("--values", "with_values", is_flag=True, help="Show values, before and after.")
@click.option("--all", "everything", is_flag=True, help="Show every row of the table.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
def explain(file: str | None, *, with_values: bool, everything: bool, as_json: bool) -> int:
    """Explain what the privacy options do to headers, or to each element of a file, and why.

    Without FILE, the rows of PS3.15 Table E.1-1 that an option of the profile decides are shown,
    and what privacy.remove and privacy.hash name; with --all, every row. Nothing is listed unless
    the configuration has one of these options. Each line has the tag, the keyword, what happens and
    what decides it: an option of the configuration, or the row and the column of the table. There,
    X is remove, Z empty, D replace (here: empty), U hash, K keep and C clean. No key is needed.

    With FILE, a DICOM object but no archive, each element at every level is shown, in the same way.
    The rules themselves are applied to the header, and what is left is compared with what was
    there. Values are shown only with --values: they are patient data. Use the configuration and
    the key of the function.

    \b
    Examples:
        dcm2bq privacy explain
        dcm2bq privacy explain --all --json
        dcm2bq privacy explain scan.dcm
        dcm2bq privacy explain gs://my-bucket/2026/scan.dcm --values
    """  # noqa: D301 - \b tells click to keep the line breaks
    if file is None and with_values:
        raise click.UsageError("--values needs FILE")
    if file is not None and everything:
        raise click.UsageError("--all is for the table: of FILE, every element is shown")
    config = configuration.load()
    warn(config)
    if file is None:
        _explain_options(config, everything=everything, as_json=as_json)
        return 0
    try:
        _explain_file(startable(config), file, with_values=with_values, as_json=as_json)
    except RejectedEventError as error:
        complain(f"{file}: {describe(error)}")
        return FINDINGS
    return 0


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


def _explain_options(config: Config, *, everything: bool, as_json: bool) -> None:
    from dcm2bq.dicom.explanation import explain_rows  # noqa: PLC0415 - slow to import
    from dcm2bq.tools.privacy_explanation import counts  # noqa: PLC0415

    options = config.privacy
    explanations = list(explain_rows(options))
    for row in explanations:
        if everything or not row.decided_by.startswith(_BASIC):
            if as_json:
                say_json(msgspec.json.encode(row))
            else:
                because = f"{row.decided_by}: {row.condition}" if row.condition else row.decided_by
                say(f"{row.selector:<8}  {row.keyword or '-':<40}  {row.fate:<8}  {because}")
    rows = ", ".join(f"{number:,} {fate}" for fate, number in counts(explanations).items())
    if explanations:
        say(f"{counted(len(explanations), 'row')}: {rows}", err=True)
    else:
        say("no privacy option decides about an attribute: headers are not changed", err=True)
    shown = "replaced with keyed hashes" if options.hashes_paths else "in full"
    say(f"names of objects and members in the tables: {shown}", err=True)
    logged = "hashed" if config.log.path == "hash" else "in full"
    say(f"names of objects in the log: {logged}", err=True)


def _explain_file(config: Config, file: str, *, with_values: bool, as_json: bool) -> None:
    from dcm2bq.tools.privacy_explanation import counts, explained  # noqa: PLC0415

    seen = []
    for element in explained(file, config):
        shown = element if with_values else replace(element, before=None, after=None)
        seen.append(shown)
        if as_json:
            say_json(msgspec.json.encode(shown))
        else:
            values = f": {_quoted(shown.before)} -> {_quoted(shown.after)}" if with_values else ""
            say(f"{shown.path}  {shown.vr}  {shown.fate}  ({shown.reason}){values}")
    totals = ", ".join(f"{number:,} {fate}" for fate, number in counts(seen).items())
    say(f"{counted(len(seen), 'element')}: {totals}", err=True)


def _quoted(value: str | None) -> str:
    return "-" if value is None else f"'{value}'"


def _require_name(uri: str) -> None:
    if not GsUri.parse(uri).name:
        raise click.UsageError(f"{uri}: gs://BUCKET/NAME is expected")
