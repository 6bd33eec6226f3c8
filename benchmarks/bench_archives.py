"""An archive of 1,000 CT slices: ours against the obvious way, which downloads it.

The obvious way downloads the archive, opens it with zipfile or tarfile, and converts each member
with pydicom. Each way runs in a process of its own, against a stand-in for Cloud Storage. CPU and
peak memory are those of that process; the CPU does not include its imports.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tests.support.http_server import Exchange, serving
from tests.support.slices import Pieces, tar_gz_of, tar_of, zip_of

ROOT = Path(__file__).parents[1]
ARCHIVES: dict[str, Callable[[int], Pieces]] = {
    "stored.zip": partial(zip_of, deflated=False),
    "deflated.zip": partial(zip_of, deflated=True),
    "slices.tar": tar_of,
    "slices.tar.gz": tar_gz_of,
}


type Way = Callable[[str, int], Iterator[str]]
"""Yields the JSON of each member of an archive, by its name and size."""


def ours() -> Way:
    """Import what our way needs, and return it."""
    from dcm2bq import dicom  # noqa: PLC0415
    from dcm2bq.archives import members  # noqa: PLC0415
    from dcm2bq.config import Config  # noqa: PLC0415
    from dcm2bq.deadline import Deadline  # noqa: PLC0415
    from dcm2bq.gcs.store import Store  # noqa: PLC0415
    from dcm2bq.stored_object import StoredObject  # noqa: PLC0415

    def convert(name: str, size: int) -> Iterator[str]:
        config, deadline = Config(), Deadline.after(50)
        stored = StoredObject(bucket="scans", name=name, generation=1, size=size)
        content = Store(config).open(stored, deadline)
        for member in members(content, name, config.limits, deadline):
            yield dicom.convert(member.source, config).text

    return convert


def obvious() -> Way:
    """Import what one uses who has half an hour, and return what one writes."""
    import pydicom  # noqa: PLC0415
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415
    from google.cloud import storage  # noqa: PLC0415

    warnings.simplefilter("ignore")

    def convert(name: str, _size: int) -> Iterator[str]:
        client = storage.Client("local", AnonymousCredentials())
        content = client.bucket("scans").blob(name).download_as_bytes(checksum=None)
        for file in _files(name, BytesIO(content)):
            data = pydicom.dcmread(BytesIO(file.read()), stop_before_pixels=True)
            yield json.dumps(data.to_json_dict())

    return convert


def _files(name: str, content: BytesIO) -> Iterator[IO[bytes]]:
    if name.endswith(".zip"):
        with zipfile.ZipFile(content) as archive:
            for info in archive.infolist():
                yield archive.open(info)
        return
    with tarfile.open(fileobj=content) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file
            yield file


def serve(archives: dict[str, Pieces], exchange: Exchange) -> None:
    """Answer with a range of an archive, or with the whole of it."""
    archive = archives[urlsplit(exchange.path).path.rpartition("/")[2]]
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", exchange.headers.get("Range", ""))
    first, last = (int(match[1]), int(match[2])) if match else (0, archive.size - 1)
    where = {"Content-Range": f"bytes {first}-{last}/{archive.size}"} if match else {}
    exchange.head(206 if match else 200, last + 1 - first, where)
    for offset in range(first, last + 1, 1024 * 1024):
        exchange.wfile.write(archive.content(offset, min(1024 * 1024, last + 1 - offset)))
    archive.requests += 1
    archive.bytes_read += last + 1 - first


def measure(url: str, way: str, name: str, archive: Pieces) -> dict[str, Any]:
    """Return what a process costs that converts every member of an archive."""
    requests, read = archive.requests, archive.bytes_read
    process = subprocess.run(
        [sys.executable, __file__, "--work", way, "--name", name, "--size", str(archive.size)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STORAGE_EMULATOR_HOST": url},
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        "way": way,
        "name": name,
        **json.loads(process.stdout),
        "requests": archive.requests - requests,
        "mib": (archive.bytes_read - read) / 1024**2,
    }


def work(way: str, name: str, size: int) -> None:
    """Convert every member; print what it took, and how many there were."""
    convert = {"ours": ours, "obvious": obvious}[way]()
    start, cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in convert(name, size))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # Not getrusage, whose figure begins with that of the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    row = {"seconds": seconds, "cpu": cpu, "members": count, "peak_mib": int(peak[1]) / 1024}
    print(json.dumps(row))


def main() -> None:
    """Measure both ways for every kind of archive, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--slices", type=int, default=1000, help="members of each archive")
    parser.add_argument("--work", choices=["ours", "obvious"], help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.name, arguments.size)
        return
    archives = {name: make(arguments.slices) for name, make in ARCHIVES.items()}
    with serving(partial(serve, archives)) as url:
        results = [
            measure(url, way, name, archive)
            for name, archive in archives.items()
            for way in ("obvious", "ours")
        ]
    assert all(row["members"] == arguments.slices for row in results)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| archive | way | requests | MiB read | peak MiB | CPU s | seconds | CPU ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    cpu = {row["name"]: row["cpu"] for row in results if row["way"] == "obvious"}
    names = {"obvious": "obvious", "ours": "dcm2bq"}
    for row in results:
        print(
            f"| {row['name']} | {names[row['way']]} | {row['requests']:,} | {row['mib']:,.0f} "
            f"| {row['peak_mib']:,.0f} | {row['cpu']:.1f} | {row['seconds']:.1f} "
            f"| {row['cpu'] / cpu[row['name']]:.2f} |"
        )


if __name__ == "__main__":
    main()
