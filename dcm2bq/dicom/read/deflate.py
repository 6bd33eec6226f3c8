"""Deflated data sets (PS3.5 A.5), and objects stored gzip encoded (RFC 1952).

Both are inflated forwards in chunks, and never held as a whole.
"""

import zlib
from collections.abc import Callable
from typing import Protocol, cast

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.memory import Claim
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.source import Source, Window
from dcm2bq.errors import UnreadableDicomError

CHUNK = 64 * 1024
"""Bytes that are inflated at a time, and that are kept for reading backwards."""
FARTHEST_PEEK = 1024 * 1024
"""Bytes that are inflated ahead, and kept, to see what follows a value."""

UNKNOWN_SIZE = 2**63
"""The size until the end is reached: more than any object has."""
GZIP_MAGIC = b"\x1f\x8b"
GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for the gzip format."""
_ZLIB_METHOD = b"\x78"
"""The first byte of zlib's header for a stream with a window of 32 KiB (RFC 1950 2.2)."""
_HEAD = 64
"""Bytes that show whether a stream is deflated: any of its block headers fits."""


def is_deflated(window: Window, start: int) -> bool:
    """Return whether a deflate stream begins at `start`."""
    head = window.peek(start, _HEAD)
    try:
        zlib.decompressobj(_window_bits(head)).decompress(head, 1)
    except zlib.error:
        return False
    return True


def _window_bits(head: bytes) -> int:
    """Return zlib's `wbits` for a stream: raw, unless it has a zlib header."""
    return zlib.MAX_WBITS if head[:1] == _ZLIB_METHOD else -zlib.MAX_WBITS


class ForwardSource(Source, Protocol):
    """A source that is produced in order; to read backwards, it may have to begin again."""

    def advance(self, offset: int) -> None:
        """Produce and drop the bytes before `offset`, or all if there are fewer."""


class Inflating:
    """Reads compressed bytes in order, through a window, and hands them to zlib.

    `_next` is the offset of the next compressed byte.
    """

    _compressed: Window
    _next: int
    _inflater: "zlib._Decompress"

    def _read_compressed(self) -> bytes:
        window = self._compressed
        window.fill(self._next, 1)
        at = self._next - window.base
        # No more than a chunk: zlib copies what it does not consume, each time.
        compressed = window.data[at : at + CHUNK]
        self._next += len(compressed)
        return compressed

    def _is_gzip_over(self, check_time: Callable[[], None]) -> bool:
        """Return whether the last gzip member has ended; there may be several (RFC 1952 2.2)."""
        while self._inflater.eof:
            check_time()
            rest = self._inflater.unused_data.lstrip(b"\0") or self._read_compressed()
            if not rest:
                return True
            if rest := rest.lstrip(b"\0"):  # NULs are padding
                self._inflater = zlib.decompressobj(GZIP)
                self._next -= len(rest)
        return False


