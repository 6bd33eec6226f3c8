"""A running stack is found by others, and a gone one is forgotten."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dcm2bq import config
from dcm2bq.local import servers
from dcm2bq.local.state import State, find, published
from tests.support.http_server import Exchange, serving


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "dcm2bq"


@contextmanager
def bigquery() -> Iterator[int]:
    """A server that answers as a running BigQuery does to the question whether it runs."""

    def serve(exchange: Exchange) -> None:
        exchange.answer(200 if exchange.path == servers.BIGQUERY_PROBE else 500)

    with serving(serve) as url:
        yield urlsplit(url).port or 0


def a_state(port: int, *, root: str = "/scans", pid: int | None = None) -> State:
    settings = config.from_overrides({"bigQuery": {"datasetId": "other"}})
    return State(pid=pid or os.getpid(), bigquery_port=port, root=root, config=settings)


def gone_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_nothing_runs() -> None:
    assert find(None) is None


def test_a_running_stack_is_found_as_it_was_published(runtime: Path) -> None:
    with bigquery() as port, published(a_state(port)):
        assert find(None) == a_state(port)
        assert runtime.stat().st_mode & 0o077 == 0
    assert find(None) is None
    assert not list(runtime.iterdir())


def test_a_folder_is_answered_by_its_own_stack_alone() -> None:
    with bigquery() as port, published(a_state(port, root="/scans")):
        assert find(Path("/scans")) is not None
        assert find(Path("/other")) is None
        assert find(None) is not None


def test_the_latest_stack_answers(runtime: Path) -> None:
    parent = os.getppid()
    with (
        bigquery() as port,
        published(a_state(port, root="/old", pid=parent)),
        published(a_state(port, root="/new")),
    ):
        os.utime(runtime / f"{parent}.json", (1, 1))
        found = find(None)
        assert found is not None
        assert found.root == "/new"


def test_a_stack_whose_process_is_gone_is_forgotten(runtime: Path) -> None:
    with bigquery() as port, published(a_state(port, pid=gone_pid())):
        assert find(None) is None
        assert not list(runtime.iterdir())


def test_a_stack_that_does_not_answer_is_forgotten(runtime: Path) -> None:
    with published(a_state(servers.free_port())):
        assert find(None) is None
        assert not list(runtime.iterdir())


def test_garbage_is_forgotten(runtime: Path) -> None:
    find(None)
    (runtime / "1.json").write_text("{")
    assert find(None) is None
    assert not list(runtime.iterdir())


def test_what_others_keep_in_the_folder_is_not_touched(runtime: Path, tmp_path: Path) -> None:
    find(None)
    (runtime / "settings.json").write_text("{}")
    (runtime / "notes").write_text("text")
    (tmp_path / "precious.json").write_text("{")
    (runtime / "77.json").symlink_to(tmp_path / "precious.json")
    (runtime / "78.json").mkdir()
    before = sorted(each.name for each in runtime.iterdir())
    with published(a_state(servers.free_port())):
        assert find(None) is None
    assert sorted(each.name for each in runtime.iterdir()) == before
    assert (tmp_path / "precious.json").exists()


def test_a_link_in_place_of_the_folder_is_refused_and_what_it_points_to_stays(
    runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1.json").write_text("{")
    runtime.symlink_to(tmp_path / "mine")
    with pytest.raises(servers.ServerError, match="is a link"):
        find(None)
    with pytest.raises(servers.ServerError, match="is a link"), published(a_state(1)):
        pass
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["1.json"]


def test_a_folder_that_others_can_enter_is_closed(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o777)
    with bigquery() as port, published(a_state(port)):
        assert runtime.stat().st_mode & 0o777 == 0o700
        (file,) = runtime.iterdir()
        assert file.stat().st_mode & 0o077 == 0


def test_without_a_runtime_folder_the_temporary_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with bigquery() as port, published(a_state(port)):
        assert (tmp_path / f".dcm2bq-{os.getuid()}" / f"{os.getpid()}.json").exists()
        assert find(None) is not None


def test_a_folder_of_another_users_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / ".dcm2bq-4242").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(servers.ServerError, match="another user"):
        find(None)
