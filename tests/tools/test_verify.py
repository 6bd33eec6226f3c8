"""`dcm2bq verify` reports every difference between bucket and table, and repairs it safely."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq import config, rows
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.deadline import Deadline
from dcm2bq.errors import RetryableError, ServiceError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.handler import Result
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.verify import repair
from dcm2bq.tools.verify.comparison import Comparison
from dcm2bq.tools.verify.repair import Repair, Repairer
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import tar_of, zip_of
from tests.support.cloud import Bucket, Event
from tests.support.commands import Captured, Done
from tests.support.datasets import dropped
from tests.support.function_stack import ROOT, Stack, unique
from tests.support.http_server import Exchange
from tests.support.leaping import leaping
from tests.support.patience import scaled
from tests.support.proxy import Fault, Proxy
from tests.tools.conftest import Command

DOWNLOAD = "alt=media"
SAMPLED = (
    "input.namePattern excludes begin with DICM (3 with no extension, 1 with .img): "
    "set input.otherNames to sniff, or widen input.namePattern"
)


class Place:
    """A folder of a bucket, and `verify` on it."""

    def __init__(self, stack: Stack, bucket: Bucket, command: Callable[..., Done]) -> None:
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

    def findings(self, done: Done) -> list[tuple[Any, ...]]:
        """Return finding, name, reason and result of each difference that --json printed."""
        *entries, _ = map(json.loads, done.out.splitlines())
        return [
            (
                entry["finding"],
                entry["path"].removeprefix(self.root),
                entry["reason"],
                entry["result"],
            )
            for entry in entries
        ]

    def found(self, *args: str, status: int = 1) -> list[tuple[Any, ...]]:
        """Return the findings of `verify --json`."""
        done = self.verify("--json", *args)
        assert done.status == status, done.err
        return self.findings(done)

    def live(self) -> list[tuple[str, str]]:
        rows = self._stack.dataset.query(
            "SELECT path, version FROM instances_live "
            "WHERE STARTS_WITH(path, @root) ORDER BY path, version",
            {"root": self.root},
        )
        return [(row["path"].removeprefix(self.root), row["version"]) for row in rows]


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


@dataclass(frozen=True)
class Scene:
    """A folder with every kind of difference, and what `verify` says of it.

    `before`, `repaired` and `after` are the findings of `runs` before, with and after `--repair`;
    `text` is another run before it, without --json. `events` are some uploads, by name, and
    `markers` the generations of the markers that hide objects.
    """

    place: Place
    events: Mapping[str, Event]
    markers: Mapping[str, int]
    text: Done
    runs: Sequence[Done]
    before: list[tuple[Any, ...]]
    repaired: list[tuple[Any, ...]]
    after: list[tuple[Any, ...]]


def about(kind: str, findings: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the findings about the names that begin with a word; "" for those with a number."""
    return [
        entry
        for entry in findings
        if (entry[1].startswith(kind) if kind else entry[1][0].isdigit())
    ]


@pytest.fixture(scope="module")
def scene(running_stack: Stack, ct_small: bytes) -> Iterator[Scene]:
    """One scene for all tests that only look at it: each run of `verify` costs a second of CPU."""
    stack = running_stack
    with pytest.MonkeyPatch.context() as patch, Captured() as captured:
        command = Command(stack, patch, captured)
        place = Place(stack, stack.bucket, command)
        events = objects_of_the_scene(place, ct_small)
        generations = hidden_objects_of_the_scene(stack, place, ct_small)
        archives_of_the_scene(stack, place)
        command("dead-letters", "dismiss", "--path", f"{place.root}8*", "--because", "broken")
        text, *runs = (
            place.verify(*args) for args in ((), ("--json",), ("--json", "--repair"), ("--json",))
        )
        assert [run.status for run in (text, *runs)] == [1, 1, 1, 1], text.err
        yield Scene(place, events, generations, text, runs, *map(place.findings, runs))


