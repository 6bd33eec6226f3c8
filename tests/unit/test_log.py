"""Log lines are JSON with allow-listed fields; lines of libraries lose their texts."""

import errno
import hashlib
import hmac
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dcm2bq import config, log
from dcm2bq.errors import ReadFailedError, describe

SENTINEL = "SENTINEL^PATIENT"


@pytest.fixture
def setup() -> Iterator[Any]:
    root, own = logging.getLogger(), logging.getLogger("dcm2bq")
    before = root.handlers[:], root.level, own.level

    def make(**options: Any) -> None:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        log.setup(config.from_overrides({"log": options}))

    yield make
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_has_the_fields_that_cloud_logging_reads(
    setup: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    setup()
    log.write("ERROR", "event failed", path="gs://b/ä.dcm", milliseconds=3, error=None)
    (line,) = lines(capsys)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "severity": "ERROR",
        "message": "event failed",
        "path": "gs://b/ä.dcm",
        "milliseconds": 3,
    }


def test_lines_below_the_level_are_not_logged(
    setup: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(level="WARNING")
    log.write("INFO", "quiet")
    log.write("WARNING", "loud")
    assert [line["message"] for line in lines(capsys)] == ["loud"]


def test_paths_can_be_hashed(setup: Any, capsys: pytest.CaptureFixture[str]) -> None:
    setup(path="hash")
    log.write("INFO", "event inserted", path=f"gs://b/{SENTINEL}.dcm")
    log.write("INFO", "event inserted", path=f"gs://b/{SENTINEL}.dcm")
    first, second = lines(capsys)
    assert first["path"] == second["path"]
    assert first["path"].startswith("sha256:")
    assert SENTINEL not in str(first)


def test_paths_are_hashed_with_the_key_if_there_is_one(
    setup: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, anyone who knows a name can confirm it."""
    path = f"gs://b/{SENTINEL}.dcm"
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key\n")
    setup(path="hash")
    log.write("INFO", "event inserted", path=path)
    (line,) = lines(capsys)
    digest = hmac.new(b"a key", path.encode(), hashlib.sha256).hexdigest()
    assert line["path"] == f"hmac-sha256:{digest}"


def test_no_other_field_can_be_logged() -> None:
    with pytest.raises(ValueError, match="fields not allowed in logs: patient"):
        log.write("INFO", "event inserted", patient=SENTINEL)


def test_lines_of_libraries_lose_their_text(setup: Any, capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    stranger = logging.getLogger("some.library")
    stranger.warning("value %s", SENTINEL)
    try:
        raise KeyError(SENTINEL)
    except KeyError:
        stranger.exception("failed on %s", SENTINEL)
    first, second = lines(capsys)
    assert (first["logger"], first["severity"]) == ("some.library", "WARNING")
    assert second["message"].startswith("KeyError < test_log.py:")
    assert SENTINEL not in str([first, second])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, SENTINEL, SENTINEL), "OSError (No space left on device)"),
        (OSError(errno.EACCES, SENTINEL), "PermissionError (Permission denied)"),
        (OSError(SENTINEL), "OSError"),
        (ssl.SSLError(1, SENTINEL), "SSLError"),
        (socket.gaierror(-2, SENTINEL), "gaierror"),
    ],
)
def test_an_error_of_the_system_keeps_the_systems_text_and_no_other(
    error: OSError, expected: str
) -> None:
    try:
        raise error
    except OSError as raised:
        text = describe(raised)
    assert text.startswith(f"{expected} < test_log.py:")
    assert SENTINEL not in text


def test_an_error_in_the_line_of_its_event_is_not_logged_again(
    setup: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    setup()
    try:
        raise ReadFailedError("told")
    except ReadFailedError:
        logging.getLogger("ingest").exception("Exception on / [POST]")
    assert lines(capsys) == []


def test_a_tally_writes_a_line_at_once_then_one_per_minute_and_one_at_the_end(
    setup: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup()
    tally = log.Tally("events ignored", "ignored")
    tally.write_if_due()
    assert lines(capsys) == []
    for reason in ("name", "name", "empty"):
        tally.add(reason)
        tally.write_if_due()
    (line,) = lines(capsys)
    assert line.pop("time")
    assert line == {"severity": "INFO", "message": "events ignored", "ignored": {"name": 1}}
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 59)
    tally.write_if_due()
    assert lines(capsys) == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    tally.write_if_due()
    assert [line["ignored"] for line in lines(capsys)] == [{"name": 1, "empty": 1}]
    tally.add("folder")
    tally.flush()
    tally.flush()
    assert [line["ignored"] for line in lines(capsys)] == [{"folder": 1}]


def test_a_tally_loses_no_count_between_threads(
    setup: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup()
    monkeypatch.setattr(log, "_TALLY_SECONDS", 0)
    tally = log.Tally("events ignored", "ignored")

    def count(_: int) -> None:
        tally.add("name")
        tally.write_if_due()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(2000)))
    tally.flush()
    assert sum(line["ignored"]["name"] for line in lines(capsys)) == 2000
