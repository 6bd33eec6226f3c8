"""`dcm2bq dump`."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq.cli.common import (
    complain,
    override,
    parse_settings,
    settings_option,
    startable,
    status_of,
    table_format,
    table_options,
)
from dcm2bq.errors import UnlikeDicomError, describe
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.dicom import Conversion
    from dcm2bq.tools.dump import File, Files
    from dcm2bq.tools.tables import TableFormat


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
@click.option(
    "--columns",
    metavar="LIST",
    help="Print a table of these attributes instead: keywords or paths, with commas.",
)
@table_options
@settings_option
@click.option(
    "--verbose", is_flag=True, help="Print the number of warnings of each file to stderr."
)
def dump(
    paths: Sequence[str],
    *,
    envelope: bool,
    format_: str | None,
    columns: str | None,
    as_csv: bool,
    parquet: bool,
    output: Path | None,
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

    With --columns, the attributes are columns of a table with a row for each file: for people, or
    as CSV or Parquet. A path such as RequestAttributesSequence[0].ScheduledProcedureStepID leads
    into a sequence, and PixelSpacing[0] is the first of several values.

    A single file is printed as one indented document, several files or members as one line each.
    Files that cannot be read are reported on stderr, and the exit status is then 1.

    \b
    Examples:
        dcm2bq dump scan.dcm
        dcm2bq dump --format dicom-json scan.dcm
        dcm2bq dump --option jsonOutput.ignorePrivate=true --envelope study/
        dcm2bq dump 'archive/**/*.dcm' | jq -r .PatientID
        dcm2bq dump gs://my-bucket/2026/ > headers.ndjson
        dcm2bq dump --columns PatientID,Modality,SliceThickness study/
        dcm2bq dump --columns PatientID,PixelSpacing[0] --parquet -o study.parquet study/
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
    kind = table_format(as_csv=as_csv, parquet=parquet, output=output)
    if columns is not None:
        return _dump_table(
            paths, columns, overrides, kind, output, wants_json=envelope or bool(format_)
        )
    if kind:
        raise click.UsageError("--csv and --parquet need --columns")
    config = startable(override(overrides))
    from dcm2bq.tools.dump import Files  # noqa: PLC0415 - slow to import, not needed for --help

    files = Files(config)
    single = not envelope and len(paths) == 1 and files.names_one(paths[0])
    run = _DumpRun(files, is_quiet=single)
    for file, conversion in run.conversions(paths):
        say_json(_document(file, conversion, envelope=envelope, indent=single))
        if verbose and conversion.warnings:
            _report_warnings(file.name, len(conversion.warnings))
    return run.status


def _dump_table(
    paths: Sequence[str],
    columns: str,
    overrides: Mapping[str, Any],
    kind: "TableFormat | None",
    output: Path | None,
    *,
    wants_json: bool,
) -> int:
    from dcm2bq import extras  # noqa: PLC0415 - not needed for --help
    from dcm2bq.tools import header_tables, tables  # noqa: PLC0415
    from dcm2bq.tools.attribute_paths import parse_paths  # noqa: PLC0415
    from dcm2bq.tools.dump import Files  # noqa: PLC0415

    if wants_json:
        raise click.UsageError("--columns prints no JSON: leave out --envelope and --format")
    attributes = parse_paths(columns)
    fields = header_tables.fields_of(attributes)
    run = _DumpRun(Files(startable(override({**overrides, **header_tables.OPTIONS}))))
    rows = (
        header_tables.row_of(file, conversion, attributes)
        for file, conversion in run.conversions(paths)
    )
    if kind:
        tables.deliver(kind, fields, rows, output)
        return run.status
    extras.require(extras.TABLES)
    from dcm2bq.tools.terminal_tables import console, print_rows  # noqa: PLC0415

    shown = header_tables.without_members(list(rows))
    if shown:
        print_rows(console(sys.stdout), shown)
    return run.status


class _DumpRun:
    """Converts the files, and reports on stderr what it could not convert or has skipped.

    `status` is the exit status, once all conversions have been requested.
    """

    def __init__(self, files: "Files", *, is_quiet: bool = False) -> None:
        self._files = files
        self._is_quiet = is_quiet or sys.stdout.isatty() or not sys.stderr.isatty()
        self.status = 0

    def conversions(self, paths: Sequence[str]) -> "Iterator[tuple[File, Conversion]]":
        """Yield each file that can be converted, with its conversion."""
        unlike = 0
        files = self._files.find(paths)
        with click.progressbar(files, file=sys.stderr, hidden=self._is_quiet) as shown:
            for file in shown:
                try:
                    conversion = file.convert()
                except UnlikeDicomError:
                    unlike += 1
                    continue
                except Exception as error:
                    complain(f"{file.name}: {_reason(error)}")
                    self.status = max(self.status, status_of(error))
                    continue
                yield file, conversion
        _report_skipped(*self._files.skipped, unlike)
        _report_sample(self._files)


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
