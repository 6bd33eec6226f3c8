"""HTTP to Google's APIs: one pool of connections per process, retries within a deadline.

The clients of google-cloud-storage and google-cloud-bigquery take several times the CPU for a
small request. The requests of every event therefore go through google-auth's urllib3 transport.
"""

import http.client
import io
import random
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import google.auth
import msgspec
import urllib3
from google.auth import exceptions as auth
from google.auth.credentials import Credentials
from google.auth.transport.urllib3 import AuthorizedHttp

from dcm2bq import emulators
from dcm2bq.deadline import Deadline
from dcm2bq.errors import ServiceError

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
CONNECTIONS = 64
"""Connections kept open per host; a process handles fewer events than that at once."""

_REASON = re.compile("[a-z][A-Za-z]{0,63}")
"""The form of a reason, `backendError` for instance. Names of patients begin differently."""
NO_ANSWER = (urllib3.exceptions.HTTPError, auth.GoogleAuthError, OSError)
"""Everything that urllib3, google-auth and the system raise for a request without an answer."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 8.0
"""Bounds of the pause between attempts: most failures pass at once, and some take seconds."""
_LEAST_SECONDS = 0.001  # urllib3 refuses a time-out of zero
_REFRESH_SECONDS = 5.0
"""Time-out for refreshing an access token, which takes some 50 ms."""


class NoAnswerError(Exception):
    """There was no complete answer in time; the message says why, without a value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status, with its body unchanged, even if it is compressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        reasons = ", ".join(sorted(set(self.reasons)))
        return f"HTTP {self.status}" + (f" ({reasons})" if reasons else "")

    @property
    def reasons(self) -> list[str]:
        """The reasons in an error of Google's JSON APIs: codes, never values."""
        try:
            errors = msgspec.json.decode(self.body)["error"]["errors"]
            reasons = [str(error["reason"]) for error in errors]
        except (ValueError, LookupError, TypeError):
            return []
        return [reason for reason in reasons if is_reason(reason)]


def is_reason(text: str) -> bool:
    """Return whether a text has the form of a reason of Google's APIs, and so is not a value."""
    return bool(_REASON.fullmatch(text))


class Transport:
    """Sends requests to one service; made once per process, used by all its threads.

    `base` is the service's URL without a trailing slash, `project` the project of the
    credentials, if they have one.
    """

    def __init__(self, service: str, emulator_variable: str) -> None:
        """Prepare for the service, or for the local server that the environment names.

        `emulator_variable` is one of `emulators`. Raises `ServiceError` if there are no
        credentials, and `ConfigError` if the variable does not hold a URL.
        """
        emulator = emulators.url(emulator_variable)
        credentials: Credentials
        self.project: str | None
        if emulator:
            credentials, self.project = emulators.credentials(), emulators.PROJECT
        else:
            try:
                credentials, self.project = google.auth.default(scopes=SCOPES)
            # The last two: GOOGLE_APPLICATION_CREDENTIALS names a folder, or JSON but no object.
            except (auth.GoogleAuthError, OSError, AttributeError):
                raise ServiceError(emulators.no_credentials()) from None
        self.base = (emulator or service).rstrip("/")
        self._place = emulators.place(emulator_variable)
        # For refreshing tokens; requests have their own time-outs.
        refresh = urllib3.Timeout(connect=_REFRESH_SECONDS, read=_REFRESH_SECONDS)
        pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False, timeout=refresh)
        pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._http = AuthorizedHttp(credentials, http=pool)

    def request(
        self,
        method: str,
        path: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Return the answer; retry transient failures until the deadline.

        When time runs out, the last answer is returned. Raises `NoAnswerError` if there is
        none.
        """
        for pause in _pauses():
            outcome: Answer | NoAnswerError
            try:
                outcome = self._attempt(method, path, headers, body, deadline)
                if outcome.status not in _TRANSIENT:
                    return outcome
            except NoAnswerError as error:
                outcome = error
            if deadline.left <= pause:
                break
            time.sleep(pause)
        if isinstance(outcome, NoAnswerError):
            raise outcome
        return outcome

    def _attempt(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        deadline: Deadline,
    ) -> Answer:
        # Half of the time left, so that a stalled attempt leaves time for another one.
        seconds = max(deadline.left / 2, _LEAST_SECONDS)
        try:
            response = self._http.urlopen(
                method,
                self.base + path,
                body=body,
                headers=dict(headers or {}),
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                return Answer(response.status, response.headers, response.read())
            except BaseException:
                response.close()  # the next request must not read the rest of this body
                raise
            finally:
                response.release_conn()
        except NO_ANSWER as error:
            raise NoAnswerError(f"no answer ({type(error).__name__}){self._place}") from None


def _pauses() -> Iterator[float]:
    """Yield the pauses between attempts in seconds: growing, and random to spread the load."""
    longest = _FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - not a secret
        longest = min(2 * longest, _LONGEST_PAUSE)


class _BoundedSocket(io.RawIOBase):
    """A socket whose reads together take no longer than its time-out.

    The time-out itself only bounds a single wait, so a peer that sends a byte now and then could
    hold a request indefinitely.
    """

    def __init__(self, raw: socket.SocketIO, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._end = time.monotonic() + (sock.gettimeout() or _REFRESH_SECONDS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """An answer whose head and body together must arrive within the socket's time-out."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        # The standard library wraps the socket into a buffered reader: wrap ours instead.
        raw: Any = self.fp.detach()
        self.fp = io.BufferedReader(_BoundedSocket(raw, sock))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _BoundedResponse


class _SecureConnection(urllib3.connection.HTTPSConnection):
    response_class = _BoundedResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
