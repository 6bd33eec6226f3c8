"""The command line.

Exit status: 0 when all is well, 1 for findings (a file that could not be read), 2 for usage
or configuration, 3 for a service that can not be reached.

What a command needs is imported when it runs, so that `--help` is quick, and so that the
base installation is enough for all but `local`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq import __version__, config
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, RetryableError, describe

if TYPE_CHECKING:
    from dcm2bq.dicom import Conversion

FINDINGS, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status, after one line on stderr for an error."""
    debug = False
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        with commands.make_context("dcm2bq", arguments) as context:
            debug = context.params["debug"]
            return int(commands.invoke(context) or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for instance, has what it wants; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        _complain(f"dcm2bq: {describe(error)}")
        return _status(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands(*, debug: bool) -> None:
    """DICOM headers from Cloud Storage to BigQuery.

    \b
    Try it on this machine, with nothing but what is installed:
        dcm2bq local
    See what a file becomes:
        dcm2bq dump scan.dcm
    Make the tables and views in a project of yours:
        dcm2bq init --project my-project --dataset dicom --location EU

    Options of the conversion and the names of the tables come from the JSON object in
    DCM2BQ_CONFIG, or in the file that DCM2BQ_CONFIG_FILE names.
    """  # noqa: D301 - \b is click's mark for lines to keep


@commands.command()
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
@click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an option over the configuration; the value is JSON, or else text. Repeatable.",
)
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

    A single file gives one indented document, everything else a line for each file. What can
    not be read is told on stderr, and the exit status is 1.

    \b
    Examples:
        dcm2bq dump scan.dcm
        dcm2bq dump --format dicom-json scan.dcm
        dcm2bq dump --option jsonOutput.ignorePrivate=true --envelope study/
        dcm2bq dump 'archive/**/*.dcm' | jq -r .PatientID
        dcm2bq dump gs://my-bucket/2026/ > headers.ndjson
        curl -s https://example.org/scan.dcm | dcm2bq dump -
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.dicom import privacy_rules  # noqa: PLC0415
    from dcm2bq.tools.dump import Files  # noqa: PLC0415

    overrides = dict(_setting(each) for each in settings)
    if format_:
        overrides["jsonOutput.format"] = format_
    options = _override(overrides)
    privacy_rules(options.privacy)  # what is wrong with them is no fault of a file
    files = Files(options)
    single = not envelope and len(paths) == 1 and files.names_one(paths[0])
    is_quiet = single or sys.stdout.isatty() or not sys.stderr.isatty()
    status = 0
    with click.progressbar(files.find(paths), file=sys.stderr, hidden=is_quiet) as found:
        for file in found:
            try:
                conversion = file.convert()
            except Exception as error:
                _complain(f"{file.path}: {_reason(error)}")
                status = max(status, _status(error))
                continue
            click.echo(_document(file.path, conversion, envelope=envelope, indent=single))
            if verbose and conversion.warnings:
                _count_warnings(file.path, len(conversion.warnings))
    return status


@commands.command()
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
@click.option("--once", is_flag=True, help="Ingest, show the summary, and end.")
@click.option("--query", "sql", metavar="SQL", help="Show the rows of a statement instead.")
@click.option("--json", "as_json", is_flag=True, help="With --query: the rows as a JSON array.")
def local(folder: Path | None, *, once: bool, sql: str | None, as_json: bool) -> int:
    """Run bucket, function and BigQuery on this machine.

    The files under DIR, by default samples that come with pydicom, are uploaded to a local
    Cloud Storage. The function gets the events that Eventarc would send, and writes into a
    local BigQuery, which then is asked for a summary. Nothing leaves this machine; nothing
    of it is left at the end.

    Without --once it goes on: files that are added, changed or deleted in DIR become events,
    until Ctrl-C. Meanwhile --query, in another terminal, asks the running stack. When none
    is running, or with --once, it starts one for the question alone.

    \b
    Examples:
        dcm2bq local
        dcm2bq local ~/scans --once
        dcm2bq local --query 'SELECT Modality, COUNT(*) FROM instances_live GROUP BY 1'
        dcm2bq local --query 'SELECT path, metadata FROM instances_live' --json | jq .
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.dicom import privacy_rules  # noqa: PLC0415
    from dcm2bq.local.servers import require_extras  # noqa: PLC0415

    if as_json and sql is None:
        raise click.UsageError("--json goes with --query")
    options = config.load()
    privacy_rules(options.privacy)  # the function would not start
    require_extras()
    from dcm2bq.local import run  # noqa: PLC0415 - it imports the extras

    if sql is None:
        return run.run(folder, options, once=once)
    return run.ask(folder, options, sql, as_json=as_json, fresh=once)


@commands.command()
@click.option("--project", metavar="ID", help="The project; over bigQuery.projectId.")
@click.option("--dataset", metavar="ID", help="The dataset; over bigQuery.datasetId.")
@click.option("--location", help="Where to create a missing dataset, EU for instance.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
def init(*, project: str | None, dataset: str | None, location: str | None, dry_run: bool) -> None:
    """Create or update the dataset, its tables and views.

    What is there already is compared, and brought up to date where nothing gets lost by it:
    columns are added, views replaced. Anything else is refused before anything is changed.

    \b
    Examples:
        dcm2bq init --project my-project --dataset dicom --location EU
        dcm2bq init --dry-run
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.init import init as bring_up  # noqa: PLC0415

    flags = {"bigQuery.projectId": project, "bigQuery.datasetId": dataset}
    options = _override({name: value for name, value in flags.items() if value is not None})
    entries = bring_up(Dataset(options), options, location=location, dry_run=dry_run)
    for entry in entries:
        details = f": {'; '.join(entry.details)}" if entry.details else ""
        click.echo(f"{entry.action:<10}{entry.kind:<15}{entry.name}{details}")
    if dry_run:
        click.echo("dry run: nothing was changed", err=True)


@commands.command("config")
@click.option("--schema", is_flag=True, help="The JSON Schema of the overrides instead.")
def show_config(*, schema: bool) -> None:
    """Show the configuration in force as JSON.

    \b
    Examples:
        dcm2bq config
        DCM2BQ_CONFIG='{"jsonOutput": {"ignorePrivate": true}}' dcm2bq config
        dcm2bq config --schema
    """  # noqa: D301 - \b is click's mark for lines to keep
    click.echo(config.json_schema() if schema else config.to_json(config.load()))


def _document(path: str, conversion: "Conversion", *, envelope: bool, indent: bool) -> bytes:
    text = conversion.text.encode()
    if envelope:
        # A name on disk can be no text at all; JSON can.
        name = os.fsencode(path).decode(errors="replace")
        content = {"path": name, "metadata": msgspec.Raw(text), "warnings": conversion.warnings}
        return msgspec.json.encode(content)
    return bytes(msgspec.json.format(text, indent=2)) if indent else text


def _count_warnings(path: str, count: int) -> None:
    click.echo(f"{path}: {count} warning{'s' if count > 1 else ''}", err=True)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: NAME=VALUE is expected", param_hint="--option")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def _override(settings: Mapping[str, Any]) -> Config:
    """Return the configuration with `settings`, by the options' paths, over it."""
    overrides = msgspec.json.decode(config.to_json(config.load()))
    for path, value in settings.items():
        *groups, option = path.split(".")
        place = overrides
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{path}: no such option")
        place[option] = value
    return config.from_overrides(overrides)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else describe(error)


def _status(error: Exception) -> int:
    if isinstance(error, ConfigError):
        return USAGE
    return UNREACHABLE if isinstance(error, RetryableError) else FINDINGS


def _complain(line: str) -> None:
    click.secho(line, fg="red", err=True)
