"""`dcm2bq columns`."""

from pathlib import Path

import click

from dcm2bq.cli.common import override, require_folder, startable
from dcm2bq.tools.display import say

_OBJECTS = 100
"""Objects that a suggestion reads unless told otherwise: some seconds in Cloud Storage."""


@click.command()
@click.argument(
    "file",
    metavar="[FILE]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--create", is_flag=True, help="Create the view, or update it, instead.")
@click.option(
    "--replace", is_flag=True, help="With --create: also replace a view that others have made."
)
@click.option(
    "--suggest", metavar="PATH", help="Print a FILE with what a sample of the objects there holds."
)
@click.option(
    "--objects",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"With --suggest: the size of the sample; {_OBJECTS} by default.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --suggest: write it to a new FILE instead.",
)
def columns(
    file: Path | None,
    *,
    create: bool,
    replace: bool,
    suggest: str | None,
    objects: int | None,
    output: Path | None,
) -> int:
    """Make a view with typed columns of your own.

    FILE is TOML: the name of the view, its level (instance, series or study) and its columns. A
    column is an attribute, by keyword or path, or an element of a private creator. Types and
    descriptions come from the standard, unless the file has others. The query of the view is
    printed, or, with --create, the view is created in the configured dataset.

    With --suggest, a file is written that has a column for each attribute that occurs in a sample
    of the objects under PATH, a folder or gs://bucket/prefix/, with its frequency as a comment.
    Delete what you do not need. The file contains no values of headers. Archives are not opened.

    \b
    Examples:
        dcm2bq columns --suggest gs://my-bucket/ct/ -o ct.toml
        dcm2bq columns ct.toml
        dcm2bq columns --create ct.toml
    """  # noqa: D301 - \b tells click to keep the line breaks
    if (file is None) == (suggest is None):
        raise click.UsageError("give either FILE or --suggest PATH")
    if suggest is not None and (create or replace):
        raise click.UsageError("--suggest only writes a file: create the view by its FILE")
    if suggest is None and (objects is not None or output is not None):
        raise click.UsageError("--objects and --output need --suggest")
    if replace and not create:
        raise click.UsageError("--replace needs --create")
    if suggest is not None:
        return _suggest(suggest, objects or _OBJECTS, output)
    assert file is not None
    return _make(file, create=create, replace=replace)


def _make(file: Path, *, create: bool, replace: bool) -> int:
    from dcm2bq import emulators  # noqa: PLC0415 - slow to import, not needed for --help
    from dcm2bq.tools import column_file, column_views  # noqa: PLC0415

    config = override({})
    view = column_file.read(file)
    if not create:
        project = config.big_query.project_id or (
            emulators.PROJECT if emulators.url(emulators.BIGQUERY) else "PROJECT"
        )
        for line in (column_views.definition(view, config, project).sql or "").splitlines():
            say(line)
        return 0
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415

    dataset = Dataset(config)
    definition = column_views.definition(view, config, dataset.project)
    entry = column_views.create(dataset, definition, replace=replace)
    say(f"{entry.action} {entry.kind} {definition.qualified_name}")
    return 0


def _suggest(path: str, objects: int, output: Path | None) -> int:
    from dcm2bq.tools.column_suggestions import suggest  # noqa: PLC0415 - as above

    if output is not None:
        require_folder(output)
    if output is not None and output.exists():
        raise click.UsageError(f"--output: {output} exists: choose another name, or remove it")
    suggestion = suggest(path, startable(override({})), objects)
    if output is None:
        for line in suggestion.text.splitlines():
            say(line)
    else:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(suggestion.text)
    for failure in suggestion.failures:
        say(failure, err=True)
    return 1 if suggestion.failures else 0
