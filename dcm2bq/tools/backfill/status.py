"""How far a run is: on any machine, while it runs, after it was killed, and after its end."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dcm2bq.bigquery.load import Loader
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.tools.backfill import snapshot
from dcm2bq.tools.backfill.loading import jobs
from dcm2bq.tools.backfill.run_records import (
    BUDGET,
    FAILURE,
    Batch,
    DataflowSubmission,
    RunAttempt,
    ShardFailure,
    Staged,
)
from dcm2bq.tools.backfill.signs import SIGN_SECONDS
from dcm2bq.tools.backfill.snapshot import RunSnapshot

COMPLETE, RUNNING, SILENT = "complete", "running", "silent"
"""States of a run, besides those of `run_records.Ending`."""
SILENT_AFTER = timedelta(seconds=10 * SIGN_SECONDS)
"""Age of the last sign of life from which a run counts as dead: one object can take minutes."""
RECENT = 10
"""Runs in a list: each needs some 10 requests."""

_LOADED, _STARTED = "loaded", "started"

type JobStates = Mapping[str, tuple[str, str]]
"""The id and state of load jobs in BigQuery, by the beginning of their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A load job. `state` is that of BigQuery, or `loaded` or `started` by the records."""

    job: str
    table: str
    files: int
    bytes: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """Shards by what has become of them; `failed` ones failed in the last attempt."""

    total: int
    loaded: int
    staged: int
    failed: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is; `message` says why it ended early, or why it starts no more load jobs.

    `results` count the objects of staged shards, `rows` those in BigQuery by table. The rate
    `objects_per_second` is that of the last attempt; `seconds_left` is the time for reading the
    objects that are left, None if the run does not go on.
    """

    run: str
    source: str
    staging: str
    state: str
    message: str
    attempts: Sequence[RunAttempt]
    dataflow: DataflowSubmission | None
    last_sign: datetime
    shards: ShardCounts
    failures: Sequence[ShardFailure]
    objects: int
    objects_done: int
    objects_per_second: float
    seconds_left: float | None
    results: Mapping[str, int]
    rows: Mapping[str, int]
    bytes_read: int
    bytes_staged: int
    jobs: Sequence[JobStatus]


def read(staging: str, run_id: str, config: Config, *, asks_bigquery: bool = True) -> RunStatus:
    """Return the status of a run; see `snapshot.read` for what is raised.

    Load jobs have the state that BigQuery gives, unless that may not be seen.
    """
    records = snapshot.read(staging, run_id, config)
    return status_of(records, _states(records) if asks_bigquery else {}, datetime.now(UTC))


def recent(staging: str, config: Config) -> list[RunStatus]:
    """Return the last `RECENT` runs, newest first, without those that other versions began."""
    statuses: list[RunStatus] = []
    for run_id in sorted(RunFolder(staging, config).subfolders(), reverse=True):
        try:
            statuses.append(read(staging, run_id, config, asks_bigquery=False))
        except ConfigError:
            continue
        if len(statuses) == RECENT:
            break
    return statuses


def status_of(records: RunSnapshot, states: JobStates, now: datetime) -> RunStatus:
    """Return what the records, and BigQuery's `states` of load jobs, say of a run."""
    run, shards = records.manifest.run, records.manifest.shards
    staged, loaded = records.staged_shards, records.loaded_shards
    failures = [failure for failure in records.failures if failure.shard not in staged]
    parts: tuple[Batch | Staged, ...] = (*records.batches, *records.staged)
    results: Counter[str] = Counter()
    for part in parts:
        results.update(part.results)
    rows: Counter[str] = Counter()
    for done in records.loaded.values():
        rows.update(done.rows)
    state, message = _state(records, failures, now)
    objects, objects_done = sum(shard.listed for shard in shards), _handled(records, staged)
    rate = _rate(records)
    is_reading = state == RUNNING and rate > 0 and objects > objects_done
    return RunStatus(
        run=run.id,
        source=run.source,
        staging=run.staging,
        state=state,
        message=message,
        attempts=records.attempts,
        dataflow=records.dataflow,
        last_sign=records.last_sign,
        shards=ShardCounts(
            total=len(shards),
            loaded=len(loaded),
            staged=len(staged) - len(loaded),
            failed=len(failures),
            left=len(shards) - len(staged) - len(failures),
        ),
        failures=failures,
        objects=objects,
        objects_done=objects_done,
        objects_per_second=rate,
        seconds_left=(objects - objects_done) / rate if is_reading else None,
        results=results,
        rows=rows,
        bytes_read=sum(part.bytes_read for part in parts),
        bytes_staged=sum(job.bytes for batch in records.batches for job in batch.jobs)
        + sum(sum(shard.sizes.values()) for shard in records.staged),
        jobs=list(_jobs(records, states)),
    )


