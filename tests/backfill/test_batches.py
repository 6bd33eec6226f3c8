"""Many shards share few load jobs, which start no faster than the quota refills."""

from datetime import UTC, datetime, timedelta

import pytest

from dcm2bq.bigquery.load import BYTES_MAX, URIS_MAX
from dcm2bq.tools.backfill import batches
from dcm2bq.tools.backfill.run_records import Batch, BatchJob, Staged

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def staged(shard: int, files: int = 1, size: int = 1, letters: int = 0) -> Staged:
    """Return a shard with so many files of so many bytes, and of dead letters."""
    names = [f"rows/{shard:06}/{number}" for number in range(files)]
    letter_names = [f"rows/{shard:06}/letters-{number}" for number in range(letters)]
    tables = {"instances": names, "dead_letter": letter_names}
    return Staged(
        shard=shard,
        files={table: names for table, names in tables.items() if names},
        sizes=dict.fromkeys([*names, *letter_names], size),
        results={"inserted": files},
        bytes_read=10,
    )


def grouped(shards: list[Staged], *, is_last: bool = True) -> list[list[int]]:
    """Return the numbers of the shards in each group."""
    return [[shard.shard for shard in group] for group in batches.full(shards, is_last=is_last)]


def test_all_shards_of_a_run_share_one_job_for_each_table() -> None:
    shards = [staged(number, files=3, letters=1) for number in range(1000)]
    (group,) = batches.full(shards, is_last=True)
    batch = batches.batch_of(7, 1, START, group)
    assert [(job.table, len(job.files), job.bytes) for job in batch.jobs] == [
        ("dead_letter", 1000, 1000),
        ("instances", 3000, 3000),
    ]
    assert batch.shards == list(range(1000))
    assert (batch.results, batch.bytes_read) == ({"inserted": 3000}, 10_000)


def test_a_billion_objects_need_few_jobs() -> None:
    """At 800 compressed bytes for each, in files of 16 MiB."""
    size = 16 * 1024 * 1024
    shards = [staged(number, files=48, size=size) for number in range(1000)]
    groups = list(batches.full(shards, is_last=True))
    assert len(groups) == 17
    assert all(len(batches.batch_of(0, 1, START, group).jobs) == 1 for group in groups)


@pytest.mark.parametrize(
    ("files", "size", "expected"),
    [
        (URIS_MAX // 2, 1, [[0, 1], [2, 3], [4]]),
        (URIS_MAX // 2 + 1, 1, [[0], [1], [2], [3], [4]]),
        (1, BYTES_MAX // 3, [[0, 1, 2], [3, 4]]),
        (1, BYTES_MAX * 2, [[0], [1], [2], [3], [4]]),
    ],
)
def test_a_group_is_within_the_limits_of_a_job(
    files: int, size: int, expected: list[list[int]]
) -> None:
    shards = [staged(number, files=files, size=size) for number in range(5)]
    assert grouped(shards) == expected
    assert grouped(shards, is_last=False) == expected[:-1]


def test_the_limits_hold_for_each_table() -> None:
    shards = [staged(0, files=URIS_MAX, letters=1), staged(1, files=0, letters=URIS_MAX - 1)]
    assert grouped(shards) == [[0, 1]]
    assert grouped([*shards, staged(2, files=0, letters=1)]) == [[0, 1], [2]]


def test_a_shard_beyond_the_limits_is_split_into_several_jobs() -> None:
    (group,) = batches.full([staged(0, files=URIS_MAX + 1)], is_last=True)
    batch = batches.batch_of(0, 1, START, group)
    assert [len(job.files) for job in batch.jobs] == [URIS_MAX, 1]
    (group,) = batches.full([staged(0, files=5, size=BYTES_MAX // 2)], is_last=True)
    jobs = batches.batch_of(0, 1, START, group).jobs
    assert [len(job.files) for job in jobs] == [2, 2, 1]
    assert [name for job in jobs for name in job.files] == [f"rows/000000/{n}" for n in range(5)]


def test_shards_without_rows_need_no_job() -> None:
    (group,) = batches.full([staged(0, files=0), staged(1, files=0)], is_last=True)
    batch = batches.batch_of(0, 1, START, group)
    assert (batch.shards, batch.jobs) == ([0, 1], [])


def formed_at(time: datetime, jobs: int = 1) -> Batch:
    """Return a batch of that time with so many jobs for a table."""
    job = BatchJob(table="instances", files=["f"], bytes=1)
    return Batch(
        number=0, attempt=1, formed=time, shards=[], jobs=[job] * jobs, results={}, bytes_read=0
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_day_has_more_jobs_than_the_quota(jobs: int) -> None:
    """Batches that start as early as they may, for a day and an hour."""
    formed = [formed_at(START, jobs)]
    gaps = []
    while formed[-1].formed < START + DAY + timedelta(hours=1):
        following = batches.next_start(formed)
        assert following is not None
        gaps.append((following - formed[-1].formed).total_seconds())
        formed.append(formed_at(following, jobs))
    times = [batch.formed for batch in formed]
    for first in range(0, len(times), 37):
        in_a_day = [time for time in times if times[first] <= time < times[first] + DAY]
        assert len(in_a_day) * jobs <= 1500
    assert gaps[:10] == [batches.GAP_SECONDS] * 10
    assert gaps[-1] == pytest.approx(batches.REFILL_SECONDS * jobs)


def test_the_first_batch_starts_at_once() -> None:
    assert batches.next_start([]) is None


def test_a_rest_allows_another_burst() -> None:
    formed = [formed_at(START) for _ in range(batches.BURST + 1)]
    following = batches.next_start(formed)
    assert following is not None
    assert (following - START).total_seconds() >= batches.REFILL_SECONDS
    rested = batches.next_start([*formed, formed_at(START + DAY)])
    assert rested == START + DAY + timedelta(seconds=batches.GAP_SECONDS)
