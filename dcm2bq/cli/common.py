"""What the commands share: exit statuses, and settings that go over the configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from dcm2bq import config
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, RetryableError
from dcm2bq.tools.display import printable

FINDINGS, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


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


def status_of(error: Exception) -> int:
    """Return the exit status of an error."""
    if isinstance(error, ConfigError):
        return USAGE
    return UNREACHABLE if isinstance(error, RetryableError) else FINDINGS


def complain(line: str) -> None:
    """Write a line to stderr, in red on a terminal."""
    click.secho(printable(line), fg="red", err=True)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: NAME=VALUE is expected", param_hint="--option")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
