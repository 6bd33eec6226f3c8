"""The questions that a report answers: their queries, and how each answer is shown.

Every query aggregates, so that an answer has a few rows whatever the size of the dataset. A query
names tables and views without their dataset. `{instances}` stands for the table of the log,
`{enough}` for how many studies or series must have a name that people type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Measure(StrEnum):
    """What a number counts, for its axis and its format."""

    COUNT = "count"
    BYTES = "bytes"
    NUMBER = "number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A horizontal bar for each row, in the order of the rows."""

    label: str
    value: str
    measure: Measure = Measure.COUNT
    unit: str


class Step(StrEnum):
    """What follows what on an axis: those without rows are drawn, too."""

    YEAR = "year"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A vertical column for each year or day of `x`, stacked by `part`.

    `least` is the number of years or days that the axis has at least, counted back from the last.
    """

    x: str
    step: Step
    least: int
    value: str
    part: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """For each row a line from `low` to `high`, with a mark at `middle`."""

    label: str
    low: str
    middle: str
    high: str
    unit: str


@dataclass(frozen=True, slots=True)
class Rows:
    """No chart: the rows themselves."""


type Drawing = Bars | Columns | Ranges | Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with its query.

    `text` says what the answer means. `headings` are the titles of the query's columns.
    `reads_headers` is set if the query needs the views of `schema/analysis`, which read whole
    headers. `identifies` is set if its rows name patients, studies or objects.
    """

    name: str
    title: str
    text: str = ""
    sql: str
    drawing: Drawing
    headings: Mapping[str, str]
    when_empty: str = "There are none."
    reads_headers: bool = False
    identifies: bool = False

    def query(self, names: Mapping[str, Any]) -> str:
        """Return the query with the names of the tables put in."""
        return self.sql.format(**names).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Questions about one subject."""

    title: str
    questions: tuple[Question, ...]

    def asked(self, *, identifiers: bool) -> list[Question]:
        """Return the questions that are asked, with or without those that identify."""
        return [question for question in self.questions if identifiers or not question.identifies]


def _model(manufacturer: str, model: str) -> str:
    """Return the SQL of a scanner model's full name, `(none)` if there is none."""
    return f"""IFNULL(NULLIF(TRIM(CONCAT(
    IFNULL({manufacturer}, ''), ' ', IFNULL({model}, '')
  )), ''), '(none)')"""


DAYS = 60
"""Days of arrivals that are shown: as many columns as a chart of this width can tell apart."""
ENOUGH = 3
"""Studies or series that must have a name that people type, such as that of a protocol, for the
name to be shown: it could contain a patient's name."""

OVERVIEW = Question(
    name="overview",
    title="Overview",
    sql="""
SELECT
  COUNT(*) AS instances,
  COUNT(DISTINCT PatientID) AS patients,
  COUNT(DISTINCT StudyInstanceUID) AS studies,
  COUNT(DISTINCT SeriesInstanceUID) AS series,
  COUNT(DISTINCT CONCAT(IFNULL(Manufacturer, ''), '|', IFNULL(ManufacturerModelName, '')))
    AS models,
  MIN(StudyDate) AS first_study,
  MAX(StudyDate) AS last_study,
  MAX(ingested_at) AS last_row
FROM instances_live
""",
    drawing=Rows(),
    headings={
        "instances": "Instances",
        "patients": "Patients",
        "studies": "Studies",
        "series": "Series",
        "models": "Scanner models",
        "first_study": "First study",
        "last_study": "Last study",
        "last_row": "Last row",
    },
)

_MODALITIES = Question(
    name="modalities",
    title="Studies by modality",
    text="A study with several modalities counts once for each.",
    sql="""
SELECT
  IFNULL(Modality, '(none)') AS modality,
  COUNT(DISTINCT StudyInstanceUID) AS studies,
  COUNT(DISTINCT SeriesInstanceUID) AS series,
  COUNT(*) AS instances
FROM instances_live
GROUP BY modality
ORDER BY studies DESC, instances DESC, modality
LIMIT 15
""",
    drawing=Bars(label="modality", value="studies", unit="studies"),
    headings={
        "modality": "Modality",
        "studies": "Studies",
        "series": "Series",
        "instances": "Instances",
    },
)

_YEARS = Question(
    name="years",
    title="Studies by year",
    text="By StudyDate. A study with several modalities counts once for each.",
    sql="""
SELECT
  EXTRACT(YEAR FROM StudyDate) AS year,
  IFNULL(Modality, '(none)') AS modality,
  COUNT(DISTINCT StudyInstanceUID) AS studies
FROM instances_live
WHERE StudyDate IS NOT NULL
GROUP BY year, modality
ORDER BY year, modality
""",
    drawing=Columns(
        x="year", step=Step.YEAR, least=10, value="studies", part="modality", unit="studies"
    ),
    headings={"year": "Year", "modality": "Modality", "studies": "Studies"},
)

