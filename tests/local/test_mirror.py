"""Files as the objects of a bucket, read with the clients of Cloud Storage."""

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage.client import Client

from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import SupersededError
from dcm2bq.gcs.store import Store
from dcm2bq.local import mirror as mirrors
from dcm2bq.local import servers, storage
from dcm2bq.local.mirror import Mirror, Resource
from dcm2bq.stored_object import StoredObject
from tests.support.cloud import Bucket
from tests.support.function_stack import unique

NAMES = ("a.dcm", "b/1.dcm", "b/2 #ü%41.dcm", "b/c/3.dcm", "山.dcm")


@pytest.fixture
def mirror() -> Mirror:
    return Mirror("dicom")


@pytest.fixture
def url(mirror: Mirror, storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = servers.free_port()
    with storage.serving(mirror, port, storage_url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", servers.url(port))
        yield servers.url(port)


@pytest.fixture
def client(url: str) -> Client:
    options = {"api_endpoint": url}
    return Client("local", AnonymousCredentials(), client_options=options)


def put(mirror: Mirror, root: Path, name: str, content: bytes = b"0123456789") -> Resource:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    return mirror.put(name, root)


def read(resource: Resource, offset: int, n: int) -> bytes:
    """Read as the function does."""
    stored = StoredObject(
        bucket="dicom",
        name=resource["name"],
        generation=int(resource["generation"]),
        size=int(resource["size"]),
    )
    return Store(Config()).open(stored, Deadline.after(10)).read_at(offset, n)


@pytest.mark.usefixtures("url")
def test_a_file_is_read_in_place_by_ranges(mirror: Mirror, tmp_path: Path) -> None:
    for name in NAMES:
        resource = put(mirror, tmp_path, name)
        assert read(resource, 0, 4) == b"0123"
        assert read(resource, 8, 100) == b"89"


@pytest.mark.usefixtures("url")
def test_a_changed_file_no_longer_serves_its_old_generation(mirror: Mirror, tmp_path: Path) -> None:
    first = put(mirror, tmp_path, "a.dcm")
    (tmp_path / "a.dcm").write_bytes(b"other")
    with pytest.raises(SupersededError):
        read(first, 0, 4)
    second = mirror.put("a.dcm", tmp_path)
    assert int(second["generation"]) > int(first["generation"])
    assert read(second, 0, 5) == b"other"
    with pytest.raises(SupersededError):
        read(first, 0, 4)
    (tmp_path / "a.dcm").unlink()
    os.mkfifo(tmp_path / "a.dcm")
    with pytest.raises(SupersededError):
        read(second, 0, 4)


def test_anything_but_a_regular_file_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "null.dcm").symlink_to("/dev/null")
    for name in ("pipe.dcm", "null.dcm"):
        with pytest.raises(OSError, match="not a regular file"):
            mirror.put(name, tmp_path)


def test_objects_are_described_as_by_cloud_storage(
    mirror: Mirror, client: Client, tmp_path: Path
) -> None:
    resource = put(mirror, tmp_path, NAMES[2])
    blob = client.bucket("dicom").get_blob(NAMES[2])
    assert blob is not None
    assert (blob.generation, blob.size) == (int(resource["generation"]), 10)
    assert blob.content_type == "application/dicom"
    assert blob.md5_hash == base64.b64encode(hashlib.md5(b"0123456789").digest()).decode()
    assert blob.download_as_bytes() == b"0123456789"  # the client compares the hash
    assert blob.download_as_bytes(start=2, end=3) == b"23"
    assert client.bucket("dicom").get_blob("missing") is None


@pytest.mark.usefixtures("url")
def test_files_are_listed_as_objects(mirror: Mirror, tmp_path: Path) -> None:
    resources = [put(mirror, tmp_path, name) for name in NAMES]
    for stored, resource in zip(Store(Config()).list("dicom"), resources, strict=True):
        assert (stored.name, str(stored.generation)) == (resource["name"], resource["generation"])
        assert stored.created is not None
        assert stored.created.timestamp() * 1e6 == pytest.approx(stored.generation, abs=1)


def test_large_files_are_not_read_for_their_hashes(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_HASHED_BYTES", 9)
    assert not {"md5Hash", "crc32c"} & put(mirror, tmp_path, "a.dcm").keys()
    assert {"md5Hash", "crc32c"} <= put(mirror, tmp_path, "b.dcm", b"012345678").keys()


def test_the_bucket_is_listed_in_pages_by_prefix_and_delimiter(
    mirror: Mirror, client: Client, tmp_path: Path
) -> None:
    for name in NAMES:
        put(mirror, tmp_path, name)
    bucket = client.bucket("dicom")

    def listed(**options: object) -> list[str]:
        return [blob.name for blob in client.list_blobs(bucket, **options)]

    assert listed() == listed(page_size=2) == listed(page_size=1) == list(NAMES)
    assert listed(prefix="b/") == list(NAMES[1:4])
    assert listed(start_offset="b/2", end_offset="b/c") == [NAMES[2]]
    for size in (1, None):
        found = client.list_blobs(bucket, delimiter="/", page_size=size)
        assert [blob.name for blob in found] == ["a.dcm", "山.dcm"]
        assert found.prefixes == {"b/"}
    mirror.remove("a.dcm")
    assert listed() == list(NAMES[1:])


def test_the_bucket_is_read_only(mirror: Mirror, url: str, tmp_path: Path) -> None:
    put(mirror, tmp_path, "a.dcm")
    for method, path in (
        ("POST", "/upload/storage/v1/b/dicom/o?uploadType=media&name=x"),
        ("DELETE", "/storage/v1/b/dicom/o/a.dcm"),
    ):
        answer = requests.request(method, url + path, data=b"x", timeout=10)
        assert answer.status_code == 403
    assert (tmp_path / "a.dcm").exists()


def test_ranges_are_served_and_one_beyond_the_end_is_refused(
    mirror: Mirror, url: str, tmp_path: Path
) -> None:
    put(mirror, tmp_path, "a.dcm")
    media = f"{url}/storage/v1/b/dicom/o/a.dcm?alt=media"
    for range_, status, content in (
        ("bytes=10-", 416, None),
        ("bytes=9-", 206, b"9"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-1000", 206, b"56789"),
    ):
        answer = requests.get(media, headers={"Range": range_}, timeout=10)
        assert answer.status_code == status
        assert content is None or answer.content == content


def test_requests_for_other_buckets_are_forwarded(url: str) -> None:
    bucket = Bucket(url, unique("staging-"))
    bucket.upload("a/b.json", b"{}" * 5000)
    assert list(bucket.names()) == ["a/b.json"]
    media = f"{url}/storage/v1/b/{bucket.name}/o/a%2Fb.json?alt=media"
    assert requests.get(media, timeout=10).content == b"{}" * 5000
    bucket.delete("a/b.json")
    assert not bucket.names()


def test_an_unreachable_upstream_server_is_answered_with_bad_gateway(mirror: Mirror) -> None:
    port = servers.free_port()
    with storage.serving(mirror, port, servers.url(servers.free_port())):
        answer = requests.get(f"{servers.url(port)}/storage/v1/b/other/o", timeout=10)
    assert answer.status_code == 502
