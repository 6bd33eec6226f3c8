"""What the commands share: exit statuses, error messages and the configuration."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec

from dcm2bq import config as configuration
from dcm2bq.config import Config
from dcm2bq.errors import (
    ConfigError,
    JobFailedError,
    QuotaExceededError,
    RetryableError,
    describe,
)
from dcm2bq.tools.display import printable, say

if TYPE_CHECKING:
    from dcm2bq.tools.tables import TableFormat

FINDINGS, USAGE, UNREACHABLE, JOB_FAILED, QUOTA_USED = 1, 2, 3, 4, 5
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

_STDOUT, _STDERR = "standard output", "standard error"
_REMEDIES = {
    errno.ENOSPC: "free some space, or set TMPDIR to a folder with more",
    errno.EDQUOT: "free some space, or set TMPDIR to a folder with more",
    errno.EACCES: "run it as a user with access, or use another path",
    errno.EPERM: "run it as a user with access, or use another path",
    errno.EROFS: "use another path, or set TMPDIR to a writable folder",
    errno.EMFILE: "raise the limit of open files with ulimit -n",
    errno.ENFILE: "raise the limit of open files with ulimit -n",
    errno.ENOMEM: "free some memory",
}


class Group(click.Group):
    """A group whose help wraps the first sentence of each command instead of cutting it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences."""
        rows = [
            (name, self.commands[name].get_short_help_str(limit=sys.maxsize))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


settings_option = click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override an option of the configuration; VALUE is JSON or else text. Repeatable.",
)
"""The command-line option that overrides the configuration; see `parse_settings`."""


def table_options[F: Callable[..., Any]](function: F) -> F:
    """Add the options that `table_format` and the tools' `tables` take to a command."""
    for option in (
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the table to FILE, with values unchanged; needs --csv or --parquet.",
        ),
        click.option("--parquet", is_flag=True, help="Write Parquet; needs --output."),
        click.option("--csv", "as_csv", is_flag=True, help="Write or print CSV."),
    ):
        function = option(function)
    return function


def table_format(*, as_csv: bool, parquet: bool, output: Path | None) -> "TableFormat | None":
    """Return the format that the options ask for, or None; check that it can be written."""
    from dcm2bq.tools import tables  # noqa: PLC0415 - not needed for --help

    if as_csv and parquet:
        raise click.UsageError("--csv and --parquet are both given: use one")
    if parquet and output is None:
        raise click.UsageError("--parquet needs --output FILE: only text can be printed")
    if output is not None and not (as_csv or parquet):
        raise click.UsageError("--output needs --csv or --parquet")
    if not (as_csv or parquet):
        return None
    if output is not None:
        require_folder(output)
    kind = tables.TableFormat.CSV if as_csv else tables.TableFormat.PARQUET
    tables.require(kind)
    return kind


def require_folder(output: Path) -> None:
    """Raise `UsageError`, before anything is read, if the folder of a file to write is absent."""
    if not output.parent.is_dir():
        raise click.UsageError(f"--output: {output.parent} is not a folder: create it first")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--option NAME=VALUE` by name.

    >>> parse_settings(["limits.depth=3", "log.path=hash"])
    {'limits.depth': 3, 'log.path': 'hash'}
    """
    return dict(map(_setting, settings))


def override(settings: Mapping[str, Any]) -> Config:
    """Return the configuration with the options in `settings`, by path, overridden."""
    overrides = msgspec.json.decode(configuration.to_json(configuration.load()))
    for path, value in settings.items():
        *groups, option = path.split(".")
        target = overrides
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: no such option")
        target[option] = value
    return configuration.from_overrides(overrides)


def startable(config: Config, *, here: bool = True, reads_secret: bool = True) -> Config:
    """Return the configuration; raise `ConfigError` if the function would not start with it.

    Limits are checked against the memory of this machine if the conversion runs `here`. The key of
    the hash is checked unless it is in a secret and this process does not convert (`reads_secret`).
    """
    # Slow to import, and --help needs none of them.
    from dcm2bq.dicom import budget_of, check_attributes, privacy_rules  # noqa: PLC0415

    check_attributes(config.privacy)
    if reads_secret and config.privacy.hash_key_secret:
        from dcm2bq.secret_manager import provide_hash_key  # noqa: PLC0415

        provide_hash_key(config.privacy)
    if reads_secret or not config.privacy.hash_key_secret:
        privacy_rules(config.privacy)  # a missing key
    if here:
        budget_of(config.limits)  # limits beyond the memory
    return config


def status_of(error: Exception) -> int:
    """Return the exit status of an error."""
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, JobFailedError):
        return JOB_FAILED
    if isinstance(error, QuotaExceededError):
        return QUOTA_USED
    return UNREACHABLE if isinstance(error, RetryableError) else FINDINGS


def explain(error: Exception) -> str:
    """Describe an error without values of headers; errors of the system keep text and path."""
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename if error.filename is not None else failing_stream(error)
        remedy = _REMEDIES.get(error.errno)
        parts = (os.strerror(error.errno), f"({remedy})" if remedy else "")
        text = " ".join(filter(None, parts))
        return (
            f"{printable(os.fsdecode(place))}: {text}" if isinstance(place, str | bytes) else text
        )
    if isinstance(error, UnicodeEncodeError):
        if error.encoding.startswith("utf"):
            return "a name or an argument is not valid UTF-8"
        return (
            f"the output's encoding ({error.encoding}) lacks a character; "
            "set PYTHONIOENCODING=utf-8"
        )
    return describe(error)


def failing_stream(error: OSError) -> str | None:
    """Return the name of the output stream that raised an error; None if none did.

    The error itself does not name it, because a stream has no file name.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is click.echo.__code__:
            return _STDERR if frame.f_locals["err"] else _STDOUT
    for name, stream in ((_STDOUT, sys.stdout), (_STDERR, sys.stderr)):
        if _fails_again(stream, error):
            return name
    return None


def _fails_again(stream: TextIO, error: OSError) -> bool:
    """Return whether a stream still has the error: it cannot be flushed, or its reader is gone."""
    try:
        stream.flush()
        waiting = select.poll()
        waiting.register(stream.fileno(), select.POLLOUT)
        is_broken = any(event & select.POLLERR for _, event in waiting.poll(0))
    except OSError as again:  # without errno for a stream that is not a file
        return again.errno == error.errno
    return error.errno == errno.EPIPE and is_broken


def warn(config: Config) -> None:
    """Print warnings on stderr about options that are valid, but may be mistyped."""
    if config.privacy.kept_descriptors:
        from dcm2bq.tools.privacy_explanation import doubtful_descriptors  # noqa: PLC0415 - slow

        for line in doubtful_descriptors(config.privacy):
            say(line, err=True)


def complain(*lines: str) -> None:
    """Print lines on stderr, in red on a terminal."""
    for line in lines:
        click.secho(printable(line), fg="red", err=True)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: expected NAME=VALUE", param_hint="--option")
    try:
        return name, msgspec.json.decode(value)
    except ValueError:
        return name, value
