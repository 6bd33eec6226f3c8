"""A backfill has the effect of events, also while events arrive and after it was killed."""

import json
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dcm2bq.events import EventKind, deliver, finalized
from dcm2bq.local.eventarc import Event, EventDelivery, Trigger
from dcm2bq.rows import dead_letter_row
from tests.support.archive_files import tar_of, zip_of
from tests.support.backfill_site import CT_SMALL, MR_SMALL, Site, finish
from tests.support.function_forks import forked_function
from tests.support.function_stack import ROOT
from tests.support.patience import until

BAD = b"not DICOM"

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def counts(is_long: bool) -> tuple[int, int, int]:  # noqa: FBT001 - a fixture
    """Number of good objects, of bad ones, and of objects in a shard."""
    return (20_000, 200, 1000) if is_long else (145, 5, 25)


def fill(site: Site, good: int, bad: int) -> tuple[set[str], list[dict[str, str]]]:
    """Upload objects with all kinds of names; return the paths of bad ones, and all resources."""
    bad_ones = {number * (good + bad) // bad for number in range(bad)}

    def upload(number: int) -> dict[str, str]:
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
        folder = f"hot/{number % 7}/" if number % 3 else ""
        content = BAD if number in bad_ones else MR_SMALL
        return site.upload(f"{folder}{name}.dcm", content)

    with ThreadPoolExecutor(8) as pool:
        resources = list(pool.map(upload, range(good + bad)))
    site.source.upload("readme.txt", b"text")
    site.source.upload("empty.dcm", b"")
    paths = {f"gs://{site.source.name}/{resources[number]['name']}" for number in bad_ones}
    return paths, resources


def good_objects(site: Site, bad: set[str]) -> list[tuple[str, str]]:
    """Return path and generation of the objects that must be in the live view."""
    return sorted((path, version) for path, version in site.objects.items() if path not in bad)


def test_a_bucket_is_loaded_while_events_arrive(
    site: Site, counts: tuple[int, int, int], tmp_path: Path
) -> None:
    good, bad, shard = counts
    bad_paths, resources = fill(site, good, bad)
    environ = {**site.environ, "DCM2BQ_CONFIG": json.dumps(site.overrides)}
    with (
        forked_function(tmp_path, ROOT / "main.py", environ) as url,
        ThreadPoolExecutor(1) as pool,
    ):
        trigger = Trigger(url, connections=4)
        run = pool.submit(site.backfill, "--shard-objects", str(shard))
        delivered = 0
        while not run.done() and delivered < len(resources):
            event = Event(kind=EventKind.FINALIZED, resource=resources[delivered])
            assert trigger.deliver(EventDelivery(event=event)).failure is None
            delivered += 10
        done = run.result()
        trigger.close()
    assert done.status == 0, done.err
    assert delivered > 10
    assert site.live() == good_objects(site, bad_paths)
    letters = site.dead_letters()
    assert {letter["path"] for letter in letters} == bad_paths
    assert {letter["reason"] for letter in letters} == {"NotDicomError"}
    assert len(letters) == bad
    assert f"{good + bad + 2:,} objects: " in done.out
    assert " 2 ignored," in done.out
    before = len(site.rows())
    again = site.backfill("--shard-objects", str(shard))
    assert again.status == 0, again.err
    assert f"0 inserted, 0 dead letters, {good + bad:,} already present, 2 ignored," in again.out
    assert "0 rows loaded into instances, 0 into dead_letter" in again.out
    assert len(site.rows()) == before
    assert site.live() == good_objects(site, bad_paths)


def test_objects_of_other_names_are_loaded_if_they_begin_like_dicom(site: Site) -> None:
    """What is not DICOM is ignored, as by the function, and read again by the next backfill."""
    site.overrides["input"] = {"otherNames": "sniff"}
    for name in ("IM0001", "1.2.840.1", "a.dcm"):
        site.upload(name, MR_SMALL)
    loaded = sorted(site.objects.items())
    site.upload("report.pdf", b"%PDF-1.7" * 99)
    site.upload("forged", bytes(128) + b"DICM" + b"\xff" * 99)
    done = site.backfill("--all")
    assert done.status == 0, done.err
    assert site.live() == loaded
    assert [letter["path"].rpartition("/")[2] for letter in site.dead_letters()] == ["forged"]
    assert "3 inserted, 1 dead letter, 0 already present, 1 ignored," in done.out


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_an_interrupted_run_can_be_resumed(
    site: Site,
    counts: tuple[int, int, int],
    how: str,
) -> None:
    good, bad, shard = counts
    bad_paths, _ = fill(site, good, bad)
    options = ("--shard-objects", str(shard))
    if how == "SIGKILL":
        ended = site.killed(*options)
        assert ended.status == -9
    else:
        with site.held_once_staged() as is_held:
            process = site.start(*options)
            until(lambda: is_held() or process.poll() is not None)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            until(lambda: any(name.endswith("/ended.json") for name in site.names("b/")))
        ended = finish(process)
        assert ended.status == 130
        assert "\ninterrupted; resume it with:\n  dcm2bq backfill gs://" in ended.err
        assert ended.err.endswith(f" --resume {ended.run}\n")
    assert len(site.live()) < good
    staged = site.staged_records()
    resumed = site.backfill("--resume", ended.run)
    assert resumed.status == 0, resumed.err
    assert staged >= 1
    assert site.live() == good_objects(site, bad_paths)
    assert {letter["path"] for letter in site.dead_letters()} == bad_paths
    rows = site.rows()
    assert len(rows) == len({row["path"] for row in rows}) == good
    assert f"{good:,} inserted, {bad:,} dead letters, 0 already present, 2 ignored," in resumed.out
    site.staging.upload(f"b/{ended.run}/rows/000000/left", b"by a process killed while it deleted")
    once_more = site.backfill("--resume", ended.run)
    assert once_more.status == 0, once_more.err
    assert not site.staged(ended.run, "rows/")
    assert once_more.out == resumed.out
    assert len(site.rows()) == good


def test_two_concurrent_runs_leave_one_live_row_per_object(site: Site) -> None:
    bad_paths, _ = fill(site, 70, 5)
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: done.append(site.backfill().status)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for worker in threads:
        worker.join()
    assert done == [0, 0]
    assert site.live() == good_objects(site, bad_paths)


def test_archives_are_expanded_and_then_known(site: Site) -> None:
    """Also one that took the function too long; a dead letter of a member keeps none unknown."""
    site.overrides["input"] = {"archives": "read"}
    broken = zip_of({"cut": CT_SMALL[:1000], "ct": CT_SMALL})
    contents = {
        "a.zip": zip_of({"1/ct": CT_SMALL, "1/mr": MR_SMALL, "1/report.txt": b"text"}),
        "b/members.tgz": tar_of({"ct": CT_SMALL, "mr": MR_SMALL}, is_compressed=True),
        "c.tar": broken,
        "d.zip": broken,
        "plain.dcm": MR_SMALL,
    }
    for name, content in contents.items():
        site.upload(name, content)
    (stored,) = site.store().list(site.source.name, "a.zip")
    letter = dead_letter_row(
        deliver(finalized(stored, "1")),
        now=datetime.now(UTC),
        error_type="ArchiveTooLargeError",
        error="too slow",
    )
    attributes, data = letter.attributes, letter.data.decode()
    site.dataset.query(
        "INSERT INTO dead_letter (message_id, publish_time, attributes, data) "
        "SELECT '1', CURRENT_TIMESTAMP(), @attributes, CAST(@data AS BYTES)",
        {"attributes": attributes, "data": data},
    )
    dry = site.backfill("--dry-run")
    assert "4 archives to convert: how many members they have" in dry.out
    assert "BigQuery already has 0 of them" in dry.out
    done = site.backfill()
    assert done.status == 0, done.err
    assert "5 objects: 1 inserted, 1 dead letter, 0 already present, 0 ignored," in done.out
    assert "3 archives expanded; their members count as rows" in done.out
    live = site.members()
    assert live == [
        ("a.zip", "1/ct"),
        ("a.zip", "1/mr"),
        ("d.zip", "ct"),
        ("members.tgz", "ct"),
        ("members.tgz", "mr"),
        ("plain.dcm", ""),
    ]
    letters = {(row["path"][-5:], row["member"]): row["reason"] for row in site.dead_letters()}
    assert letters == {
        ("c.tar", None): "UnreadableArchiveError",
        ("d.zip", "cut"): "UnreadableDicomError",
    }
    again = site.backfill()
    assert "0 inserted, 0 dead letters, 5 already present, 0 ignored," in again.out
