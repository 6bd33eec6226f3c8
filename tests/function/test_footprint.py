"""Memory and requests of the function with only requirements.txt installed, for large objects."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from dcm2bq import events
from dcm2bq.stored_object import StoredObject
from tests.support.cloud import ONCE
from tests.support.function_process import (
    OURS,
    deliver,
    function,
    peak_bytes,
    stubs,
)
from tests.support.http_server import serving
from tests.support.insertall import InsertAll
from tests.support.patience import scaled
from tests.support.slices import Pieces, tar_of, zip_of
from tests.support.sparse import MIB, native

GIB = 1024 * MIB


def test_8_objects_of_1_gib_at_once_need_little_memory_and_few_bytes(
    tmp_path: Path, bare_python: Path
) -> None:
    large = native(GIB)
    file = tmp_path / "head.dcm"
    file.write_bytes(large.head)
    with stubs(file) as stub, function(OURS, stub, 8, python=bare_python) as (port, pid):
        before = requests.get(f"http://127.0.0.1:{stub}/counts", timeout=10).json()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(deliver, port, 64, 8, large.size, f"size={large.size}").result()
        after = requests.get(f"http://127.0.0.1:{stub}/counts", timeout=10).json()
        assert peak_bytes(pid) < 200 * 1000 * 1000
    assert after["reads"] - before["reads"] == 64
    assert after["bytes"] - before["bytes"] <= 64 * MIB
    assert 1 <= after["inserts"] - before["inserts"] <= 64


ARCHIVES = ("deflated.zip", "stored.zip", "slices.tar")


@dataclass(frozen=True)
class Footprint:
    """What the function needed for an archive, and what it stored."""

    status: int
    memory: int
    archive: Pieces
    sink: InsertAll


@pytest.fixture(scope="module")
def footprints(bare_python: Path) -> dict[str, Footprint]:
    """One for each archive, by its own function; all at once, since most time is spent waiting."""
    with ThreadPoolExecutor(len(ARCHIVES)) as pool:
        expanded = pool.map(lambda name: _expand(name, bare_python), ARCHIVES)
        return dict(zip(ARCHIVES, expanded, strict=True))


def _expand(name: str, python: Path) -> Footprint:
    archive, sink = _archive(name), InsertAll()
    sink.seconds = 0.1  # what BigQuery takes; meanwhile rows gather for the next insert
    stored = StoredObject(
        bucket="scans", name=name, generation=1, size=archive.size, created=datetime.now(UTC)
    )
    delivery = events.deliver(events.finalized(stored, "1"))
    config = {"input": {"archives": "read"}, "limits": {"deadlineSeconds": scaled(50)}}
    with (
        serving(archive.serve) as storage,
        sink.running() as bigquery,
        function(
            OURS,
            int(storage.rpartition(":")[2]),
            8,
            python=python,
            environ={"BIGQUERY_EMULATOR_HOST": bigquery, "DCM2BQ_CONFIG": json.dumps(config)},
        ) as (port, pid),
    ):
        headers = {**delivery.attributes, "Content-Type": "application/json", **ONCE}
        answer = requests.post(
            f"http://127.0.0.1:{port}", delivery.data, headers=headers, timeout=scaled(60)
        )
        return Footprint(answer.status_code, peak_bytes(pid), archive, sink)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_1000_slices_needs_little_memory_and_few_requests(
    footprints: dict[str, Footprint], name: str
) -> None:
    footprint = footprints[name]
    archive, sink = footprint.archive, footprint.sink
    assert footprint.status == 200
    assert archive.requests <= 1010
    assert archive.bytes_read <= 70 * MIB
    assert footprint.memory < 200 * 1000 * 1000
    assert sum(sink.batches) == len(sink.stored) == 1001
    assert len(sink.batches) <= 100, "rows are inserted many at a time"
    *rows, expanded = sink.stored.values()
    assert len({row["member"] for row in rows}) == 1000
    assert expanded["info"]["archive"]["instances"] == 1000


def _archive(name: str) -> Pieces:
    if name == "slices.tar":
        return tar_of(1000)
    return zip_of(1000, deflated=name == "deflated.zip")
