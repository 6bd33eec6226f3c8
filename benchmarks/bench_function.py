"""The whole function: CPU and throughput per event, against the obvious function.

Both run under functions-framework as deployed, against stand-ins for Cloud Storage and
BigQuery that answer at once; ours also under the privacy profile with its options. CPU is that of
the function's processes, from /proc (Linux).
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydicom.data import get_testdata_file

from tests.support.function_process import OURS, ROOT, cpu_seconds, deliver, function, stubs
from tests.support.privacy_options import KEY, PROFILE_WITH_OPTIONS

OBVIOUS = ROOT / "benchmarks" / "obvious" / "main.py"
THREADS = 8
PRIVATE = {
    "DCM2BQ_CONFIG": json.dumps({"log": {"level": "WARNING"}, "privacy": PROFILE_WITH_OPTIONS}),
    "DCM2BQ_HASH_KEY": KEY,
}


def measure(
    source: Path,
    file: Path,
    concurrency: int,
    count: int,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Return CPU milliseconds for each event, and events a second."""
    size = file.stat().st_size
    threads = max(THREADS, concurrency)
    with stubs(file) as stub, function(source, stub, threads, environ=environ) as (port, pid):
        deliver(port, 50, concurrency, size)
        cpu, start = cpu_seconds(pid), time.perf_counter()
        deliver(port, count, concurrency, size)
        seconds = time.perf_counter() - start
        return {
            "cpu_ms": (cpu_seconds(pid) - cpu) * 1000 / count,
            "events_per_second": count / seconds,
        }


def main() -> None:
    """Measure at 1, 8 and 32 concurrent events and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--events", type=int, default=1000, help="events for each figure")
    parser.add_argument("--file", type=Path, default=Path(str(get_testdata_file("CT_small.dcm"))))
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for concurrency in (1, 8, 32):
        obvious = measure(OBVIOUS, arguments.file, concurrency, arguments.events)
        ours = measure(OURS, arguments.file, concurrency, arguments.events)
        private = measure(OURS, arguments.file, concurrency, arguments.events, PRIVATE)
        ratio = ours["cpu_ms"] / obvious["cpu_ms"]
        results.append(
            {
                "concurrency": concurrency,
                "obvious": obvious,
                "ours": ours,
                "cpu_ratio": ratio,
                "private": private,
            }
        )
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print(
        "| concurrent | obvious: CPU ms | events/s | dcm2bq: CPU ms | events/s | CPU ratio "
        "| with the profile: CPU ms |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for result in results:
        one, two = result["obvious"], result["ours"]
        print(
            f"| {result['concurrency']} | {one['cpu_ms']:.2f} | {one['events_per_second']:.0f} "
            f"| {two['cpu_ms']:.2f} | {two['events_per_second']:.0f} | {result['cpu_ratio']:.2f} "
            f"| {result['private']['cpu_ms']:.2f} |"
        )


if __name__ == "__main__":
    main()
