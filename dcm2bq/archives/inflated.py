"""Deflated members of a ZIP (RFC 1951) and gzipped TARs (RFC 1952), inflated as they are read."""

import zlib
from typing import NamedTuple

from dcm2bq.archives.bounds import Bounds
from dcm2bq.dicom.read.deflate import CHUNK, GZIP, UNKNOWN_SIZE, Inflating
from dcm2bq.dicom.read.source import Window
from dcm2bq.errors import UnreadableArchiveError

RAW = -zlib.MAX_WBITS
"""zlib's `wbits` for a stream without a header."""


class _Mark(NamedTuple):
    """A place that inflating can resume from."""

    inflater: "zlib._Decompress"
    next: int
    at: int
    chunk: bytes


class Inflated(Inflating):
    """The content of a compressed stream, inflated in order as far as it is read.

    To read backwards, inflating resumes from the last mark, or begins again. The content is
    `size` bytes long; a gzip stream has as many as there are, and `size` is unknown until then.
    Raises `UnreadableArchiveError` for a stream that is corrupt or ends before `size`.
    """

    def __init__(
        self, compressed: Window, wbits: int, bounds: Bounds, size: int = UNKNOWN_SIZE
    ) -> None:
        self.size = size
        self._compressed = compressed
        self._wbits = wbits
        self._bounds = bounds
        self._inflater = zlib.decompressobj(wbits)
        self._next = 0
        self._chunk = b""
        """The bytes that were inflated last; the first of them is at `_at`."""
        self._at = 0
        self._first = self._mark = self._here()

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return the `n` bytes from `offset` on; fewer only at the end."""
        n = min(n, self.size - offset)
        if offset < self._at:
            self._resume(self._mark if self._mark.at <= offset else self._first)
        parts = []
        while n > 0:
            begin = offset - self._at
            if part := self._chunk[begin : begin + n]:
                parts.append(part)
                offset += len(part)
                n -= len(part)
            elif not self._advance():
                break
        return b"".join(parts)

    @property
    def reached(self) -> int:
        """The offset after the last compressed byte that was read."""
        return self._next

    def mark(self) -> None:
        """Let inflating resume from here to read backwards."""
        self._mark = self._here()

    def _here(self) -> _Mark:
        return _Mark(_copy(self._inflater), self._next, self._at, self._chunk)

    def _resume(self, mark: _Mark) -> None:
        inflater, self._next, self._at, self._chunk = mark
        self._inflater = _copy(inflater)

    def _advance(self) -> bool:
        """Hold the next chunk; return whether there is one."""
        if chunk := self._inflate():
            self._at += len(self._chunk)
            self._chunk = chunk
            return True
        end = self._at + len(self._chunk)
        if self.size not in {end, UNKNOWN_SIZE}:
            raise UnreadableArchiveError(f"the member ends after {end} of {self.size} bytes")
        self.size = end
        return False

    def _inflate(self) -> bytes:
        """Return the next chunk; nothing at the end."""
        while not self._is_over():
            compressed = self._inflater.unconsumed_tail or self._read_compressed()
            try:
                chunk = self._inflater.decompress(compressed, CHUNK)
            except zlib.error:
                raise UnreadableArchiveError("the compressed data are corrupt") from None
            self._bounds.count_inflated(len(chunk))
            if chunk:
                return chunk
            if not compressed and not self._inflater.eof:
                raise UnreadableArchiveError("the compressed data are cut")
        return b""

    def _is_over(self) -> bool:
        if self._wbits == GZIP:
            return self._is_gzip_over(self._bounds.check_time)
        return self._inflater.eof


def _copy(inflater: "zlib._Decompress") -> "zlib._Decompress":
    """Return an inflater in the same state."""
    # One that has reached the end cannot be copied, but does not change any more either.
    return inflater if inflater.eof else inflater.copy()
