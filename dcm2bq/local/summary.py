"""What `dcm2bq local` prints about a folder: the summary, which BigQuery answers by SQL."""

import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from dcm2bq import schema
from dcm2bq.archives import is_archive_name
from dcm2bq.ignored import is_archive, matches_name_pattern
from dcm2bq.local import servers
from dcm2bq.local.stack import BUCKET, Change, ChangeKind, Stack
from dcm2bq.rows import EXPANDED
from dcm2bq.tools.display import printable
from dcm2bq.tools.ignored_names import IgnoredNames
from dcm2bq.tools.terminal_tables import print_rows
from dcm2bq.tools.wording import counted, size

Row = Mapping[str, Any]

_EXAMPLES = 3  # names shown of each kind of ignored file
_CHANGES_PER_QUERY = 500  # of 36 bytes an event id: far below BigQuery's 1 MB for a query

_COUNTS_SQL = """
WITH expanded AS (
  SELECT DISTINCT path FROM `{instances}` WHERE event = 'expanded'
),
recorded AS (
  SELECT path FROM instances_live
  UNION DISTINCT
  SELECT path FROM dead_letters
  UNION DISTINCT
  SELECT path FROM expanded
)
SELECT
  (SELECT COUNT(DISTINCT path) FROM instances_live) AS live,
  (SELECT COUNT(*) FROM dead_letters) AS letters,
  (SELECT COUNT(*) FROM expanded) AS archives,
  (SELECT COUNT(member) FROM instances_live) AS members,
  (SELECT COUNT(*) FROM recorded) AS recorded,
  (SELECT COUNT(*) FROM studies) AS studies
"""
_MODALITIES_SQL = """
SELECT
  Modality,
  COUNT(DISTINCT StudyInstanceUID) AS Studies,
  COUNT(DISTINCT SeriesInstanceUID) AS Series,
  COUNT(*) AS Objects,
  SUM(info.input.size) AS Size
FROM instances_live
GROUP BY Modality
ORDER BY Objects DESC, Modality
"""
_STUDIES_SQL = """
SELECT
  StudyDate, PatientID, StudyDescription, ModalitiesInStudy AS Modalities,
  NumberOfStudyRelatedSeries AS Series, NumberOfStudyRelatedInstances AS Instances
FROM studies
ORDER BY Instances DESC, StudyDate DESC, StudyInstanceUID
LIMIT 10
"""
_ANALYSIS_SQL = """
WITH dose AS (
  SELECT
    COUNT(*) AS studies,
    SUM(ct_events) AS ct_events,
    MAX(dlp_mGy_cm) AS dlp,
    SUM(projection_events) AS projection_events,
    MAX(dap_Gy_m2) AS dap
  FROM dose_summary
)
SELECT
  kind,
  COUNT(*) AS number,
  CAST(NULL AS INT64) AS ct_events,
  CAST(NULL AS FLOAT64) AS dlp,
  CAST(NULL AS INT64) AS projection_events,
  CAST(NULL AS FLOAT64) AS dap
FROM quality_findings
GROUP BY kind
UNION ALL
SELECT NULL, studies, ct_events, dlp, projection_events, dap
FROM dose
WHERE studies > 0
ORDER BY kind
"""
"""Both parts in one statement: each one costs the local BigQuery as much as many rows."""
_LETTERS_SQL = """
SELECT
  IF(member IS NULL, path, CONCAT(path, ', member ', member)) AS path, reason, message
FROM dead_letters
ORDER BY path, version
LIMIT 20
"""
_EXAMPLE_SQL = (
    "SELECT Modality, PatientID, StudyDate, Manufacturer "
    "FROM instances_live ORDER BY StudyDate DESC, path LIMIT 5"
)
_OUTCOMES_SQL = """
SELECT
  info.event_id AS id, event, Modality AS modality, '' AS reason,
  info.archive.instances AS members, info.archive.dead_letters AS letters
FROM `{instances}`
WHERE info.event_id IN UNNEST(SPLIT(@ids)) AND member IS NULL
UNION ALL
SELECT message_id, 'dead letter', '', CONCAT(reason, ': ', message), NULL, NULL
FROM dead_letters
WHERE message_id IN UNNEST(SPLIT(@ids)) AND member IS NULL
"""