_SCANNERS = Question(
    name="scanners",
    title="Instances by scanner model",
    text="The 15 models with most instances.",
    sql=f"""
SELECT
  {_model("Manufacturer", "ManufacturerModelName")} AS model,
  COUNT(DISTINCT StudyInstanceUID) AS studies,
  COUNT(*) AS instances
FROM instances_live
GROUP BY model
ORDER BY instances DESC, model
LIMIT 15
""",  # noqa: S608 - constants of this module
    drawing=Bars(label="model", value="instances", unit="instances"),
    headings={"model": "Model", "studies": "Studies", "instances": "Instances"},
)

_STORAGE = Question(
    name="storage",
    title="Bytes by storage class",
    text="A member of an archive counts with its own size.",
    sql="""
SELECT
  IFNULL(storage_class, '(unknown)') AS storage_class,
  SUM(objects) AS objects,
  SUM(bytes) AS bytes
FROM storage
GROUP BY storage_class
ORDER BY bytes DESC, storage_class
""",
    drawing=Bars(label="storage_class", value="bytes", measure=Measure.BYTES, unit="bytes"),
    headings={"storage_class": "Storage class", "objects": "Instances", "bytes": "Bytes"},
)

_SOP_CLASSES = Question(
    name="sop-classes",
    title="Instances by SOP class",
    text="The 15 classes with most instances.",
    sql="""
SELECT
  IFNULL(SOPClassUID, '(none)') AS sop_class,
  COUNT(*) AS instances
FROM instances_live
GROUP BY sop_class
ORDER BY instances DESC, sop_class
LIMIT 15
""",
    drawing=Bars(label="sop_class", value="instances", unit="instances"),
    headings={"sop_class": "SOP class", "instances": "Instances"},
)

_ARRIVALS = Question(
    name="arrivals",
    title=f"Changes by day, the last {DAYS} days",
    text=f"Rows by the day on which they were written. The {DAYS} days end with the last row.",
    sql=f"""
WITH written AS (
  SELECT DATE(ingested_at) AS written_on, event
  FROM `{{instances}}`
),

latest AS (
  SELECT DATE_SUB(MAX(written_on), INTERVAL {DAYS} DAY) AS start FROM written
)

SELECT
  written_on AS day,
  event,
  COUNT(*) AS changes
FROM written
CROSS JOIN latest
WHERE written_on > start
GROUP BY day, event
ORDER BY day, event
""",  # noqa: S608 - a constant of this module
    drawing=Columns(x="day", step=Step.DAY, least=DAYS, value="changes", part="event", unit="rows"),
    headings={"day": "Day", "event": "Event", "changes": "Rows"},
)

_LAG = Question(
    name="lag",
    title="Time from a change to its row",
    text="All rows of the table. Objects that were backfilled have waited since their creation.",
    sql="""
WITH lags AS (
  SELECT TIMESTAMP_DIFF(ingested_at, timestamp, SECOND) AS seconds
  FROM `{instances}`
),

classes AS (
  SELECT
    CASE
      WHEN seconds < 10 THEN '1 below 10 s'
      WHEN seconds < 60 THEN '2 10 s to 1 min'
      WHEN seconds < 600 THEN '3 1 to 10 min'
      WHEN seconds < 3600 THEN '4 10 min to 1 h'
      WHEN seconds < 86400 THEN '5 1 h to 1 day'
      ELSE '6 over 1 day'
    END AS class
  FROM lags
)

SELECT SUBSTR(class, 3) AS lag, COUNT(*) AS changes
FROM classes
GROUP BY class
ORDER BY class
""",
    drawing=Bars(label="lag", value="changes", unit="rows"),
    headings={"lag": "Time", "changes": "Rows"},
)

_DEAD_LETTERS = Question(
    name="dead-letters",
    title="Open dead letters by reason",
    text="Objects that could not be converted or stored: dcm2bq dead-letters lists them.",
    sql="""
SELECT reason, COUNT(*) AS letters, SUM(attempts) AS attempts
FROM dead_letters
GROUP BY reason
ORDER BY letters DESC, reason
""",
    drawing=Bars(label="reason", value="letters", unit="dead letters"),
    headings={"reason": "Reason", "letters": "Dead letters", "attempts": "Attempts"},
    when_empty="There are none: every object that was seen has its row.",
)

_WARNINGS = Question(
    name="warnings",
    title="Instances with warnings, by modality",
    text="Headers with values that break a rule of the standard. The column info.warnings says "
    "which.",
    sql="""
SELECT
  IFNULL(Modality, '(none)') AS modality,
  COUNTIF(ARRAY_LENGTH(info.warnings) > 0) AS with_warnings,
  COUNT(*) AS instances
FROM instances_live
GROUP BY modality
HAVING with_warnings > 0
ORDER BY with_warnings DESC, modality
LIMIT 15
""",
    drawing=Bars(label="modality", value="with_warnings", unit="instances"),
    headings={
        "modality": "Modality",
        "with_warnings": "With warnings",
        "instances": "All instances",
    },
)

_FINDINGS = Question(
    name="findings",
    title="Findings by kind",
    text="Patients, studies and series that contradict themselves: the view quality_findings.",
    sql="""
SELECT kind, COUNT(*) AS findings
FROM quality_findings
GROUP BY kind
ORDER BY findings DESC, kind
""",
    drawing=Bars(label="kind", value="findings", unit="findings"),
    headings={"kind": "Kind", "findings": "Findings"},
    reads_headers=True,
)

