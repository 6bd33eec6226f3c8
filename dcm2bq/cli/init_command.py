"""`dcm2bq init`."""

import click

from dcm2bq.cli.common import override
from dcm2bq.tools.display import say


@click.command()
@click.option("--project", metavar="ID", help="The project; over bigQuery.projectId.")
@click.option("--dataset", metavar="ID", help="The dataset; over bigQuery.datasetId.")
@click.option("--location", help="Where to create a missing dataset, EU for instance.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def init(*, project: str | None, dataset: str | None, location: str | None, dry_run: bool) -> None:
    """Create or update the dataset, its tables and views.

    What is there already is compared, and brought up to date where nothing gets lost by it:
    columns are added, views replaced. Anything else is refused before anything is changed.

    \b
    Examples:
        dcm2bq init --project my-project --dataset dicom --location EU
        dcm2bq init --dry-run
    """  # noqa: D301 - \b is click's mark for lines to keep
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.init import init as bring_up  # noqa: PLC0415
    from dcm2bq.tools.init import refuse_equal_names  # noqa: PLC0415

    flags = {"bigQuery.projectId": project, "bigQuery.datasetId": dataset}
    options = override({name: value for name, value in flags.items() if value is not None})
    refuse_equal_names(options)
    entries = bring_up(Dataset(options), options, location=location, dry_run=dry_run)
    width = 18 if dry_run else 10
    for entry in entries:
        details = f": {'; '.join(entry.details)}" if entry.details else ""
        say(f"{entry.outcome(dry_run=dry_run):<{width}}{entry.kind:<15}{entry.name}{details}")
    if dry_run:
        say("dry run: nothing was changed", err=True)
