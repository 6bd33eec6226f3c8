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
from dcm2bq.errors import UnlikeDicomError, describe
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.dicom import Conversion
    from dcm2bq.tools.dump import File, Files


_ADVICE = "to convert such files, add --option input.otherNames=sniff"


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--envelope",
    is_flag=True,
    help="Print one line per file: its path, member, metadata and warnings.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["flat", "dicom-json"]),
    help="Format of the metadata; short for --option jsonOutput.format=...",
)
@settings_option
@click.option(
    "--verbose", is_flag=True, help="Print the number of warnings of each file to stderr."
)
def dump(
    paths: Sequence[str],
    *,
    envelope: bool,
    format_: str | None,
    settings: Sequence[str],
    verbose: bool,
) -> int:
    """Print the headers of DICOM files as the JSON that goes into BigQuery.

    A PATH is a file, a folder, a glob pattern, gs://bucket/object, gs://bucket/prefix/ or -
    for standard input. In folders and under prefixes, only names that match
    input.namePattern are converted, and with --option input.otherNames=sniff also other
    files that begin like DICOM; a file given by its own name is always converted. Of an archive
    given by its own name (.zip, .tar, .tar.gz, .tgz), the members that begin like DICOM are
    converted; with --option input.archives=read also of archives in folders and under prefixes.

    A single file is printed as one indented document, several files or members as one line each.
    Files that cannot be read are reported on stderr, and the exit status is then 1.

    \b
    Examples:
        dcm2bq dump scan.dcm
        dcm2bq dump --format dicom-json scan.dcm
        dcm2bq dump --option jsonOutput.ignorePrivate=true --envelope study/
        dcm2bq dump 'archive/**/*.dcm' | jq -r .PatientID
        dcm2bq dump gs://my-bucket/2026/ > headers.ndjson
        dcm2bq dump --envelope study.zip | jq -r .member
        curl -s https://example.org/scan.dcm | dcm2bq dump -
    """  # noqa: D301 - \b tells click to keep the line breaks
    _check(paths)
    overrides = parse_settings(settings)
    if format_:
        if "jsonOutput.format" in overrides:
            raise click.UsageError(
                "--format and --option jsonOutput.format are both given: use one"
            )
        overrides["jsonOutput.format"] = format_
    config = startable(override(overrides))
    from dcm2bq.tools.dump import Files  # noqa: PLC0415 - slow to import, not needed for --help

    files = Files(config)
    single = not envelope and len(paths) == 1 and files.names_one(paths[0])
    is_quiet = single or sys.stdout.isatty() or not sys.stderr.isatty()
    status = unlike = 0
    with click.progressbar(files.find(paths), file=sys.stderr, hidden=is_quiet) as shown:
        for file in shown:
            try:
                conversion = file.convert()
            except UnlikeDicomError:
                unlike += 1
                continue
            except Exception as error:
                complain(f"{file.name}: {_reason(error)}")
                status = max(status, status_of(error))
                continue
            say_json(_document(file, conversion, envelope=envelope, indent=single))
            if verbose and conversion.warnings:
                _report_warnings(file.name, len(conversion.warnings))
    _report_skipped(*files.skipped, unlike)
    _report_sample(files)
    return status


def _check(paths: Sequence[str]) -> None:
    """Raise an error for an empty path or an invalid URI, before anything is read."""
    for path in paths:
        if not path:
            raise click.UsageError("PATH is empty")
        if is_uri(path):
            GsUri.parse(path)


def _document(file: "File", conversion: "Conversion", *, envelope: bool, indent: bool) -> bytes:
    text = conversion.text.encode()
    if envelope:
        # A name on disk need not be valid UTF-8; JSON must be.
        path = os.fsencode(file.path).decode(errors="replace")
        member = {} if file.member is None else {"member": file.member}
        content = {"metadata": msgspec.Raw(text), "warnings": conversion.warnings}
        return msgspec.json.encode({"path": path, **member, **content})
    return bytes(msgspec.json.format(text, indent=2)) if indent else text


def _report_warnings(path: str, count: int) -> None:
    say(f"{path}: {counted(count, 'warning')}", err=True)


def _report_skipped(unmatched: int, empty: int, unlike: int) -> None:
    """Print how many files of folders and prefixes were not converted, and why."""
    verb = "do" if unmatched > 1 else "does"
    names = f"{counted(unmatched, 'name')} that {verb} not match input.namePattern"
    objects = counted(empty, "empty object")
    verb = "do" if unlike > 1 else "does"
    others = f"{counted(unlike, 'file')} that {verb} not begin like DICOM"
    reasons = ((names, unmatched), (objects, empty), (others, unlike))
    parts = [text for text, number in reasons if number]
    if parts:
        say(f"skipped: {', '.join(parts)}", err=True)


def _report_sample(files: "Files") -> None:
    """Print how many of the files that were skipped because of their names are DICOM."""
    for noun, findings in files.examine_skipped():
        for sentence in findings.sentences(noun=noun, advice=_ADVICE):
            say(sentence, err=True)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else describe(error)
