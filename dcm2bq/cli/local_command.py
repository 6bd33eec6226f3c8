"""`dcm2bq local`."""

from collections.abc import Sequence
from pathlib import Path

import click

from dcm2bq.cli.common import override, parse_settings, settings_option, startable


@click.command()
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
@click.option("--once", is_flag=True, help="Ingest, show the summary, and end.")
@click.option("--query", "sql", metavar="SQL", help="Show the rows of a statement instead.")
@click.option("--json", "as_json", is_flag=True, help="With --query: the rows as a JSON array.")
@settings_option
def local(
    folder: Path | None, *, once: bool, sql: str | None, as_json: bool, settings: Sequence[str]
) -> int:
    """Run bucket, function and BigQuery on this machine.

    The files under DIR, by default samples that come with pydicom, are the objects of a local
    Cloud Storage, which reads them where they lie. The function gets the events that Eventarc
    would send, and writes into a local BigQuery, which then is asked for a summary. Nothing
    leaves this machine; nothing of it is left at the end.

    Without --once it goes on: files that are added, changed or deleted in DIR become events,
    until Ctrl-C. Meanwhile --query, in another terminal, asks the running stack. When none
    is running, or with --once, it starts one for the question alone.

    \b
    Examples:
        dcm2bq local
        dcm2bq local ~/scans --once
        dcm2bq local ~/scans --option input.namePattern=.
        dcm2bq local --query 'SELECT Modality, COUNT(*) FROM instances_live GROUP BY 1'
        dcm2bq local --query 'SELECT path, metadata FROM instances_live' --json | jq .
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.local.servers import require_extras  # noqa: PLC0415
    from dcm2bq.local.sql import keyword  # noqa: PLC0415

    if as_json and sql is None:
        raise click.UsageError("--json goes with --query")
    if sql is not None and not keyword(sql):
        raise click.UsageError("--query: the statement is empty; SELECT ... is expected")
    options = startable(override(parse_settings(settings)))
    require_extras()
    from dcm2bq.local import commands  # noqa: PLC0415 - it imports the extras

    if sql is None:
        return commands.run(folder, options, once=once)
    fresh = once or bool(settings)  # a running stack has its own
    return commands.ask(folder, options, sql, as_json=as_json, fresh=fresh)