def objects_of_the_scene(place: Place, ct_small: bytes) -> dict[str, Event]:
    """Upload an object of each kind; return the events of those that `verify` must know."""
    bad = b"not DICOM"
    place.upload("1 fine.dcm", ct_small)
    place.upload("1 notes.txt", b"text")
    place.upload("1 empty.dcm", b"")
    missing = place.upload("2 missing.dcm", ct_small, deliver=False)
    place.upload("3 broken.dcm", bad)
    place.upload("4 new.dcm", bad, deliver=False)
    place.upload("5 overwritten.dcm", ct_small)
    place.upload("5 overwritten.dcm", ct_small, deliver=False)
    place.upload("6 overwritten.dcm", ct_small)
    place.upload("6 overwritten.dcm", bad)
    stale = place.upload("7 stale.dcm", ct_small)
    place.delete("7 stale.dcm")
    place.upload("8 dismissed.dcm", bad)
    return {"2 missing.dcm": missing, "7 stale.dcm": stale}


def hidden_objects_of_the_scene(stack: Stack, place: Place, ct_small: bytes) -> dict[str, int]:
    """Upload objects and plant markers; return the generations of those that hide one."""
    highest, same, never, broken, ignored, lower, gone = (
        place.upload(f"hidden {name}", content, deliver=deliver)
        for name, content, deliver in (
            ("1 highest.dcm", ct_small, True),
            ("2 same.dcm", ct_small, True),
            ("3 never delivered.dcm", ct_small, False),
            ("4 broken.dcm", b"not DICOM", True),
            ("5 notes.txt", b"text", True),
            ("6 lower.dcm", ct_small, True),
            ("7 gone.dcm", ct_small, True),
        )
    )
    place.delete("hidden 7 gone.dcm")
    plant(stack, ignored, 2**63 - 1)
    plant(stack, lower, int(lower.data["generation"]) - 1)
    plant(stack, gone, int(gone.data["generation"]))
    return {
        "hidden 1 highest.dcm": plant(stack, highest, 2**63 - 1),
        "hidden 2 same.dcm": plant(stack, same, int(same.data["generation"]), "archived"),
        "hidden 3 never delivered.dcm": plant(stack, never, int(never.data["generation"]) + 1),
        "hidden 4 broken.dcm": plant(stack, broken, 2**63 - 1),
    }


def archives_of_the_scene(stack: Stack, place: Place) -> None:
    """Upload archives, and delete some of what the function has recorded of them."""
    scan, cut = dicom(identity()), dicom(identity(), element(0x00100010, "PN", b"D", length=900))
    full = zip_of({"a": scan, "b": scan})
    place.upload("archive 1 done.zip", full)
    place.upload("archive 2 without dicom.zip", zip_of({"a": b"text"}))
    place.upload("archive 3 broken members.tar", tar_of({"a": cut, "b": scan, "c": cut}))
    place.upload("archive 4 broken.zip", b"PK")
    place.upload("archive 5 missing.zip", full, deliver=False)
    place.upload("archive 6 half.zip", full)
    place.upload("archive 7 gone.zip", full)
    place.delete("archive 7 gone.zip")
    place.upload("archive 8 overwritten.zip", full)
    place.upload("archive 8 overwritten.zip", zip_of({"b": scan}))
    place.upload("archive 9 lost.zip", full)
    stack.dataset.query(
        "DELETE FROM instances WHERE path = @lost AND member = 'b' "
        "OR path = @half AND event = 'expanded'",
        {"lost": f"{place.root}archive 9 lost.zip", "half": f"{place.root}archive 6 half.zip"},
    )


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


