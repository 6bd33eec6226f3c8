"""The status of runs as text."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime

from dcm2bq.tools.backfill.run_records import BUDGET, FAILURE, INTERRUPT, QUOTA, RunAttempt
from dcm2bq.tools.backfill.status import COMPLETE, RUNNING, SILENT, RunStatus
from dcm2bq.tools.wording import counted, duration

_FAILURES_SHOWN = 5
"""In an outage all shards fail, for the same reason; --json has them all."""
_STATES = {
    COMPLETE: "complete",
    RUNNING: "running",
    SILENT: "no sign of life: killed or cancelled, or its machine was lost",
    QUOTA: "stopped because BigQuery's quota of load jobs is used up",
    BUDGET: "ended by its budget",
    FAILURE: "failed",
    INTERRUPT: "interrupted",
}


def lines(status: RunStatus, now: datetime) -> Iterator[str]:
    """Yield the status of a run, line by line."""
    yield f"run {status.run}: {_STATES[status.state]}"
    yield f"{status.source}, staged in {status.staging}"
    for attempt in status.attempts:
        yield _attempt(attempt)
    if status.dataflow:
        yield f"Dataflow job {status.dataflow.job}: {status.dataflow.page}"
    yield f"last sign of life: {_ago(status.last_sign, now)}"
    if status.state in {FAILURE, QUOTA}:
        yield status.message
    if status.state == RUNNING and status.message:
        yield f"staging goes on, but no more load jobs start: {status.message}"
    shards = status.shards
    yield (
        f"{counted(shards.total, 'shard')}: {shards.loaded:,} loaded, {shards.staged:,} staged, "
        f"{shards.failed:,} failed, {shards.left:,} left"
    )
    for failure in status.failures[:_FAILURES_SHOWN]:
        yield f"  shard {failure.shard}: {failure.reason}"
    yield _objects(status)
    results = status.results
    yield (
        f"{results.get('inserted', 0):,} inserted, "
        f"{counted(results.get('dead_lettered', 0), 'dead letter')}, "
        f"{results.get('skipped', 0):,} already present, {results.get('ignored', 0):,} ignored; "
        f"{status.bytes_read:,} bytes read, {status.bytes_staged:,} staged"
    )
    yield (
        f"{counted(status.rows.get('instances', 0), 'row')} loaded into instances, "
        f"{status.rows.get('dead_letter', 0):,} into dead_letter"
    )
    for job in status.jobs:
        files = counted(job.files, "file")
        yield f"load job {job.job}: {files}, {job.bytes:,} bytes: {job.state}"
    if status.state not in {COMPLETE, RUNNING}:
        yield f"resume it, with its other options repeated, by: {resumption(status)}"


def line(status: RunStatus, now: datetime) -> str:
    """Return the status of a run as one line of a list."""
    shards = status.shards
    user = f" by {_who(status.attempts[-1])}" if status.attempts else ""
    return (
        f"{status.run}  {status.state}{user}, {_ago(status.last_sign, now)}: {status.source}, "
        f"{shards.loaded:,} of {counted(shards.total, 'shard')} loaded, "
        f"{status.objects_done:,} of {counted(status.objects, 'object')} handled"
    )


def resumption(status: RunStatus) -> str:
    """Return the command that resumes a run, without the options of its runner."""
    words = ["dcm2bq", "backfill", status.source, "--staging", status.staging]
    return shlex.join([*words, "--resume", status.run])


def _attempt(attempt: RunAttempt) -> str:
    began = attempt.began.astimezone(UTC)
    return (
        f"attempt {attempt.number}: began {began:%Y-%m-%d %H:%M:%S} UTC by {_who(attempt)}, "
        f"runner {attempt.runner}, dcm2bq {attempt.version}"
    )


def _who(attempt: RunAttempt) -> str:
    return f"{attempt.user}@{attempt.host}" if attempt.user else attempt.host


def _objects(status: RunStatus) -> str:
    handled = f"{status.objects_done:,} of {counted(status.objects, 'object')} handled"
    rate = f", {status.objects_per_second:,.0f} objects/s" if status.objects_per_second else ""
    left = f", {duration(status.seconds_left)} left" if status.seconds_left else ""
    return f"{handled}{rate}{left}"


def _ago(time: datetime, now: datetime) -> str:
    return f"{duration(max((now - time).total_seconds(), 0))} ago"
