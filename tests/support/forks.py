"""Runs of the command in forks of a process that has already imported Apache Beam.

The import takes 1.5 s of CPU, half of what a backfill of a few objects takes. Only tests of signals
and of what is imported need a process that starts from nothing.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # prctl(2): a signal when the parent ends
_FILES = 3
"""What a request sends: the files of the arguments and environment, of stdout and of stderr."""


@dataclass(frozen=True)
class Forks:
    """A process to fork, which listens on a socket."""

    address: Path

    def run(self, arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
        """Run `dcm2bq` with the arguments; return its exit status, stdout and stderr.

        Another thread may run one at the same time.
        """
        with (
            TemporaryFile("w+") as request,
            TemporaryFile("w+") as out,
            TemporaryFile("w+") as err,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            json.dump([list(arguments), dict(environ)], request)
            request.seek(0)
            connection.connect(str(self.address))
            files = [request.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(connection, [b"run"], files)
            status = connection.recv(16)
            assert status, "the process to fork has ended"
            out.seek(0)
            err.seek(0)
            return int(status), out.read(), err.read()


@contextmanager
def forking(python: Path, environ: Mapping[str, str]) -> Iterator[Forks]:
    """Start the process with the Python of the environment that has Apache Beam."""
    from tests.support.processes import guarded  # noqa: PLC0415 - not in Beam's environment

    with TemporaryDirectory(prefix="beam-") as folder:  # a short path: sockets allow 100 bytes
        address = Path(folder, "socket")
        command = guarded([python, "-P", __file__, address])
        with subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield Forks(address)
            finally:
                process.terminate()


def _serve(address: str) -> None:
    """Answer requests, each in a process that waits for the run."""
    from dcm2bq.cli import main  # noqa: PLC0415
    from dcm2bq.tools.backfill import launch  # noqa: F401, PLC0415
    from dcm2bq.tools.backfill.runners import dataflow, in_process  # noqa: F401, PLC0415

    # Python collects garbage before it ends, and would go through all that was imported: 0.4 s.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
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
                    _answer(connection, main)


def _answer(connection: socket.socket, main: Callable[[], int]) -> None:
    """Run the command in another process, so that it can end as any process does."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (request, out, err), _, _ = socket.recv_fds(connection, 16, _FILES)
    child = os.fork()
    if child == 0:
        connection.close()
        _run(main, request, out, err)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def _run(main: Callable[[], int], request: int, out: int, err: int) -> NoReturn:
    _end_with_parent()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    with os.fdopen(request) as file:
        arguments, environ = json.load(file)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["dcm2bq", *arguments]
    sys.exit(main())


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _serve(sys.argv[1])