def test_every_kind_of_difference_is_reported(scene: Scene) -> None:
    expected = [
        ("missing", "2 missing.dcm", None, None),
        ("dead-lettered", "3 broken.dcm", "NotDicomError", None),
        ("missing", "4 new.dcm", None, None),
        ("missing", "5 overwritten.dcm", None, None),
        ("superseded", "5 overwritten.dcm", None, None),
        ("dead-lettered", "6 overwritten.dcm", "NotDicomError", None),
        ("superseded", "6 overwritten.dcm", None, None),
        ("stale", "7 stale.dcm", None, None),
        ("dismissed", "8 dismissed.dcm", "broken", None),
    ]
    assert about("", scene.before) == expected
    lines = scene.text.out.splitlines()
    assert [re.sub("#[0-9]+(?=:|$)", "", line) for line in lines[: len(expected)]] == [
        f"{finding:<15}{scene.place.root}{name}" + (f": {reason}" if reason else "")
        for finding, name, reason, _ in expected
    ]
    assert len(lines) == len(scene.before)
    for name, event in scene.events.items():
        assert any(f"/{name}#{event.data['generation']}" in line for line in lines)
    assert scene.text.err == (
        "23 objects (3 ignored), 4 dead-lettered, 1 dismissed, 4 hidden, 6 missing, 2 stale, "
        "3 superseded\n"
    )


def test_the_last_line_of_json_is_the_summary(scene: Scene) -> None:
    first, repairing, _ = (json.loads(run.out.splitlines()[-1])["summary"] for run in scene.runs)
    assert first == {
        "objects": 23,
        "ignored": 3,
        "settling": 0,
        "unread": 0,
        "findings": {
            "dead-lettered": 4,
            "dismissed": 1,
            "hidden": 4,
            "missing": 6,
            "stale": 2,
            "superseded": 3,
        },
        "unresolved": 19,
        "sample": {"ignored": 2, "cold": 0, "read": 2, "failed": 0, "dicom": 0},
        "bigquery_bytes": 0,  # the local BigQuery bills nothing
    }
    assert repairing["unresolved"] == 9
    assert scene.runs[1].err.endswith(", 9 not repaired\n")


def test_a_dismissed_object_is_listed_but_not_a_difference(scene: Scene, command: Command) -> None:
    place, name = scene.place, "8 dismissed.dcm"
    repaired = [entry for entry in scene.repaired if entry[1] == name]
    assert repaired == [("dismissed", name, "broken", "left")]
    done = command("verify", f"{place.root}8", "--settle", "0")
    assert done.out.endswith(": broken\n")
    assert (done.status, done.err) == (0, "1 object, 1 dismissed\n")
    place.upload(name, b"worse")
    done = command("verify", f"{place.root}8", "--settle", "0", "--json")
    assert place.findings(done) == [("dead-lettered", name, "NotDicomError", None)]


def test_repair_makes_the_table_equal_to_the_bucket(scene: Scene) -> None:
    place = scene.place
    assert [(name, result) for _, name, _, result in about("", scene.repaired)] == [
        ("2 missing.dcm", "inserted"),
        ("3 broken.dcm", "left"),
        ("4 new.dcm", "dead_lettered"),
        ("5 overwritten.dcm", "inserted"),
        ("5 overwritten.dcm", "marked"),
        ("6 overwritten.dcm", "left"),
        ("6 overwritten.dcm", "marked"),
        ("7 stale.dcm", "marked"),
        ("8 dismissed.dcm", "left"),
    ]
    in_bucket = place.bucket.names(f"{place.folder}/")
    assert [row for row in place.live() if row[0][0].isdigit()] == [
        (name, str(in_bucket[f"{place.folder}/{name}"]))
        for name in ("1 fine.dcm", "2 missing.dcm", "5 overwritten.dcm")
    ]
    assert about("", scene.after) == [
        ("dead-lettered", "3 broken.dcm", "NotDicomError", None),
        ("dead-lettered", "4 new.dcm", "NotDicomError", None),
        ("dead-lettered", "6 overwritten.dcm", "NotDicomError", None),
        ("dismissed", "8 dismissed.dcm", "broken", None),
    ]


def test_a_repaired_row_equals_that_of_the_event(stack: Stack, scene: Scene) -> None:
    event = scene.events["2 missing.dcm"]
    assert event.post(stack.url).status_code == 200
    repaired, delivered = stack.rows(event.data["name"])
    for row in (repaired, delivered):
        assert row["info"].pop("event_id")
        row.pop("ingested_at")
        row.pop("timestamp")
    assert repaired == delivered