def print_summary(
    out: Console, stack: Stack, failures: Mapping[str, str], *, seconds: float, command: str
) -> None:
    """Print what the dataset holds; `command` is the command line to query it with."""
    instances = stack.config.big_query.instances_table_id
    (counts,) = stack.dataset.query(_COUNTS_SQL.format(instances=instances))
    live, letters = counts["live"], counts["letters"]
    unacknowledged = [name for name in failures if name in stack.objects]
    ignored = max(len(stack.objects) - counts["recorded"] - len(unacknowledged), 0)
    parts = [f"{live:,} in BigQuery", counted(letters, "dead letter"), f"{ignored:,} ignored"]
    if archives := counts["archives"]:
        rows = counted(counts["members"], "row")
        parts.append(f"{counted(archives, 'archive')} with {rows} of members")
    if failures:
        parts.append(f"{len(failures):,} failed")
    objects = counted(len(stack.objects), "object")
    _heading(out, f"{objects} in {seconds:.1f} s: {', '.join(parts)}")
    if live:
        _print_contents(out, stack, counts["studies"])
        _print_analysis(out, stack)
    if letters:
        _print_dead_letters(out, stack, letters)
    if failures:
        _heading(out, "Failed")
        print_rows(out, [{"file": name, "failure": why} for name, why in failures.items()])
    if unacknowledged:
        _line(out, f"The function's log: {stack.keep_function_log()}")
    if ignored:
        out.print()
        _line(out, f"Ignored: empty objects, and {_others(stack)}")
        for hint in _ignored_kinds(stack):
            _line(out, f"  {hint}")
    if live:
        _print_example(out, stack, command)


def print_no_files(out: Console, root: Path) -> None:
    """Print that the folder has no files, which the summary's zeros do not explain."""
    _line(out, f"There is no file in the folder {root}")


def print_report(out: Console, path: Path) -> None:
    """Print where the report is."""
    _heading(out, f"Report, for a browser: {path}")


def print_changes(out: Console, stack: Stack, changes: Iterable[Change]) -> None:
    """Print a line for each change with its outcome."""
    for batch in itertools.batched(changes, _CHANGES_PER_QUERY):
        ids = ",".join(d.event.id for change in batch for d in change.deliveries)
        sql = _OUTCOMES_SQL.format(instances=stack.config.big_query.instances_table_id)
        outcomes = {row["id"]: row for row in stack.dataset.query(sql, {"ids": ids})}
        for change in batch:
            now = datetime.now().astimezone().strftime("%H:%M:%S")
            outcome = change.failure or _outcome(change, outcomes)
            _line(out, f"{now}  {change.kind:<9}{change.name}: {outcome}")


def print_watching(out: Console, stack: Stack, root: Path) -> None:
    """Print where the stack can be reached while it watches the folder."""
    _heading(out, f"Watching {root}: add, change or delete files there; Ctrl-C ends it")
    _line(out, f"  BigQuery       {servers.url(stack.ports.bigquery)}  {stack.dataset.name}")
    _line(out, f"  Cloud Storage  {servers.url(stack.ports.storage)}  gs://{BUCKET}")
    out.print()


def _print_contents(out: Console, stack: Stack, study_count: int) -> None:
    modalities = stack.dataset.query(_MODALITIES_SQL)
    print_rows(out, [{**row, "Size": size(row["Size"])} for row in modalities])
    studies = stack.dataset.query(_STUDIES_SQL)
    is_all = len(studies) == study_count
    _heading(out, "Studies" if is_all else f"Studies (the largest {len(studies)} of {study_count})")
    print_rows(out, studies)


