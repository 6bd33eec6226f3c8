"""Estimate the requests, cost and time of a backfill before it runs.

Prices are Google's list prices for a tier 1 region. docs/BACKFILL.md has the assumptions.
"""

from collections.abc import Iterator

from dcm2bq.gcs.store import LISTED_AT_ONCE
from dcm2bq.tools.backfill.launch import BucketCount
from dcm2bq.tools.wording import counted, duration

OBJECTS_PER_SECOND = 400
"""Objects that one process handles: 16 in flight at 40 ms each. Its CPU could handle 1,000."""

CLASS_A, CLASS_B = 0.05 / 10_000, 0.004 / 10_000
"""Dollars for a request that lists or writes, and for one that reads."""
WORKER_HOUR = 0.056 + 4 * 0.003557
"""Dollars for one hour of a Dataflow batch worker's vCPU with 4 GB of memory."""
DEFAULT_WORKERS = 10
"""Cores that the estimate for Dataflow assumes without --max-workers."""

_CENT = 0.01
_FILE_OBJECTS = 20_000  # rows in a staged file of 16 MiB, at about 800 compressed bytes per row


def estimate(
    count: BucketCount, *, processes: int, workers: int | None, known: int | None
) -> Iterator[str]:
    """Yield the estimate, line by line.

    `known` is the number of generations that BigQuery already has, which are listed but not read;
    None if it is unknown.
    """
    objects = max(count.objects - (known or 0), 0)
    listings = count.requests + -(-count.listed // LISTED_AT_ONCE)
    writes = len(count.shards) * 2 + -(-objects // _FILE_OBJECTS)
    requests = (listings + writes) * CLASS_A + objects * CLASS_B
    seconds = objects / OBJECTS_PER_SECOND
    workers = workers or DEFAULT_WORKERS
    yield (
        f"{counted(count.listed, 'object')} in {counted(len(count.shards), 'shard')}; "
        f"{count.listed - count.objects:,} ignored, {count.objects:,} to convert "
        f"({count.bytes:,} bytes)"
    )
    if count.sniffed:
        yield (
            f"{counted(count.sniffed, 'object')} to convert with names that do not match "
            "input.namePattern: 1 read each, then ignored unless it is DICOM"
        )
    if count.archives:
        yield (
            f"{counted(count.archives, 'archive')} to convert: how many members they have, and of "
            "what size, is not known before they are read, so each counts as one object here"
        )
    if known is not None:
        yield f"BigQuery already has {known:,} of them, as rows or dead letters; {objects:,} new"
    yield (
        f"requests: {counted(listings, 'listing')}, {counted(objects, 'read')} (1 per object; up "
        f"to 20 for encapsulated objects without an offset table), {counted(writes, 'write')}: "
        f"{_dollars(requests)}"
    )
    yield "load jobs are free; objects that BigQuery already has are not read"
    yield (
        f"time here, with {processes} {'process' if processes == 1 else 'processes'} of "
        f"{OBJECTS_PER_SECOND} objects/s: {duration(seconds / processes)}"
    )
    yield (
        f"time on Dataflow, with {counted(workers, 'core')}: {duration(seconds / workers)}, plus a "
        f"few minutes to start; {seconds / 3600:,.1f} core hours: "
        f"{_dollars(seconds / 3600 * WORKER_HOUR)}"
    )
    yield (
        "assumed: list prices and 40 ms per read (see docs/BACKFILL.md); "
        f"the count took {duration(count.seconds)}"
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= _CENT else "less than $0.01"