_CT_DOSE = Question(
    name="ct-dose",
    title="CT dose by protocol",
    text="CTDIvol of irradiation events: from the 10th to the 90th percentile, with the median.",
    sql="""
WITH quantiles AS (
  SELECT
    protocol,
    COUNT(*) AS events,
    COUNT(DISTINCT StudyInstanceUID) AS studies,
    APPROX_QUANTILES(ctdi_vol_mGy, 10) AS deciles
  FROM dose_events
  WHERE radiation = 'CT' AND ctdi_vol_mGy IS NOT NULL AND protocol IS NOT NULL
  GROUP BY protocol
)

SELECT
  protocol,
  studies,
  events,
  deciles[OFFSET(1)] AS low,
  deciles[OFFSET(5)] AS median,
  deciles[OFFSET(9)] AS high
FROM quantiles
WHERE studies >= {enough}
ORDER BY events DESC, protocol
LIMIT 15
""",
    drawing=Ranges(label="protocol", low="low", middle="median", high="high", unit="mGy"),
    headings={
        "protocol": "Protocol",
        "studies": "Studies",
        "events": "Events",
        "low": "10th percentile",
        "median": "Median",
        "high": "90th percentile",
    },
    when_empty="No protocol is in enough CT dose reports.",
    reads_headers=True,
)

_DOSE_YEARS = Question(
    name="dose-studies",
    title="Studies with dose reports, by model",
    text="By the device that a report names. DLP and DAP are those of the median study.",
    sql=f"""
WITH quantiles AS (
  SELECT
    {_model("device_manufacturer", "device_model")} AS model,
    COUNT(*) AS studies,
    APPROX_QUANTILES(dlp_mGy_cm, 2) AS dlp,
    APPROX_QUANTILES(dap_Gy_m2, 2) AS dap
  FROM dose_summary
  GROUP BY model
)

SELECT model, studies, dlp[SAFE_OFFSET(1)] AS dlp_mGy_cm, dap[SAFE_OFFSET(1)] AS dap_Gy_m2
FROM quantiles
ORDER BY studies DESC, model
LIMIT 15
""",  # noqa: S608 - constants of this module
    drawing=Bars(label="model", value="studies", unit="studies"),
    headings={
        "model": "Model",
        "studies": "Studies",
        "dlp_mGy_cm": "Median DLP (mGy.cm)",
        "dap_Gy_m2": "Median DAP (Gy.m2)",
    },
    reads_headers=True,
)

_PROTOCOLS = Question(
    name="protocols",
    title="Parameters that vary within a protocol",
    text="The share of the series of a scanner model and protocol that have the usual value.",
    sql="""
SELECT
  CONCAT(IFNULL(ManufacturerModelName, '?'), ', ', IFNULL(ProtocolName, '?')) AS protocol,
  parameter,
  usual_value,
  usual_share,
  distinct_values,
  series
FROM protocols
WHERE usual_share < 1 AND series >= {enough}
ORDER BY usual_share, series DESC, protocol, parameter
LIMIT 15
""",
    drawing=Rows(),
    headings={
        "protocol": "Model and protocol",
        "parameter": "Parameter",
        "usual_value": "Usual value",
        "usual_share": "Share of series",
        "distinct_values": "Values",
        "series": "Series",
    },
    reads_headers=True,
)

_LARGEST = Question(
    name="largest-studies",
    title="The largest studies",
    sql="""
SELECT PatientID, StudyDate, StudyDescription, NumberOfStudyRelatedInstances AS instances, bytes
FROM studies
ORDER BY bytes DESC, StudyInstanceUID
LIMIT 15
""",
    drawing=Rows(),
    headings={
        "PatientID": "PatientID",
        "StudyDate": "StudyDate",
        "StudyDescription": "StudyDescription",
        "instances": "Instances",
        "bytes": "Bytes",
    },
    identifies=True,
)

_LETTERS = Question(
    name="dead-letter-list",
    title="Open dead letters, the latest",
    sql="""
SELECT path, member, reason, attempts, last_seen
FROM dead_letters
ORDER BY last_seen DESC, path, member
LIMIT 25
""",
    drawing=Rows(),
    headings={
        "path": "Object",
        "member": "Member",
        "reason": "Reason",
        "attempts": "Attempts",
        "last_seen": "Last attempt",
    },
    identifies=True,
)

SECTIONS = (
    Section(
        title="What is there",
        questions=(_MODALITIES, _YEARS, _SCANNERS, _SOP_CLASSES, _STORAGE, _LARGEST),
    ),
    Section(title="What comes in", questions=(_ARRIVALS, _LAG)),
    Section(
        title="What needs attention", questions=(_DEAD_LETTERS, _FINDINGS, _WARNINGS, _LETTERS)
    ),
    Section(title="Dose and protocols", questions=(_CT_DOSE, _DOSE_YEARS, _PROTOCOLS)),
)
