"""Try a deployment: check its parts, then upload objects and see what becomes of them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dcm2bq import emulators
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.gcs.uri import GsUri
from dcm2bq.ignored import matches_name_pattern
from dcm2bq.tools.trial import delivery_steps, deployment_checks
from dcm2bq.tools.trial.dataset_checks import DatasetChecks
from dcm2bq.tools.trial.delivery_steps import DeliverySteps, Waiting
from dcm2bq.tools.trial.deployment_checks import DeploymentChecks
from dcm2bq.tools.trial.function_log import FunctionLog
from dcm2bq.tools.trial.google_apis import GoogleApis
from dcm2bq.tools.trial.lines import TrialLine, TrialResult, confirmed, not_tried, refuted
from dcm2bq.tools.trial.sightings import Watched
from dcm2bq.tools.trial.trial_objects import TrialObjects, new_prefix

SUFFIXES = (".dcm", ".dicom", ".ima", "")
"""Suffixes of names, in the order in which they are tried on input.namePattern."""
_CLOCK_SKEW = timedelta(hours=1)
"""How far the clocks of this machine and of the function may differ."""
_LOCAL = "local servers have none of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """The parameters of a trial; no other object has a name with its `prefix`."""

    config: Config
    bucket: str
    prefix: str
    waiting: Waiting
    on_google: bool
    """Whether the services are Google's, rather than local servers."""

    @property
    def path(self) -> str:
        """The prefix as a `gs://` URI."""
        return f"gs://{self.bucket}/{self.prefix}"


def plan(
    config: Config, location: str, *, seconds: float, announce: Callable[[str], object]
) -> TrialPlan:
    """Return the plan of a trial under `location`, a `gs://` URI; requests nothing.

    Each event is waited for at most `seconds`. Raises `ConfigError` for an invalid URI.
    """
    uri = GsUri.parse(location)
    return TrialPlan(
        config=config,
        bucket=uri.bucket,
        prefix=new_prefix(uri),
        waiting=Waiting(seconds=seconds, announce=announce),
        on_google=not (emulators.url(emulators.STORAGE) or emulators.url(emulators.BIGQUERY)),
    )


@contextlib.contextmanager
def uploading(plan: TrialPlan, on_left: Callable[[list[str]], object]) -> Iterator[TrialObjects]:
    """Yield the objects of a trial; remove them when the block ends, however it ends.

    `on_left` is called with the paths of those that could not be removed.
    """
    objects = TrialObjects(plan.config, plan.bucket, plan.prefix)
    try:
        yield objects
    finally:
        if left := objects.remove_all():
            on_left(left)


def results(
    plan: TrialPlan, objects: TrialObjects, apis: GoogleApis | None = None
) -> Iterator[TrialResult]:
    """Yield every line of `TrialLine` once, each as soon as it is decided.

    `apis` are those of Google, by default if the services are Google's. Raises what the
    services raise.
    """
    if plan.on_google and apis is None:
        apis = GoogleApis()
    dataset = Dataset(plan.config)
    checks = DatasetChecks(dataset, plan.config)
    yield from checks.results()
    suffix = admitted_suffix(plan)
    yield _admission(plan, suffix)
    if plan.on_google:
        yield checks.pruning()
    else:
        yield not_tried(TrialLine.PRUNING, "the local BigQuery neither partitions nor bills")
    if apis:
        checked = DeploymentChecks(apis, dataset, plan.config, plan.bucket, plan.prefix)
        yield from checked.results()
    else:
        yield from (not_tried(line, _LOCAL) for line in deployment_checks.LINES)
    if checks.blocking or suffix is None:
        because = checks.blocking or "the configuration admits no object of this trial"
        yield from (not_tried(line, because) for line in delivery_steps.LINES)
    else:
        since = datetime.now(UTC) - _CLOCK_SKEW
        steps = DeliverySteps(
            plan.config,
            objects,
            Watched(dataset, plan.config, plan.path, since),
            FunctionLog(apis, dataset.project, since),
            plan.waiting,
            suffix=suffix,
            with_large=plan.on_google,
        )
        yield from steps.results()
    yield from (not_tried(line, f"shown by {line.shown_by}") for line in TrialLine if line.shown_by)


def admitted_suffix(plan: TrialPlan) -> str | None:
    """Return a suffix with which the configuration admits the names of the objects, or None."""
    if not plan.config.input.admits(plan.bucket):
        return None
    for suffix in SUFFIXES:
        names = [plan.prefix + name + suffix for name in delivery_steps.NAMES.values()]
        if all(matches_name_pattern(plan.config, name) for name in names):
            return suffix
    return None


def _admission(plan: TrialPlan, suffix: str | None) -> TrialResult:
    line = TrialLine.ADMISSION
    if not plan.config.input.admits(plan.bucket):
        return refuted(
            line,
            f"input.buckets does not name {plan.bucket}: its events become dead letters",
            "add the bucket to input.buckets and deploy, or try another bucket",
        )
    if suffix is None:
        return refuted(
            line,
            f"input.namePattern excludes {plan.path}NAME for names ending in "
            f"{', '.join(filter(None, SUFFIXES))} or in nothing: they are ignored",
            "if it requires a folder, name it: dcm2bq try gs://BUCKET/FOLDER",
        )
    return confirmed(line, f"names ending in {suffix}" if suffix else "")
