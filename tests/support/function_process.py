"""The function as a process between stand-ins that answer at once: its events, CPU and memory.

CPU and memory are those of the function's processes, from /proc (Linux).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType

from dcm2bq.local import servers
from tests.support.forks import Fork, Forks
from tests.support.patience import until
from tests.support.processes import guarded

ROOT = Path(__file__).parents[2]
OURS = ROOT / "main.py"
STDERR = 2
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def stubs(file: Path, *more: Path) -> Iterator[int]:
    """Run the stand-ins; yield their port."""
    command: list[str | Path] = [
        sys.executable,
        str(ROOT / "tests" / "support" / "stubs.py"),
        str(file),
        *map(str, more),
    ]
    with subprocess.Popen(guarded(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def function(
    source: Path,
    stub_port: int,
    threads: int,
    *,
    python: Path = Path(sys.executable),
    wait: bool = True,
    environ: Mapping[str, str] = MappingProxyType({}),
    forks: Forks | None = None,
) -> Iterator[tuple[int, int]]:
    """Run a function with the Python of some environment; yield its port and process id.

    The process starts from nothing, unless there is one to fork.
    """
    port = servers.free_port()
    script = python.with_name("functions-framework")
    stub = f"http://127.0.0.1:{stub_port}"
    folder = tempfile.TemporaryDirectory(prefix="dcm2bq-bench-")
    command: list[str | Path] = [
        *(script, "--target=ingest", f"--source={source}"),
        *("--host=127.0.0.1", f"--port={port}"),
    ]
    environ = {
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": folder.name,  # where gunicorn keeps a socket, if not in HOME
        "THREADS": str(threads),
        "BIGQUERY_EMULATOR_HOST": stub,
        "STORAGE_EMULATOR_HOST": stub,
        "DCM2BQ_CONFIG": '{"log": {"level": "WARNING"}}' if source == OURS else "",
        "PYTHONPATH": str(ROOT),
        **environ,
    }
    process: subprocess.Popen[bytes] | Fork
    if forks:
        with Path(os.devnull).open("wb") as nothing:
            process = forks.start(list(map(str, command)), environ, nothing.fileno(), STDERR)
    else:
        process = subprocess.Popen(
            guarded(command) if wait else command,  # who measures the start counts no guard
            env=environ,
            stdout=subprocess.DEVNULL,
        )
    try:
        if wait:
            until(lambda: process.poll() is not None or _is_ready(port))
            assert process.poll() is None, "the function did not start"
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()
        folder.cleanup()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children."""
    stats = [Path(f"/proc/{process_id}/stat").read_text() for process_id in descendants(pid)]
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def peak_bytes(pid: int) -> int:
    """Return the peak memory of the largest of a process and its children."""
    statuses = [Path(f"/proc/{process_id}/status").read_text() for process_id in descendants(pid)]
    return max(int(status.partition("VmHWM:")[2].split()[0]) * 1024 for status in statuses)


def resident_bytes(pid: int) -> int:
    """Return the memory that the largest of a process and its children has now."""
    pages = (
        Path(f"/proc/{process_id}/statm").read_text().split()[1] for process_id in descendants(pid)
    )
    return max(map(int, pages)) * resource.getpagesize()


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(process_id for child in children for process_id in descendants(int(child)))]


def deliver(port: int, count: int, concurrency: int, size: int, suffix: str = "") -> None:
    """Send `count` events about objects of `size` bytes, `concurrency` at once."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def work(_: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            connection.request("POST", "/", *event(number, size, suffix))
            response = connection.getresponse()
            response.read()
            assert response.status == 200, f"HTTP {response.status}"
        connection.close()

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(work, range(concurrency)))


def event(number: int, size: int, suffix: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an event, as Eventarc sends it."""
    data = {
        "bucket": "scans",
        "name": f"{number}{suffix}.dcm",
        "generation": str(1700000000000000 + number),
        "size": str(size),
        "contentType": "application/dicom",
        "storageClass": "STANDARD",
    }
    headers = {
        "ce-id": str(number),
        "ce-source": "//storage.googleapis.com/projects/_/buckets/scans",
        "ce-type": "google.cloud.storage.object.v1.finalized",
        "ce-specversion": "1.0",
        "ce-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "Content-Type": "application/json",
    }
    return json.dumps(data).encode(), headers


def _is_ready(port: int) -> bool:
    try:
        deliver(port, 1, 1, 0)
    except (OSError, AssertionError):
        return False
    return True
