"""What a header costs to read as the object grows: requests, bytes and peak memory.

The obvious way downloads the object whole. Objects are synthetic and sparse: a header of
20 KiB, then pixel data of zeros, native or encapsulated in 1 to 100,000 fragments. Then what
one read costs as it grows: the reader's CPU, over TLS on this machine.
"""

import argparse
import io
import json
import os
import random
import struct
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pydicom
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian

from benchmarks.bench_function import stubs
from dcm2bq import dicom
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.gcs.store import Store
from dcm2bq.stored_object import StoredObject

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


def cases() -> dict[str, SparseObject]:
    """Return the objects to measure, by name."""
    found = {f"native, {size} MiB": native(size * MIB) for size in (1, 64, 1024, 4095)}
    for fragments in (1, 1000, 100_000):
        for table in ("none", "basic", "extended"):
            name = f"encapsulated, 1024 MiB, {fragments:,} fragments, offset table: {table}"
            found[name] = encapsulated(1024 * MIB, fragments, table)
    for size, fragments in (300, 1), (300, 10), (1000, 1), (1000, 10), (1000, 100):
        for table in ("none", "basic"):
            name = f"encapsulated, {size} KiB, {fragments:,} fragments, offset table: {table}"
            found[name] = encapsulated(size * 1024, fragments, table)
    return found


def measure(source: SparseObject) -> dict[str, Any]:
    """Convert an object; return what it cost."""
    tracemalloc.start()
    start = time.perf_counter()
    result = dicom.convert(source)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "object_bytes": source.size,
        "requests": source.requests,
        "bytes_read": source.bytes_read,
        "share": source.bytes_read / source.size,
        "peak_bytes": peak,
        "seconds": seconds,
        "warnings": list(result.warnings),
    }


def certificate(file: Path) -> None:
    """Write a certificate for this machine, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    address = x509.IPAddress(ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    file.write_bytes(secret + signed.public_bytes(pem))


def read_costs() -> dict[int, float]:
    """Return the microseconds of CPU that one read takes, by its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        content, pem = Path(folder, "content"), Path(folder, "certificate.pem")
        content.write_bytes(random.Random(1).randbytes(MIB))
        certificate(pem)
        with stubs(content, pem) as port:
            os.environ["SSL_CERT_FILE"] = str(pem)
            os.environ["STORAGE_EMULATOR_HOST"] = f"https://127.0.0.1:{port}"
            stored = StoredObject(bucket="stub", name="content", generation=1, size=MIB)
            reader = Store(Config()).open(stored, Deadline.after(600))
            return {n: _cpu(reader, n) for n in (8, *(1024 * kib for kib in (16, 64, 256, 1024)))}


def _cpu(reader: Any, n: int) -> float:
    """Return the least of several means."""
    means = []
    for _ in range(10):
        start = time.process_time()
        for _ in range(50):
            reader.read_at(0, n)
        means.append((time.process_time() - start) / 50 * 1e6)
    return min(means)


def main() -> None:
    """Measure every case and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    results = {name: measure(source) for name, source in cases().items()}
    costs = read_costs()
    if arguments.json:
        print(json.dumps({"objects": results, "read_microseconds": costs}, indent=2))
        return
    print("| object | requests | KiB read | of the object | peak KiB | end |")
    print("|---|---:|---:|---:|---:|---|")
    for name, row in results.items():
        end = "inferred" if row["warnings"] else "found"
        print(
            f"| {name} | {row['requests']} | {row['bytes_read'] / 1024:,.0f} "
            f"| {row['share']:.4%} | {row['peak_bytes'] / 1024:,.0f} | {end} |"
        )
    print("\n| bytes of one read | CPU, µs |\n|---:|---:|")
    for n, cost in costs.items():
        print(f"| {n:,} | {cost:,.0f} |")


if __name__ == "__main__":
    main()
