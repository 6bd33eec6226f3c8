"""Running stacks are found by other processes; the files of ended ones are removed."""

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
from dcm2bq.local.running_stacks import RunningStack, find, registered
from tests.support.http_server import Exchange, serving


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "dcm2bq"


@contextmanager
def bigquery() -> Iterator[int]:
    """A server that answers the probe like a running BigQuery."""

    def serve(exchange: Exchange) -> None:
        exchange.answer(200 if exchange.path == servers.BIGQUERY_PROBE else 500)

    with serving(serve) as url:
        yield urlsplit(url).port or 0


def a_stack(port: int, *, root: str = "/scans", pid: int | None = None) -> RunningStack:
    settings = config.from_overrides({"bigQuery": {"datasetId": "other"}})
    return RunningStack(pid=pid or os.getpid(), bigquery_port=port, root=root, config=settings)


def gone_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_no_stack_is_found_if_none_runs() -> None:
    assert find(None) is None


def test_a_registered_stack_is_found(runtime: Path) -> None:
    with bigquery() as port, registered(a_stack(port)):
        assert find(None) == a_stack(port)
        assert runtime.stat().st_mode & 0o077 == 0
    assert find(None) is None
    assert not list(runtime.iterdir())


def test_a_stack_is_found_only_for_its_own_folder() -> None:
    with bigquery() as port, registered(a_stack(port, root="/scans")):
        assert find(Path("/scans")) is not None
        assert find(Path("/other")) is None
        assert find(None) is not None


def test_the_newest_stack_is_found_first(runtime: Path) -> None:
    parent = os.getppid()
    with (
        bigquery() as port,
        registered(a_stack(port, root="/old", pid=parent)),
        registered(a_stack(port, root="/new")),
    ):
        os.utime(runtime / f"{parent}.json", (1, 1))
        found = find(None)
        assert found is not None
        assert found.root == "/new"


def test_a_stack_whose_process_has_ended_is_removed(runtime: Path) -> None:
    with bigquery() as port, registered(a_stack(port, pid=gone_pid())):
        assert find(None) is None
        assert not list(runtime.iterdir())


def test_a_stack_that_does_not_answer_is_removed(runtime: Path) -> None:
    with registered(a_stack(servers.free_port())):
        assert find(None) is None
        assert not list(runtime.iterdir())


def test_a_malformed_file_is_removed(runtime: Path) -> None:
    find(None)
    (runtime / "1.json").write_text("{")
    assert find(None) is None
    assert not list(runtime.iterdir())


def test_other_files_in_the_folder_are_not_touched(runtime: Path, tmp_path: Path) -> None:
    find(None)
    (runtime / "settings.json").write_text("{}")
    (runtime / "notes").write_text("text")
    (tmp_path / "precious.json").write_text("{")
    (runtime / "77.json").symlink_to(tmp_path / "precious.json")
    (runtime / "78.json").mkdir()
    before = sorted(path.name for path in runtime.iterdir())
    with registered(a_stack(servers.free_port())):
        assert find(None) is None
    assert sorted(path.name for path in runtime.iterdir()) == before
    assert (tmp_path / "precious.json").exists()


def test_a_link_in_place_of_the_folder_is_refused_and_its_target_not_touched(
    runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1.json").write_text("{")
    runtime.symlink_to(tmp_path / "mine")
    with pytest.raises(servers.ServerError, match="is a link"):
        find(None)
    with pytest.raises(servers.ServerError, match="is a link"), registered(a_stack(1)):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["1.json"]


def test_a_folder_open_to_others_is_made_private(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o777)
    with bigquery() as port, registered(a_stack(port)):
        assert runtime.stat().st_mode & 0o777 == 0o700
        (file,) = runtime.iterdir()
        assert file.stat().st_mode & 0o077 == 0


def test_the_temporary_folder_is_used_without_a_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with bigquery() as port, registered(a_stack(port)):
        assert (tmp_path / f".dcm2bq-{os.getuid()}" / f"{os.getpid()}.json").exists()
        assert find(None) is not None


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / ".dcm2bq-4242").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(servers.ServerError, match="another user"):
        find(None)
