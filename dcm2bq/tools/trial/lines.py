"""The lines of a trial's report. Their ids are stable: the docs name what each of them confirms."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Verdict(StrEnum):
    """What a trial says about a line."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    NOT_TRIED = "not tried"


class TrialLine(StrEnum):
    """A line of the report, by its id.

    `claim` is what the line confirms or refutes. `shown_by` says what shows it instead, for the
    lines that no trial can decide.
    """

    claim: str
    shown_by: str

    def __new__(cls, name: str, claim: str, shown_by: str = "") -> Self:
        """Make a line that equals its id."""
        line = str.__new__(cls, name)
        line._value_ = name
        line.claim, line.shown_by = claim, shown_by
        return line

    # What is there, before anything is uploaded.
    TABLES = "tables", "the tables have the columns, partitions and clusters of this release"
    VIEWS = "views", "the views and table functions are those of this release"
    PRIVACY_LABEL = "privacy-label", "the rows were made with these privacy options"
    ADMISSION = "admission", "the configuration admits the bucket and the names of the objects"
    PRUNING = "pruning", "queries for one study do not read the rows of all others"
    DATASET_ACCESS = "dataset-access", "only owners and named principals can read the dataset"
    BUCKET_ACCESS = "bucket-access", "only named principals can read the bucket"
    NAMESPACE = "bucket-namespace", "the bucket has a flat namespace: every rename makes events"
    TRIGGERS = (
        "triggers",
        "each type of event of the bucket has a trigger, or a notification that is pushed",
    )
    TRIGGER_LOCATION = "trigger-location", "the triggers are in the location of the bucket"
    SUBSCRIPTIONS = "subscriptions", "the subscriptions of these have the documented settings"
    DEAD_LETTER_SUBSCRIPTION = (
        "dead-letter-subscription",
        "Pub/Sub writes events that were never acknowledged to the dead letter table",
    )
    DEAD_LETTER_GRANTS = "dead-letter-grants", "Pub/Sub may move events to the dead-letter topic"

    # What happens to the objects of the trial.
    ROW = "row", "an upload becomes a row with the right columns and JSON"
    RELEASE = "release", "the function that made the row is this release"
    EVENT_NAMES = "event-names", "events name objects in an encoding that the function knows"
    LARGE_ROW = "large-row", "BigQuery accepts a row as large as limits.outputBytes allows"
    DEAD_LETTER = "dead-letter", "an object that is not DICOM becomes a dead letter"
    OVERWRITE = "overwrite", "a new generation replaces the old one in the live view"
    MARKER = "marker", "a deletion writes a marker, and the object leaves the live view"
    CLOSED = "dead-letter-closed", "a dead letter leaves dead_letters with its object"

    # What only something else shows.
    REDELIVERY = (
        *("redelivery", "Eventarc delivers failed events again, at the documented pace"),
        "the dashboard, after an event has failed",
    )
    ONE_APPLY = (
        *("one-apply", "one apply suffices in an empty project"),
        "the first terraform apply",
    )
    TERRAFORM_UPDATES = (
        *("terraform-updates", "an apply changes columns and triggers in place"),
        "terraform plan after an upgrade",
    )
    TERRAFORM_TOKEN = (
        *("terraform-token", "the provider's token is in neither state, plan nor log"),
        "a search of the state and of the log of an apply",
    )
    ENCRYPTION_KEY = (
        *("encryption-key", "Eventarc and the build use the key of kms_key"),
        "an apply with kms_key, and the lines row and marker after it",
    )
    ALERTS = (
        *("alerts", "the queries of the alerts are valid, and their metrics appear"),
        "the alert policies in the console, a day after the apply",
    )
    BUILD_IDENTITY = (
        *("build-identity", "a build needs no grant beyond those of its identity"),
        "the build of the first apply",
    )
    DATAFLOW = (
        *("dataflow", "a backfill runs on Dataflow"),
        "dcm2bq backfill with --runner dataflow, on a prefix",
    )
    SCHEDULED_REFRESH = (
        *("scheduled-refresh", "the scheduled refresh runs, and needs no other grants"),
        "the run history of the scheduled query, after an apply with refresh.enabled",
    )
    TEAR_DOWN = (
        *("tear-down", "a tear-down keeps dataset, tables and bucket"),
        "the documented tear-down",
    )


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A line with its verdict; `remedy` says what to do about a refuted one.

    `seconds` is how long an event took to become visible, where the line waited for one.
    """

    line: TrialLine
    verdict: Verdict
    detail: str = ""
    remedy: str = ""
    seconds: float | None = None


def confirmed(line: TrialLine, detail: str = "", *, seconds: float | None = None) -> TrialResult:
    """Return a line that is as it must be."""
    return TrialResult(line, Verdict.CONFIRMED, detail, seconds=seconds)


def refuted(line: TrialLine, detail: str, remedy: str) -> TrialResult:
    """Return a line that is not as it must be, and what to do."""
    return TrialResult(line, Verdict.REFUTED, detail, remedy)


def not_tried(line: TrialLine, because: str) -> TrialResult:
    """Return a line that was not decided."""
    return TrialResult(line, Verdict.NOT_TRIED, because)
