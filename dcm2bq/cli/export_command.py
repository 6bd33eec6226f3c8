"""`dcm2bq export`."""

import glob
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dcm2bq.cli.common import (
    FINDINGS,
    complain,
    explain,
    override,
    parse_settings,
    settings_option,
    startable,
)
from dcm2bq.cli.progress_line import ProgressLine
from dcm2bq.errors import RetryableError
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.tools import wording
from dcm2bq.tools.display import say, say_json
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.tools.export.export import Export, ExportCounts

_SHOW_SECONDS = 0.5
_ADVICE = "to export such files, add --option input.otherNames=sniff"
_AGAIN = "run the same command again to resume it"


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--parquet",
    "out",
    required=True,
    metavar="OUT",
    type=click.Path(),
    help="The folder for the Parquet files: a new one, or one that this command has made.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=64),
    default=8,
    show_default=True,
    metavar="N",
    help="Objects handled at once; more help only where reading waits for a network.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Export at most N objects that are new or have changed; the next run continues.",
)
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as a line of JSON.")
def export(
    sources: Sequence[str],
    *,
    out: str,
    threads: int,
    limit: int | None,
    settings: Sequence[str],
    as_json: bool,
) -> int:
    """Write the rows of DICOM files or objects as Parquet, for DuckDB, pandas or Spark.

    A SOURCE is a folder, a file, gs://bucket or gs://bucket/prefix. Rows are made by the code and
    the configuration of the function, so the same objects are converted, ignored or refused, the
    privacy options apply, and archives are read with input.archives: read. A file given by its own
    name is always read. No BigQuery is needed. Only the headers of objects in Cloud Storage are
    read.

    \b
    In OUT:
        instances/study_year=2019/part-....parquet    the columns of the table instances
        dead_letters/part-....parquet                 what could not be converted, and why
        _export/                                      what this command needs to resume

    Objects without a StudyDate are in study_year=0. In a row of a file, path is the absolute path
    and version its time of modification in microseconds.

    Run the command again to bring OUT up to date, or to resume a run that ended early: objects
    that are already exported are not read again, rows of changed ones are replaced, and rows of
    deleted ones removed. What could not be converted is tried again. What was exported appears in
    OUT in complete files, at the latest after 50,000 objects; until a run has ended, OUT can hold
    old rows beside the new. OUT keeps to its sources and options: with others, the command stops.

    OUT holds patient data like the headers it was made of. docs/EXPORT.md has examples of queries.

    With --json, the line has listed, unchanged, results, ignored, gone and is_complete of this run,
    rows, files and bytes of OUT, requests to Cloud Storage, and bytes_read.

    The exit status is 0 if OUT holds a row for each object, and 1 if it holds dead letters, if
    --limit ended the run, if objects changed before they were read, or if a folder could not be
    listed. With 3, Cloud Storage did not answer: run the command again.

    \b
    Examples:
        dcm2bq export ~/scans --parquet headers
        dcm2bq export gs://my-bucket/2026/ --parquet 2026 --threads 32
        dcm2bq export study.zip --parquet study
        dcm2bq export scans --parquet out --option privacy.profile=basic --option privacy.path=hash
    """  # noqa: D301 - \b tells click to keep the line breaks
    _check(sources, out)
    config = override(parse_settings(settings))
    from dcm2bq import extras  # noqa: PLC0415 - slow to import, not needed for --help

    extras.require(extras.EXPORT)
    from dcm2bq.tools.export.export import Export  # noqa: PLC0415

    exported = Export(startable(config), sources, Path(out), threads=threads, limit=limit)
    try:
        _run(exported)
        summary = _Summary(exported, Path(out))
        if as_json:
            say_json(msgspec.json.encode(summary.fields()))
        else:
            summary.show()
        return summary.status
    finally:
        exported.close()


def _check(sources: Sequence[str], out: str) -> None:
    """Raise an error for a source that does not exist, an invalid URI, and an OUT that is one."""
    if not out:
        raise click.UsageError("--parquet: OUT is empty")
    if is_uri(out):
        raise click.UsageError("--parquet: a local folder is expected; upload it afterwards")
    for source in sources:
        if not source:
            raise click.UsageError("SOURCE is empty")
        if is_uri(source):
            GsUri.parse(source)
        elif not Path(source).exists():
            raise click.UsageError(f"{source}: there is no such file or folder")
        elif not (Path(source).is_dir() or Path(source).is_file()):
            raise click.UsageError(f"{source}: is neither a file nor a folder: save it as a file")


def _run(exported: "Export") -> None:
    line = _Progress()
    try:
        exported.run(line.show)
    except KeyboardInterrupt:
        line.end()
        say(f"interrupted; {_AGAIN}", err=True)
        raise
    except (RetryableError, OSError):
        line.end()
        complain(f"the export did not finish; {_AGAIN}")
        raise
    line.end()


