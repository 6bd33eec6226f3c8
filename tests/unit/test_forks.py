"""A fork of the tests runs a program as a new process would."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from tests.support.forks import Fork, Forks, forking
from tests.support.function_forks import IMPORTED
from tests.support.patience import until

SHOW = """
import os, sys
print(sys.argv[1:], os.environ["OWN"], os.getsid(0) == os.getpid(), sys.stdin.read(), __name__)
print(sys.path[0], len(os.environ), os.getpid(), file=sys.stderr)
sys.exit(3)
"""
LOADED = """
import sys
print([name for name in sys.modules if name.split(".")[0] in ("dcm2bq", "main", "tests")])
"""
SLEEP = "import time; print('asleep', flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with forking(Path(sys.executable), os.environ, ["json"]) as forks:
        yield forks


def script(folder: Path, program: str) -> str:
    file = folder / "program.py"
    file.write_text(program)
    return str(file)


def asleep(forks: Forks, folder: Path) -> Fork:
    with (folder / "out").open("wb") as out:
        fork = forks.start([script(folder, SLEEP)], {}, out.fileno(), out.fileno())
    until(lambda: (folder / "out").read_text() == "asleep\n")
    return fork


def is_running(pid: int) -> bool:
    """Return whether a process runs; of one that nobody waits for, an entry can remain."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_program_has_its_own_arguments_environment_session_and_output(
    forks: Forks, tmp_path: Path
) -> None:
    command = [script(tmp_path, SHOW), "a", "b c"]
    status, out, err = forks.run(command, {"OWN": "1", "PYTHONPATH": "/first"})
    assert status == 3
    assert out == "['a', 'b c'] 1 True  __main__\n"
    assert err.startswith("/first 2 ")


def test_a_program_that_fails_shows_its_traceback(forks: Forks, tmp_path: Path) -> None:
    status, _, err = forks.run([script(tmp_path, "1 / 0")], {})
    assert status == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("pass", (0, "", "")),
        ("raise SystemExit", (0, "", "")),
        ("raise SystemExit('wrong')", (1, "", "wrong\n")),
        ("import atexit\natexit.register(print, 'last')", (0, "last\n", "")),
    ],
)
def test_a_program_ends_as_python_does(
    forks: Forks, tmp_path: Path, program: str, end: tuple[int, str, str]
) -> None:
    assert forks.run([script(tmp_path, program)], {}) == end


def test_the_status_of_a_terminated_program_is_that_of_its_signal(
    forks: Forks, tmp_path: Path
) -> None:
    fork = asleep(forks, tmp_path)
    assert fork.poll() is None
    with pytest.raises(TimeoutExpired):
        fork.wait(0.01)
    fork.terminate()
    assert fork.wait() == fork.poll() == -signal.SIGTERM
    fork.terminate()


def test_a_killed_program_keeps_its_process_id_until_its_status_is_read(
    forks: Forks, tmp_path: Path
) -> None:
    fork = asleep(forks, tmp_path)
    os.kill(fork.pid, signal.SIGKILL)
    until(lambda: not is_running(fork.pid))
    os.kill(fork.pid, 0)  # succeeds as long as the id is that of a process
    assert fork.wait() == -signal.SIGKILL


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can kill a child when its parent ends"
)
def test_a_program_does_not_outlive_the_process_to_fork(tmp_path: Path) -> None:
    with ExitStack() as stack:
        forks = stack.enter_context(forking(Path(sys.executable), os.environ, []))
        fork = asleep(forks, tmp_path)
    until(lambda: not is_running(fork.pid))
    with pytest.raises(AssertionError, match="the process to fork has ended"):
        fork.poll()
    fork._connection.close()


def test_the_function_imports_its_own_code_itself(tmp_path: Path) -> None:
    with forking(Path(sys.executable), os.environ, IMPORTED) as forks:
        assert forks.run([script(tmp_path, LOADED)], {}) == (0, "[]\n", "")
