"""`dcm2bq try`."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from dcm2bq.cli.common import (
    FINDINGS,
    complain,
    override,
    parse_settings,
    settings_option,
    startable,
)
from dcm2bq.gcs.uri import GsUri
from dcm2bq.tools.display import say, say_json

if TYPE_CHECKING:
    from dcm2bq.tools.trial.lines import TrialResult
    from dcm2bq.tools.trial.trial import TrialPlan

_SECONDS = 300  # a new trigger may take two minutes to deliver its first event


@click.command(name="try")
@click.argument("location", metavar="gs://BUCKET[/PREFIX]")
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for the events of the uploads, and of the changes after them.",
)
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
def try_(location: str, *, timeout: int, settings: Sequence[str], as_json: bool) -> int:
    """Prove a deployment with a few objects, uploaded and removed again.

    Under PREFIX/dcm2bq-try/ID/, four objects without any patient's data are uploaded, waited for
    in BigQuery, overwritten and deleted. Before that, tables, views, access, triggers and
    subscriptions are compared with what this release needs. Nothing is changed but these objects,
    which are removed at the end, also when the command fails or is interrupted. Their rows and
    markers stay in the log, with PatientID DCM2BQ-TRY; no view shows them afterwards.

    \b
    Each line of the report has an id, which the documentation refers to:
        confirmed   it is so
        refuted     it is not so; the next line says what to do
        not tried   this command cannot tell, for the reason given

    Use the configuration of the function. A check that the caller has no permission for is not
    tried, and names the permission; uploads need roles/storage.objectUser on the bucket.

    The exit status is 0 if nothing is refuted, 1 if something is or if an object could not be
    removed, 2 for wrong usage or configuration, and 3 if a service did not answer or refused.

    \b
    Examples:
        dcm2bq try gs://my-bucket
        dcm2bq try gs://my-bucket/incoming --timeout 600
        dcm2bq try gs://my-bucket --json | jq '.lines[] | select(.verdict == "refuted")'
    """  # noqa: D301 - \b tells click to keep the line breaks
    GsUri.parse(location)  # before any request
    from dcm2bq.local.interrupts import Interrupts  # noqa: PLC0415
    from dcm2bq.tools.trial import trial  # noqa: PLC0415

    config = startable(override(parse_settings(settings)))
    plan = trial.plan(config, location, seconds=timeout, announce=lambda text: say(text, err=True))
    lines: list[TrialResult] = []
    left: list[str] = []

    def on_left(paths: list[str]) -> None:
        left.extend(paths)
        complain("not removed, delete them by hand:", *paths)

    with Interrupts() as interrupts, trial.uploading(plan, on_left) as objects:
        for result in trial.results(plan, objects):
            lines.append(result)
            if not as_json:
                _show(result)
        interrupts.check()
    if as_json:
        say_json(_document(plan, lines, left))
    _summarise(plan, lines)
    return FINDINGS if left or any(result.verdict == "refuted" for result in lines) else 0


def _show(result: "TrialResult") -> None:
    detail = result.detail
    if result.verdict == "confirmed":
        seconds = "" if result.seconds is None else f"after {result.seconds:.0f} s"
        remarks = ", ".join(filter(None, (seconds, detail)))
        detail = result.line.claim + (f" ({remarks})" if remarks else "")
    say(f"{result.verdict:<11}{result.line:<26}{detail}")
    if result.remedy:
        say(f"{'':<37}{result.remedy}")


def _document(plan: "TrialPlan", lines: Sequence["TrialResult"], left: Sequence[str]) -> bytes:
    content = {
        "prefix": plan.path,
        "services": "google" if plan.on_google else "local",
        "lines": [
            {
                "id": str(result.line),
                "claim": result.line.claim,
                "verdict": str(result.verdict),
                "detail": result.detail or None,
                "remedy": result.remedy or None,
                "seconds": None if result.seconds is None else round(result.seconds, 1),
            }
            for result in lines
        ],
        "not_removed": left,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


def _summarise(plan: "TrialPlan", lines: Sequence["TrialResult"]) -> None:
    counts = Counter(str(result.verdict) for result in lines)
    services = "" if plan.on_google else "; on local servers, which show nothing about Google's"
    say(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + services, err=True)