class InflatedSource(Inflating):
    """The data set in a raw deflate stream, produced in order.

    `size` is only known once the end is reached. Reading beyond `limit` raises
    `UnreadableDicomError`.
    """

    _name = "the deflated data set"
    """What messages call it."""

    def __init__(self, window: Window, start: int, limit: int, notes: Notes) -> None:
        self._compressed = window
        self._next = start
        self._notes = notes
        self._limit = limit
        self.size = UNKNOWN_SIZE
        self._inflated = b""
        self._position = 0
        window_bits = _window_bits(window.peek(start, 1))
        if window_bits > 0:
            notes.add("the deflated data set has a zlib header", offset=start)
        self._inflater = zlib.decompressobj(window_bits)

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on, or those up to the end; it never goes back."""
        self.advance(offset)
        parts = []
        while n > 0 and (part := self._take(n)):
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def advance(self, offset: int) -> None:
        """Produce and drop the bytes before `offset`, or all if there are fewer."""
        while self._position < offset and self._take(offset - self._position):
            pass

    def _take(self, n: int) -> bytes:
        """Return between 1 and `n` of the next bytes; none at the end."""
        if not self._inflated:
            self._inflated = self._inflate()
        part, self._inflated = self._inflated[:n], self._inflated[n:]
        self._position += len(part)
        if self._position > self._limit:
            raise UnreadableDicomError(
                f"{self._name} inflates beyond limits.inflatedBytes, {self._limit}",
                offset=self._position,
            )
        return part

    def _inflate(self) -> bytes:
        """Return the next chunk; nothing at the end."""
        while self._position < self.size and not self._is_over():
            compressed = self._inflater.unconsumed_tail or self._read_compressed()
            try:
                chunk = self._inflater.decompress(compressed, CHUNK)
            except zlib.error:
                raise UnreadableDicomError(
                    f"{self._name} is corrupt", offset=self._position
                ) from None
            if chunk:
                self._compressed.deadline.check()
                return chunk
            if not compressed:
                self._cut()
                break
        self._end()
        return b""

    def _is_over(self) -> bool:
        return self._inflater.eof

    def _cut(self) -> None:
        self._notes.add(f"{self._name} is cut", offset=self._next)

    def _end(self) -> None:
        if self.size != self._position:
            self.size = self._position
            rest = self._compressed.size - self._next + len(self._inflater.unused_data)
            # One byte pads to an even length (PS3.5 A.5).
            if rest > 1 and self._compressed.random_access:
                self._notes.add(f"{rest} bytes after the deflated data set")


class GunzippedSource(InflatedSource):
    """An object that is stored gzip encoded, produced in order; if it is cut, it is unreadable.

    Cloud Storage serves ranges of its compressed bytes only. To read anything before the last
    `CHUNK` bytes, inflating begins again.
    """

    _name = "the object's gzip encoding"
    _last: bytes
    _last_end: int

    def __init__(self, compressed: Window, limit: int) -> None:
        # Not by the base class, which expects a raw stream; `_begin` sets the rest each time.
        self._compressed = compressed
        self._limit = limit
        self._notes = Notes()
        self._begin()

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on, or those up to the end."""
        kept = self._last if self._last_end == self._position else b""
        if offset < self._position - len(kept):
            self._begin()
            kept = b""
        back = self._position - offset
        held = kept[-back:][:n] if back > 0 else b""
        answer = held + super().read_at(offset + len(held), n - len(held))
        self._last = (kept + answer[len(held) :] if back >= 0 else answer)[-CHUNK:]
        self._last_end = self._position
        return answer

    def _begin(self) -> None:
        self.size = UNKNOWN_SIZE
        self._next = self._position = self._last_end = 0
        self._inflated = self._last = b""
        self._inflater = zlib.decompressobj(GZIP)

    def _inflate(self) -> bytes:
        chunk = super()._inflate()
        inflater = self._inflater
        ended = self._next == self._compressed.size and not inflater.unconsumed_tail
        if ended and 0 < len(chunk) < CHUNK and not inflater.eof:
            self._cut()  # although the header may be complete
        return chunk

    def _is_over(self) -> bool:
        return self._is_gzip_over(self._compressed.deadline.check)

    def _cut(self) -> None:
        raise UnreadableDicomError(f"{self._name} is cut", offset=self._position)

    def _end(self) -> None:
        self.size = self._position


class InflatedWindow(Window):
    """A window over a `ForwardSource`: it only moves forwards."""

    __slots__ = ("_inflated",)

    random_access = False

    def __init__(self, source: ForwardSource, deadline: Deadline, memory: Claim) -> None:
        super().__init__(source, deadline, memory)
        self._inflated = source

    def peek(self, offset: int, n: int) -> bytes:
        """Return the `n` bytes from `offset` on, or nothing if they are far ahead."""
        if offset + n - self.end > FARTHEST_PEEK:
            return b""
        self.fill(self.base, offset + n - self.base)
        return self.data[offset - self.base : offset - self.base + n]

    def reaches(self, offset: int) -> bool:
        """Return whether the object has at least `offset` bytes, inflating up to there."""
        if offset > self.end:
            self._inflated.advance(offset)
            self.hold(min(offset, self._inflated.size), b"")
        return offset <= self._inflated.size

    def _fetch(self, offset: int, n: int) -> bytes:
        self.deadline.check()
        self._charge(n)
        return self._inflated.read_at(offset, n)


def window_over(source: Source, deadline: Deadline, memory: Claim) -> Window:
    """Return a window over an object, one that only moves forwards if the source does."""
    if hasattr(source, "advance"):
        return InflatedWindow(cast("ForwardSource", source), deadline, memory)
    return Window(source, deadline, memory)
