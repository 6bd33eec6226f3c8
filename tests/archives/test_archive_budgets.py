"""What 1,000 CT slices of 512 KiB cost in an archive: requests, bytes, memory and time."""

import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial

import pytest

from dcm2bq import dicom
from dcm2bq.archives import bounds, members
from dcm2bq.config import Config, Limits
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.read.source import Source
from dcm2bq.errors import ArchiveTooLargeError, ReadFailedError
from dcm2bq.gcs.store import Store
from dcm2bq.stored_object import StoredObject
from tests.archives.reading import contents
from tests.archives.test_tar_members import tarred
from tests.archives.test_zip_members import zipped
from tests.support.http_server import serving
from tests.support.leaping import leaping
from tests.support.patience import scaled
from tests.support.slices import PIXELS, Pieces, head, tar_gz_of, tar_of, zip_of
from tests.support.sparse import encapsulated

MIB = 1024 * 1024
COUNT = 1000
ARCHIVES: dict[str, Callable[[int], Pieces]] = {
    "stored.zip": partial(zip_of, deflated=False),
    "deflated.zip": partial(zip_of, deflated=True),
    "slices.tar": tar_of,
    "slices.tar.gz": tar_gz_of,
}
RANGED = [name for name in ARCHIVES if not name.endswith("gz")]


def convert_all(source: Source, name: str, deadline: Deadline = NO_DEADLINE) -> int:
    """Convert each member; return how many there are."""
    uids = set()
    for member in members(source, name, Limits(), deadline):
        conversion = dicom.convert(member.source)
        assert not conversion.warnings
        uids.add(conversion.columns["SOPInstanceUID"])
    return len(uids)


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_slices_are_as_other_tools_write_them(name: str) -> None:
    """So that the figures below are about archives that exist."""
    read = contents(ARCHIVES[name](3), name)
    assert list(read.values()) == [head(number) + PIXELS for number in range(3)]
    assert len(ARCHIVES[name](COUNT).content(0, 100)) == 100


@pytest.mark.parametrize("name", RANGED)
def test_a_thousand_slices_take_a_request_and_the_first_window_of_each(name: str) -> None:
    source = ARCHIVES[name](COUNT)
    assert convert_all(source, name) == COUNT
    assert source.requests <= 1010
    assert source.bytes_read <= 70 * MIB


def test_a_gzipped_tar_is_read_once_by_long_reads() -> None:
    source = tar_gz_of(COUNT)
    assert convert_all(source, "x.tgz") == COUNT
    assert source.requests <= 80
    assert source.bytes_read <= source.size


@pytest.mark.parametrize("name", ARCHIVES)
def test_memory_does_not_grow_with_the_archive(name: str) -> None:
    source = ARCHIVES[name](200)
    tracemalloc.start()
    try:
        convert_all(source, name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MIB


class Distant(Pieces):
    """A source with a round trip, which counts the requests that are in flight."""

    def __init__(self, pieces: list[bytes], seconds: float) -> None:
        super().__init__(pieces)
        self.seconds = seconds
        self.in_flight = self.most_in_flight = 0

    def read_at(self, offset: int, n: int) -> bytes:
        content = super().read_at(offset, n)
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        time.sleep(self.seconds)
        with self._lock:
            self.in_flight -= 1
        return content


@pytest.mark.parametrize("name", RANGED)
def test_round_trips_overlap(name: str) -> None:
    source = Distant(ARCHIVES[name](100)._pieces, 0.02)
    assert convert_all(source, name) == 100
    assert 6 <= source.most_in_flight <= 8


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, None])
def test_members_that_are_read_whole_take_a_request_at_most(method: int | None) -> None:
    """A conversion reads small objects with encapsulated pixel data to their end."""
    slices = [encapsulated(180_000 + 1000 * (n % 9), 1, "basic") for n in range(100)]
    noise = random.Random(1).randbytes(200_000)
    files = {}
    for number, slice_ in enumerate(slices):
        content = slice_.read_at(0, slice_.size)
        begin = len(slice_.head) + 8
        files[str(number)] = content[:begin] + noise[: slice_.size - begin - 8] + content[-8:]
    name = "x.tar" if method is None else "x.zip"
    source = Pieces([tarred(files) if method is None else zipped(files, method)])
    for member in members(source, name, Limits()):
        assert not dicom.convert(member.source).warnings
    assert source.requests <= (40 if method is None else 120)
    assert source.bytes_read <= 1.1 * source.size


