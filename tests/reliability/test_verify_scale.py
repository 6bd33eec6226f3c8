"""`dcm2bq verify` on a large bucket: every difference is found in constant memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from dcm2bq.bigquery.dataset import Dataset
from tests.support.datasets import borrowed_dataset
from tests.support.function_process import peak_bytes
from tests.support.listing import CREATED, Listing

Report = Callable[[str], None]

EVERY = 10_007
"""One row in that many is missing, and one object, two numbers further on."""
SETTINGS = {"timeoutSeconds": 590}
"""The most that the option takes: the local BigQuery needs minutes for ten million keys."""

_INSERTED_AT_ONCE = 1_000_000


def fill(dataset: Dataset, first: int, count: int) -> None:
    """Insert the rows of the objects, except those that are to be missing."""
    dataset.query(
        f"""
        INSERT INTO `{dataset.name}.instances`
          (timestamp, ingested_at, event, path, version, StudyInstanceUID, SOPInstanceUID)
        SELECT TIMESTAMP '{CREATED}', TIMESTAMP '{CREATED}', 'finalized',
          CONCAT('gs://large/', LPAD(CAST(n AS STRING), 8, '0'), '.dcm'),
          CAST(n + 1 AS STRING), '1.2', CONCAT('1.2.', CAST(n AS STRING))
        FROM UNNEST(GENERATE_ARRAY({first}, {first + count - 1})) AS n
        WHERE MOD(n, {EVERY}) != 0
        """
    )


def verify(environ: Mapping[str, str]) -> tuple[list[dict[str, str]], str, int]:
    """Run the command; return its findings, its messages and its peak memory in bytes."""
    command = [str(Path(sys.executable).with_name("dcm2bq")), "verify", "gs://large", "--json"]
    # Files: a pipe that nobody reads meanwhile would stop the command.
    with (
        TemporaryFile() as out,
        TemporaryFile() as err,
        subprocess.Popen(command, env={**os.environ, **environ}, stdout=out, stderr=err) as process,
    ):
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, peak_bytes(process.pid))
            except (ProcessLookupError, FileNotFoundError, IndexError):
                break
            time.sleep(0.05)
        process.wait()
        out.seek(0)
        err.seek(0)
        said = err.read().decode()
        assert process.returncode == 1, said
        *found, _ = map(json.loads, out)
    return found, said, peak


@pytest.mark.timeout(4 * 3600)
def test_a_large_bucket_is_verified_in_constant_memory(
    bigquery_url: str, monkeypatch: pytest.MonkeyPatch, report: Report, *, is_long: bool
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    with borrowed_dataset(bigquery_url, {"bigQuery": SETTINGS}) as dataset:
        peaks = [*peak_memory(dataset, report, 10_000_000 if is_long else 30_000)]
    assert peaks[1] < peaks[0] + 40 * 2**20


def peak_memory(dataset: Dataset, report: Report, many: int) -> Iterator[int]:
    """Verify few objects, then many; yield the most memory that each took."""
    filled = 0
    for count in (10_000, many):
        for first in range(filled, count, _INSERTED_AT_ONCE):
            fill(dataset, first, min(_INSERTED_AT_ONCE, count - first))
        filled = count
        lacking = {n for n in range(count) if n % EVERY == 2}
        with Listing(count, frozenset(lacking)).running() as storage_url:
            started = time.monotonic()
            found, said, peak = verify(
                {
                    "STORAGE_EMULATOR_HOST": storage_url,
                    "DCM2BQ_CONFIG": json.dumps(
                        {"bigQuery": {"datasetId": dataset.dataset_id, **SETTINGS}}
                    ),
                }
            )
            seconds = time.monotonic() - started
        expected = sorted(
            [(n, "missing") for n in range(0, count, EVERY)] + [(n, "stale") for n in lacking]
        )
        assert [(int(row["version"]) - 1, row["finding"]) for row in found] == expected
        assert said.startswith(f"{count - len(lacking):,} objects")
        report(f"{count} objects in {seconds:.0f} s, peak {peak / 2**20:.0f} MiB")
        yield peak
