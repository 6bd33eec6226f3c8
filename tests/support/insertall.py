"""A stub of BigQuery's `tabledata.insertAll` that keeps what it stores, and fails on demand."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

type Row = dict[str, Any]


class InsertAll:
    """Stores each row once by its insert id; `fail` may answer otherwise.

    `fail` gets the number of the request and its rows; it returns None to go on, "reset" to
    store the rows and hang up, or a status with a body.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Row] = {}
        self.batches: list[int] = []
        self.fail: Callable[[int, list[Row]], Any] = lambda _number, _rows: None
        self.is_bad: Callable[[Row], bool] = lambda _row: False
        self.seconds = 0.0
        self.lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve until the block ends; yield the URL."""
        handler = type("Handler", (_Handler,), {"state": self})
        server = _Server(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def insert(self, rows: list[Row]) -> Row:
        """Store the rows, or refuse them all because of the bad ones."""
        bad = {n for n, row in enumerate(rows) if self.is_bad(row["json"])}
        if not bad:
            for row in rows:
                self.stored.setdefault(row["insertId"], row["json"])
            return {}
        reasons = ["invalid" if n in bad else "stopped" for n in range(len(rows))]
        return {
            "insertErrors": [
                {"index": n, "errors": [{"reason": reason}]} for n, reason in enumerate(reasons)
            ]
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ClassVar[InsertAll]

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
        time.sleep(self.state.seconds)
        with self.state.lock:
            self.state.batches.append(len(rows))
            failure = self.state.fail(len(self.state.batches), rows)
            answer = self.state.insert(rows) if failure in {None, "reset"} else None
        if failure == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
            return
        status, body = failure or (200, json.dumps(answer).encode())
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
