"""`dcm2bq init`."""

import click

from dcm2bq.cli.common import override, warn
from dcm2bq.tools.display import say


@click.command()
@click.option("--project", metavar="ID", help="Project; overrides bigQuery.projectId.")
@click.option("--dataset", metavar="ID", help="Dataset; overrides bigQuery.datasetId.")
@click.option("--location", help="Location of a new dataset, such as EU.")
@click.option(
    "--close",
    is_flag=True,
    help="Remove the project's viewers and editors, domains and everyone from an existing dataset.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
def init(
    *, project: str | None, dataset: str | None, location: str | None, close: bool, dry_run: bool
) -> None:
    """Create or update the dataset, its tables and views, and the rows of dicom_dictionary.

    What exists is compared with this release and updated where no data is lost: missing columns
    are added, views and functions replaced. Any other difference, such as another type of a
    column, is an error (exit status 2), and nothing is changed. It can be run at any time.

    A new dataset is closed: only its creator, the project's owners, and roles granted on the
    project or above have rights to it. An existing dataset that lets more in is reported, and left
    as it is without --close. --close removes nothing but the entries that are reported.

    \b
    Examples:
        dcm2bq init --project my-project --dataset dicom --location EU
        dcm2bq init --close --dry-run
    """  # noqa: D301 - \b tells click to keep the line breaks
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.dictionary_rows import fill_dictionary  # noqa: PLC0415
    from dcm2bq.tools.init import init as bring_up  # noqa: PLC0415
    from dcm2bq.tools.init import refuse_equal_names  # noqa: PLC0415

    flags = {"bigQuery.projectId": project, "bigQuery.datasetId": dataset}
    config = override({name: value for name, value in flags.items() if value is not None})
    refuse_equal_names(config)
    warn(config)
    connection = Dataset(config)
    entries = bring_up(connection, config, location=location, close=close, dry_run=dry_run)
    entries = (*entries, fill_dictionary(connection, config, dry_run=dry_run))
    width = 18 if dry_run else 10
    for entry in entries:
        details = f": {'; '.join(entry.details)}" if entry.details else ""
        say(f"{entry.outcome(dry_run=dry_run):<{width}}{entry.kind:<15}{entry.name}{details}")
    if dry_run:
        say("dry run: nothing was changed", err=True)
