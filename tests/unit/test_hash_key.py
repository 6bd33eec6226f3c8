"""The key of the hash, from a variable or from a secret, which a real HTTP server plays."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dcm2bq import cli, hash_key, secret_manager
from dcm2bq.config import Privacy, from_overrides
from dcm2bq.dicom import convert, privacy_rules
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.transport import Answer
from tests.support.http_server import Exchange, serving
from tests.support.leaping import leaping

ROOT = Path(__file__).parents[2]
CT_SMALL = str(get_testdata_file("CT_small.dcm"))
KEY = "SENTINEL-key-of-the-pseudonyms"
SECRET = "projects/my-project/secrets/dcm2bq"
HASH = {"hash": ["PatientID"]}
OPTIONS = from_overrides({"privacy": {**HASH, "hashKeySecret": SECRET}}).privacy
BY_VARIABLE = from_overrides({"privacy": HASH}).privacy


class SecretManager:
    """Answers every request with `content`, or with the next of `statuses`."""

    def __init__(self) -> None:
        self.content: bytes = KEY.encode()
        self.body: bytes | None = None
        self.statuses: list[int] = []
        self.paths: list[str] = []

    def serve(self, exchange: Exchange) -> None:
        self.paths.append(f"{exchange.command} {exchange.path}")
        if self.statuses:
            exchange.answer_json({"error": {"message": KEY}}, self.statuses.pop(0))
        elif self.body is not None:
            exchange.answer(200, self.body)
        else:
            data = base64.b64encode(self.content).decode()
            exchange.answer_json({"name": f"{SECRET}/versions/1", "payload": {"data": data}})


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is set or was read."""
    monkeypatch.delenv("DCM2BQ_HASH_KEY", raising=False)
    monkeypatch.setattr(hash_key, "_contents", {})


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretManager]:
    server = SecretManager()
    with serving(server.serve) as url:
        monkeypatch.setenv("DCM2BQ_SECRET_MANAGER_EMULATOR_HOST", url)
        yield server


def test_the_latest_version_is_read_once(secrets: SecretManager) -> None:
    for _ in range(3):
        secret_manager.provide_hash_key(OPTIONS)
    assert hash_key.hash_key(OPTIONS) == KEY.encode()
    assert secrets.paths == [f"GET /v1/{SECRET}/versions/latest:access"]


def test_a_version_that_is_named_is_read(secrets: SecretManager) -> None:
    version = f"{SECRET}/versions/3"
    secret_manager.provide_hash_key(Privacy(hash=("PatientID",), hash_key_secret=version))
    assert secrets.paths == [f"GET /v1/{version}:access"]


def test_nothing_is_read_without_a_name(secrets: SecretManager) -> None:
    secret_manager.provide_hash_key(BY_VARIABLE)
    assert secrets.paths == []


@pytest.mark.parametrize("stored", [KEY, f"{KEY}\n"])
@pytest.mark.parametrize("set_", [KEY, f"{KEY}\n", ""])
def test_a_newline_at_the_end_is_no_part_of_the_key(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch, stored: str, set_: str
) -> None:
    """Nor does the variable matter, if it holds the same key."""
    secrets.content = stored.encode()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", set_)
    secret_manager.provide_hash_key(OPTIONS)
    assert hash_key.required_key(OPTIONS) == KEY.encode()


def test_two_different_keys_are_a_configuration_error(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.content = f"{KEY}1".encode()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}2")
    secret_manager.provide_hash_key(OPTIONS)
    with pytest.raises(ConfigError, match="DCM2BQ_HASH_KEY hold different keys") as caught:
        privacy_rules(OPTIONS)
    assert KEY not in str(caught.value)


def test_a_short_key_is_refused_by_the_name_of_its_secret(secrets: SecretManager) -> None:
    secrets.content = b"fifteen bytes..\n"
    secret_manager.provide_hash_key(OPTIONS)
    with pytest.raises(ConfigError, match=f"hashKeySecret: {SECRET} must hold 16 bytes or more"):
        privacy_rules(OPTIONS)


def test_the_library_reads_no_secret() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.hashKeySecret: the secret has not been read"):
        convert(CT_SMALL, {"privacy": {**HASH, "hashKeySecret": SECRET}})


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_secret_that_cannot_be_read_is_a_configuration_error(
    secrets: SecretManager, status: int
) -> None:
    secrets.statuses = [status]
    with pytest.raises(ConfigError) as caught:
        secret_manager.provide_hash_key(OPTIONS)
    message = str(caught.value)
    assert f"{SECRET}/versions/latest: HTTP {status}:" in message
    assert "roles/secretmanager.secretAccessor" in message
    assert KEY not in message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_fails_may_be_tried_again(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(secret_manager, "_SECONDS", 0.5)
    secrets.statuses = [status] * 1000
    message = f"^Secret Manager: .*: HTTP {status}$"
    with leaping(), pytest.raises(ServiceError, match=message) as caught:
        secret_manager.provide_hash_key(OPTIONS)
    assert KEY not in str(caught.value)
    assert not hash_key.is_kept(SECRET)


@pytest.mark.parametrize("status", [401, 408])
def test_a_status_that_says_nothing_about_the_secret_is_a_failure_of_the_service(
    status: int,
) -> None:
    """Such as that of credentials that have expired."""
    assert type(secret_manager._failure(SECRET, Answer(status, {}, b""))) is ServiceError


def test_a_failure_that_passes_is_not_seen(secrets: SecretManager) -> None:
    secrets.statuses = [503, 429]
    secret_manager.provide_hash_key(OPTIONS)
    assert hash_key.hash_key(OPTIONS) == KEY.encode()


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"payload": {"data": "%"}}', b"{}"])
def test_an_answer_that_is_no_secret_is_a_failure(secrets: SecretManager, body: bytes) -> None:
    secrets.body = body
    with pytest.raises(ServiceError, match="the answer is not a secret"):
        secret_manager.provide_hash_key(OPTIONS)


