"""Calls of Google's APIs with the token of Terraform's provider.

The token is in the environment variable DCM2BQ_TOKEN: on a command line every user of the machine
could read it. It is sent to Google only, and never printed. This runs on whatever machine applies,
so it keeps to Python 3.8 and the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any, NoReturn

PAUSES = (1, 2, 4, 8, 16)  # seconds between attempts: half a minute, as long as an API may falter
TIMEOUT_SECONDS = 60
SERVER_ERROR = 500  # and above

ADVICE = {
    401: "The token has expired: run terraform apply again.",
    429: "Too many requests: run terraform apply again in a minute.",
}


class RefusedError(Exception):
    """An answer other than success; `status` is 0 if there was none."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def endpoint(variable: str, default: str) -> str:
    """Return the address of an API: Google's, or that of the provider's own variable."""
    address = os.environ.get(variable) or default
    if not address.startswith(("https://", "http://127.0.0.1:")):
        stop(f"{variable} is {address}: the token is sent over https only. Correct the variable.")
    return address.rstrip("/")


def call(
    method: str, url: str, body: dict[str, Any] | None = None, etag: str | None = None
) -> dict[str, Any]:
    """Call an API, several times if it falters; raises `RefusedError`."""
    for pause in (*PAUSES, None):
        try:
            return _call(method, url, body, etag)
        except RefusedError as refused:
            passes = refused.status in (0, 429) or refused.status >= SERVER_ERROR
            if pause is None or not passes:
                raise
            time.sleep(pause)
    raise AssertionError


def _call(method: str, url: str, body: dict[str, Any] | None, etag: str | None) -> dict[str, Any]:
    headers = {
        "Authorization": f"Bearer {os.environ['DCM2BQ_TOKEN']}",
        "Content-Type": "application/json",
    }
    if etag is not None:
        headers["If-Match"] = etag
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with _opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise RefusedError(error.code, f"HTTP {error.code}: {_reason(error)}") from None
    except OSError as error:
        raise RefusedError(0, f"no answer: {error}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200] or error.reason


def stop_for(what: str, refused: RefusedError, advice: dict[int, str]) -> NoReturn:
    """End with a message: what could not be done, why, and what to do."""
    known = {**ADVICE, **advice}
    stop(f"{what}: {refused}\n{known.get(refused.status, 'Run terraform apply again.')}")


def stop(message: str) -> NoReturn:
    """End with a message, so that the apply fails with it."""
    sys.exit(f"dcm2bq: {message}")
