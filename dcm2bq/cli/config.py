"""`dcm2bq config`."""

import click

from dcm2bq import config as configuration
from dcm2bq.tools.display import say_json


@click.command()
@click.option("--schema", is_flag=True, help="The JSON Schema of the overrides instead.")
def config(*, schema: bool) -> None:
    """Show the configuration in force as JSON.

    \b
    Examples:
        dcm2bq config
        DCM2BQ_CONFIG='{"jsonOutput": {"ignorePrivate": true}}' dcm2bq config
        dcm2bq config --schema
    """  # noqa: D301 - \b is click's mark for lines to keep
    say_json(configuration.json_schema() if schema else configuration.to_json(configuration.load()))
