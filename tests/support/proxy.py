"""A loopback proxy that stands before a server and injects faults."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection

import requests

from tests.support.cloud import media_refusal
from tests.support.http_server import Exchange, serving

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


SPOILT = ("stall", "drip the head", "drip the body", "cut", "reset in the body", "other range")
HELD = "hold"
"""Keeps the answer until the fault is removed."""
PATIENCE = 120.0
"""Seconds that a stalled or dripping answer goes on: longer than any deadline of the tests."""


@dataclass
class Fault:
    """Answer matching requests with `status` and `body`; `status` 0 resets the connection.

    `where` is a part of the request line, as is `name`, of an object for instance; `times` is how
    many requests it hits, and `met` how many it has hit. `content` is a part of the request's body.
    `after` passes the request on first, so that only the answer is lost. `how` passes it on as
    well, and spoils the answer (one of `SPOILT`) or holds it (`HELD`). Refused reads of content are
    answered in plain text, as Cloud Storage does, whatever the body.
    """

    where: str
    status: int = 0
    body: bytes = b""
    times: int = 1_000_000
    after: bool = False
    how: str = ""
    name: str = ""
    content: bytes = b""
    met: int = field(default=0, init=False)

    def hits(self, line: str, body: bytes) -> bool:
        """Return whether it hits a request."""
        is_meant = self.where in line and self.name in line and self.content in body
        return is_meant and self.met < self.times


class Proxy:
    """Forwards to `upstream` (a URL) and counts what came; faults can be set at any time."""

    def __init__(self, upstream: str) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._under_way: list[str] = []
        self._upstream = upstream.removeprefix("http://")
        self.url = ""

    def take_fault(self, line: str, body: bytes) -> Fault | None:
        """Record a request; return the fault that it meets."""
        with self._lock:
            self.requests.append(line)
            self.bodies.append(body)
            for fault in self.faults:
                if fault.hits(line, body):
                    fault.met += 1
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
        """Serve at `url` until the block ends."""
        with serving(self._serve) as self.url:
            yield self

    def _serve(self, exchange: Exchange) -> None:
        fault = self.take_fault(exchange.requestline, exchange.body)
        if fault is None:
            _answer(exchange, *self._forward(exchange))
            return
        if fault.how == HELD:
            answer = self._forward(exchange)
            while any(each is fault for each in self.faults):  # `in` would also find an equal one
                time.sleep(0.01)
            _answer(exchange, *answer)
            return
        if fault.how:
            _spoil(exchange, fault.how, *self._forward(exchange))
            return
        if fault.after:
            self._forward(exchange)
        if fault.status:
            _answer(exchange, fault.status, {"Content-Type": "application/json"}, fault.body)
        else:
            exchange.reset()

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self._upstream, timeout=600)
        headers = end_to_end(exchange.headers.items())
        try:
            with self.under_way(exchange.requestline):
                connection.request(exchange.command, exchange.path, exchange.body, headers)
                response = connection.getresponse()
                return response.status, end_to_end(response.getheaders()), response.read()
        finally:
            connection.close()


class LoadingBigQuery(Proxy):
    """The local BigQuery, with a load job's missing schema taken from its table.

    BigQuery does that; the local one guesses a schema from the file instead.
    """

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        if exchange.command == "POST" and exchange.path.partition("?")[0].endswith("/jobs"):
            job = json.loads(exchange.body)
            load = job["configuration"].get("load")
            if load is not None and "schema" not in load:
                load["schema"] = self._schema(load["destinationTable"])
                exchange.body = json.dumps(job).encode()
        return super()._forward(exchange)

    def _schema(self, table: dict[str, str]) -> dict[str, object]:
        path = "projects/{projectId}/datasets/{datasetId}/tables/{tableId}".format(**table)
        answer = requests.get(f"http://{self._upstream}/bigquery/v2/{path}", timeout=600)
        schema: dict[str, object] = answer.json()["schema"]
        return schema


def end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that a proxy passes on."""
    return {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}


def _answer(exchange: Exchange, status: int, headers: dict[str, str], body: bytes) -> None:
    if status >= HTTPStatus.BAD_REQUEST and "alt=media" in exchange.path:
        headers = {name: headers[name] for name in headers if name.lower() != "content-type"}
        headers["Content-Type"] = "text/html; charset=UTF-8"
        body = media_refusal(body)
    exchange.answer(status, body, headers)


def _spoil(exchange: Exchange, how: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Give an answer as a broken network or server does."""
    exchange.hang_up()
    match how:
        case "stall":
            time.sleep(PATIENCE)
        case "drip the head":
            exchange.drip(f"HTTP/1.1 {status} X\r\nX: ".encode() + b"x" * 10_000, PATIENCE)
        case "drip the body":
            exchange.head(status, len(body) + 1000, headers)
            exchange.drip(body, PATIENCE)
        case "cut" | "reset in the body":
            exchange.head(status, len(body), headers)
            exchange.wfile.write(body[: len(body) // 2])
            if how != "cut":
                exchange.reset()
        case "other range":
            other = {k: "bytes 7-8/9" if k == "Content-Range" else v for k, v in headers.items()}
            _answer(exchange, status, other, body)
