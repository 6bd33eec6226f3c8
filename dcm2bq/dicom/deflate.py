"""Deflated data sets (PS3.5 A.5): inflated forwards in small chunks, never as a whole."""

import zlib

from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.source import Deadline, Window
from dcm2bq.errors import UnreadableDicomError

CHUNK = 64 * 1024
"""Bytes inflated at a time."""
FARTHEST_PEEK = 1024 * 1024
"""How far is read ahead, and kept, to see what follows a value."""

_UNKNOWN_SIZE = 2**63
_ZLIB_METHOD = b"\x78"
_HEAD = 64


def is_deflated(window: Window, start: int) -> bool:
    """Return whether what stands at `start` begins a deflate stream."""
    head = window.peek(start, _HEAD)
    try:
        zlib.decompressobj(_window_bits(head)).decompress(head, 1)
    except zlib.error:
        return False
    return True


def _window_bits(head: bytes) -> int:
    """Return how zlib is to read a stream: raw, unless it has zlib's own header."""
    return zlib.MAX_WBITS if head[:1] == _ZLIB_METHOD else -zlib.MAX_WBITS


class InflatedSource:
    """The data set behind a raw deflate stream, produced in order.

    `size` is beyond all bounds until the end is met. Reading beyond `limit` raises
    `UnreadableDicomError`.
    """

    def __init__(self, window: Window, start: int, limit: int, notes: Notes) -> None:
        self._compressed = window
        self._next = start
        self._notes = notes
        self._limit = limit
        self.size = _UNKNOWN_SIZE
        self._inflated = b""
        self._position = 0
        window_bits = _window_bits(window.peek(start, 1))
        if window_bits > 0:
            notes.add("the deflated data set has a zlib header", offset=start)
        self._inflater = zlib.decompressobj(window_bits)

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on, or those up to the end; never go back."""
        self.advance(offset)
        parts = []
        while n > 0 and (part := self._take(n)):
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def advance(self, offset: int) -> None:
        """Run on to `offset`, or to the end, and forget what lies before."""
        while self._position < offset and self._take(offset - self._position):
            pass

    def _take(self, n: int) -> bytes:
        if not self._inflated:
            self._inflated = self._inflate()
        part, self._inflated = self._inflated[:n], self._inflated[n:]
        self._position += len(part)
        if self._position > self._limit:
            raise UnreadableDicomError(
                f"the data set inflates beyond limits.inflatedBytes, {self._limit}",
                offset=self._position,
            )
        return part

    def _inflate(self) -> bytes:
        """Return the next chunk; nothing means that the end is met."""
        inflater = self._inflater
        while self._position < self.size and not inflater.eof:
            compressed = inflater.unconsumed_tail or self._read_compressed()
            try:
                chunk = inflater.decompress(compressed, CHUNK)
            except zlib.error:
                raise UnreadableDicomError(
                    "the deflated data set is corrupt", offset=self._position
                ) from None
            if chunk:
                self._compressed.deadline.check()
                return chunk
            if not compressed:
                self._notes.add("the deflated data set is cut", offset=self._next)
                break
        self._end()
        return b""

    def _read_compressed(self) -> bytes:
        window = self._compressed
        window.fill(self._next, 1)
        compressed = window.data[self._next - window.base :]
        self._next += len(compressed)
        return compressed

    def _end(self) -> None:
        if self.size != self._position:
            self.size = self._position
            behind = self._compressed.size - self._next + len(self._inflater.unused_data)
            if behind > 1:  # one byte pads to an even length (PS3.5 A.5)
                self._notes.add(f"{behind} bytes behind the deflated data set")


class InflatedWindow(Window):
    """A window over an inflated data set: it only moves forwards."""

    __slots__ = ("_inflated",)

    random_access = False

    def __init__(self, source: InflatedSource, deadline: Deadline) -> None:
        super().__init__(source, deadline)
        self._inflated = source

    def peek(self, offset: int, n: int) -> bytes:
        """Return the `n` bytes from `offset` on, or nothing if they lie far ahead."""
        if offset + n - self.end > FARTHEST_PEEK:
            return b""
        self.fill(self.base, offset + n - self.base)
        return self.data[offset - self.base : offset - self.base + n]

    def reaches(self, offset: int) -> bool:
        """Return whether the object has `offset` bytes or more, running on to see."""
        if offset > self.end:
            self._inflated.advance(offset)
            self.hold(min(offset, self._inflated.size), b"")
        return offset <= self._inflated.size

    def _fetch(self, offset: int, n: int) -> bytes:
        self.deadline.check()
        return self._inflated.read_at(offset, n)
