"""Changes of files become objects, and CloudEvents in the form of Eventarc's."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
from cloudevents.http import from_http

from dcm2bq import events
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.delivery import Delivery
from dcm2bq.events import EventKind
from dcm2bq.local import servers, stack, storage
from dcm2bq.local.bucket import Bucket, is_object_name
from dcm2bq.local.mirror import Mirror
from dcm2bq.local.servers import ServerError
from dcm2bq.local.stack import Change, ChangeKind, Ports, Stack
from dcm2bq.local.watched_folder import Changes
from tests.local.conftest import ODD_NAMES
from tests.support.http_server import Exchange, serving


class FakeFunction:
    """Stands in for the function: records requests, answers with `statuses` in turn, then 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.port = 0
        self._lock = Lock()

    def serve(self, exchange: Exchange) -> None:
        with self._lock:
            self.requests.append((dict(exchange.headers), exchange.body))
            status = self.statuses.pop(0) if self.statuses else 200
        exchange.answer(status)

    @property
    def kinds(self) -> list[str]:
        return [headers["ce-type"].rpartition(".")[2] for headers, _ in self.requests]


@pytest.fixture
def function() -> Iterator[FakeFunction]:
    function = FakeFunction()
    with serving(function.serve) as url:
        function.port = urlsplit(url).port or 0
        yield function


