"""Staged rows equal those of the function, in files that load jobs accept."""

import gzip
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import rows
from dcm2bq.config import Config
from dcm2bq.deadline import NO_DEADLINE
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.local.eventarc import Event, EventDelivery, Trigger
from dcm2bq.rows import DeadLetterRow
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill import staged_files as files
from tests.support.backfill_site import CT_SMALL, MR_SMALL, Site
from tests.support.function_forks import forked_function
from tests.support.function_stack import ROOT

OWN = ("ingested_at", "timestamp")


def test_staged_rows_equal_those_of_the_function(site: Site, tmp_path: Path) -> None:
    resources = [
        site.upload("ct.dcm", CT_SMALL),
        site.upload("broken.dcm", CT_SMALL[:1400]),
        site.upload("mr.dcm", MR_SMALL),
    ]
    environ = {**site.environ, "DCM2BQ_CONFIG": json.dumps(site.overrides)}
    with forked_function(tmp_path, ROOT / "main.py", environ) as url:
        trigger = Trigger(url, connections=1)
        for resource in resources:
            event = Event(kind=EventKind.FINALIZED, resource=resource)
            assert trigger.deliver(EventDelivery(event=event)).failure is None
        trigger.close()
    done = site.backfill("--all", "--keep-staged")
    assert done.status == 0, done.err
    theirs: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    for row in site.rows():
        event_id = row["info"].pop("event_id")
        is_ours = event_id.startswith(f"backfill-{done.run}-")
        (ours if is_ours else theirs).append(row)
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in one.items() if k not in OWN} == {
            k: v for k, v in other.items() if k not in OWN
        }
    created = {resource["name"]: resource["timeCreated"] for resource in resources}
    assert {row["path"].rpartition("/")[2]: row["timestamp"].isoformat() for row in ours} == {
        name: _utc(time) for name, time in created.items() if name != "broken.dcm"
    }
    (letter,) = site.dead_letters()
    assert letter["attempts"] == 2
    letters = site.dataset.query(
        "SELECT * FROM dead_letter WHERE CONTAINS_SUBSTR(attributes, @bucket) "
        "ORDER BY publish_time",
        {"bucket": site.source.name},
    )
    function, backfill = (json.loads(letter["attributes"]) for letter in letters)
    assert function.keys() - {"ce-datacontenttype"} == backfill.keys()
    assert function["error"] == backfill["error"]
    data = json.loads(letters[1]["data"])
    assert data["generation"] == resources[1]["generation"]
    (name,) = [name for name in site.staged(done.run, "rows/") if "/instances-" in name]
    lines = read(site, done.run, name)
    assert len(lines) == 2
    for line in lines:
        assert isinstance(line["metadata"], dict)
        assert isinstance(line["info"]["warnings"], list)
        assert line["event"] == "finalized"


def test_files_are_closed_at_their_maximum_size(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    monkeypatch.setattr(files, "FILE_BYTES", 40_000)
    folder = RunFolder(f"gs://{site.staging.name}/b/run", Config())
    sink = files.StagedFiles(folder, 3)

    def insert(thread: int) -> None:
        for number in range(500):
            row = DeadLetterRow(
                message_id=f"{thread}-{number}",
                publish_time=datetime.now(UTC),
                attributes="{}",
                data=os.urandom(200),
            )
            sink.insert_dead_letter(row, NO_DEADLINE)

    threads = [threading.Thread(target=insert, args=(n,)) for n in range(4)]
    for worker in threads:
        worker.start()
    for each in threads:
        each.join()
    sink.close()
    names = sink.files["dead_letter"]
    assert len(names) > 3
    assert sorted(names) == sorted(f"{name}" for name in site.staged("run"))
    lines = [line for name in names for line in read(site, "run", name)]
    assert sorted(line["message_id"] for line in lines) == sorted(
        f"{thread}-{number}" for thread in range(4) for number in range(500)
    )
    content = {name: folder.read(name) for name in names}
    assert {name: len(each or b"") for name, each in content.items()} == sink.sizes


def test_a_line_contains_the_metadata_unchanged() -> None:
    """Its numbers are written as BigQuery prints them; another round of JSON would change them."""
    event = ObjectEvent(
        event_id="1",
        kind=EventKind.FINALIZED,
        time=datetime.now(UTC),
        object=StoredObject(
            bucket="scans",
            name="a.dcm",
            generation=1,
        ),
    )
    text = '{"SliceLocation":67.17411800000001}'
    row = rows.instance_row(event, now=event.time, info=rows.info(event), metadata=text)
    assert f'"metadata":{text}'.encode() in files.encode(row)


def test_a_run_folder_never_overwrites(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
    folder = RunFolder(f"gs://{site.staging.name}", Config())
    assert folder.create("a/x", b"1\r\n--")
    assert not folder.create("a/x", b"2")
    assert folder.read("a/x") == b"1\r\n--"
    assert list(folder.names("a/")) == ["a/x"]
    folder.delete("a/x")
    folder.delete("a/x")
    assert folder.read("a/x") is None


def read(site: Site, run: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a staged file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", site.storage_url)
        content = RunFolder(f"gs://{site.staging.name}/b/{run}", Config()).read(name)
    assert content is not None
    return [json.loads(line) for line in gzip.decompress(content).splitlines()]


def _utc(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).isoformat()
