"""How much of an object is read to convert it: measured on a sample of those to be loaded."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import Source, convert
from dcm2bq.dicom.read.source import FIRST_READ
from dcm2bq.errors import Dcm2BqError
from dcm2bq.gcs.store import Store
from dcm2bq.parallel import in_parallel
from dcm2bq.stored_object import StoredObject

SAMPLE = 50
"""Most objects that are read: their headers take a second or two, and less than a cent."""

_SECONDS = 60  # for all of them, at most; what is left then is not part of the sample
_THREADS = 8  # as many as read for other commands


@dataclass(frozen=True, slots=True)
class ReadRate:
    """Reads of an object, and bytes for each byte of first reads, on average over a sample.

    An object with native pixel data takes one read of its first 64 KiB, and so 1 and 1.0.
    """

    sampled: int = 0
    reads: float = 1.0
    factor: float = 1.0


UNMEASURED = ReadRate()


class _CountedSource:
    """A source that counts the reads from it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.size
        self.reads = 0

    def read_at(self, offset: int, n: int) -> bytes:
        self.reads += 1
        return self._source.read_at(offset, n)


def measure(config: Config, objects: Iterable[StoredObject]) -> ReadRate:
    """Convert the headers of some objects; return how much was read for them.

    An object that is not DICOM counts, too: the backfill reads it just the same. One that cannot
    be read does not.
    """
    store = Store(config)
    deadline = Deadline.after(min(_SECONDS, config.limits.deadline_seconds))

    def read(stored: StoredObject) -> tuple[int, int, int] | None:
        try:
            reader = store.open(stored, deadline)
            source = _CountedSource(reader)
        except Dcm2BqError:
            return None
        try:
            convert(source, timeout=deadline.left)
        except Dcm2BqError:
            if not reader.bytes_read:
                return None
        return max(source.reads, 1), reader.bytes_read, min(stored.size or 0, FIRST_READ)

    with ThreadPoolExecutor(_THREADS) as pool:
        counts = [count for count in in_parallel(pool, read, objects, 2 * _THREADS) if count]
    if not counts:
        return UNMEASURED
    reads, fetched, heads = (sum(column) for column in zip(*counts, strict=True))
    return ReadRate(len(counts), reads / len(counts), fetched / max(heads, 1))
