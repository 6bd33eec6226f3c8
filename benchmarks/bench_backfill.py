"""A backfill: objects per second and core, against a plain loop over the obvious way.

Both list a bucket, read each object, convert its header and hand the row on, against stand-ins
for Cloud Storage and BigQuery that answer at once: ours stages rows for load jobs, the loop
streams them, 500 at a time. CPU is that of the processes, their start left out by taking the
difference between many objects and few.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file

from tests.support.function_process import stubs

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-backfill" / "bin" / "python"
FEW = 1000
BATCH = 500


def ours(count: int, processes: int) -> None:
    """Stage all objects, a shard for each 500, by Beam's in-process runner."""
    import apache_beam as beam  # noqa: PLC0415
    from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415
    from apache_beam.runners.portability.fn_api_runner.fn_runner import (  # noqa: PLC0415
        FnApiRunner,
    )

    from dcm2bq.config import Config  # noqa: PLC0415
    from dcm2bq.tools.backfill.plan import Shard  # noqa: PLC0415
    from dcm2bq.tools.backfill.run_records import Run  # noqa: PLC0415
    from dcm2bq.tools.backfill.runners.pipeline import StageShard  # noqa: PLC0415

    run = Run(
        id="bench",
        source=f"gs://many-{count}",
        staging="gs://staging",
        config=Config(),
        takes_all=True,
    )
    names = [*(f"{first:08}" for first in range(0, count, BATCH)), ""]
    shards = [
        Shard(number=n, start=start, end=end, listed=BATCH, objects=BATCH, bytes=0)
        for n, (start, end) in enumerate(itertools.pairwise(names))
    ]
    mode = "in_memory" if processes == 1 else "multi_processing"
    options = PipelineOptions(
        [f"--direct_num_workers={processes}", f"--direct_running_mode={mode}"]
    )
    with beam.Pipeline(runner=FnApiRunner(), options=options) as graph:
        _ = graph | beam.Create(shards) | beam.Reshuffle() | beam.ParDo(StageShard(run, None))


def obvious(count: int) -> None:
    """Do what one writes in half an hour."""
    import pydicom  # noqa: PLC0415
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415
    from google.cloud import bigquery, storage  # noqa: PLC0415
    from pydicom.filebase import DicomBytesIO  # noqa: PLC0415

    warnings.simplefilter("ignore")
    gcs = storage.Client("local", AnonymousCredentials())
    bq = bigquery.Client("local", AnonymousCredentials())
    rows: list[dict[str, Any]] = []
    for blob in gcs.list_blobs(f"many-{count}"):
        content = blob.download_as_bytes(checksum=None)
        header = pydicom.dcmread(DicomBytesIO(content), stop_before_pixels=True)
        rows.append(
            {
                "timestamp": blob.time_created.isoformat(),
                "path": f"gs://{blob.bucket.name}/{blob.name}",
                "version": str(blob.generation),
                "metadata": json.dumps(header.to_json_dict()),
            }
        )
        if len(rows) == BATCH:
            assert not bq.insert_rows_json("local.dicom.instances", rows)
            rows.clear()
    if rows:
        assert not bq.insert_rows_json("local.dicom.instances", rows)


def measure(stub: int, way: str, count: int, processes: int = 1) -> dict[str, float]:
    """Return seconds, and seconds of CPU, of a process that handles `count` objects."""
    url = f"http://127.0.0.1:{stub}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [PYTHON, __file__, "--work", way, "--objects", str(count), "--processes", str(processes)],
        check=True,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "STORAGE_EMULATOR_HOST": url,
            "BIGQUERY_EMULATOR_HOST": url,
        },
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def compare(stub: int, way: str, count: int, processes: int = 1) -> dict[str, Any]:
    """Return what an object costs, beyond what the start of the processes does."""
    few = measure(stub, way, FEW, processes)
    many = measure(stub, way, FEW + count, processes)
    cpu, seconds = many["cpu"] - few["cpu"], many["seconds"] - few["seconds"]
    measured = {"way": way, "processes": processes, "per_second": count / seconds}
    if processes > 1:  # the runner does not wait for its processes: their CPU is not to be had
        return measured
    return {**measured, "cpu_ms": cpu * 1000 / count, "per_core_second": count / cpu}


def main() -> None:
    """Measure the loop, and ours with 1 and 2 processes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--objects", type=int, default=20_000, help="objects for each figure")
    parser.add_argument("--file", type=Path, default=Path(str(get_testdata_file("CT_small.dcm"))))
    parser.add_argument("--work", choices=["ours", "obvious"], help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work == "ours":
        ours(arguments.objects, arguments.processes)
        return
    if arguments.work == "obvious":
        obvious(arguments.objects)
        return
    with stubs(arguments.file) as stub:
        results = [
            compare(stub, "obvious", max(arguments.objects // 5, FEW)),
            compare(stub, "ours", arguments.objects),
            compare(stub, "ours", arguments.objects, 2),
        ]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    names = {"obvious": "plain loop", "ours": "dcm2bq"}
    print("| way | processes | CPU ms an object | objects per second and core | objects/s |")
    print("|---|---:|---:|---:|---:|")
    for row in results:
        cpu = f"{row['cpu_ms']:.2f} | {row['per_core_second']:,.0f}" if "cpu_ms" in row else "|"
        print(f"| {names[row['way']]} | {row['processes']} | {cpu} | {row['per_second']:,.0f} |")


if __name__ == "__main__":
    main()
