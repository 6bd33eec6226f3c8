"""Runs of the command in forks of a process that has already imported Apache Beam.

The import takes 1.5 s of CPU, half of what a backfill of a few objects takes. Only tests of signals
and of what is imported need a process that starts from nothing.
"""

import atexit
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
from typing import NoReturn, TextIO

_PR_SET_PDEATHSIG = 1  # prctl(2): a signal when the parent ends
_FILES = 3
"""What a request sends: the files of the arguments and environment, of stdout and of stderr."""


@dataclass(frozen=True)
class BeamForks:
    """A process to fork, which listens on a socket."""

    address: Path

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        on_start: Callable[[int], object] = lambda _: None,
    ) -> tuple[int, str, str]:
        """Run `dcm2bq` with the arguments; return its exit status, stdout and stderr.

        `on_start` is called with the id of the process, which is also that of its group. Another
        thread may run one at the same time.
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
            with connection.makefile() as answers:
                on_start(_number(answers))
                status = _number(answers)
            out.seek(0)
            err.seek(0)
            return status, out.read(), err.read()


def _number(answers: TextIO) -> int:
    line = answers.readline()
    assert line, "the process to fork has ended"
    return int(line)


@contextmanager
def beam_forks(python: Path, environ: Mapping[str, str]) -> Iterator[BeamForks]:
    """Start the process with the Python of the environment that has Apache Beam."""
    from tests.support.processes import guarded  # noqa: PLC0415 - not in Beam's environment

    with TemporaryDirectory(prefix="beam-") as folder:  # a short path: sockets allow 100 bytes
        address = Path(folder, "socket")
        command = guarded([python, "-P", __file__, address])
        with subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield BeamForks(address)
            finally:
                process.terminate()


def _serve(address: str) -> None:
    """Answer requests, each in a process that waits for the run."""
    end = _End()
    atexit.register(end)  # before those of the modules, to be the last that is called
    from dcm2bq.cli import main  # noqa: PLC0415
    from dcm2bq.tools.backfill import launch  # noqa: F401, PLC0415
    from dcm2bq.tools.backfill.runners import dataflow, in_process  # noqa: F401, PLC0415

    gc.freeze()  # a collection would copy the pages of all modules to each fork
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
                    _answer(connection, main, end)


def _answer(connection: socket.socket, main: Callable[[], int], end: "_End") -> None:
    """Run the command in another process, so that it can end as any process does."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (request, out, err), _, _ = socket.recv_fds(connection, 16, _FILES)
    child = os.fork()
    if child == 0:
        connection.close()
        _run(main, end, request, out, err)
    connection.sendall(f"{child}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(f"{status}\n".encode())
    os._exit(0)


@dataclass
class _End:
    """Ends a run after its threads and exit handlers.

    Python would free the objects of all modules first, which takes 0.5 s of CPU.
    """

    status: int = 1  # that of an error that nothing handles

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.status)


def _run(main: Callable[[], int], end: _End, request: int, out: int, err: int) -> NoReturn:
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
    end.status = main()
    sys.exit(end.status)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _serve(sys.argv[1])