@pytest.fixture
def local(
    storage_url: str, bigquery_url: str, function: FakeFunction, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    """A stack with its own bucket and a stand-in for the function."""
    monkeypatch.setattr(stack, "BUCKET", f"bucket-{uuid.uuid4().hex}")
    monkeypatch.setattr(stack, "_PAUSES", (0.01, 0.02))
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    ports = Ports(function=function.port)
    mirror = Mirror(stack.BUCKET)
    with storage.serving(mirror, ports.storage, storage_url):
        local = Stack(Config(), ports, Dataset(Config()), Path(), mirror)
        yield local
        local.close()


def names(local: Stack) -> set[str]:
    """Return the names of the bucket's objects from a listing."""
    url = f"{servers.url(local.ports.storage)}/storage/v1/b/{stack.BUCKET}/o"
    return {item["name"] for item in requests.get(url, timeout=10).json().get("items", [])}


def write(local: Stack, root: Path, *names: str) -> list[Change]:
    return list(local.apply(Changes(written=names), root))


def test_an_event_has_the_form_that_eventarc_documents(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    (tmp_path / "scan #1 ü%41.dcm").write_bytes(b"content")
    (change,) = write(local, tmp_path, "scan #1 ü%41.dcm")
    assert (change.kind, change.failure) == (ChangeKind.NEW, None)
    ((headers, body),) = function.requests
    assert headers["Content-Type"] == "application/json"
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "google.cloud.storage.object.v1.finalized"
    assert headers["ce-bucket"] == stack.BUCKET
    assert headers["ce-source"] == f"//storage.googleapis.com/projects/_/buckets/{stack.BUCKET}"
    assert headers["ce-subject"] == "objects/scan%20%231%20%C3%BC%2541.dcm"
    resource = json.loads(body)
    assert resource["name"] == "scan #1 ü%41.dcm"
    assert resource["size"] == "7"
    assert isinstance(resource["generation"], str)
    assert resource["contentType"] == "application/dicom"
    event = from_http(headers, body)
    attributes = {f"ce-{key}": value for key, value in event.get_attributes().items()}
    parsed = events.parse(Delivery(attributes, body))
    assert parsed.kind is EventKind.FINALIZED
    assert parsed.object.generation == int(resource["generation"])
    assert parsed.event_id == headers["ce-id"]


def test_odd_names_reach_bucket_and_function_unchanged(
    local: Stack, function: FakeFunction, odd_folder: Path
) -> None:
    write(local, odd_folder, *ODD_NAMES)
    assert names(local) == set(ODD_NAMES)
    assert {json.loads(body)["name"] for _, body in function.requests} == set(ODD_NAMES)
    subjects = {unquote(headers["ce-subject"]) for headers, _ in function.requests}
    assert subjects == {f"objects/{name}" for name in ODD_NAMES}


def test_an_overwrite_creates_a_generation_and_deletes_the_old_one(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(b"1")
    write(local, tmp_path, "a.dcm")
    (tmp_path / "a.dcm").write_bytes(b"22")
    (change,) = write(local, tmp_path, "a.dcm")
    assert change.kind is ChangeKind.CHANGED
    assert function.kinds == ["finalized", "finalized", "deleted"]
    first, second, third = (json.loads(body) for _, body in function.requests)
    assert int(first["generation"]) < int(second["generation"])
    assert third == first
    assert len({headers["ce-id"] for headers, _ in function.requests}) == 3


def test_deleting_a_file_deletes_the_object(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    (tmp_path / "a #1.dcm").write_bytes(b"1")
    write(local, tmp_path, "a #1.dcm")
    (change,) = local.apply(Changes(removed=("a #1.dcm", "never uploaded.dcm")), tmp_path)
    assert change.kind is ChangeKind.DELETED
    assert function.kinds == ["finalized", "deleted"]
    assert names(local) == set()
    assert not local.objects


def test_an_event_is_delivered_again_until_it_is_acknowledged(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    function.statuses = [500, 429]
    (tmp_path / "a.dcm").write_bytes(b"1")
    (change,) = write(local, tmp_path, "a.dcm")
    assert change.failure is None
    assert [delivery.attempts for delivery in change.deliveries] == [3]
    assert len({headers["ce-id"] for headers, _ in function.requests}) == 1


def test_only_unacknowledged_events_are_delivered_again(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(b"1")
    write(local, tmp_path, "a.dcm")
    (tmp_path / "a.dcm").write_bytes(b"22")
    function.statuses = [200, 503]
    write(local, tmp_path, "a.dcm")
    assert function.kinds == ["finalized", "finalized", "deleted", "deleted"]


def test_an_event_that_is_never_acknowledged_is_a_failure(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    function.statuses = [500] * 3
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_bytes(b"1")
    (failed,) = write(local, tmp_path, "a.dcm")
    assert failed.failure == "finalized not acknowledged: HTTP 500 (3 times)"
    (well,) = write(local, tmp_path, "b.dcm")
    assert well.failure is None


def test_an_unreachable_function_is_a_failure(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    ports = Ports(storage=local.ports.storage, function=servers.free_port())
    (tmp_path / "a.dcm").write_bytes(b"1")
    alone = Stack(Config(), ports, local.dataset, Path(), Mirror("alone"))
    (change,) = write(alone, tmp_path, "a.dcm")
    assert change.failure is not None
    assert "no answer" in change.failure
    assert not function.requests


def test_a_file_that_cannot_be_uploaded_is_a_failure(
    local: Stack, function: FakeFunction, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    pipe, line_break, no_text = write(
        local, tmp_path, "pipe.dcm", "two\nlines.dcm", os.fsdecode(b"\xff.dcm")
    )
    assert {pipe.failure, line_break.failure, no_text.failure} == {
        "not uploaded: not a regular file",
        "not uploaded: Cloud Storage does not accept this name",
    }
    assert not function.requests


def test_a_file_deleted_before_its_upload_is_ignored(local: Stack, tmp_path: Path) -> None:
    assert not write(local, tmp_path, "gone.dcm")


@pytest.mark.parametrize("name", ["", "a\rb", "a\nb", "\udcff", "x" * 1025, "é" * 513])
def test_a_name_that_cloud_storage_rejects_is_recognized(name: str) -> None:
    assert not is_object_name(name)


@pytest.mark.parametrize("name", [*ODD_NAMES, "x" * 1024, "tab\t", "a//b", ".."])
def test_a_name_that_cloud_storage_accepts_is_recognized(name: str) -> None:
    assert is_object_name(name)


def test_a_failing_storage_server_raises_server_error(storage_url: str) -> None:
    with pytest.raises(ServerError, match="no answer"):
        Bucket(servers.url(servers.free_port()), "any", connections=1).create()
    bucket = Bucket(storage_url, "no-such-bucket", connections=1)
    with pytest.raises(ServerError, match="HTTP 404"):
        bucket.upload("a.dcm", b"")
    bucket.close()


def test_the_log_of_the_function_can_outlive_the_stack(local: Stack, tmp_path: Path) -> None:
    log: Any = tmp_path / "function" / "log"
    log.parent.mkdir()
    log.write_text("what happened")
    local._folder = tmp_path
    kept = local.keep_function_log()
    assert kept.read_text() == "what happened"
    kept.unlink()