def test_members_of_a_tar_that_are_nearly_equally_long_are_read_ahead() -> None:
    sizes = [500_000 + (number * 7919) % 700 for number in range(100)]
    files = {f"{number}": bytes([number]) * size for number, size in enumerate(sizes)}
    source = Pieces([tarred(files)])
    for member in members(source, "x.tar", Limits()):
        n = min(member.size, 64 * 1024)
        assert member.source.read_at(0, n) == files[member.name][:n]
    assert source.requests < 130, "few were read in vain"


def test_members_of_a_tar_that_differ_are_not_read_ahead() -> None:
    sizes = [100_000 + (number * 7919) % 800_000 for number in range(50)]
    files = {f"{number}": bytes([number]) * size for number, size in enumerate(sizes)}
    source = Pieces([tarred(files)])
    assert len(list(members(source, "x.tar", Limits()))) == 50
    assert source.requests == 51, "one finds the end"


def test_neighbouring_members_of_a_zip_are_read_together() -> None:
    source = Pieces([zipped({str(n): bytes([n]) * 10_000 for n in range(100)}, zipfile.ZIP_STORED)])
    assert len(list(members(source, "x.zip", Limits()))) == 100
    assert source.requests < 10


@pytest.mark.parametrize("name", RANGED)
def test_an_archive_in_cloud_storage_is_read_within_the_deadline(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ARCHIVES[name](COUNT)
    with serving(source.serve) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        stored = StoredObject(bucket="scans", name=name, generation=1, size=source.size)
        deadline = Deadline.after(scaled(50))
        reader = Store(Config()).open(stored, deadline)
        assert convert_all(reader, name, deadline) == COUNT
    assert source.requests <= 1010
    assert reader.bytes_read == source.bytes_read <= 70 * MIB


def test_an_archive_that_takes_longer_than_its_deadline_is_too_large() -> None:
    source = Distant([tarred({str(n): bytes(n * 500) for n in range(100, 300)})], 0.02)
    deadline = Deadline.after(1.6)  # a busy machine pauses for less than an eighth of it
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.deadlineSeconds.*dcm2bq backfill"):
        list(members(source, "x.tar", Limits(), deadline))


def test_an_archive_that_was_delayed_is_not_too_large() -> None:
    """By slow inserts, or because other objects held the memory: the next attempt can succeed."""
    source = Distant([tarred({str(n): bytes(n * 500) for n in range(100, 250)})], 0.02)
    with leaping(bounds) as clock:
        rest = members(source, "x.tar", Limits(), Deadline.after(2))
        next(rest)
        clock.sleep(1.1)
        with pytest.raises(ReadFailedError):
            list(rest)


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_a_source_that_stalls_makes_no_archive_too_large(name: str) -> None:
    """Then the service is slow, and another attempt can succeed."""

    class Stalling(Pieces):
        def read_at(self, offset: int, n: int) -> bytes:
            if self.requests > 3:
                clock.sleep(max(deadline.left, 0) + 0.01)
                raise ReadFailedError("no time left to read the object")
            return super().read_at(offset, n)

    files = {str(n): bytes(n * 5000) for n in range(100, 150)}
    archive = zipped(files, zipfile.ZIP_STORED) if name == "x.zip" else tarred(files)
    with leaping(bounds) as clock:
        deadline = Deadline.after(1)
        with pytest.raises(ReadFailedError):
            list(members(Stalling([archive]), name, Limits(), deadline))


def test_an_object_that_is_no_archive_costs_no_more_than_a_read() -> None:
    source = Pieces([bytes(100) + b"no archive" * 10_000])
    with pytest.raises(Exception, match="broken"):
        contents(source, "x.tar")
    assert source.requests == 1
