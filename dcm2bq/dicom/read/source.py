"""Sources of bytes that are read by range, and the window that the reader looks through."""

import threading
from typing import BinaryIO, Protocol, cast

from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.memory import WINDOW, Claim, unbounded
from dcm2bq.errors import ReadFailedError

FIRST_READ = 64 * 1024
"""Bytes of the first read: most headers are shorter."""
HOP_READ = 16 * 1024
"""Bytes of a read after a jump over a value. A shorter gap is read rather than jumped over."""
MOST_READ = 4 * 1024 * 1024
"""Most bytes of a read, up to which sizes double while the object is read in order."""
SMALL = 1024 * 1024
"""Bytes of an object, or of what is left of one, that are read at once instead of in hops.

1 MiB costs the CPU of some 4 requests, and one round trip; hops can be 20 (docs/PERFORMANCE.md).
"""


class Source(Protocol):
    """An object of known size; each `read_at` may be a request over the network."""

    @property
    def size(self) -> int:
        """Bytes of the object."""

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return exactly the `n` bytes from `offset` on; it is never called beyond `size`."""


class StreamSource:
    """A seekable binary stream as a source, which any thread may read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.size = stream.seek(0, 2)

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on; an unbuffered stream may need several reads."""
        with self._lock:  # members of an archive are read by several threads
            self._stream.seek(offset)
            answer = self._stream.read(n)
            while answer and len(answer) < n:
                more = self._stream.read(n - len(answer))
                if not more:
                    break
                answer += more
            return answer


def as_source(stream: BinaryIO | Source) -> Source:
    """Return a source as it is, a stream as a source."""
    if hasattr(stream, "read_at"):
        return cast("Source", stream)
    return StreamSource(stream)


class Window:
    """The bytes of a source around the place that is being read.

    `data` holds the bytes from offset `base` up to, not including, `end`. The window grows by
    reads of doubling size while the object is read in order, and begins again with a small read
    after a jump. Of a small object (`SMALL`) the second read fetches all that can still be
    needed, so that there is no third.
    """

    __slots__ = ("_longest", "_next_read", "_source", "base", "data", "deadline", "end", "memory")

    random_access = True
    """Whether any bytes can be read without those before them."""

    def __init__(
        self, source: Source, deadline: Deadline = NO_DEADLINE, memory: Claim | None = None
    ) -> None:
        self._source = source
        self.deadline = deadline
        self.memory = memory or unbounded()
        self._longest = FIRST_READ
        self._next_read = FIRST_READ
        self.data = b""
        self.base = 0
        self.end = 0

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self._source.size

    def fill(self, offset: int, n: int) -> int:
        """Hold the `n` bytes from `offset` on; return how many of them the object has."""
        stop = offset + n
        if offset < self.base or stop > self.end:
            if self.base <= offset < self.end + HOP_READ:
                more = max(stop - self.end, self._next_read)
                self._next_read = min(2 * self._next_read, MOST_READ)
                self._extend(offset, more)
            else:
                self.jump(offset, n)
        return min(n, self.end - offset)

    def jump(self, offset: int, n: int) -> None:
        """Begin again with the `n` bytes from `offset` on and a few more."""
        self._next_read = 2 * HOP_READ
        self.hold(offset, self._fetch(offset, self._at_once(offset, max(n, HOP_READ))))

    def hold(self, offset: int, data: bytes) -> None:
        """Replace the contents by `data`, the object's bytes from `offset` on."""
        self.data, self.base, self.end = data, offset, offset + len(data)

    def peek(self, offset: int, n: int) -> bytes:
        """Return the `n` bytes from `offset` on, or as many as there are, without moving."""
        if offset < self.base or offset + n > self.end:
            n = min(n, self._source.size - offset)
            if offset < self.base or (offset + n > self.end and not self._is_small):
                return self._fetch(offset, n)
            if offset + n > self.end:
                # The bytes in between are kept: a peek can be far ahead of what is read next.
                self._extend(self.base, n)
        return self.data[offset - self.base : offset - self.base + n]

    def reaches(self, offset: int) -> bool:
        """Return whether the object has at least `offset` bytes."""
        return offset <= self._source.size

    def release(self) -> None:
        """Give back the memory that the window was charged for; it is not used any more."""
        self.memory.used -= WINDOW * (self._longest - FIRST_READ)
        self._longest = FIRST_READ
        self.hold(0, b"")

    def _extend(self, offset: int, n: int) -> None:
        """Hold `n` more bytes; drop those before `offset`."""
        kept, gap = self.data[offset - self.base :], max(offset - self.end, 0)
        more = self._fetch(self.end, self._at_once(self.end, n))
        self.hold(offset, kept + more[gap:])

    @property
    def _is_small(self) -> bool:
        return self._source.size <= SMALL

    def _at_once(self, offset: int, n: int) -> int:
        """Return how many bytes to fetch from `offset` on if `n` are needed."""
        return max(n, self._source.size - offset) if self.end and self._is_small else n

    def _charge(self, n: int) -> None:
        """Pay for a read of `n` bytes, minus what the longest read before has cost."""
        if n > self._longest:
            self.memory.charge(WINDOW * (n - self._longest))
            self._longest = n

    def _fetch(self, offset: int, n: int) -> bytes:
        self.deadline.check()
        n = min(n, self._source.size - offset)
        self._charge(n)
        answer = self._source.read_at(offset, n) if n > 0 else b""
        if len(answer) != max(n, 0):
            raise ReadFailedError(
                f"the source returned {len(answer)} of {n} bytes at offset {offset}"
            )
        return answer
