"""Processes read the key of the hash by its name; nothing that is sent to workers contains it."""

import base64
import bz2
import contextlib
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from dcm2bq import cli, config, emulators, hash_key
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.dicom import privacy_rules
from dcm2bq.gcs.run_folder import RunFolder
from dcm2bq.row_names import RowNames
from dcm2bq.tools.backfill import known
from dcm2bq.tools.backfill.launch import count
from dcm2bq.tools.backfill.run_records import Run, new_id
from tests.backfill.test_dataflow import specify
from tests.support.backfill_site import CT_SMALL, Site
from tests.support.cloud import TYPE_PREFIX, Event
from tests.support.datasets import borrowed_dataset, in_dataset
from tests.support.forks import Forks
from tests.support.function_forks import forked_function
from tests.support.function_stack import ROOT
from tests.support.http_server import Exchange, serving
from tests.support.proxy import Fault, LoadingBigQuery, Proxy

KEY = b"SENTINEL-key-of-the-pseudonyms"
NAME = "Doe^Jane"
FINALIZED = f"{TYPE_PREFIX}finalized"
SECRET = "projects/my-project/secrets/dcm2bq/versions/3"
PRIVACY = {
    "profile": "basic",
    "options": ["retainLongitudinalModifiedDates"],
    "hash": ["PatientID"],
    "hashKeySecret": SECRET,
    "path": "hash",
}
STUDY_DATE = date(2004, 1, 19)
"""That of `CT_SMALL`."""

pytestmark = pytest.mark.timeout(600)


