"""Servers start, are isolated from the caller's settings, and are stopped."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dcm2bq.local import servers
from dcm2bq.local.servers import ServerError, free_port, isolated
from dcm2bq.local.stack import environment
from tests.support.patience import until


@pytest.mark.parametrize(
    "name",
    [
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "CLOUDSDK_CORE_PROJECT",
        "GCLOUD_PROJECT",
        "GCE_METADATA_HOST",
        "BIGQUERY_EMULATOR_HOST",
        "STORAGE_EMULATOR_HOST",
        "PUBSUB_EMULATOR_HOST",
        "HTTPS_PROXY",
        "https_proxy",
        "DCM2BQ_CONFIG",
        "DCM2BQ_CONFIG_FILE",
        "DEBUG",
        "FLASK_DEBUG",
        "K_SERVICE",
        "FUNCTION_TARGET",
        "PORT",
    ],
)
def test_variables_that_point_at_other_services_are_removed(name: str) -> None:
    assert name not in isolated({name: "x"})


def test_other_variables_are_kept() -> None:
    environ = isolated({"PATH": "/bin", "LANG": "C", "DCM2BQ_HASH_KEY": "k"})
    assert environ.items() >= {"PATH": "/bin", "LANG": "C", "DCM2BQ_HASH_KEY": "k"}.items()


def test_clients_do_not_look_for_credentials() -> None:
    assert isolated({})["NO_GCE_CHECK"] == "true"
    assert not Path(isolated({"CLOUDSDK_CONFIG": "/root"})["CLOUDSDK_CONFIG"]).exists()


def test_the_log_of_a_server_that_does_not_start_is_shown(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no license'); raise SystemExit(1)"]
    with (
        pytest.raises(ServerError, match="did not start\nno license"),
        servers._server(command, free_port(), "/", tmp_path / "log"),
    ):
        pass


def test_a_server_whose_first_answer_is_an_error_did_not_start(tmp_path: Path) -> None:
    program = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
    port = free_port()
    command = [sys.executable, "-c", program, str(port)]
    with (
        pytest.raises(ServerError, match="did not start"),
        servers._server(command, port, "/", tmp_path / "log"),
    ):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_server_is_stopped_at_the_end_of_its_block(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with servers._server(command, port, "/", tmp_path / "log"):
        assert servers.answers(port, "/")
    assert not servers.answers(port, "/")


def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_STOP_SECONDS", 0.2)
    port = free_port()
    program = f"""
import http.server, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
handler = http.server.SimpleHTTPRequestHandler
http.server.HTTPServer(("127.0.0.1", {port}), handler).serve_forever()
"""
    with servers._server([sys.executable, "-c", program], port, "/", tmp_path / "log"):
        pass
    assert not servers.answers(port, "/")


def test_servers_do_not_inherit_google_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    program = """
import http.server, os, sys
print(*os.environ, flush=True)
handler = http.server.SimpleHTTPRequestHandler
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-c", program, str(port)]
    with servers._server(command, port, "/", log, {"OWN": "1"}):
        names = log.read_text().split()
    assert "OWN" in names
    assert not {"GOOGLE_APPLICATION_CREDENTIALS", "HTTP_PROXY"} & set(names)


def test_the_function_writes_nothing_to_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "main.py"
    source.write_text(
        "import functions_framework\n"
        "@functions_framework.cloud_event\n"
        "def ingest(event):\n"
        "    pass\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with servers.function_server(tmp_path, source, {}):
        pass
    assert not list(home.iterdir())


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can kill a child when its parent ends"
)
def test_a_server_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    port = free_port()
    program = f"""
import os, pathlib, signal, sys
from dcm2bq.local import servers
command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
with servers._server(command, {port}, "/", pathlib.Path({str(tmp_path)!r}, "log")):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=600)
    assert done.returncode == -signal.SIGKILL
    until(lambda: not servers.is_listening(port))


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "real")
    with environment({"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"}):
        assert "GOOGLE_CLOUD_PROJECT" not in os.environ
        assert os.environ["BIGQUERY_EMULATOR_HOST"] == "http://127.0.0.1:1"
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "real"
    assert "BIGQUERY_EMULATOR_HOST" not in os.environ
