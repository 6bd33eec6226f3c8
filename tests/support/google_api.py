"""A small server in place of a Google API: it records requests, and answers as a test says."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.support.http_server import Exchange, serving


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


type Answer = tuple[int, Any]


@dataclass
class Api:
    """The server: its address, what it was asked, and how it answers."""

    url: str = ""
    answer: Callable[[Request], Answer] = lambda _: (200, {})
    requests: list[Request] = field(default_factory=list)

    def take(self, exchange: Exchange) -> None:
        """Record a request and answer it; the answer of a redirection is where to."""
        body = json.loads(exchange.body) if exchange.body else None
        request = Request(exchange.command, exchange.path, dict(exchange.headers), body)
        self.requests.append(request)
        status, answer = self.answer(request)
        headers = {"Location": answer} if status == HTTPStatus.FOUND else {}
        exchange.answer(status, json.dumps(answer).encode(), headers)


@contextmanager
def serve() -> Iterator[Api]:
    """Serve on a free port of this machine."""
    api = Api()
    with serving(api.take) as api.url:
        yield api
