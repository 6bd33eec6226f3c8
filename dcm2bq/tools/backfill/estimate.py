"""Estimate the requests, cost and time of a backfill before it runs.

Prices are Google's list prices for a tier 1 region. docs/BACKFILL.md has the assumptions.
"""

from collections.abc import Iterator

from dcm2bq.gcs.store import LISTED_AT_ONCE
from dcm2bq.tools.backfill.backfill import BucketCount
from dcm2bq.tools.backfill.progress import duration

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
        f"{count.listed:,} objects, of which {count.objects:,} ({count.bytes:,} bytes) are to be "
        f"handled, in {len(count.shards):,} shards"
    )
    if known is not None:
        yield (
            f"BigQuery has {known:,} of them already, as rows or open dead letters: "
            f"{objects:,} are new"
        )
    yield (
        f"requests: {listings:,} listings, {objects:,} reads (1 for each object; up to 20 "
        f"for encapsulated ones without an offset table), {writes:,} writes: {_dollars(requests)}"
    )
    yield "load jobs: free; objects that BigQuery has already are skipped, and cost no read"
    yield (
        f"time here, {processes} {'process' if processes == 1 else 'processes'} at "
        f"{OBJECTS_PER_SECOND} objects/s each: {duration(seconds / processes)}"
    )
    yield (
        f"time on Dataflow, {workers} cores: {duration(seconds / workers)} and some minutes to "
        f"start; {seconds / 3600:,.1f} core hours: {_dollars(seconds / 3600 * WORKER_HOUR)}"
    )
    yield (
        "assumed: list prices, 40 ms for each read; docs/BACKFILL.md tells more; "
        f"the count took {duration(count.seconds)}"
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= _CENT else "less than $0.01"
