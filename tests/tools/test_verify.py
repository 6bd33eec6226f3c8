"""`dcm2bq verify` reports every difference between bucket and table, and repairs it safely."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq import rows
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.deadline import Deadline
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Result
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.verify.comparison import Comparison
from dcm2bq.tools.verify.repair import Repair, Repairer
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import tar_of, zip_of
from tests.support.cloud import Bucket, Event
from tests.support.commands import Done
from tests.support.function_stack import ROOT, Stack, unique
from tests.support.patience import scaled
from tests.support.proxy import Fault
from tests.tools.conftest import Command

DOWNLOAD = "alt=media"
SAMPLED = (
    "input.namePattern excludes begin with DICM (2 with no extension, 1 with .img): "
    "set input.otherNames to sniff, or widen input.namePattern"
)


class Place:
    """A folder of a bucket, and `verify` on it."""

    def __init__(self, stack: Stack, bucket: Bucket, command: Command) -> None:
        self.folder = unique("it's #1? ü'%s-")
        self.bucket = bucket
        self.root = f"gs://{bucket.name}/{self.folder}/"
        self._stack = stack
        self._command = command

    def upload(self, name: str, content: bytes, *, deliver: bool = True) -> Event:
        event = self.bucket.upload(f"{self.folder}/{name}", content)
        if deliver:
            assert event.post(self._stack.url).status_code == 200
        return event

    def delete(self, name: str) -> Event:
        return self.bucket.delete(f"{self.folder}/{name}")

    def verify(self, *args: str, settle: int = 0) -> Done:
        return self._command("verify", self.root, "--settle", str(settle), *args)

    def found(self, *args: str, status: int = 1) -> list[tuple[Any, ...]]:
        """Return finding, name, reason and result of each difference."""
        done = self.verify("--json", *args)
        assert done.status == status, done.err
        return [
            (
                entry["finding"],
                entry["path"].removeprefix(self.root),
                entry["reason"],
                entry["result"],
            )
            for entry in map(json.loads, done.out.splitlines()[:-1])
        ]

    def live(self) -> list[tuple[str, str]]:
        rows = self._stack.dataset.query(
            "SELECT path, version FROM instances_live "
            "WHERE STARTS_WITH(path, @root) ORDER BY path, version",
            {"root": self.root},
        )
        return [(row["path"].removeprefix(self.root), row["version"]) for row in rows]


@pytest.fixture
def place(stack: Stack, command: Command) -> Place:
    return Place(stack, stack.bucket, command)


@pytest.fixture
def versioned(stack: Stack, command: Command) -> Place:
    return Place(stack, stack.versioned_bucket, command)


def test_no_difference_is_success(place: Place, ct_small: bytes) -> None:
    for name in ("a.dcm", "ä.dcm", "ﬀ.dcm", "😀.dcm", "notes.txt", "empty.dcm"):
        place.upload(name, {"empty.dcm": b"", "notes.txt": b"text"}.get(name, ct_small))
    done = place.verify()
    assert (done.status, done.out) == (0, "")
    assert done.err == "6 objects (2 ignored), no differences\n"
    assert place.found(status=0) == []


def test_ignored_objects_that_begin_with_dicm_are_reported_by_a_sample(
    place: Place, ct_small: bytes
) -> None:
    """More than three of them are a finding."""
    for name in ("2.25.1", "IM0001", "IM0002.img"):
        place.upload(name, ct_small, deliver=False)
    place.bucket.upload(f"{place.folder}/old", ct_small, storage_class="COLDLINE")
    place.upload("report.pdf", b"%PDF-1.7" * 99, deliver=False)
    done = place.verify()
    reason = "begins with DICM, but its name does not match input.namePattern"
    names = ("2.25.1", "IM0001", "IM0002.img")
    assert [re.sub("#[0-9]+:", ":", line) for line in done.out.splitlines()] == [
        f"ignored        {place.root}{name}: {reason}" for name in names
    ]
    assert done.err.splitlines() == [
        "5 objects (5 ignored), no differences",
        f"3 of 4 sampled objects that {SAMPLED}",
        "not sampled: 1 object in Nearline, Coldline or Archive, where reading costs retrieval",
    ]
    assert done.status == 0
    place.upload("Z", ct_small, deliver=False)
    entries = [("ignored", name, reason, None) for name in (*names, "Z")]
    assert place.found() == entries  # all of the sample; without --json, a few examples
    assert place.verify().out.count("\n") == 3
    done = place.verify("--no-sample")
    assert (done.status, done.out) == (0, "")
    assert done.err == "6 objects (6 ignored), no differences\n"


def test_a_sample_that_cannot_be_read_is_no_difference(place: Place, stack: Stack) -> None:
    place.upload("notes.txt", b"text")
    stack.storage.faults = [Fault(DOWNLOAD, 403, times=100)]
    done = place.verify()
    assert done.status == 0
    assert done.err.splitlines()[1:] == ["sampled, but not readable: 1 object"]


def test_every_kind_of_difference_is_reported(place: Place, ct_small: bytes) -> None:
    place.upload("1 fine.dcm", ct_small)
    missing = place.upload("2 missing.dcm", ct_small, deliver=False)
    broken = place.upload("3 broken.dcm", b"not DICOM")
    old = place.upload("4 overwritten.dcm", ct_small)
    new = place.upload("4 overwritten.dcm", b"not DICOM")
    stale = place.upload("5 stale.dcm", ct_small)
    place.delete("5 stale.dcm")
    done = place.verify()
    assert done.status == 1
    names = [
        f"gs://{place.bucket.name}/{event.data['name']}#{event.data['generation']}"
        for event in (missing, broken, new, old, stale)
    ]
    assert done.out.splitlines() == [
        f"missing        {names[0]}",
        f"dead-lettered  {names[1]}: NotDicomError",
        f"dead-lettered  {names[2]}: NotDicomError",
        f"superseded     {names[3]}",
        f"stale          {names[4]}",
    ]
    assert done.err == "4 objects, 2 dead-lettered, 1 missing, 1 stale, 1 superseded\n"
    assert place.found() == [
        ("missing", "2 missing.dcm", None, None),
        ("dead-lettered", "3 broken.dcm", "NotDicomError", None),
        ("dead-lettered", "4 overwritten.dcm", "NotDicomError", None),
        ("superseded", "4 overwritten.dcm", None, None),
        ("stale", "5 stale.dcm", None, None),
    ]


def test_a_dismissed_object_is_listed_but_not_a_difference(
    place: Place, command: Command, ct_small: bytes
) -> None:
    place.upload("a.dcm", ct_small)
    place.upload("bad.dcm", b"not DICOM")
    command("dead-letters", "dismiss", "--path", f"{place.root}*", "--because", "broken")
    assert place.found(status=0) == [("dismissed", "bad.dcm", "broken", None)]
    done = place.verify()
    assert done.out.endswith(": broken\n")
    assert (done.status, done.err) == (0, "2 objects, 1 dismissed\n")
    assert place.found("--repair", status=0) == [("dismissed", "bad.dcm", "broken", "left")]
    place.upload("bad.dcm", b"worse")
    assert place.found() == [("dead-lettered", "bad.dcm", "NotDicomError", None)]


def test_repair_makes_the_table_equal_to_the_bucket(place: Place, ct_small: bytes) -> None:
    place.upload("1 fine.dcm", ct_small)
    place.upload("2 missing.dcm", ct_small, deliver=False)
    place.upload("3 new.dcm", b"not DICOM", deliver=False)
    place.upload("4 overwritten.dcm", ct_small)
    place.upload("4 overwritten.dcm", ct_small, deliver=False)
    place.upload("5 stale.dcm", ct_small)
    place.delete("5 stale.dcm")
    assert place.found("--repair") == [
        ("missing", "2 missing.dcm", None, "inserted"),
        ("missing", "3 new.dcm", None, "dead_lettered"),
        ("missing", "4 overwritten.dcm", None, "inserted"),
        ("superseded", "4 overwritten.dcm", None, "marked"),
        ("stale", "5 stale.dcm", None, "marked"),
    ]
    in_bucket = place.bucket.names(f"{place.folder}/")
    assert place.live() == [
        (name, str(in_bucket[f"{place.folder}/{name}"]))
        for name in ("1 fine.dcm", "2 missing.dcm", "4 overwritten.dcm")
    ]
    assert place.found("--repair") == [("dead-lettered", "3 new.dcm", "NotDicomError", "left")]


def test_a_repaired_row_equals_that_of_the_event(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    event = place.upload("a.dcm", ct_small, deliver=False)
    place.verify("--repair")
    event.post(stack.url)
    repaired, delivered = stack.rows(event.data["name"])
    for row in (repaired, delivered):
        assert row["info"].pop("event_id")
        row.pop("ingested_at")
        row.pop("timestamp")
    assert repaired == delivered


def test_an_archived_generation_gets_an_archived_marker(
    stack: Stack, versioned: Place, ct_small: bytes
) -> None:
    versioned.upload("a.dcm", ct_small)
    event = versioned.delete("a.dcm")
    assert versioned.found("--repair", status=0) == [("stale", "a.dcm", None, "marked")]
    assert versioned.live() == []
    _, marker = stack.rows(event.data["name"])
    assert marker["event"] == "archived"
    assert datetime.now(UTC) - marker["timestamp"] < timedelta(minutes=5)


def test_a_live_generation_missing_from_the_listing_gets_no_marker(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    """The listing is older than the row."""
    place.upload("a.dcm", ct_small)
    stack.storage.faults = [Fault("prefix=", 200, b'{"kind": "storage#objects"}')]
    assert place.found("--repair", status=0) == [("stale", "a.dcm", None, "exists")]
    assert len(place.live()) == 1


def test_a_generation_that_cannot_be_looked_up_gets_no_marker(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    place.upload("a.dcm", ct_small)
    place.delete("a.dcm")
    stack.storage.faults = [Fault("timeDeleted", 403)]
    done = place.verify("--repair")
    assert done.status == 1
    assert done.out.endswith(": failed: Cloud Storage: HTTP 403\n")
    assert len(place.live()) == 1
    stack.storage.faults = [Fault("timeDeleted", 200, b'{"generation": "1"}')]
    assert (
        "failed: Cloud Storage: the answer is about another generation"
        in place.verify("--repair").out
    )
    assert len(place.live()) == 1


def test_a_row_of_a_higher_generation_is_not_repaired(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    """Its marker would hide the object in the bucket."""
    event = place.upload("a.dcm", ct_small)
    higher = str(int(event.data["generation"]) + 1)
    stack.storage.faults = [Fault(f"generation={higher}", 200, ct_small)]
    event.but(generation=higher).post(stack.url)
    stack.storage.faults = []
    reason = "the object has a lower generation"
    # Both rows have the same UIDs, so the view shows only the higher generation.
    assert place.found("--repair") == [
        ("missing", "a.dcm", None, "unseen"),
        ("stale", "a.dcm", reason, "left"),
    ]


def plant(stack: Stack, event: Event, generation: int, kind: str = "deleted") -> int:
    """Write a marker without an event of Cloud Storage; return its generation."""
    marker = ObjectEvent(
        event_id=unique("planted-"),
        kind=EventKind(kind),
        time=datetime.now(UTC),
        object=StoredObject(
            bucket=event.data["bucket"],
            name=event.data["name"],
            generation=generation,
        ),
    )
    row = rows.instance_row(marker, now=datetime.now(UTC), info=rows.info(marker))
    RowSink(stack.config).insert(row, Deadline.after(5))
    return generation


def test_objects_hidden_by_a_planted_marker_are_reported_and_never_called_repaired(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    highest = plant(stack, place.upload("1 highest.dcm", ct_small), 2**63 - 1)
    same = place.upload("2 same.dcm", ct_small)
    plant(stack, same, int(same.data["generation"]), "archived")
    never = place.upload("3 never delivered.dcm", ct_small, deliver=False)
    one_more = plant(stack, never, int(never.data["generation"]) + 1)
    broken = place.upload("4 broken.dcm", b"not DICOM")
    plant(stack, broken, 2**63 - 1)
    ignored = place.upload("5 notes.txt", b"text")
    plant(stack, ignored, 2**63 - 1)
    lower = place.upload("6 lower.dcm", ct_small)
    plant(stack, lower, int(lower.data["generation"]) - 1)
    gone = place.upload("7 gone.dcm", ct_small)
    place.delete("7 gone.dcm")
    plant(stack, gone, int(gone.data["generation"]))
    reasons = {
        "1 highest.dcm": f"by a marker of generation {highest}",
        "2 same.dcm": f"by a marker of generation {same.data['generation']}",
        "3 never delivered.dcm": f"by a marker of generation {one_more}",
        "4 broken.dcm": f"by a marker of generation {highest}",
    }
    assert place.found() == [("hidden", name, why, None) for name, why in reasons.items()]
    before = stack.dataset.query("SELECT COUNT(*) AS n FROM instances")
    assert place.found("--repair") == [
        ("hidden", name, why, "left") for name, why in reasons.items()
    ]
    assert stack.dataset.query("SELECT COUNT(*) AS n FROM instances") == before
    done = place.verify("--repair")
    assert done.status == 1
    assert done.out.splitlines()[0].startswith(f"hidden         {place.root}1 highest.dcm#")
    assert done.out.splitlines()[0].endswith(f": by a marker of generation {highest}, left")
    assert done.err == "6 objects (1 ignored), 4 hidden, 4 not repaired\n"


def test_the_documented_statement_removes_a_forged_marker(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    text = (ROOT / "docs" / "OPERATIONS.md").read_text().partition("## Forged events\n")[2]
    shown, removed = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)[:2]

    def run(statement: str) -> list[dict[str, Any]]:
        for placeholder, value in {
            "gs://BUCKET/NAME": path.replace("'", "\\'"),
            "GENERATION": str(2**63 - 1),
            "dicom.": f"{stack.dataset.name}.",
        }.items():
            assert placeholder in statement
            statement = statement.replace(placeholder, value)
        return stack.dataset.query(statement)

    other = place.upload("other.dcm", ct_small)
    plant(stack, other, int(other.data["generation"]))
    event = place.upload("a.dcm", ct_small)
    path = f"{place.root}a.dcm"
    plant(stack, event, 2**63 - 1)
    run(removed)
    shown = shown.replace("dicom.", f"{stack.dataset.name}.")
    assert path not in {row["path"] for row in stack.dataset.query(shown)}
    assert [finding[:2] for finding in place.found("--repair")] == [("hidden", "other.dcm")]
    assert place.live() == [("a.dcm", event.data["generation"])]


def test_the_documented_query_lists_markers_of_the_future(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    text = (ROOT / "docs" / "OPERATIONS.md").read_text().partition("## Forged events\n")[2]
    statement = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)[0]
    event = place.upload("a.dcm", ct_small)
    plant(stack, event, int(event.data["generation"]))
    plant(stack, event, 2**63 - 1)
    listed = stack.dataset.query(statement.replace("dicom.", f"{stack.dataset.name}."))
    found = [row["version"] for row in listed if row["path"].startswith(place.root)]
    assert found == [str(2**63 - 1)]


def test_a_repair_that_the_view_does_not_show_is_unseen(
    stack: Stack, place: Place, command: Command, ct_small: bytes
) -> None:
    """BigQuery acknowledges the inserts, but stores nothing."""
    big_query = {"datasetId": stack.dataset.dataset_id, "timeoutSeconds": scaled(5)}
    command.configure(stack, bigQuery=big_query)
    place.upload("1 missing.dcm", ct_small, deliver=False)
    place.upload("2 stale.dcm", ct_small)
    place.delete("2 stale.dcm")
    stack.bigquery.faults = [Fault("instances/insertAll", 200, b"{}")]
    assert place.found("--repair") == [
        ("missing", "1 missing.dcm", None, "unseen"),
        ("stale", "2 stale.dcm", None, "unseen"),
    ]
    assert "2 not repaired" in place.verify("--repair").err
    stack.bigquery.faults = []
    assert place.found("--repair", status=0) == [
        ("missing", "1 missing.dcm", None, "inserted"),
        ("stale", "2 stale.dcm", None, "marked"),
    ]


def queries(requests: list[str]) -> int:
    """Return the number of queries."""
    return sum(line.startswith("POST") and "/queries" in line for line in requests)


def test_verify_waits_for_a_row_that_appears_late(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    place.upload("a.dcm", ct_small, deliver=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
        patch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
        comparison = Comparison(
            Dataset(stack.config), stack.config, place.root, settle=timedelta(0)
        )
        (difference,) = comparison
        early = Repair(difference, Result.INSERTED)
        asked = len(stack.bigquery.requests)
        repairer = Repairer(Dataset(stack.config), stack.config)
        with ThreadPoolExecutor(1) as pool:
            confirmed = pool.submit(lambda: list(repairer.confirm([early])))
            # The second query comes once the first was answered without the row.
            while not confirmed.done() and queries(stack.bigquery.requests[asked:]) < 2:
                time.sleep(0.01)
            assert repairer.repair(difference).result == "inserted"
            assert confirmed.result() == [early]


def test_a_bucket_not_in_input_buckets_is_not_verified(
    stack: Stack, place: Place, command: Command
) -> None:
    command.configure(stack, input={"buckets": ["other-scans"]})
    done = place.verify()
    assert (done.status, done.out) == (2, "")
    assert done.err == f"dcm2bq: gs://{place.bucket.name}: is not one of input.buckets\n"
    command.configure(stack, input={"buckets": ["other-scans", place.bucket.name]})
    assert place.verify("--allow-empty").status == 0


def test_new_objects_are_not_reported_as_missing(place: Place, ct_small: bytes) -> None:
    place.upload("a.dcm", ct_small, deliver=False)
    done = place.verify(settle=10)
    assert (done.status, done.out) == (0, "")
    assert done.err == "1 object, 1 too new to be reported as missing, no differences\n"


def test_ranges_of_a_large_bucket_have_no_gap_and_no_overlap(
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    for number in range(40):
        place.upload(f"{number:02}.dcm", ct_small, deliver=number % 4 > 0)
    for number in range(0, 40, 5):
        place.delete(f"{number:02}.dcm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
        patch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
        found = []
        for range_rows in (7, 1_000_000):
            comparison = Comparison(
                Dataset(stack.config),
                stack.config,
                place.root,
                settle=timedelta(0),
                range_rows=range_rows,
            )
            found.append(
                [(difference.finding, difference.event.object.path) for difference in comparison]
            )
            assert comparison.objects == 32
    assert found[0] == found[1]
    assert len(found[0]) == 8 + 6


def test_ranges_take_markers_into_account(
    stack: Stack, place: Place, ct_small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BigQuery sorts them as well, and there can be many more of them than objects."""
    for number in range(20):
        event = place.upload(f"{number:02}.dcm", ct_small, deliver=False)
        place.delete(f"{number:02}.dcm")
        assert event.as_type("deleted").post(stack.url).status_code == 200
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    comparison = Comparison(
        Dataset(stack.config), stack.config, place.root, settle=timedelta(0), range_rows=7
    )
    before = len(stack.bigquery.bodies)
    assert list(comparison) == []
    sorts = [body for body in stack.bigquery.bodies[before:] if b"ORDER BY path" in body]
    assert len(sorts) == 3