def _print_analysis(out: Console, stack: Stack) -> None:
    """Print how many findings of each kind there are, and the doses, if there are any."""
    if schema.unmet_needs(stack.config.json_output):
        return  # the dataset lacks the views
    rows = stack.dataset.query(_ANALYSIS_SQL)
    findings = [
        {"Kind": row["kind"], "Findings": row["number"]} for row in rows if row["kind"] is not None
    ]
    if findings:
        _heading(out, "Worth checking (view quality_findings)")
        print_rows(out, findings)
    for row in rows:
        if row["kind"] is None:
            _heading(out, "Radiation dose (view dose_summary)")
            dose = {
                "Studies": row["number"],
                "CT events": row["ct_events"],
                "Greatest DLP of a study (mGy.cm)": row["dlp"],
                "X-ray events": row["projection_events"],
                "Greatest DAP of a study (Gy.m2)": row["dap"],
            }
            print_rows(out, [{name: _rounded(value) for name, value in dose.items()}])


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _print_dead_letters(out: Console, stack: Stack, count: int) -> None:
    rows = stack.dataset.query(_LETTERS_SQL)
    part = f" (the first {len(rows)} of {count})" if len(rows) < count else ""
    _heading(out, f"Dead letters{part}: not converted, and why")
    print_rows(out, rows)


def _outcome(change: Change, outcomes: Mapping[str, Row]) -> str:
    row = outcomes.get(change.deliveries[0].event.id)
    if row is None:
        return "ignored"
    if row["event"] == "dead letter":
        return f"dead letter, {row['reason']}"
    if change.kind is ChangeKind.DELETED:
        return "no longer live"
    if row["event"] == EXPANDED:
        rows, letters = counted(row["members"], "row"), counted(row["letters"], "dead letter")
        return f"expanded, {rows}, {letters}"
    return f"live, {row['modality'] or 'no modality'}"


def _others(stack: Stack) -> str:
    """Return which objects are ignored because of their names or content."""
    options = stack.config.input
    if options.other_names == "sniff":
        return "content that does not begin like DICOM (option input.otherNames)"
    return (
        f'names that do not match "{options.name_pattern}" '
        '(option input.namePattern; "." matches every name)'
    )


def _ignored_kinds(stack: Stack) -> Iterator[str]:
    """Yield a line about archives, and one about DICOM, among what is ignored."""
    ignored = [
        name
        for name in stack.objects
        if not (matches_name_pattern(stack.config, name) or is_archive(stack.config, name))
    ]
    if archives := [name for name in ignored if is_archive_name(name)]:
        count = counted(len(archives), "archive")
        yield f"{count}: {_some(archives)}; to read them, add --option input.archives=read"
    if stack.config.input.other_names == "sniff":
        return
    names: IgnoredNames[str] = IgnoredNames()
    for name in ignored:
        names.add(name, name)

    def read(name: str, n: int) -> bytes:
        file = stack.objects.open(name)
        if file is None:  # deleted since it was uploaded
            return b""
        with file:
            return file.read(n)

    findings, dicom = names.examine(read)
    if dicom:
        advice = "to convert them, add --option input.otherNames=sniff"
        yield f"{findings.share('file')}: {_some(dicom)}; {advice}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def _print_example(out: Console, stack: Stack, command: str) -> None:
    """Print a query of BigQuery, the command line that runs it, and its answer."""
    _heading(out, "Ask BigQuery")
    _line(out, f"  {command} --query {shlex.quote(_EXAMPLE_SQL)}")
    out.print()
    print_rows(out, stack.dataset.query(_EXAMPLE_SQL))


def _heading(out: Console, text: str) -> None:
    out.print()
    _line(out, text, style="bold")
    out.print()


def _line(out: Console, text: str, style: str = "") -> None:
    out.print(Text(printable(text), style=style), soft_wrap=True)