def test_objects_hidden_by_a_planted_marker_are_reported_and_never_called_repaired(
    stack: Stack, scene: Scene
) -> None:
    reasons = {
        name: f"by a marker of generation {marker}" for name, marker in scene.markers.items()
    }
    hidden = [("hidden", name, why, None) for name, why in reasons.items()]
    assert about("hidden", scene.before) == hidden
    assert about("hidden", scene.repaired) == [(*entry[:3], "left") for entry in hidden]
    assert about("hidden", scene.after) == hidden
    written = stack.dataset.query(
        "SELECT path FROM instances "
        "WHERE STARTS_WITH(path, @root) AND STARTS_WITH(info.event_id, 'verify-')",
        {"root": f"{scene.place.root}hidden"},
    )
    assert written == []


def test_an_archive_is_complete_once_it_was_expanded_and_no_member_is_missing(
    scene: Scene,
) -> None:
    """Members without a row are reported by their number; deleted ones once for the archive."""
    everything = [
        (
            "dead-lettered",
            "archive 3 broken members.tar",
            "2 members: UnreadableDicomError",
            None,
        ),
        ("dead-lettered", "archive 4 broken.zip", "UnreadableArchiveError", None),
        ("missing", "archive 5 missing.zip", None, None),
        ("missing", "archive 6 half.zip", None, None),
        ("stale", "archive 7 gone.zip", None, None),
        ("superseded", "archive 8 overwritten.zip", None, None),
        ("missing", "archive 9 lost.zip", None, None),
    ]
    assert about("archive", scene.before) == everything
    repaired = [result for *_, result in about("archive", scene.repaired)]
    assert repaired == ["left", "left", "expanded", "expanded", "marked", "marked", "expanded"]
    assert about("archive", scene.after) == everything[:2]
    names = [name for name, _ in scene.place.live() if name.startswith("archive")]
    assert [names.count(name) for name in sorted(set(names))] == [2, 1, 2, 2, 1, 2]


def test_ignored_objects_that_begin_with_dicm_are_reported_by_a_sample(
    place: Place, ct_small: bytes
) -> None:
    """More than three of them are a finding."""
    names = ("2.25.1", "IM0001", "IM0002.img", "Z")
    for name in names:
        place.upload(name, ct_small, deliver=False)
    place.bucket.upload(f"{place.folder}/old", ct_small, storage_class="COLDLINE")
    place.upload("report.pdf", b"%PDF-1.7" * 99, deliver=False)
    done = place.verify()
    reason = "begins with DICM, but its name does not match input.namePattern"
    assert [re.sub("#[0-9]+:", ":", line) for line in done.out.splitlines()] == [
        f"ignored        {place.root}{name}: {reason}"
        for name in names[:3]  # a few examples
    ]
    assert done.err.splitlines() == [
        "6 objects (6 ignored), no differences",
        f"4 of 5 sampled objects that {SAMPLED}",
        "not sampled: 1 object in Nearline, Coldline or Archive, where reading costs retrieval",
    ]
    assert done.status == 1
    assert place.found() == [("ignored", name, reason, None) for name in names]  # the whole sample
    done = place.verify("--no-sample")
    assert (done.status, done.out) == (0, "")
    assert done.err == "6 objects (6 ignored), no differences\n"


def test_a_sample_that_cannot_be_read_is_no_difference(place: Place, stack: Stack) -> None:
    place.upload("notes.txt", b"text")
    stack.storage.faults = [Fault(DOWNLOAD, 403, times=100)]
    done = place.verify()
    assert done.status == 0
    assert done.err.splitlines()[1:] == ["sampled, but not readable: 1 object"]


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
    with leaping(repair):
        assert place.found("--repair") == [
            ("missing", "a.dcm", None, "unseen"),
            ("stale", "a.dcm", reason, "left"),
        ]


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
    stack: Stack, place: Place, ct_small: bytes
) -> None:
    """BigQuery acknowledges the inserts, but stores nothing."""
    place.upload("1 missing.dcm", ct_small, deliver=False)
    place.upload("2 stale.dcm", ct_small)
    place.delete("2 stale.dcm")
    stack.bigquery.faults = [Fault("instances/insertAll", 200, b"{}")]
    with leaping(repair):
        done = place.verify("--json", "--repair")
    assert place.findings(done) == [
        ("missing", "1 missing.dcm", None, "unseen"),
        ("stale", "2 stale.dcm", None, "unseen"),
    ]
    assert (done.status, "2 not repaired" in done.err) == (1, True)
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
    """Nor is the row that one of them supersedes: the event may be on its way."""
    place.upload("a.dcm", ct_small, deliver=False)
    place.upload("b.dcm", ct_small)
    place.upload("b.dcm", ct_small, deliver=False)
    done = place.verify(settle=10)
    assert (done.status, done.out) == (0, "")
    assert done.err == "2 objects, 2 too new to be reported as missing, no differences\n"