@pytest.mark.parametrize(
    "location", ["my-bucket", "gs://", "gs:///a", "gs://UPPER/x", "gs://a", "s3://b"]
)
def test_an_invalid_location_is_refused_before_any_request(
    stack: Stack, command: Command, location: str
) -> None:
    stack.bigquery.faults = stack.storage.faults = [Fault("")]
    done = command("verify", location)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"dcm2bq: {location}: gs://BUCKET or gs://BUCKET/NAME is expected")
    assert ("3 to 222" in line) == location.startswith("gs://")


def test_a_prefix_without_objects_is_reported(place: Place, ct_small: bytes) -> None:
    done = place.verify()
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        f"{place.root}: there is no object and no row under this prefix; "
        "if that is right, use --allow-empty"
    )
    assert place.verify("--json").status == 1
    assert place.verify("--allow-empty").status == 0
    place.upload("a.dcm", ct_small)
    assert place.verify().status == 0
    place.delete("a.dcm")
    assert "no object" not in place.verify().err  # the row proves the prefix
    assert place.verify("--repair").status == 0


def test_repair_without_the_hash_key_is_refused_before_any_request(
    stack: Stack, place: Place, command: Command
) -> None:
    stack.bigquery.faults = stack.storage.faults = [Fault("")]
    command.configure(stack, privacy={"hash": ["PatientID"]})
    done = place.verify("--repair")
    assert (done.status, done.out) == (2, "")
    assert "DCM2BQ_HASH_KEY" in done.err