def _states(records: RunSnapshot) -> JobStates:
    """Return what BigQuery says of the jobs that the records do not show as loaded."""
    run = records.manifest.run
    batches = [batch for batch in records.batches if batch.number not in records.loaded]
    if not batches:
        return {}
    try:
        loader = Loader(run.config)
        return {job.name: loader.state(job) for batch in batches for _, job in jobs(run, batch)}
    except ServiceError:  # most people may not see the jobs of another identity
        return {}


def _state(
    records: RunSnapshot, failures: Sequence[ShardFailure], now: datetime
) -> tuple[str, str]:
    """Return the state of a run, and why it ended early or starts no more load jobs."""
    loaded, covered = records.loaded_shards, records.covered_shards
    if len(loaded) == len(records.manifest.shards):
        return COMPLETE, ""
    if records.ending:
        # Why load jobs failed says more than that the command failed.
        ending = records.stopped or records.ending
        return ending.why, ending.message
    if covered <= loaded:
        return BUDGET, "the budget is spent"
    is_silent = now - records.last_sign > SILENT_AFTER
    if records.stopped:
        is_staging = not is_silent and not covered <= records.staged_shards
        return RUNNING if is_staging else records.stopped.why, records.stopped.message
    return _silent_state(records, failures) if is_silent else (RUNNING, "")


def _silent_state(records: RunSnapshot, failures: Sequence[ShardFailure]) -> tuple[str, str]:
    """Return the state of a run without a sign of life, and why it failed, if that is known.

    No command records the end of a Dataflow job that it did not wait for, but a job that is still
    running repeats what failed within minutes.
    """
    if records.dataflow and records.unloaded:
        return FAILURE, records.unloaded.message
    if records.dataflow and failures:
        return FAILURE, f"shard {failures[0].shard}: {failures[0].reason}"
    return SILENT, ""


def _handled(records: RunSnapshot, staged: set[int]) -> int:
    """Return the number of objects of staged shards, and of those handled in the others."""
    listed = {shard.number: shard.listed for shard in records.manifest.shards}
    complete = records.staged_shards
    partly = sum(
        sign.objects
        for sign in records.signs
        if sign.shard is not None and sign.shard not in complete
    )
    return sum(listed[number] for number in staged) + partly


def _rate(records: RunSnapshot) -> float:
    """Return the objects per second from the start of the last attempt to its last result."""
    staged = records.newly_staged
    signs = [records.sign_time(sign) for sign in records.signs if sign.shard is not None]
    if not (staged or signs):
        return 0.0
    seconds = (max((*staged.values(), *signs)) - records.began).total_seconds()
    return _handled(records, set(staged)) / seconds if seconds > 0 else 0.0


def _jobs(records: RunSnapshot, states: JobStates) -> Iterator[JobStatus]:
    for batch in records.batches:
        loaded = records.loaded.get(batch.number)
        pairs = zip(batch.jobs, jobs(records.manifest.run, batch), strict=True)
        for index, (planned, (_, job)) in enumerate(pairs):
            job_id, state = states.get(job.name, ("", ""))
            yield JobStatus(
                job=loaded.jobs[index] if loaded else job_id or f"{job.name}1",
                table=planned.table,
                files=len(planned.files),
                bytes=planned.bytes,
                state=_LOADED if loaded else state or _STARTED,
            )