class _Progress:
    """Shows the counts of a run."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._begun = self._shown = time.monotonic()
        self._counts: ExportCounts | None = None

    def show(self, counts: "ExportCounts") -> None:
        """Show the counts, unless they were shown just now."""
        if time.monotonic() - self._shown >= _SHOW_SECONDS:
            self._counts = counts
            self._update(counts)

    def end(self) -> None:
        """Show the last counts and end the line, if there is one."""
        if self._counts is not None:
            self._update(self._counts)
        self._line.end()

    def _update(self, counts: "ExportCounts") -> None:
        self._shown = time.monotonic()
        rate = counts.listed / (self._shown - self._begun)
        self._line.show(
            f"{counted(counts.listed, 'object')}, {counted(counts.rows['instances'], 'row')}, "
            f"{counted(counts.rows['dead_letters'], 'dead letter')}, {rate:,.0f} objects/s"
        )


class _Summary:
    """What a run has done, and what OUT holds."""

    def __init__(self, exported: "Export", out: Path) -> None:
        self._counts = exported.counts
        self._out = out
        self._ignored = exported.examine_ignored() if exported.counts.ignored["name"] else None
        self._rows, self._files, self._bytes = exported.destination.totals()

    @property
    def status(self) -> int:
        """The exit status."""
        is_finding = self._rows["dead_letters"] or not self._counts.is_complete
        return FINDINGS if is_finding else 0

    def fields(self) -> dict[str, Any]:
        """Return the summary for programs; `rows`, `files` and `bytes` are those of OUT."""
        counts = self._counts
        return {
            "listed": counts.listed,
            "unchanged": counts.unchanged,
            "results": counts.results,
            "ignored": counts.ignored,
            "gone": counts.gone,
            "is_complete": counts.is_complete,
            "rows": self._rows,
            "files": self._files,
            "bytes": self._bytes,
            "requests": counts.requests,
            "bytes_read": counts.bytes_read,
        }

    def show(self) -> None:
        """Print the summary for people."""
        counts = self._counts
        results = counts.results
        parts = (
            (counts.exported, "exported"),
            (results["dead_lettered"], "not converted"),
            (counts.unchanged, "unchanged"),
            (results["superseded"], "changed or deleted before it was read"),
            (sum(counts.ignored.values()), f"ignored{_reasons(counts.ignored)}"),
        )
        listed = ", ".join(f"{number:,} {text}" for number, text in parts if number)
        say(f"{counted(counts.listed, 'object')}{': ' if listed else ''}{listed}")
        if counts.gone:
            say(f"{counted(counts.gone, 'object')} no longer there: removed from {self._out}")
        read = wording.size(counts.bytes_read)
        if counts.requests:
            requests = counted(counts.requests, "request")
            say(f"{requests} to Cloud Storage, and {read} read in all")
        say(
            f"{self._out}: {counted(self._rows['instances'], 'row')}, "
            f"{counted(self._rows['dead_letters'], 'dead letter')}, "
            f"{counted(self._files, 'file')}, {wording.size(self._bytes)}"
        )
        self._explain()
        if self._rows["instances"]:
            say()
            say("Query it with DuckDB (pip install duckdb-cli):")
            say(f"  duckdb -c {_quoted(self._sql())}")

    def _explain(self) -> None:
        """Print what keeps OUT from being complete, on stderr."""
        if self._ignored is not None:
            for sentence in self._ignored.sentences(noun="object", advice=_ADVICE):
                say(sentence, err=True)
        for error in self._counts.unlisted:
            complain(explain(error))
        for source in self._counts.empty:
            complain(f"{source}: there is nothing here; rows that were exported from it stay")
        if changed := self._counts.results["superseded"]:
            objects = counted(changed, "object")
            say(f"changed or deleted before it was read: {objects}; {_AGAIN}", err=True)
        if self._counts.is_cut:
            say(f"--limit ended the export; {_AGAIN}", err=True)

    def _sql(self) -> str:
        folder = glob.escape(str(self._out))  # DuckDB has the patterns of a shell
        files = f"{folder}/instances/**/*.parquet".replace("'", "''")
        table = f"read_parquet('{files}', hive_partitioning = true)"
        return f"SELECT Modality, COUNT(*) AS objects FROM {table} GROUP BY Modality"  # noqa: S608


def _quoted(sql: str) -> str:
    """Return a statement as one word of a shell, in double quotes if it can be."""
    return shlex.quote(sql) if set(sql) & set('"$`\\!') else f'"{sql}"'


def _reasons(ignored: Counter[str]) -> str:
    names = ", ".join(f"{reason} {number:,}" for reason, number in sorted(ignored.items()))
    return f" ({names})" if names else ""
