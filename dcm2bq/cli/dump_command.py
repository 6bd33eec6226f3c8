"""`dcm2bq dump`."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from dcm2bq.cli.common import (
    complain,
    override,
    parse_settings,
    settings_option,
    startable,
    status_of,
)
from dcm2bq.errors import describe
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.display import say, say_json

if TYPE_CHECKING:
    from dcm2bq.dicom import Conversion


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--envelope", is_flag=True, help="A line for each file: its path, metadata and warnings."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["flat", "dicom-json"]),
    help="The shape of the metadata; short for --option jsonOutput.format=...",
)
@settings_option
@click.option("--verbose", is_flag=True, help="Count the warnings of each file on stderr.")
def dump(
    paths: Sequence[str],
    *,
    envelope: bool,
    format_: str | None,
    settings: Sequence[str],
    verbose: bool,
) -> int:
    """Show DICOM files as the JSON that goes into BigQuery.

    A PATH is a file, a folder, a glob pattern, gs://bucket/object, gs://bucket/prefix/ or -
    for the standard input. Of folders and prefixes, the names that match input.namePattern
    are taken; a file that is named always is.

    A single file gives one indented document, everything else a line for each file. What
    cannot be read is told on stderr, and the exit status is 1.

    \b
    Examples:
        dcm2bq dump scan.dcm
        dcm2bq dump --format dicom-json scan.dcm
        dcm2bq dump --option jsonOutput.ignorePrivate=true --envelope study/
        dcm2bq dump 'archive/**/*.dcm' | jq -r .PatientID
        dcm2bq dump gs://my-bucket/2026/ > headers.ndjson
        curl -s https://example.org/scan.dcm | dcm2bq dump -
    """  # noqa: D301 - \b is click's mark for lines to keep
    for path in paths:
        if not path:
            raise click.UsageError("an empty PATH names nothing")
        if is_uri(path):
            GsUri.parse(path)
    overrides = parse_settings(settings)
    if format_:
        if "jsonOutput.format" in overrides:
            raise click.UsageError("--format and --option jsonOutput.format: use one")
        overrides["jsonOutput.format"] = format_
    options = startable(override(overrides))
    from dcm2bq.tools.dump import Files  # noqa: PLC0415

    files = Files(options)
    single = not envelope and len(paths) == 1 and files.names_one(paths[0])
    is_quiet = single or sys.stdout.isatty() or not sys.stderr.isatty()
    status = 0
    with click.progressbar(files.find(paths), file=sys.stderr, hidden=is_quiet) as found:
        for file in found:
            try:
                conversion = file.convert()
            except Exception as error:
                complain(f"{file.path}: {_reason(error)}")
                status = max(status, status_of(error))
                continue
            say_json(_document(file.path, conversion, envelope=envelope, indent=single))
            if verbose and conversion.warnings:
                _count_warnings(file.path, len(conversion.warnings))
    _count_passed_over(*files.passed_over)
    return status


def _document(path: str, conversion: "Conversion", *, envelope: bool, indent: bool) -> bytes:
    text = conversion.text.encode()
    if envelope:
        # A name on disk can be no text at all; JSON can.
        name = os.fsencode(path).decode(errors="replace")
        content = {"path": name, "metadata": msgspec.Raw(text), "warnings": conversion.warnings}
        return msgspec.json.encode(content)
    return bytes(msgspec.json.format(text, indent=2)) if indent else text


def _count_warnings(path: str, count: int) -> None:
    say(f"{path}: {count} warning{'s' if count > 1 else ''}", err=True)


def _count_passed_over(unmatched: int, empty: int) -> None:
    """Say what a folder or prefix holds beside what was shown."""
    names = f"{unmatched} name{'s' if unmatched > 1 else ''} without a match of input.namePattern"
    objects = f"{empty} empty object{'s' if empty > 1 else ''}"
    parts = [text for text, number in ((names, unmatched), (objects, empty)) if number]
    if parts:
        say(f"passed over: {', '.join(parts)}", err=True)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else describe(error)