class Large:
    """A folder whose keys take three ranges: 40 names, some without an object or a row."""

    RANGE_ROWS = 20
    MARKERS = 20
    """BigQuery sorts them as well, and there can be many more of them than objects."""

    def __init__(self, stack: Stack, place: Place, ct_small: bytes) -> None:
        names = [f"{number:02}.dcm" for number in range(40)]
        generations = {
            name: place.upload(name, ct_small, deliver=False).data["generation"]
            for number, name in enumerate(names)
            if number % 5
        }
        listed = [name for number, name in enumerate(names) if number % 4]
        self.differences = sorted(
            [(f"{place.root}{name}", "missing") for name in generations.keys() - {*listed}]
            + [(f"{place.root}{name}", "stale") for name in {*listed} - generations.keys()]
        )
        self.stack, self.root = stack, place.root
        stack.dataset.query(
            f"""
            INSERT INTO instances (timestamp, ingested_at, event, path, version, SOPInstanceUID)
            SELECT CURRENT_TIMESTAMP(), CURRENT_TIMESTAMP(), 'finalized', path,
              @versions[OFFSET(i)], path
            FROM UNNEST(@paths) AS path WITH OFFSET AS i
            UNION ALL
            SELECT CURRENT_TIMESTAMP(), CURRENT_TIMESTAMP(), 'deleted',
              CONCAT(@root, LPAD(CAST(n AS STRING), 2, '0'), '.gone'), '5', NULL
            FROM UNNEST(GENERATE_ARRAY(1, {self.MARKERS})) AS n
            """,
            {
                "paths": [f"{place.root}{name}" for name in listed],
                "versions": [generations.get(name, "5") for name in listed],
                "root": place.root,
            },
        )

    def comparison(self, **options: Any) -> Comparison:
        options = {"range_rows": self.RANGE_ROWS, **options}
        stack = self.stack
        return Comparison(
            Dataset(stack.config), stack.config, self.root, settle=timedelta(0), **options
        )

    def tables(self) -> list[str]:
        rows = self.stack.dataset.query("SELECT table_name FROM INFORMATION_SCHEMA.TABLES")
        return [row["table_name"] for row in rows if row["table_name"].startswith("verify_")]


@pytest.fixture
def large(stack: Stack, place: Place, ct_small: bytes, monkeypatch: pytest.MonkeyPatch) -> Large:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    return Large(stack, place, ct_small)


def found_by(comparison: Comparison) -> list[tuple[str, str]]:
    return [(difference.object.path, difference.finding) for difference in comparison]


def test_a_large_prefix_is_read_once_by_ranges_without_a_gap_or_an_overlap(large: Large) -> None:
    stack = large.stack
    for options in ({}, {"range_rows": 1_000_000}):
        comparison = large.comparison(**options)
        before = len(stack.bigquery.bodies)
        assert found_by(comparison) == large.differences
        assert len(large.differences) == 8 + 6
        assert comparison.objects == 32
        assert comparison.keys.rows == 30
        sorts = [body for body in stack.bigquery.bodies[before:] if b"ORDER BY path" in body]
        assert len(sorts) == (1 if options else 3)
        scans = [body for body in stack.bigquery.bodies[before:] if b"instances_live" in body]
        assert len(scans) == 1
        comparison.keys.close()
        assert large.tables() == []


