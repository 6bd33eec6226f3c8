"""A scratch folder is removed when its process ends, and no other folder is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dcm2bq.local.scratch_folder import scratch_folder
from tests.support.patience import until

HOLD = (
    "import sys\n"
    "from dcm2bq.local.scratch_folder import scratch_folder\n"
    "with scratch_folder() as folder:\n"
    "    (folder / 'data').write_text('x')\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def hold() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder; return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_folder_is_private_and_removed_after_the_block() -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
    assert not folder.exists()


def test_a_killed_process_leaves_no_folder() -> None:
    process, folder = hold()
    end(process)
    until(lambda: not folder.exists())


def test_the_next_start_removes_abandoned_folders_and_keeps_those_in_use() -> None:
    dead, left = hold()
    (sweeper,) = Path(f"/proc/{dead.pid}/task/{dead.pid}/children").read_text().split()
    os.kill(int(sweeper), signal.SIGKILL)
    end(dead)
    alive, held = hold()
    try:
        assert not left.exists()
        with scratch_folder():
            assert (held / "data").exists()
        assert (held / "data").exists()
    finally:
        end(alive)


def test_folders_that_only_look_similar_are_kept(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "dcm2bq-local.lock").touch()
    (temporary / "dcm2bq-local-link").symlink_to(precious)
    (temporary / "dcm2bq-local-mine").mkdir()
    (temporary / "dcm2bq-local-mine" / "data").touch()
    (temporary / "dcm2bq-local-file").touch()
    linked = temporary / "dcm2bq-local-linked"
    linked.mkdir()
    (linked / "dcm2bq-local.lock").symlink_to(precious / "dcm2bq-local.lock")
    before = sorted(temporary.rglob("*"))
    with scratch_folder():
        pass
    assert sorted(temporary.rglob("*")) == before
