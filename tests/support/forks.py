"""Programs run in forks of a process that has already imported the packages that they need.

The import of Apache Beam takes 1.5 s of CPU, more than a backfill of a few objects; the import of
what the function needs takes 0.5 s. Only tests of interrupts, of memory and of what is imported
need a process that starts from nothing.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # prctl(2): a signal when the parent ends
_FILES = 3
"""What a request sends: the files of the command and environment, of stdout and of stderr."""
_NUMBER = struct.Struct("i")
"""An answer: first the id of the process, and once the process has ended, its exit status."""


class Fork:
    """A process that runs a program, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, connection: socket.socket, command: Sequence[str]) -> None:
        self._connection = connection
        self.args = command
        self.pid = self._receive()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, if the process has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once the process has ended."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = self._receive()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._connection.close()
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _receive(self) -> int:
        answer = self._connection.recv(_NUMBER.size)
        assert answer, "the process to fork has ended"
        number: int = _NUMBER.unpack(answer)[0]
        return number


class Forks:
    """A process to fork, which listens on a socket."""

    def __init__(self, address: Path) -> None:
        self._address = address

    def start(self, command: Sequence[str], environ: Mapping[str, str], out: int, err: int) -> Fork:
        """Run a Python script in a new session, with these file descriptors.

        It does not outlive the process to fork. Another thread may start one at the same time.
        """
        with TemporaryFile("w+") as request:
            json.dump([list(command), dict(environ)], request)
            request.seek(0)
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self._address))
            socket.send_fds(connection, [b"run"], [request.fileno(), out, err])
            return Fork(connection, command)

    def run(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        on_start: Callable[[int], object] = lambda _: None,
    ) -> tuple[int, str, str]:
        """Run a Python script to its end; return its exit status, stdout and stderr.

        `on_start` is called with the id of the process, which is also that of its group.
        """
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            fork = self.start(command, environ, out.fileno(), err.fileno())
            on_start(fork.pid)
            status = fork.wait()
            out.seek(0)
            err.seek(0)
            return status, out.read(), err.read()


@contextmanager
def forking(python: Path, environ: Mapping[str, str], modules: Sequence[str]) -> Iterator[Forks]:
    """Start the process with the Python of some environment; it imports the modules."""
    from tests.support.processes import guarded  # noqa: PLC0415 - not in Beam's environment

    with TemporaryDirectory(prefix="forks-") as folder:  # a short path: sockets allow 100 bytes
        address = Path(folder, "socket")
        command = guarded([python, "-P", __file__, address, *modules])
        with subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield Forks(address)
            finally:
                process.terminate()


def _serve(address: str, modules: Sequence[str]) -> None:
    """Answer requests, each in a process that waits for the program."""
    end = _End()
    atexit.register(end)  # before those of the modules, to be the last that is called
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a collection would copy the pages of all modules to each fork
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    parent = os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _end_with(parent)
                    _answer(connection, end)


def _answer(connection: socket.socket, end: "_End") -> None:
    """Run the program in another process, so that it can end as any process does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (request, out, err), _, _ = socket.recv_fds(connection, 16, _FILES)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        connection.close()
        _run(end, request, out, err)
    for file in (request, out, err):
        os.close(file)
    connection.sendall(_NUMBER.pack(child))
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    connection.sendall(_NUMBER.pack(status))
    connection.recv(1)  # no other process gets the id before the status has been received
    os.waitpid(child, 0)
    os._exit(0)


@dataclass
class _End:
    """Ends a program after its threads and exit handlers.

    Python would free the objects of all modules first, which takes up to 0.5 s of CPU.
    """

    status: int = 1  # that of an error that nothing handles

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.status)


def _run(end: _End, request: int, out: int, err: int) -> NoReturn:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, out, err)):
        os.dup2(file, number)
        os.close(file)
    with os.fdopen(request) as contents:
        command, environ = json.load(contents)
    os.environ.clear()
    os.environ.update(environ)
    # Python reads this variable only when it starts.
    sys.path[:0] = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
        sys.exit(0)
    except SystemExit as error:
        # A text is an error, which Python prints.
        end.status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has already ended
            os._exit(1)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
