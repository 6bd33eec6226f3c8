"""The command line, a module for each command.

Exit statuses are named in `common`, and explained in docs/OPERATIONS.md.

What a command needs is imported when it runs, so that `--help` is quick, and so that the
base installation is enough for all but `local`.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

import click

from dcm2bq.cli import (
    backfill_command,
    config_command,
    dead_letters_command,
    dump_command,
    init_command,
    local_command,
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
    """Run a command; return its exit status, after one line on stderr for an error."""
    debug = False
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        with commands.make_context("dcm2bq", arguments) as context:
            debug = context.params["debug"]
            status = commands.invoke(context)
            click.echo(nl=False)  # flushes: what fails now is explained, at the end it is not
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
            # The reader, `head` for instance, has what it wants.
            _discard_output()
            return 0
        if debug:
            sys.excepthook = _show_traceback
            raise
        complain(*f"dcm2bq: {explain(error)}".split("\n"))
        if output:
            _discard_output()
        return status_of(error)


def _explain(error: click.ClickException) -> None:
    """Print click's own words on stderr: they quote the arguments."""
    # Escaped before it is shown, so that all line feeds that are left are click's own.
    error.message = printable(error.message)  # type: ignore[misc]
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().rstrip("\n").split("\n"):
        say(line, err=True)


def _show_traceback(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    for line in "".join(traceback.format_exception(error)).split("\n"):
        say(line, err=True)


def _discard_output() -> None:
    """Let what is left to be written go nowhere: it would fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(VERSION, message="%(prog)s %(version)s")
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


for each in (
    *(dump_command.dump, local_command.local, init_command.init, backfill_command.backfill),
    *(config_command.config, dead_letters_command.dead_letters, verify_command.verify),
):
    commands.add_command(each)
