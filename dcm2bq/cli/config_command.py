"""`dcm2bq config`."""

import click

from dcm2bq import config as configuration
from dcm2bq.cli.common import startable, warn
from dcm2bq.tools.display import say_json


@click.command()
@click.option("--schema", is_flag=True, help="Show the JSON Schema of the overrides instead.")
def config(*, schema: bool) -> None:
    """Check the configuration and show it as JSON, with every default.

    The checks are those of the function when it starts: unknown options, wrong values, a missing
    hash key, limits beyond the memory. With an error, the exit status is 2. A warning on stderr
    names each entry of privacy.keptDescriptors that looks like a keyword and is not one.

    \b
    Examples:
        dcm2bq config
        DCM2BQ_CONFIG='{"jsonOutput": {"ignorePrivate": true}}' dcm2bq config
        dcm2bq config --schema
    """  # noqa: D301 - \b tells click to keep the line breaks
    if schema:
        say_json(configuration.json_schema())
    else:
        checked = startable(configuration.load(), reads_secret=False)
        warn(checked)
        say_json(configuration.to_json(checked))
