"""What a header costs to read as the object grows: requests, bytes and peak memory.

The obvious way downloads the object whole. Objects are synthetic and sparse: a header of
20 KiB, then pixel data of zeros, native or encapsulated in 1 to 100,000 fragments. Then what
one read costs as it grows: the reader's CPU, over TLS on this machine.
"""

import argparse
import json
import os
import random
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dcm2bq import dicom
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.gcs.store import Store
from dcm2bq.stored_object import StoredObject
from tests.support.function_process import stubs
from tests.support.sparse import MIB, SparseObject, encapsulated, native


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
