"""`dcm2bq local`."""

from collections.abc import Sequence
from pathlib import Path

import click

from dcm2bq.cli.common import (
    override,
    parse_settings,
    require_folder,
    settings_option,
    startable,
    table_format,
    table_options,
)


@click.command()
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
@click.option("--once", is_flag=True, help="Ingest the files, print the summary and exit.")
@click.option("--query", "sql", metavar="SQL", help="Print the rows of a query instead.")
@click.option("--json", "as_json", is_flag=True, help="With --query: print a JSON array.")
@click.option(
    "--report",
    "report_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a report about the files to FILE (see dcm2bq report).",
)
@table_options
@settings_option
def local(
    folder: Path | None,
    *,
    once: bool,
    sql: str | None,
    as_json: bool,
    report_path: Path | None,
    as_csv: bool,
    parquet: bool,
    output: Path | None,
    settings: Sequence[str],
) -> int:
    """Run the bucket, the function and BigQuery on this machine.

    The files under DIR, by default samples that come with pydicom, are the objects of a local
    Cloud Storage, which reads them in place. The function receives the events that Eventarc
    would send and writes rows to a local BigQuery; a summary of them is printed. Nothing leaves
    this machine. Only the report and a cache of empty tables stay on it, in the user's cache
    folder.

    Without --once, DIR is watched until Ctrl-C: files that are added, changed or deleted become
    events. Meanwhile, --query in another terminal queries the running stack. If none is running,
    or with --once, --query starts a stack for this one query.

    \b
    Exit status:
      0    every file was uploaded, and every event acknowledged
      1    a file could not be uploaded, or an event was not acknowledged
      2    wrong usage or configuration, or a query that BigQuery refuses
      3    a local server did not start or has ended
      130  interrupted; but Ctrl-C ends watching with 0 or 1

    \b
    Examples:
        dcm2bq local
        dcm2bq local ~/scans --once
        dcm2bq local ~/scans --option input.namePattern=.
        dcm2bq local --query 'SELECT Modality, COUNT(*) FROM instances_live GROUP BY 1'
        dcm2bq local --query 'SELECT path, metadata FROM instances_live' --json | jq .
        dcm2bq local --query 'SELECT * FROM studies' --parquet -o studies.parquet
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq import extras  # noqa: PLC0415

    if as_json and sql is None:
        raise click.UsageError("--json needs --query")
    if report_path is not None:
        if sql is not None:
            raise click.UsageError("--report and --query are both given: use one")
        require_folder(report_path)
    kind = table_format(as_csv=as_csv, parquet=parquet, output=output)
    if kind and sql is None:
        raise click.UsageError("--csv and --parquet need --query")
    if kind and as_json:
        raise click.UsageError("--json and another format are both given: use one")
    if sql is not None:
        _require_one_query(sql)
    # Nothing leaves this machine, so the key can only come from the environment.
    options = startable(override(parse_settings(settings) | {"privacy.hashKeySecret": None}))
    extras.require(extras.LOCAL)
    from dcm2bq.local import commands  # noqa: PLC0415 - it imports the extras

    if sql is None:
        return commands.ingest(folder, options, once=once, report_path=report_path)
    fresh = once or bool(settings)  # a running stack has its own options
    answer = commands.AnswerFormat(as_json=as_json, table=kind, path=output)
    return commands.query(folder, options, sql, answer, fresh=fresh)


def _require_one_query(sql: str) -> None:
    """Raise `UsageError` for anything but one query: a statement would change the watched stack."""
    from dcm2bq.local.sql import QUERIES, first_words  # noqa: PLC0415

    words = first_words(sql)
    if not words:
        raise click.UsageError("--query: the query is empty; give a SELECT statement")
    for word in words:
        if word not in QUERIES:
            raise click.UsageError(
                f"--query: {word} is not a query; give a SELECT statement (to change "
                "tables, use a client at the BigQuery address that dcm2bq local prints)"
            )
    if len(words) > 1:
        raise click.UsageError(f"--query: {len(words)} statements; give one SELECT statement")
