"""Shards divide the names of a bucket exactly, however the names are distributed."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm2bq.config import Config
from dcm2bq.errors import ReadFailedError
from dcm2bq.gcs.store import Store
from dcm2bq.local.bucket import Bucket
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill.plan import Census, Shard, between
from dcm2bq.tools.backfill.storage_classes import ClassCount, sum_of
from tests.support.function_stack import unique

TIME = datetime(2026, 1, 1, tzinfo=UTC)
UUIDS = [f"{number * 2654435761 % 2**32:08x}-{number:04x}.dcm" for number in range(3000)]
DEEP = [
    f"archive/{number % 3}/study/1.2.840.{number // 100}/series/{number // 10}/{number}.dcm"
    for number in range(3000)
]
HOT = ["a.dcm", "b/c.dcm", *(f"hospital/site/2026/ct/{n:07}.dcm" for n in range(3000)), "z.dcm"]
WIDE = [f"患者/{chr(0x4E00 + n)}/\U0001f600{n}.dcm" for n in range(1500)]


class Names:
    """A listing of names that counts how many pages are listed at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = sorted(names)
        self.pages_given = 0
        self.at_once = 0
        self.most_at_once = 0
        self.failing_from = ""
        self._lock = threading.Lock()
        self.seconds = 0.003

    def pages(
        self, bucket: str, prefix: str, *, start: str, end: str, at_once: int
    ) -> Iterator[Sequence[StoredObject]]:
        """Yield the names of a range."""
        found = [
            name
            for name in self.names
            if name.startswith(prefix) and name >= start and (not end or name < end)
        ]
        for first in range(0, len(found), at_once) if found else [0]:
            with self._lock:
                self.at_once += 1
                self.pages_given += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            time.sleep(self.seconds)  # a request takes time
            with self._lock:
                self.at_once -= 1
            page = found[first : first + at_once]
            if self.failing_from and any(name >= self.failing_from for name in page):
                raise ReadFailedError("Cloud Storage: HTTP 403")
            yield [stored(bucket, each) for each in page]


def stored(bucket: str, name: str) -> StoredObject:
    return StoredObject(bucket=bucket, name=name, generation=1, size=10)


def shards_of(names: Names, prefix: str = "", *, threads: int = 8, least: int = 100) -> list[Shard]:
    census = Census(names, "bucket", prefix, lambda each: not each.name.endswith(".dcm"))
    return census.shards(threads, least=least)


def assert_exact(shards: Sequence[Shard], names: Sequence[str]) -> None:
    """Assert that each name is in exactly one shard, and that each shard's counts are right."""
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(one.end == other.start for one, other in pairwise(shards))
    assert (shards[0].start, shards[-1].end) == ("", "")
    for shard in shards:
        own = [n for n in names if n >= shard.start and (not shard.end or n < shard.end)]
        assert shard.listed == len(own)
        assert shard.objects == sum(name.endswith(".dcm") for name in own)
        assert shard.bytes == 10 * shard.objects
        assert sum_of(shard.classes) == ClassCount(
            objects=shard.objects, bytes=shard.bytes, heads=shard.bytes
        )


@pytest.mark.parametrize("names", [UUIDS, DEEP, HOT, WIDE], ids=["flat", "deep", "hot", "wide"])
def test_shards_hold_each_object_once_and_have_similar_sizes(names: list[str]) -> None:
    listing = Names(names)
    shards = shards_of(listing)
    assert_exact(shards, names)
    assert all(shard.listed >= 100 for shard in shards[:-1])
    assert max(shard.listed for shard in shards) < 1000
    assert listing.most_at_once > 1
    assert listing.pages_given < 3 * len(names) / 100 + 60


def test_one_page_is_listed_once() -> None:
    listing = Names(UUIDS[:99])
    assert [shard.listed for shard in shards_of(listing)] == [99]
    assert listing.pages_given == 1


def test_an_empty_bucket_is_one_empty_shard() -> None:
    assert shards_of(Names([])) == [Shard(number=0, start="", end="", listed=0, objects=0, bytes=0)]


def test_only_objects_under_the_prefix_are_counted() -> None:
    names = [*DEEP, *UUIDS, "archive/2x.dcm", "archive/1.txt"]
    shards = shards_of(Names(names), "archive/1")
    assert sum(shard.listed for shard in shards) == 1001
    assert sum(shard.objects for shard in shards) == 1000


def test_the_number_of_shards_is_bounded() -> None:
    census = Census(Names(UUIDS), "bucket", "", lambda _: False)
    shards = census.shards(4, least=10, most=7)
    assert len(shards) <= 7
    assert sum(shard.listed for shard in shards) == len(UUIDS)


def test_a_failure_of_one_thread_ends_all() -> None:
    listing = Names(UUIDS)
    listing.failing_from = "8"
    with pytest.raises(ReadFailedError, match=r"^Cloud Storage: HTTP 403$"):
        shards_of(listing)


name = st.text(
    st.characters(exclude_categories=["Cs"], min_codepoint=0x20, max_codepoint=0x10FFFF), max_size=6
)


@given(name, name)
def test_the_middle_is_between_its_bounds(low: str, high: str) -> None:
    middle = between(low, high)
    if middle is not None:
        assert low < middle
        assert middle < high or not high
        assert low.encode() < middle.encode()


@given(st.sets(st.text("ab/\u00e9\u4e00~ ", min_size=1, max_size=8), min_size=1, max_size=80))
def test_any_names_are_split_exactly(names: set[str]) -> None:
    listing = Names([name + ".dcm" for name in names])
    listing.seconds = 0
    assert_exact(shards_of(listing, threads=3, least=5), listing.names)


def test_the_listing_of_cloud_storage_is_shared_by_threads(
    storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(storage_url, unique("plan-"), connections=8)
    bucket.create()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: bucket.upload(each, b"1234567890"), HOT[:403]))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    census = Census(Store(Config()), bucket.name, "", lambda _: False)
    shards = census.shards(4, least=50)
    assert_exact(shards, HOT[:403])
    assert len(shards) > 2
