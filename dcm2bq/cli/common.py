"""What the commands share: exit statuses, what errors say, and the configuration they take."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click
import msgspec

from dcm2bq import config
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, JobFailedError, RetryableError, describe
from dcm2bq.tools.display import printable

FINDINGS, USAGE, UNREACHABLE, JOB_FAILED, INTERRUPTED = 1, 2, 3, 4, 130

_STDOUT, _STDERR = "standard output", "standard error"
_REMEDIES = {
    errno.ENOSPC: "free some space; TMPDIR says where temporary files go",
    errno.EDQUOT: "free some space; TMPDIR says where temporary files go",
    errno.EACCES: "run it as a user who may, or name another place",
    errno.EPERM: "run it as a user who may, or name another place",
    errno.EROFS: "name another place; TMPDIR says where temporary files go",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "raise the limit of open files: ulimit -n",
    errno.ENOMEM: "free some memory",
}


class Group(click.Group):
    """A group whose help shows the first sentence of each command whole: wrapped, never cut."""

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
    help="Set an option over the configuration; the value is JSON, or else text. Repeatable.",
)
"""The option by which a command takes settings of the configuration; see `parse_settings`."""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--option NAME=VALUE` by name."""
    return dict(map(_setting, settings))


def override(settings: Mapping[str, Any]) -> Config:
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


def startable(options: Config, *, here: bool = True) -> Config:
    """Return the configuration; raise `ConfigError` if the function would not start with it.

    Limits count against the memory of this machine, unless it all runs elsewhere.
    """
    from dcm2bq.dicom import budget_of, privacy_rules  # noqa: PLC0415 - slow, and not for --help

    privacy_rules(options.privacy)  # names that are no attributes, a key that is missing
    if here:
        budget_of(options.limits)  # limits that the memory cannot satisfy
    return options


def status_of(error: Exception) -> int:
    """Return the exit status of an error."""
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, JobFailedError):
        return JOB_FAILED
    return UNREACHABLE if isinstance(error, RetryableError) else FINDINGS


def explain(error: Exception) -> str:
    """Say what went wrong without a value; the system's own errors keep their text and place."""
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
            f"the encoding of the output ({error.encoding}) lacks a character that is to be "
            "written (set PYTHONIOENCODING=utf-8)"
        )
    return describe(error)


def failing_stream(error: OSError) -> str | None:
    """Return which output it was that failed with an error; None if it was something else.

    The error itself does not say: a stream has no file name.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is click.echo.__code__:
            return _STDERR if frame.f_locals["err"] else _STDOUT
    for name, stream in ((_STDOUT, sys.stdout), (_STDERR, sys.stderr)):
        if _fails_again(stream, error):
            return name
    return None


def _fails_again(stream: TextIO, error: OSError) -> bool:
    """Whether a stream has the error still: something is left to write, or nobody reads it."""
    try:
        stream.flush()
        waiting = select.poll()
        waiting.register(stream.fileno(), select.POLLOUT)
        is_broken = any(event & select.POLLERR for _, event in waiting.poll(0))
    except OSError as again:  # of a stream without a file, too: it has no errno
        return again.errno == error.errno
    return error.errno == errno.EPIPE and is_broken


def complain(*lines: str) -> None:
    """Write lines to stderr, in red on a terminal."""
    for line in lines:
        click.secho(printable(line), fg="red", err=True)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: NAME=VALUE is expected", param_hint="--option")
    try:
        return name, msgspec.json.decode(value)
    except ValueError:
        return name, value
