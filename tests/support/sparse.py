"""Objects of any size that take no memory: a header, then pixel data of zeros."""

import io
import struct
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian

MIB = 1024 * 1024
HEADER_BYTES = 20 * 1024
ITEM = b"\xfe\xff\x00\xe0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass
class SparseObject:
    """An object of `size` bytes: `head`, fragments at regular distances, `tail` at the end.

    A byte source for the conversion that counts what is read.
    """

    head: bytes
    size: int
    tail: bytes = b""
    fragments: int = 0
    fragment_bytes: int = 0
    requests: int = 0
    bytes_read: int = 0

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`."""
        n = min(n, self.size - offset)
        self.requests += 1
        self.bytes_read += n
        content = bytearray(n)
        self._put(content, offset, 0, self.head)
        self._put(content, offset, self.size - len(self.tail), self.tail)
        if self.fragments:
            step, start = 8 + self.fragment_bytes, len(self.head)
            first = max((offset - start) // step, 0)
            last = min((offset + n - start) // step, self.fragments - 1)
            header = ITEM + struct.pack("<I", self.fragment_bytes)
            for number in range(first, last + 1):
                self._put(content, offset, start + number * step, header)
        return bytes(content)

    @staticmethod
    def _put(content: bytearray, offset: int, at: int, piece: bytes) -> None:
        """Lay the part of `piece`, which stands at `at`, that `content` covers."""
        first, last = max(at, offset), min(at + len(piece), offset + len(content))
        if first < last:
            content[first - offset : last - offset] = piece[first - at : last - at]


def header(transfer_syntax: UID) -> bytes:
    """Return a file of about 20 KiB, up to where the pixel data begins."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = transfer_syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3.4")
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", "1.2.3.5", "CT"
    data.PatientComments = "x" * 10_000
    data.ImageComments = "x" * (HEADER_BYTES - 10_600)
    data.Rows = data.Columns = 512
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def native(size: int) -> SparseObject:
    """Return an object whose native pixel data fills it."""
    head = header(ExplicitVRLittleEndian)
    length = (size - len(head) - 12) & ~1
    pixel_data = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", length)
    return SparseObject(head + pixel_data, len(head) + 12 + length)


def encapsulated(size: int, fragments: int, table: str) -> SparseObject:
    """Return an object of one fragment a frame; `table` is none, basic or extended."""
    head = header(JPEG2000)
    length = ((size - len(head)) // fragments - 8) & ~1
    starts = [number * (8 + length) for number in range(fragments)]
    if table == "extended":
        for element, values in (1, starts), (2, [length] * fragments):
            content = struct.pack(f"<{fragments}Q", *values)
            head += struct.pack("<HH2sHI", 0x7FE0, element, b"OV", 0, len(content)) + content
    offsets = struct.pack(f"<{fragments}I", *starts) if table == "basic" else b""
    head += b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + ITEM
    head += struct.pack("<I", len(offsets)) + offsets
    end = len(head) + fragments * (8 + length)
    return SparseObject(head, end + 8, SEQUENCE_END, fragments, length)
