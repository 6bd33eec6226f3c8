"""The commands on tables without names: `privacy.path: hash`."""

import json
import resource
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq.row_names import RowNames, row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.hashed_names import find_objects, in_order_of_rows
from dcm2bq.tools.verify.comparison import Comparison
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import zip_of
from tests.support.cloud import Event
from tests.support.function_stack import Stack, function_stack, unique
from tests.support.patience import scaled
from tests.support.proxy import Fault
from tests.tools.conftest import Command

KEY = "the key of the tests"
NAME = "Doe^Jane"
SCAN = dicom(identity())
LONG = dicom(identity(), element(0x00091010, "LT", b"x" * 9000))
NAMES = (
    *("in/good.dcm", "in/missing.dcm", "in/new.dcm", "in/a.zip", "in/b.zip"),
    *("stale.dcm", "outside.dcm"),
)
OPTIONS: dict[str, Any] = {"privacy": {"path": "hash"}, "log": {"path": "hash"}}


@pytest.fixture(scope="module")
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCM2BQ_HASH_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def hashing_stack(
    tmp_path_factory: pytest.TempPathFactory,
    bigquery_url: str,
    storage_url: str,
    key: None,  # noqa: ARG001 - set for the function too
) -> Iterator[Stack]:
    overrides = {
        "bigQuery": {"timeoutSeconds": scaled(3)},
        "limits": {"deadlineSeconds": scaled(4)},
        "input": {"archives": "read"},
        **OPTIONS,
    }
    folder = tmp_path_factory.mktemp("hashed")
    with function_stack(folder, bigquery_url, storage_url, overrides) as stack:
        yield stack


@pytest.fixture
def stack(hashing_stack: Stack) -> Iterator[Stack]:
    yield hashing_stack
    hashing_stack.storage.faults.clear()


