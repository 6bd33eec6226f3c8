"""The folder of a process goes with it, and nobody else's does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dcm2bq.local.work import own_folder
from tests.support.patience import until

HOLD = (
    "import sys\n"
    "from dcm2bq.local.work import own_folder\n"
    "with own_folder() as folder:\n"
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
    """Start a process that has a folder; return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_it_is_private_and_gone_after_the_block() -> None:
    with own_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
    assert not folder.exists()


def test_a_killed_process_leaves_no_folder() -> None:
    process, folder = hold()
    end(process)
    until(lambda: not folder.exists())


def test_the_next_start_clears_what_was_left_and_spares_what_is_held() -> None:
    dead, left = hold()
    (sweeper,) = Path(f"/proc/{dead.pid}/task/{dead.pid}/children").read_text().split()
    os.kill(int(sweeper), signal.SIGKILL)
    end(dead)
    alive, held = hold()
    try:
        assert not left.exists()
        with own_folder():
            assert (held / "data").exists()
        assert (held / "data").exists()
    finally:
        end(alive)


def test_what_only_looks_like_one_is_never_deleted(temporary: Path) -> None:
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
    with own_folder():
        pass
    assert sorted(temporary.rglob("*")) == before