def test_a_missing_bucket_is_reported(command: Command) -> None:
    done = command("verify", "gs://no-such-bucket")
    assert (done.status, done.out) == (3, "")
    assert done.err == "dcm2bq: Cloud Storage: there is no such bucket\n"


def test_rows_with_other_privacy_options_are_not_added(
    stack: Stack, place: Place, command: Command
) -> None:
    command.configure(stack, privacy={"remove": ["PatientID"]})
    done = place.verify("--repair")
    assert (done.status, done.out) == (2, "")
    assert "instances: holds rows made with other privacy options" in done.err
    assert place.verify("--allow-empty").status == 0


@pytest.mark.parametrize("privacy", [{"hash": ["PatientID"]}, {"profile": "basic"}])
def test_repair_without_the_hash_key_names_the_variable(
    stack: Stack, place: Place, command: Command, privacy: dict[str, Any]
) -> None:
    command.configure(stack, privacy=privacy)
    done = place.verify("--repair")
    assert (done.status, done.out) == (2, "")
    assert "DCM2BQ_HASH_KEY is not set: it must hold 16 bytes" in done.err


@pytest.mark.parametrize("server", ["storage", "bigquery"])
def test_an_unreachable_service_is_reported(
    stack: Stack, place: Place, command: Command, server: str
) -> None:
    big_query = {"datasetId": stack.dataset.dataset_id, "timeoutSeconds": scaled(5)}
    command.configure(stack, bigQuery=big_query)
    getattr(stack, server).faults = [Fault("", 403)]
    done = place.verify()
    assert (done.status, done.out) == (3, "")
    assert "HTTP 403" in done.err


