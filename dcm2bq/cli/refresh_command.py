"""`dcm2bq refresh`."""

import click

from dcm2bq import config as configuration
from dcm2bq.tools.display import say


@click.command()
@click.option("--full", is_flag=True, help="Read the whole log again, not only what came since.")
@click.option("--dry-run", is_flag=True, help="Show what would be read, and change nothing.")
def refresh(*, full: bool, dry_run: bool) -> None:
    """Bring the table objects up to date, so that look-ups in objects_live are cheap.

    objects_live is exact at any time, but needs a refresh at least every seven days: without one it
    raises an error. Let a scheduler run this once a day. The first refresh reads the whole log. A
    refresh that is interrupted changes nothing; two at once do no harm.

    --full reads the whole log again. That is needed only if rows were loaded more than 21 days
    after they were made, such as by a backfill that was resumed weeks later.

    It prints what it reads with the list price of on-demand queries; BigQuery bills at most that.

    \b
    Examples:
        dcm2bq refresh --dry-run
        dcm2bq refresh
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools import refresh as tool  # noqa: PLC0415
    from dcm2bq.tools.query_prices import priced  # noqa: PLC0415

    config = configuration.load()
    done = tool.refresh(Dataset(config), config, full=full, dry_run=dry_run)
    part = "the whole log" if done.is_full else f"the log since {done.since:%Y-%m-%d %H:%M} UTC"
    verb = "would be refreshed" if dry_run else "refreshed"
    say(f"objects: {verb} from {part} (at most {priced(done.bytes_read)})")
    if dry_run:
        say("dry run: nothing was changed", err=True)