def test_the_table_of_a_run_expires_or_is_dropped_when_the_run_fails(large: Large) -> None:
    comparison = large.comparison()
    differences = iter(comparison)
    with closing(comparison.keys):
        next(differences)
        (name,) = large.tables()
        table = large.stack.dataset.get_table(name)
        assert table is not None
        days = (int(table["expirationTime"]) / 1000 - time.time()) / 86_400
        assert 6.9 < days < 7.1
        large.stack.storage.faults = [Fault("prefix=", 403)]
        with pytest.raises(RetryableError):
            list(differences)
    assert large.tables() == []


def test_the_table_of_a_run_can_be_in_another_dataset(large: Large, bigquery_url: str) -> None:
    name = unique("scratch_")
    with dropped(bigquery_url, name):
        options = config.from_overrides({"bigQuery": {"datasetId": name}})
        scratch = Dataset(options)
        scratch.create(None)
        comparison = large.comparison(scratch=name)
        differences = iter(comparison)
        next(differences)
        tables = "SELECT table_name FROM INFORMATION_SCHEMA.TABLES"
        assert len(scratch.query(tables)) == 1
        assert large.tables() == []
        list(differences)
        comparison.keys.close()
        assert scratch.query(tables) == []


def test_an_operator_who_may_not_create_the_table_learns_what_to_do(large: Large) -> None:
    comparison = large.comparison()
    assert comparison.keys.rows
    large.stack.bigquery.faults = [Fault("/queries", 403)]
    with pytest.raises(ServiceError, match=r"HTTP 403: may not create a table.*--scratch"):
        list(comparison)


def test_the_dataset_of_the_table_is_checked_before_any_request(command: Command) -> None:
    done = command("verify", "gs://scans", "--scratch", "a`b")
    assert done.status == 2
    assert "DATASET or PROJECT.DATASET is expected" in done.err


def test_an_object_deleted_while_verify_runs_has_no_stale_row(
    stack: Stack, place: Place, ct_small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stack.bigquery.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stack.storage.url)
    for name in ("a.dcm", "b.dcm"):
        place.upload(name, ct_small)
    found: list[list[str]] = []
    for fresh_seconds in (0, 300):
        comparison = Comparison(
            stack.dataset,
            stack.config,
            place.root,
            settle=timedelta(0),
            fresh_seconds=fresh_seconds,
        )
        if not found:
            keys = [(start, end, list(rows)) for start, end, rows in comparison.keys]
            assert place.delete("a.dcm").post(stack.url).status_code == 200
            place.delete("b.dcm")
        monkeypatch.setattr(comparison, "keys", keys)
        found.append([path.removeprefix(place.root) for path, _ in found_by(comparison)])
    assert found == [["b.dcm"], ["a.dcm", "b.dcm"]]  # markers of the last 5 minutes may be missed


class BillingBigQuery(Proxy):
    """The local BigQuery, as if each statement read two gigabytes."""

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = super()._forward(exchange)
        billed = re.sub(rb'("totalBytesProcessed": ?)"0"', rb'\1"2000000000"', body)
        return status, headers, billed


def test_what_bigquery_reads_is_reported(
    place: Place, bigquery_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the keys are read, as an upper limit, and at the end."""
    with BillingBigQuery(bigquery_url).running() as bigquery:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.url)
        done = place.verify("--json", "--allow-empty")
    assert done.err.splitlines() == [
        "BigQuery reads up to 2 GB, $0.01, for the keys of all rows",
        "0 objects, no differences",
        "BigQuery read 4 GB, $0.02",
    ]
    assert json.loads(done.out)["summary"]["bigquery_bytes"] == 4_000_000_000


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
    done = place.verify("--json")
    assert (done.status, done.out.count("\n")) == (1, 1)
    assert done.err.splitlines()[-1] == (
        f"{place.root}: there is no object and no row under this prefix; "
        "if that is right, use --allow-empty"
    )
    place.upload("a.dcm", ct_small)
    place.delete("a.dcm")
    assert "no object" not in place.verify().err  # the row proves the prefix


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
