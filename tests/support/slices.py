"""Archives of CT slices of 512 KiB that take little memory: slices share their pixels."""

import random
import re
import struct
import tarfile
import threading
import zlib
from bisect import bisect_right
from itertools import accumulate

from pydicom.uid import ExplicitVRLittleEndian

from tests.support.http_server import Exchange
from tests.support.sparse import header

PIXEL_BYTES = 512 * 1024
_UID = b"1.2.3.4\0"
_HEAD = header(ExplicitVRLittleEndian)
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", PIXEL_BYTES)
PIXELS = random.Random(17).randbytes(PIXEL_BYTES // 2) + bytes(PIXEL_BYTES // 2)
"""Half of them noise, so that they compress as CT does, to about a half."""


class Pieces:
    """A byte source that is made of pieces; counts what is read, by any thread."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._starts = [0, *accumulate(map(len, pieces))]
        self._lock = threading.Lock()
        self.size = self._starts.pop()
        self.requests = self.bytes_read = 0

    def read_at(self, offset: int, n: int) -> bytes:
        """Return the `n` bytes from `offset` on, all of which must exist."""
        assert offset >= 0
        assert 0 < n <= self.size - offset
        with self._lock:
            self.requests += 1
            self.bytes_read += n
        return self.content(offset, n)

    def serve(self, exchange: Exchange) -> None:
        """Answer a request for a range, as Cloud Storage does."""
        first, last = map(int, re.findall(r"\d+", exchange.headers["Range"]))
        where = {"Content-Range": f"bytes {first}-{last}/{self.size}"}
        exchange.answer(206, self.read_at(first, last + 1 - first), where)

    def content(self, offset: int, n: int) -> bytes:
        """Return bytes without counting them."""
        first, parts = bisect_right(self._starts, offset) - 1, []
        at = self._starts[first]
        for piece in self._pieces[first:]:
            parts.append(piece[max(offset - at, 0) : offset + n - at])
            at += len(piece)
            if at >= offset + n:
                break
        return b"".join(parts)


def head(number: int) -> bytes:
    """Return a slice up to its pixels; each has its own UID."""
    return _HEAD.replace(_UID, f"1.2.{number:04}".encode()) + _PIXEL_DATA


def names(count: int) -> list[str]:
    """Return the names of slices."""
    return [f"study/series/IM{number:04}" for number in range(count)]


def zip_of(count: int, *, deflated: bool) -> Pieces:
    """Return a ZIP; zipfile writes none of its parts, since it would have to compress them all."""
    pieces, directory, offset = [], [], 0
    pixels = _flushed(PIXELS)
    for number, name in enumerate(names(count)):
        start, crc = head(number), zlib.crc32(PIXELS, zlib.crc32(head(number)))
        size = len(start) + PIXEL_BYTES
        content = [_flushed(start), pixels, b"\3\0"] if deflated else [start, PIXELS]
        compressed = sum(map(len, content))
        fields = struct.pack(
            "<HHHHHLLLHH", 20, 0, 8 * deflated, 0, 33, crc, compressed, size, len(name), 0
        )
        pieces += [b"PK\3\4" + fields + name.encode(), *content]
        rest = struct.pack("<HHHLL", 0, 0, 0, 0, offset)
        directory.append(b"PK\1\2" + struct.pack("<H", 20) + fields + rest + name.encode())
        offset += 30 + len(name) + compressed
    entries = b"".join(directory)
    end = struct.pack("<HHHHLLH", 0, 0, count, count, len(entries), offset, 0)
    return Pieces([*pieces, entries + b"PK\5\6" + end])


def tar_of(count: int) -> Pieces:
    """Return a TAR."""
    return Pieces(_tar_pieces(count))


def tar_gz_of(count: int) -> Pieces:
    """Return a TAR compressed by gzip into one stream."""
    pieces, crc, size = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"], 0, 0
    pixels = _flushed(PIXELS)
    for piece in _tar_pieces(count):
        pieces.append(pixels if piece is PIXELS else _flushed(piece))
        crc, size = zlib.crc32(piece, crc), size + len(piece)
    return Pieces([*pieces, b"\3\0" + struct.pack("<LL", crc, size & 0xFFFFFFFF)])


def _tar_pieces(count: int) -> list[bytes]:
    pieces = []
    for number, name in enumerate(names(count)):
        start, info = head(number), tarfile.TarInfo(name)
        info.size = len(start) + PIXEL_BYTES
        pieces += [info.tobuf() + start, PIXELS, bytes(-info.size % 512)]
    return [*pieces, bytes(10240)]


def _flushed(content: bytes) -> bytes:
    """Return content deflated so that such parts can follow one another in any order."""
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush(zlib.Z_FULL_FLUSH)
