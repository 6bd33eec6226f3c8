"""`dcm2bq report`."""

import sys
from pathlib import Path

import click

from dcm2bq.cli.common import override, parse_settings, require_folder, settings_option
from dcm2bq.tools.display import say

_FILE = Path("report.html")
_BUDGET_USD = 5.0
"""Dollars that a report may cost: enough for all its questions about some 10 million objects."""


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_FILE,
    show_default=True,
    help="Write the page to FILE, which is replaced.",
)
@click.option(
    "--identifiers",
    is_flag=True,
    help="Also name the largest studies, the dead letters and every protocol.",
)
@click.option(
    "--budget-usd",
    metavar="USD",
    type=click.FloatRange(min=0),
    default=_BUDGET_USD,
    show_default=True,
    help="Leave out questions that would cost more in all.",
)
@settings_option
def report(output: Path, *, identifiers: bool, budget_usd: float, settings: tuple[str, ...]) -> int:
    """Write a page about the dataset: what is there, what comes in, what needs attention.

    The page is one HTML file. It has no scripts and loads nothing, so it can be sent by mail,
    printed, or kept as a record. Each chart has its numbers and its query beside it.

    Unless --identifiers is given, no patient, study or object is named. Names that people type,
    such as those of protocols, are shown if at least three studies or series have them.

    Before a question is asked, BigQuery estimates what it reads. Questions that would exceed the
    budget are left out, and the page says so.

    \b
    Examples:
        dcm2bq report
        dcm2bq report -o report-2026-11.html --budget-usd 20
        dcm2bq local ~/scans --once --report scans.html
    """  # noqa: D301 - \b tells click to keep the line breaks
    require_folder(output)
    from dcm2bq import extras  # noqa: PLC0415

    extras.require(extras.REPORT)
    from dcm2bq.bigquery.dataset import Dataset  # noqa: PLC0415
    from dcm2bq.tools.report import report as tool  # noqa: PLC0415

    config = override(parse_settings(settings))
    with click.progressbar(
        length=tool.question_count(identifiers=identifiers),
        label="questions",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        usd = tool.write(
            Dataset(config),
            config,
            output,
            budget=budget_usd,
            identifiers=identifiers,
            on_question=lambda: bar.update(1),
        )
    price = "" if usd is None else f"; its queries cost at most ${usd:,.2f}"
    say(f"wrote {output}{price}")
    return 0