@pytest.fixture
def command(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    command = Command(stack, monkeypatch, capsys)
    command.configure(stack, **OPTIONS)
    return command


def path_of(stack: Stack, event: Event) -> str:
    path = f"gs://{event.data['bucket']}/{event.data['name']}"
    return row_names(stack.config.privacy).path(path)


def give_up(stack: Stack, event: Event) -> None:
    """Let the function give up an event because of its age."""
    stack.storage.faults = [Fault("alt=media", 403)]
    time = datetime.now(UTC) - timedelta(days=2)
    assert replace(event, time=time.isoformat()).post(stack.url).status_code == 200
    stack.storage.faults = []


def entries(command: Command) -> dict[tuple[str, str | None], dict[str, Any]]:
    found = json.loads(command("dead-letters", "list", "--json").out)
    return {(entry["path"], entry["member"]): entry for entry in found}


def test_retry_finds_objects_and_members_by_their_hashes(stack: Stack, command: Command) -> None:
    """Their names are in no row, dead letter, line of the log or message of a command."""
    folder = unique(f"{NAME}/")
    failed = stack.bucket.upload(f"{folder}/a.dcm", SCAN)
    gone = stack.bucket.upload(f"{folder}/gone.dcm", SCAN)
    replaced = stack.bucket.upload(f"{folder}/replaced.dcm", SCAN)
    archive = stack.bucket.upload(f"{folder}/a.zip", zip_of({f"{NAME}/1": SCAN, NAME: LONG}))
    broken = stack.bucket.upload(f"{folder}/broken.dcm", b"no DICOM")
    for event in (failed, gone, replaced):
        give_up(stack, event)
    stack.bucket.delete(gone.data["name"])
    again = stack.bucket.upload(replaced.data["name"], SCAN)
    deleted = stack.bucket.upload(f"{folder}/deleted.dcm", SCAN)
    for event in (archive, broken, deleted, again):
        assert event.post(stack.url).status_code == 200
    stack.bigquery.faults = [Fault("instances/insertAll", 403)]
    long_ago = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    late = replace(stack.bucket.delete(deleted.data["name"]), time=long_ago)
    assert late.post(stack.url).status_code == 200
    stack.bigquery.faults = []
    command.configure(stack, **OPTIONS, limits={"headerBytes": 5000})
    retried = command("dead-letters", "retry", "--all")
    assert retried.status == 1, retried.err
    assert set(retried.out.strip().split(", ")) == {
        "1 inserted",
        "2 superseded",
        "1 marked",
        "1 still open",
    }
    assert retried.err.startswith(f"{path_of(stack, broken)}#{broken.data['generation']}")
    left = entries(command)
    assert {path for path, _ in left} == {path_of(stack, broken)}
    live = {(row["path"], row["version"]) for row in stack.live()}
    assert live == {
        (path_of(stack, event), event.data["generation"]) for event in (failed, archive, again)
    }
    tables = json.dumps([*stack.live(), *stack.dead_letters()], default=str)
    for text in (tables, stack.log_file.read_text(), retried.err, retried.out):
        assert NAME not in text
        assert "a.dcm" not in text
    (line,) = stack.log_lines(archive.id)
    assert line["path"] == path_of(stack, archive)


def test_a_hash_leads_to_its_object_and_a_name_to_its_hash(stack: Stack, command: Command) -> None:
    event = stack.bucket.upload(unique(f"{NAME}/"), SCAN)
    real = f"gs://{stack.bucket.name}/{event.data['name']}"
    hashed = command("privacy", "path", real)
    assert (hashed.status, hashed.out) == (0, f"{path_of(stack, event)}\n")
    explained = command("privacy", "explain", real)
    assert (explained.status, "SOPClassUID  UI  kept" in explained.out) == (0, True)
    assert "there is no such object" in command("privacy", "explain", real[:-1]).err
    found = command("privacy", "name", path_of(stack, event))
    assert (found.status, found.out) == (0, f"{real}#{event.data['generation']}\n")
    stack.bucket.delete(event.data["name"])
    none = command("privacy", "name", path_of(stack, event))
    assert (none.status, none.out) == (1, "")
    assert none.err == f"{path_of(stack, event)}: no live object of the bucket has this hash\n"
    member = command("privacy", "path", real, "--member", NAME)
    assert member.out.startswith("hmac-sha256-")
    assert command("privacy", "path", "gs://bucket").status == 2
    command.configure(stack)
    assert command("privacy", "path", real).out == f"{real}\n"
    assert command("privacy", "path", real, "--member", NAME).out == f"{NAME}\n"
    assert command("privacy", "name", real).out == f"{real}\n"


def differences(command: Command, location: str, *args: str) -> set[tuple[str, str, str | None]]:
    """Return finding, path and result of what verify reports."""
    done = command("verify", location, "--settle", "0", "--json", *args)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert NAME not in done.out + done.err
    return {(line["finding"], line["path"], line["result"]) for line in lines if "path" in line}


def test_verify_compares_hashes_and_repair_makes_the_tables_equal(
    stack: Stack, command: Command
) -> None:
    """Of a whole bucket: an object that was deleted has no name by which to ask for it."""
    bucket = stack.versioned_bucket
    whole, folder = f"gs://{bucket.name}", f"gs://{bucket.name}/{NAME}/in/"
    events = {
        name: bucket.upload(f"{NAME}/{name}", zip_of({NAME: SCAN}) if ".zip" in name else SCAN)
        for name in NAMES
    }
    letter = bucket.upload(f"{NAME}/in/broken.dcm", b"no DICOM")
    for name in ("in/good.dcm", "in/new.dcm", "in/a.zip", "stale.dcm"):
        assert events[name].post(stack.url).status_code == 200
    assert letter.post(stack.url).status_code == 200
    bucket.delete(f"{NAME}/stale.dcm")
    old = events["in/new.dcm"]
    events["in/new.dcm"] = bucket.upload(old.data["name"], SCAN)
    path = {name: path_of(stack, event) for name, event in events.items()}
    within = {
        ("missing", path["in/missing.dcm"]),
        ("missing", path["in/new.dcm"]),
        ("superseded", path["in/new.dcm"]),
        ("missing", path["in/b.zip"]),
        ("dead-lettered", path_of(stack, letter)),
    }
    beyond = {("stale", path["stale.dcm"]), ("missing", path["outside.dcm"])}
    assert {each[:2] for each in differences(command, folder)} == within
    assert "only verifying the whole bucket finds" in command("verify", folder).err
    assert {each[:2] for each in differences(command, whole)} == within | beyond
    repaired = differences(command, whole, "--repair")
    assert {(name, result) for name, _, result in repaired} == {
        ("missing", "inserted"),
        ("missing", "expanded"),
        ("superseded", "marked"),
        ("stale", "marked"),
        ("dead-lettered", "left"),
    }
    assert {each[:2] for each in differences(command, whole)} == {
        ("dead-lettered", path_of(stack, letter))
    }
    live = stack.live(f"path LIKE '{whole}/%'")
    assert {(row["path"], row["version"]) for row in live} == {
        (path[name], event.data["generation"])
        for name, event in events.items()
        if name != "stale.dcm"
    }
    ranges = Comparison(stack.dataset, stack.config, whole, settle=timedelta(), range_rows=3)
    with closing(ranges.keys):  # several, with one listing
        assert [found.path for found in ranges] == [path_of(stack, letter)]
    assert ranges.objects == 7


def test_another_key_is_refused(
    stack: Stack, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it, every row would seem to be about an object that does not exist."""
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}, another one")
    verify = ("verify", f"gs://{stack.bucket.name}")
    for args in (verify, (*verify, "--repair"), ("dead-letters", "retry", "--all")):
        refused = command(*args)
        assert refused.status == 2, refused.err
        assert "holds pseudonyms made with another key" in refused.err


def listed(count: int) -> Iterator[StoredObject]:
    now = datetime.now(UTC)
    for number in range(count):
        yield StoredObject(
            bucket="scans", name=f"{number:08}", generation=number + 1, created=now, size=number
        )


def test_a_listing_is_sorted_as_rows_are() -> None:
    """As it is, if rows have the names; otherwise with every property of each object."""
    objects = list(listed(1000))
    plain = [(stored.path, stored) for stored in objects]
    assert list(in_order_of_rows(RowNames(), objects)) == plain
    names = RowNames(b"k" * 16)
    hashed = sorted(((names.path(stored.path), stored) for stored in objects), key=lambda x: x[0])
    assert list(in_order_of_rows(names, objects)) == hashed
    assert [path for path, _ in hashed] != [names.path(stored.path) for stored in objects]


def test_a_listing_that_does_not_fit_on_the_disk_is_an_error_of_the_system() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            list(in_order_of_rows(RowNames(b"k" * 16), listed(20_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_bucket_is_listed_until_every_hash_is_found() -> None:
    class Listing:
        def list(self, bucket: str) -> Iterator[StoredObject]:
            return (replace(stored, bucket=bucket) for stored in listed(100))

    names = RowNames(b"k" * 16)
    first, other = "gs://first/00000007", "gs://other/00000003"
    absent = names.path("gs://other/absent")
    seen: list[None] = []
    found = find_objects(Listing(), names, [names.path(first)], on_object=lambda: seen.append(None))
    assert [(path, stored.path) for path, stored in found.items()] == [(names.path(first), first)]
    assert len(seen) == 8
    found = find_objects(Listing(), names, [names.path(first), names.path(other), absent])
    assert {stored.path for stored in found.values()} == {first, other}
