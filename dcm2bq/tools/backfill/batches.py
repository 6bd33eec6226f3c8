"""Group staged shards into few load jobs, and say when the next may start.

BigQuery allows 1,500 load jobs per table and day. It refills that quota evenly over 24 hours, and
counts failed jobs as well.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from dcm2bq.bigquery.load import BYTES_MAX, URIS_MAX
from dcm2bq.tools.backfill.run_records import Batch, BatchJob, Staged

BURST = 50
"""Jobs for a table that may start one right after the other: the rows of 3 billion objects."""
REFILL_SECONDS = 60.0
"""Seconds until one more may start: with `BURST`, 1,490 in any 24 hours."""
GAP_SECONDS = 2.0
"""Least seconds between two: BigQuery allows 5 changes of a table in 10 seconds."""


def full(staged: Sequence[Staged], *, is_last: bool) -> Iterator[Sequence[Staged]]:
    """Yield the shards in groups within the limits of one load job for each table.

    A group ends where the next shard would exceed them. Unless `is_last`, the group at the end is
    left out, since shards staged later may still join it. A shard beyond the limits is alone.
    """
    group: list[Staged] = []
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for shard in staged:
        more = Counter({table: len(names) for table, names in shard.files.items()})
        larger = Counter({table: _size(shard, names) for table, names in shard.files.items()})
        if group and (_exceeds(files + more, URIS_MAX) or _exceeds(sizes + larger, BYTES_MAX)):
            yield group
            group, files, sizes = [], Counter(), Counter()
        group.append(shard)
        files += more
        sizes += larger
    if group and is_last:
        yield group


def batch_of(number: int, attempt: int, formed: datetime, group: Sequence[Staged]) -> Batch:
    """Return the batch of a group; tables without rows have no load job."""
    results: Counter[str] = Counter()
    for shard in group:
        results.update(shard.results)
    return Batch(
        number=number,
        attempt=attempt,
        formed=formed,
        shards=[shard.shard for shard in group],
        jobs=list(_jobs(group)),
        results=results,
        bytes_read=sum(shard.bytes_read for shard in group),
    )


def next_start(batches: Sequence[Batch]) -> datetime | None:
    """Return when the next batch may start; None if at once.

    Each batch takes one of `BURST` tokens, or more if it has several jobs for a table; a token
    returns every `REFILL_SECONDS`.
    """
    tokens, last = float(BURST), None
    for batch in sorted(batches, key=lambda batch: batch.formed):
        if last is not None:
            tokens += (batch.formed - last).total_seconds() / REFILL_SECONDS
        tables = [job.table for job in batch.jobs]
        tokens = min(BURST, tokens) - max(map(tables.count, tables), default=0)
        last = batch.formed
    if last is None:
        return None
    return last + timedelta(seconds=max(GAP_SECONDS, (1 - tokens) * REFILL_SECONDS))


def _jobs(group: Sequence[Staged]) -> Iterator[BatchJob]:
    """Yield the load jobs of a group: one for each table, unless a single shard needs more."""
    tables = sorted({table for shard in group for table in shard.files})
    for table in tables:
        files = [
            (name, shard.sizes[name]) for shard in group for name in shard.files.get(table, ())
        ]
        part: list[str] = []
        size = 0
        for name, more in files:
            if part and (len(part) == URIS_MAX or size + more > BYTES_MAX):
                yield BatchJob(table=table, files=part, bytes=size)
                part, size = [], 0
            part.append(name)
            size += more
        if part:
            yield BatchJob(table=table, files=part, bytes=size)


def _size(shard: Staged, names: Sequence[str]) -> int:
    return sum(shard.sizes[name] for name in names)


def _exceeds(sums: Counter[str], limit: int) -> bool:
    return any(number > limit for number in sums.values())