@pytest.mark.parametrize(
    "name", ["dcm2bq", "projects/p/secrets/", f"{SECRET}/versions/", f"{SECRET}\n", f"{SECRET}?x"]
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.hashKeySecret: a secret is named projects/"):
        from_overrides({"privacy": {"hashKeySecret": name}})


def test_the_digest_identifies_the_key_wherever_it_comes_from(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.content = KEY.encode()
    assert hash_key.digest(OPTIONS) is None
    assert hash_key.digest(BY_VARIABLE) is None
    secret_manager.provide_hash_key(OPTIONS)
    digest = hash_key.digest(OPTIONS)
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}\n")
    assert digest == hash_key.digest(BY_VARIABLE)
    assert re.fullmatch("[0-9a-f]{16}", str(digest))
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}2")
    assert digest != hash_key.digest(BY_VARIABLE)
    assert hash_key.digest(Privacy(remove=("PatientID",))) is None


def test_the_fingerprint_does_not_depend_on_where_the_key_is() -> None:
    """Tables that were labelled before the option existed keep their label."""
    assert OPTIONS.fingerprint == BY_VARIABLE.fingerprint


def test_a_command_hashes_with_the_key_of_the_secret(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": {**HASH, "hashKeySecret": SECRET}}))
    assert cli.main(["dump", CT_SMALL]) == 0
    by_secret = capsys.readouterr()
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": HASH}))
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    assert cli.main(["dump", CT_SMALL]) == 0
    assert capsys.readouterr() == by_secret
    assert len(json.loads(by_secret.out)["PatientID"]) == 64
    assert KEY not in by_secret.out + by_secret.err
    assert len(secrets.paths) == 1


@pytest.mark.parametrize(
    "args",
    [
        ["dump", CT_SMALL],
        ["init"],
        ["verify", "gs://bucket", "--repair"],
        ["dead-letters", "retry", "--all"],
        ["backfill", "gs://bucket", "--staging", "gs://bucket/s"],
    ],
    ids=lambda args: args[0],
)
def test_commands_that_need_the_key_stop_if_it_cannot_be_read(
    secrets: SecretManager,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", nobody)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", nobody)
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": {**HASH, "hashKeySecret": SECRET}}))
    secrets.statuses = [403] * 10
    assert cli.main(args) == 2
    assert "roles/secretmanager.secretAccessor" in capsys.readouterr().err


def test_the_configuration_is_shown_without_reading_the_secret(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But wrong attributes are still refused."""
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": {**HASH, "hashKeySecret": SECRET}}))
    assert cli.main(["config"]) == 0
    assert json.loads(capsys.readouterr().out)["privacy"]["hashKeySecret"] == SECRET
    wrong = {"hash": ["NoSuch"], "hashKeySecret": SECRET}
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": wrong}))
    assert cli.main(["config"]) == 2
    assert secrets.paths == []


def test_the_local_stack_reads_no_secret(
    secrets: SecretManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing leaves the machine: there the key comes from the variable."""
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": {**HASH, "hashKeySecret": SECRET}}))
    assert cli.main(["local", "--once"]) == 2
    assert "DCM2BQ_HASH_KEY is not set: it must hold 16 bytes" in capsys.readouterr().err
    assert secrets.paths == []


def start(privacy: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Start the function's module, as functions-framework does."""
    program = "import runpy, sys; runpy.run_path(sys.argv[1])"
    name = "DCM2BQ_SECRET_MANAGER_EMULATOR_HOST"
    return subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "main.py")],
        env={
            "PYTHONPATH": str(ROOT),
            "DCM2BQ_CONFIG": json.dumps({"privacy": privacy, "log": {"path": "hash"}}),
            name: os.environ[name],
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_function_reads_the_secret_at_its_start(secrets: SecretManager) -> None:
    result = start({**HASH, "hashKeySecret": SECRET})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(secrets.paths) == 1


def test_the_function_does_not_start_without_the_secret(secrets: SecretManager) -> None:
    secrets.statuses = [404]
    result = start({**HASH, "hashKeySecret": SECRET})
    assert result.returncode == 1
    assert result.stderr.startswith(f"dcm2bq: privacy.hashKeySecret: {SECRET}/versions/latest")
    assert KEY not in result.stderr + result.stdout