def test_an_archive_is_complete_once_it_was_expanded_and_no_member_is_missing(
    stack: Stack, place: Place
) -> None:
    """Members without a row are reported by their number; deleted ones once for the archive."""
    scan, cut = dicom(identity()), dicom(identity(), element(0x00100010, "PN", b"D", length=900))
    full = zip_of({"a": scan, "b": scan})
    place.upload("1 done.zip", full)
    place.upload("2 without dicom.zip", zip_of({"a": b"text"}))
    place.upload("3 broken members.tar", tar_of({"a": cut, "b": scan, "c": cut}))
    place.upload("4 broken.zip", b"PK")
    place.upload("5 missing.zip", full, deliver=False)
    place.upload("6 half.zip", full)
    gone = place.upload("7 gone.zip", full)
    place.delete("7 gone.zip")
    over = place.upload("8 overwritten.zip", full)
    place.upload("8 overwritten.zip", zip_of({"b": scan}))
    lost = place.upload("9 lost.zip", full)
    stack.dataset.query(
        "DELETE FROM instances WHERE path = @lost AND member = 'b' "
        "OR path = @half AND event = 'expanded'",
        {"lost": f"{place.root}9 lost.zip", "half": f"{place.root}6 half.zip"},
    )
    everything = [
        ("dead-lettered", "3 broken members.tar", "2 members: UnreadableDicomError", None),
        ("dead-lettered", "4 broken.zip", "UnreadableArchiveError", None),
        ("missing", "5 missing.zip", None, None),
        ("missing", "6 half.zip", None, None),
        ("stale", "7 gone.zip", None, None),
        ("superseded", "8 overwritten.zip", None, None),
        ("missing", "9 lost.zip", None, None),
    ]
    assert place.found() == everything
    assert {gone.data["generation"], over.data["generation"]} <= {row[1] for row in place.live()}
    repaired = [result for *_, result in place.found("--repair")]
    assert repaired == ["left", "left", "expanded", "expanded", "marked", "marked", "expanded"]
    assert place.found() == everything[:2]
    names = [name for name, _ in place.live()]
    assert [names.count(name) for name in sorted(set(names))] == [2, 1, 2, 2, 1, 2]
    assert lost.data["generation"] in {row[1] for row in place.live()}
