"""A loopback proxy that stands before a server and injects faults."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from tests.support.cloud import media_refusal

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


SPOILT = ("stall", "drip the head", "drip the body", "cut", "reset in the body", "other range")
PATIENCE = 8.0
"""How long a stalled or dripping answer goes on, in seconds."""


@dataclass
class Fault:
    """Answer matching requests with `status` and `body`; `status` 0 resets the connection.

    `where` is a part of the request line, `times` how many requests it hits. `after` passes
    the request on first, so that only the answer is lost. `how` passes it on as well, and
    spoils the answer: one of `SPOILT`. Refused reads of content are answered in plain text, as
    Cloud Storage does, whatever the body.
    """

    where: str
    status: int = 0
    body: bytes = b""
    times: int = 1_000_000
    after: bool = False
    how: str = ""


class Proxy:
    """Forwards to `upstream` (a URL) and counts what came; faults can be set at any time."""

    def __init__(self, upstream: str) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._under_way: list[str] = []
        handler = type("Handler", (_Handler,), {"proxy": self, "upstream": upstream[7:]})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take_fault(self, line: str, body: bytes) -> Fault | None:
        """Record a request; return the fault that it meets."""
        with self._lock:
            self.requests.append(line)
            self.bodies.append(body)
            for fault in self.faults:
                if fault.where in line and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def is_under_way(self, where: str) -> bool:
        """Whether the server works on a request with this in its request line."""
        return any(where in line for line in list(self._under_way))

    @contextmanager
    def under_way(self, line: str) -> Iterator[None]:
        """Count a request as one that the server works on."""
        self._under_way.append(line)
        try:
            yield
        finally:
            self._under_way.remove(line)

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    upstream: ClassVar[str]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.take_fault(self.requestline, body)
        if fault is None:
            self._answer(*self._forward(body))
            return
        if fault.how:
            self._spoil(fault.how, *self._forward(body))
            return
        if fault.after:
            self._forward(body)
        if fault.status:
            self._answer(fault.status, [("Content-Type", "application/json")], fault.body)
        else:
            self._reset()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.upstream, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            with self.proxy.under_way(self.requestline):
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _spoil(self, how: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Give an answer as a broken network or server does."""
        self.close_connection = True
        match how:
            case "stall":
                time.sleep(PATIENCE)
            case "drip the head":
                self._drip(f"HTTP/1.1 {status} X\r\nX: ".encode() + b"x" * 1000)
            case "drip the body":
                self._head(status, headers, len(body) + 1000)
                self._drip(body)
            case "cut" | "reset in the body":
                self._head(status, headers, len(body))
                self.wfile.write(body[: len(body) // 2])
                if how != "cut":
                    self._reset()
            case "other range":
                other = [(k, "bytes 7-8/9" if k == "Content-Range" else v) for k, v in headers]
                self._answer(status, other, body)

    def _drip(self, content: bytes) -> None:
        """Send a byte now and then, so that no single wait is long."""
        give_up = time.monotonic() + PATIENCE
        for each in content:
            if time.monotonic() > give_up:
                break
            self.wfile.write(bytes([each]))
            time.sleep(0.1)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if status >= HTTPStatus.BAD_REQUEST and "alt=media" in self.path:
            headers = [each for each in headers if each[0].lower() != "content-type"]
            headers.append(("Content-Type", "text/html; charset=UTF-8"))
            body = media_refusal(body)
        self._head(status, headers, len(body))
        self.wfile.write(body)

    def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _reset(self) -> None:
        """Close with a RST, as a crashed peer does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
