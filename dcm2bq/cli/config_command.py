"""`dcm2bq config`."""

import click

from dcm2bq import config as configuration
from dcm2bq.cli.common import startable
from dcm2bq.tools.display import say_json


@click.command()
@click.option("--schema", is_flag=True, help="The JSON Schema of the overrides instead.")
def config(*, schema: bool) -> None:
    """Check the configuration in force, as the function does at its start, and show it as JSON.

    \b
    Examples:
        dcm2bq config
        DCM2BQ_CONFIG='{"jsonOutput": {"ignorePrivate": true}}' dcm2bq config
        dcm2bq config --schema
    """  # noqa: D301 - \b is click's mark for lines to keep
    if schema:
        say_json(configuration.json_schema())
    else:
        say_json(configuration.to_json(startable(configuration.load())))
