"""Google's APIs that describe a deployment, read by REST with the caller's credentials."""

import functools
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from dcm2bq.deadline import Deadline
from dcm2bq.errors import ServiceError
from dcm2bq.transport import NoAnswerError, Transport

_SECONDS = 20
"""How long a request is retried: a check that cannot be made costs a line, not the trial."""
_NO_EMULATOR = ""  # these services have no local server


class UntriedError(Exception):
    """Something could not be looked at; the message says why, and which permission is missing."""


class MissingError(UntriedError):
    """Something does not exist."""


class GoogleApis:
    """Sends requests to several services; `connect` returns the connection to one, by its URL."""

    def __init__(
        self, connect: Callable[[str], Transport] = lambda url: Transport(url, _NO_EMULATOR)
    ) -> None:
        self._transport = functools.cache(connect)

    def get(self, service: str, path: str, *, needs: str, **query: str) -> dict[str, Any]:
        """Return a resource; `needs` names the permission that reading it takes.

        Raises `UntriedError`, and `MissingError` if there is no such resource.
        """
        return self._answer("GET", service, path + (f"?{urlencode(query)}" if query else ""), needs)

    def post(self, service: str, path: str, content: Any = None, *, needs: str) -> dict[str, Any]:
        """Return the answer to a request that reads by POST, as `get` does."""
        return self._answer("POST", service, path, needs, msgspec.json.encode(content or {}))

    def pages(self, service: str, path: str, field: str, *, needs: str) -> Iterator[Any]:
        """Yield the elements of a listing, which answers have under `field`."""
        token = ""
        while True:
            page = self.get(service, path, needs=needs, **({"pageToken": token} if token else {}))
            yield from page.get(field) or []
            token = str(page.get("nextPageToken") or "")
            if not token:
                return

    def _answer(
        self, method: str, service: str, path: str, needs: str, body: bytes | None = None
    ) -> dict[str, Any]:
        host = service.removeprefix("https://")
        try:
            answer = self._transport(service).request(
                method,
                path,
                deadline=Deadline.after(_SECONDS),
                headers={"Content-Type": "application/json"} if body else None,
                body=body,
            )
        except NoAnswerError as error:
            raise UntriedError(f"{host}: {error}") from None
        except ServiceError as error:
            raise UntriedError(str(error)) from None
        if answer.status == HTTPStatus.NOT_FOUND:
            raise MissingError(f"{host}: HTTP 404")
        if answer.status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}:
            raise UntriedError(f"{host}: HTTP {answer.status}: needs the permission {needs}")
        if answer.status != HTTPStatus.OK:
            raise UntriedError(f"{host}: HTTP {answer.status}")
        try:
            resource = msgspec.json.decode(answer.body)
        except ValueError:
            resource = None
        if not isinstance(resource, dict):
            raise UntriedError(f"{host}: the answer is not a JSON object")
        return resource


def quoted(name: str) -> str:
    """Return a name as a part of a URL's path."""
    return quote(name, safe="")
