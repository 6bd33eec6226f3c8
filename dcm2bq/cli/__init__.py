"""The command line, with a module for each command.

Exit statuses are defined in `common` and explained in docs/OPERATIONS.md.

A command imports what it needs when it runs, so that `--help` is fast and the base installation
is enough for every command but `local`, `backfill`, `report` and `export`.
"""

import atexit
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from dcm2bq.cli import (
    backfill_command,
    columns_command,
    compact_command,
    config_command,
    dead_letters_command,
    dump_command,
    export_command,
    init_command,
    local_command,
    privacy_command,
    refresh_command,
    report_command,
    try_command,
    verify_command,
)
from dcm2bq.cli.common import (
    INTERRUPTED,
    Group,
    complain,
    explain,
    failing_stream,
    status_of,
)
from dcm2bq.tools.display import printable, say
from dcm2bq.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; print an error as one line on stderr.

    `argv` excludes the program's name; by default it is that of the process.
    """
    if argv is None:
        # Imported modules are never garbage. Without this, Python looks at each of their objects
        # at exit, which takes 0.3 s of CPU after a backfill.
        atexit.register(gc.freeze)
    debug = False
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        with commands.make_context("dcm2bq", arguments) as context:
            debug = context.params["debug"]
            status = commands.invoke(context)
            click.echo(nl=False)  # flushes: at interpreter exit, an error would not be explained
            return int(status or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _explain(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        output = failing_stream(error) if isinstance(error, OSError) else None
        if isinstance(error, BrokenPipeError) and output:
            # The reader, such as `head`, needs no more output.
            _discard_output()
            return 0
        if debug:
            _show_traceback(error)
        else:
            complain(*f"dcm2bq: {explain(error)}".split("\n"))
        if output:
            _discard_output()
        return status_of(error)


def _explain(error: click.ClickException) -> None:
    """Print click's message on stderr, escaped since it quotes the arguments."""
    # Escaped before it is formatted, so that the only line feeds left are click's own.
    error.message = printable(error.message)  # type: ignore[misc]
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().rstrip("\n").split("\n"):
        say(line, err=True)


def _show_traceback(error: Exception) -> None:
    for line in "".join(traceback.format_exception(error)).split("\n"):
        say(line, err=True)


def _discard_output() -> None:
    """Discard the output still buffered: writing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(VERSION, message="%(prog)s %(version)s")
def commands(*, debug: bool) -> None:
    """Put DICOM headers from Cloud Storage into BigQuery.

    \b
    Try the whole pipeline on this machine:
        dcm2bq local
    Show the metadata of a file as JSON:
        dcm2bq dump scan.dcm
    Create the tables and views in a project:
        dcm2bq init --project my-project --dataset dicom --location EU

    The configuration is the JSON object in DCM2BQ_CONFIG, or in the file named by
    DCM2BQ_CONFIG_FILE. Commands that work on the tables need the configuration of the function.

    \b
    Exit status:
      0    success, with nothing to report
      1    findings: an unreadable file, a difference, an entry that is still open
      2    wrong usage or configuration; nothing was started
      3    a service did not answer or refused; it may work later, or a role is missing
      4    the Dataflow job failed
      5    BigQuery's quota of load jobs is used up; resume tomorrow
      130  interrupted (`local` that is watching ends with 0 or 1)
    """  # noqa: D301 - \b tells click to keep the line breaks


for command in (
    backfill_command.backfill,
    columns_command.columns,
    compact_command.compact,
    config_command.config,
    dead_letters_command.dead_letters,
    dump_command.dump,
    export_command.export,
    init_command.init,
    local_command.local,
    privacy_command.privacy,
    refresh_command.refresh,
    report_command.report,
    try_command.try_,
    verify_command.verify,
):
    commands.add_command(command)
