"""A small HTTP server for tests: it serves a function."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

type Serve = Callable[[Exchange], object]

_DRIP_SECONDS = 0.1


class Exchange(BaseHTTPRequestHandler):
    """A request, and the means to answer it, well or badly."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its head
    serve: ClassVar[Serve]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the URL."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        """Begin an answer that promises `length` bytes."""
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def answer(
        self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer whole."""
        self.head(status, len(body), headers)
        self.wfile.write(body)

    def answer_json(self, content: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def drip(self, content: bytes, seconds: float) -> None:
        """Send a byte now and then, for at most so long: no single wait is long."""
        give_up = time.monotonic() + seconds
        for byte in content:
            if time.monotonic() > give_up:
                break
            self.wfile.write(bytes([byte]))
            time.sleep(_DRIP_SECONDS)

    def hang_up(self) -> None:
        """Close the connection after this exchange."""
        self.close_connection = True

    def reset(self) -> None:
        """Close with a RST, as a crashed peer does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def do(self) -> None:
        """Read the request and serve it."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).serve(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # bursts of connections are what some tests are about

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """Serve `serve` on a free port until the block ends, each connection in its thread.

    Yields the URL.
    """
    bound = type("BoundExchange", (Exchange,), {"serve": staticmethod(serve)})
    server = _QuietServer(("127.0.0.1", 0), bound)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