def unpacked(content: bytes) -> bytes:
    """Return what is packed in a file: the steps of a graph are pickled, compressed and encoded."""
    parts = []
    for encoded in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", content):
        packed = base64.b64decode(encoded[: len(encoded) // 4 * 4])
        parts.append(packed)
        for decompress in (zlib.decompress, bz2.decompress):
            with contextlib.suppress(OSError, ValueError, zlib.error):
                parts.append(decompress(packed))
    return b"".join(parts)


class SecretManager:
    """Answers with `key`, and counts the requests."""

    def __init__(self) -> None:
        self.key = KEY + b"\n"
        self.requests = 0
        self.url = ""

    def serve(self, exchange: Exchange) -> None:
        self.requests += 1
        assert exchange.path == f"/v1/{SECRET}:access"
        data = base64.b64encode(self.key).decode()
        exchange.answer_json({"payload": {"data": data}})


@pytest.fixture(scope="module")
def running_secrets() -> Iterator[SecretManager]:
    server = SecretManager()
    with pytest.MonkeyPatch.context() as patch, serving(server.serve) as server.url:
        patch.setattr(hash_key, "_contents", {})
        patch.delenv("DCM2BQ_HASH_KEY", raising=False)
        patch.setenv(emulators.SECRET_MANAGER, server.url)
        privacy_rules.cache_clear()
        yield server
        privacy_rules.cache_clear()


@pytest.fixture
def secrets(running_secrets: SecretManager) -> Iterator[SecretManager]:
    yield running_secrets
    running_secrets.key = KEY + b"\n"


@pytest.fixture(scope="module")
def labelled_dataset(bigquery_url: str, running_secrets: SecretManager) -> Iterator[Dataset]:
    """A dataset whose table is labelled with the key's digest."""
    del running_secrets  # only the key
    with borrowed_dataset(bigquery_url, {"privacy": PRIVACY}) as dataset:
        yield dataset


@pytest.fixture
def hashing(
    storage_url: str,
    bigquery_url: str,
    labelled_dataset: Dataset,
    forks: Forks,
    secrets: SecretManager,
) -> Iterator[Site]:
    """A source with one object, and the labelled dataset."""
    dataset = labelled_dataset
    with (
        Proxy(storage_url).running() as storage,
        LoadingBigQuery(bigquery_url).running() as bigquery,
    ):
        site = Site(storage, storage_url, bigquery.url, dataset, forks)
        site.overrides = in_dataset(dataset.dataset_id, {"privacy": PRIVACY})
        site.config = config.from_overrides(site.overrides)
        site.environ[emulators.SECRET_MANAGER] = secrets.url
        site.upload("ct.dcm", CT_SMALL)
        secrets.requests = 0
        yield site


def test_two_processes_load_what_one_does_and_read_the_key(
    hashing: Site, secrets: SecretManager
) -> None:
    for number in range(20):
        hashing.upload(f"{number:02}.dcm", CT_SMALL)
    hashing.upload("bad.dcm", b"not DICOM")
    done = hashing.backfill("--all", "--processes", "2", "--shard-objects", "4")
    assert done.status == 0, done.err
    versions = {
        path_of(hashing, uri.rpartition("/")[2]): version
        for uri, version in hashing.objects.items()
    }
    (letter,) = hashing.dead_letters()
    assert letter["path"] == path_of(hashing, "bad.dcm")
    del versions[letter["path"]]
    assert dict(hashing.live()) == versions
    for row in hashing.rows():
        assert row["PatientID"] == hmac.digest(KEY, b"1CT1", hashlib.sha256).hex().upper()
        days = hmac.digest(KEY, b"dcm2bq\0days of a patient\0" + b"1CT1\0", hashlib.sha256)
        assert row["StudyDate"] == STUDY_DATE - timedelta(int.from_bytes(days) % 365 + 1)
    assert secrets.requests >= 2
    assert "SENTINEL" not in done.out + done.err


def test_every_way_into_the_table_shifts_the_dates_of_a_patient_by_the_same_days(
    hashing: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backfill, the function, a repair, and a retry of a dead letter."""
    environ = {**hashing.environ, "DCM2BQ_CONFIG": json.dumps(hashing.overrides)}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    backfilled = hashing.backfill()
    assert backfilled.status == 0, backfilled.err
    now = datetime.now(UTC)
    with forked_function(tmp_path, ROOT / "main.py", {**environ, "PYTHONPATH": str(ROOT)}) as url:
        for name, time in (("ingested.dcm", now), ("retried.dcm", now - timedelta(days=2))):
            data = hashing.upload(name, CT_SMALL)
            event = Event(id=name, type=FINALIZED, time=time.isoformat(), data=data)
            hashing.storage.faults = [Fault("alt=media", 403)] if time < now else []
            assert event.post(url).status_code == 200
    hashing.storage.faults = []
    cli.main(["dead-letters", "retry", "--all"])
    hashing.upload("repaired.dcm", CT_SMALL)
    cli.main(["verify", f"gs://{hashing.source.name}", "--repair", "--settle", "0"])
    rows = {row["path"]: row for row in hashing.rows()}
    names = ("ct.dcm", "ingested.dcm", "retried.dcm", "repaired.dcm")
    assert rows.keys() == {path_of(hashing, name) for name in names}
    assert len({row["StudyDate"] for row in rows.values()} - {STUDY_DATE}) == 1
    assert len({json.dumps(row["metadata"]) for row in rows.values()}) == 1


def path_of(site: Site, name: str) -> str:
    """Return the path that rows have for an object."""
    return RowNames(KEY).path(f"gs://{site.source.name}/{name}")


def test_objects_are_known_by_the_hashes_of_their_names(hashing: Site) -> None:
    """Whatever shard they are in: hashes have another order than names."""
    for number in range(8):
        hashing.upload(f"{NAME}/{number}.dcm", CT_SMALL)
    hashing.upload(f"{NAME}/broken.dcm", b"no DICOM")
    first = hashing.backfill("--shard-objects", "2", where=f"{NAME}/")
    assert first.status == 0, first.err
    hashing.upload(f"{NAME}/8.dcm", CT_SMALL)
    hashing.upload(f"{NAME}/3.dcm", CT_SMALL)
    second = hashing.backfill("--shard-objects", "2")
    assert second.status == 0, second.err
    assert "11 objects: 3 inserted, 0 dead letters, 8 already present" in second.out
    versions = {path_of(hashing, f"{NAME}/{n}.dcm") for n in range(9)}
    assert {path for path, _ in hashing.live()} == versions | {path_of(hashing, "ct.dcm")}
    (letter,) = hashing.dead_letters()
    assert letter["path"] == path_of(hashing, f"{NAME}/broken.dcm")
    assert len(hashing.rows()) == 11
    tables = hashing.dataset.query("SELECT table_name FROM INFORMATION_SCHEMA.TABLES")
    assert not [row for row in tables if row["table_name"].startswith("backfill_")]
    assert not [name for name in hashing.names("b/") if "/paths_" in name]
    for text in (str(hashing.rows()), str(letter), first.out, first.err, second.out, second.err):
        assert NAME not in text.replace(f"{hashing.source.name}/{NAME}/", "")


def test_keys_that_expired_before_a_run_is_resumed_are_laid_out_again(
    hashing: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the paths that are listed then: BigQuery never runs a load job of the same id again."""
    done = hashing.backfill()
    assert done.status == 0, done.err
    for name, value in hashing.environ.items():
        monkeypatch.setenv(name, value)
    run = Run(
        id=new_id(),
        source=f"gs://{hashing.source.name}",
        staging=hashing.staging_folder,
        config=hashing.config,
    )
    shards = count(run.config, run.bucket, run.prefix).shards
    dataset = Dataset(run.config)
    for _ in range(2):
        known.prepare(dataset, run, shards)
        assert known.by_shard(dataset, run) == {0: 1}
        known.forget(dataset, run)


def test_a_backfill_with_another_key_is_refused(hashing: Site, secrets: SecretManager) -> None:
    secrets.key = b"another key that is long enough"
    done = hashing.backfill()
    assert done.status == 2
    assert "holds pseudonyms made with another key" in done.err
    assert hashing.rows() == []


def test_the_specification_of_a_job_has_the_name_of_the_secret_only(
    hashing: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = specify(hashing, tmp_path)
    assert done.status == 0, done.err
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", hashing.storage_url)
    bucket = RunFolder(f"gs://{hashing.staging.name}", hashing.config)
    content = {name: bucket.read(name) or b"" for name in bucket.names("")}
    assert SECRET.encode() in content[f"b/{done.run}/run.json"]
    sent = b"".join(content.values()) + (done.out + done.err).encode()
    graph = b"".join(unpacked(part) for part in content.values())
    assert SECRET.encode() in graph  # so it can be seen what the steps of the graph have
    sent += graph
    for form in (KEY, base64.b64encode(KEY)[:-4], KEY.hex().encode()):
        assert form not in sent
