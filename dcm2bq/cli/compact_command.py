"""`dcm2bq compact`."""

from datetime import UTC, datetime

import click

from dcm2bq import config as configuration
from dcm2bq.tools.display import say
from dcm2bq.tools.wording import counted


@click.command()
@click.option(
    "--month",
    "chosen",
    multiple=True,
    type=click.DateTime(["%Y-%m"]),
    metavar="YYYY-MM",
    help="Compact this month only. Repeatable.",
)
@click.option("--yes", is_flag=True, help="Remove the rows; without it they are only counted.")
def compact(*, chosen: tuple[datetime, ...], yes: bool) -> None:
    """Remove rows of deleted objects from old months of instances, at a price.

    Cheap look-ups do not need it: use objects_live for them. It only removes the headers of objects
    that no longer exist from storage, with their delete markers. instances_live and objects_live
    stay as they are; changes_between no longer returns what was removed.

    Without --yes, it shows the months with something to remove, and what compacting each of them
    costs: BigQuery bills the keys of all rows and all columns of the month, and the rewritten month
    loses the discount of long-term storage for 90 days. With --yes it compacts them, the oldest
    first, each by one statement: it can be interrupted and run again. Months that ended less than
    30 days ago are left alone, so that it can run beside the function. Do not run it while a
    backfill is unfinished.

    \b
    Examples:
        dcm2bq compact
        dcm2bq compact --month 2024-01 --month 2024-02 --yes
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools import compact as tool  # noqa: PLC0415
    from dcm2bq.tools.query_prices import lost_discount_usd, priced  # noqa: PLC0415

    for begin in chosen:
        if begin.replace(tzinfo=UTC) >= tool.first_left_alone():
            raise click.BadParameter(
                f"{begin:%Y-%m} has not been over for {tool.MARGIN.days} days",
                param_hint="'--month'",
            )
    config = configuration.load()
    dataset = Dataset(config)
    say(f"counting reads {priced(tool.plan_bytes(dataset, config))}", err=True)
    names = {f"{month:%Y-%m}" for month in chosen}
    months = [
        month
        for month in tool.plan(dataset, config)
        if not names or f"{month.month:%Y-%m}" in names
    ]
    for month in months:
        say(
            f"{month.month:%Y-%m}  {counted(month.rows, 'row')}: {month.hidden:,} hidden, "
            f"up to {counted(month.markers, 'marker')} to remove; reads "
            f"{priced(month.bytes_read)}, and up to "
            f"${lost_discount_usd(month.bytes_stored):,.2f} of long-term discount is lost"
        )
    if not months:
        say("nothing to remove")
    elif not yes:
        say("nothing was changed; to remove these rows, run dcm2bq compact --yes", err=True)
    else:
        for month, removed in tool.compact(dataset, config, months):
            say(f"{month.month:%Y-%m}  removed {counted(removed, 'row')}")
