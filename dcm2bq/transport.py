"""HTTP to Google's APIs: one pool of connections for a process, retried within a deadline.

The clients of google-cloud-storage and google-cloud-bigquery spend several times the work on
a small request; what happens for every event goes through google-auth's urllib3 transport.
"""

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import google.auth
import msgspec
import urllib3
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.urllib3 import AuthorizedHttp

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
EMULATOR_PROJECT = "local"
CONNECTIONS = 64
"""Connections kept open to a host; a process handles fewer events at once."""

_REASON = re.compile("[A-Za-z]{1,64}")
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 8.0
_LEAST_SECONDS = 0.001
_REFRESH_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024


class NoAnswerError(Exception):
    """There was no whole answer in time; the text tells why, without a value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status; the body is as it was sent, compressed bodies included."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        reasons = ", ".join(sorted(set(self.reasons)))
        return f"HTTP {self.status}" + (f" ({reasons})" if reasons else "")

    @property
    def reasons(self) -> list[str]:
        """The reasons of an error, as Google's JSON APIs give them: codes, never values."""
        try:
            errors = msgspec.json.decode(self.body)["error"]["errors"]
            reasons = [str(each["reason"]) for each in errors]
        except (msgspec.DecodeError, LookupError, TypeError):
            return []
        return [each for each in reasons if _REASON.fullmatch(each)]


class Transport:
    """Sends requests to one service; made once per process, used by all its threads.

    `base` is the service's URL without a slash at the end; `project` is the credentials' own,
    if they have one.
    """

    def __init__(self, service: str, emulator_variable: str) -> None:
        """Connect as the environment says: to a local server, or to Google's.

        Raises `google.auth.exceptions.GoogleAuthError` where there are no credentials.
        """
        emulator = os.environ.get(emulator_variable)
        credentials: Credentials
        self.project: str | None
        if emulator:
            credentials, self.project = AnonymousCredentials(), EMULATOR_PROJECT
        else:
            credentials, self.project = google.auth.default(scopes=SCOPES)
        self.base = (emulator or service).rstrip("/")
        # The time-out is that of token refreshes; requests bring their own.
        refresh = urllib3.Timeout(connect=_REFRESH_SECONDS, read=_REFRESH_SECONDS)
        pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False, timeout=refresh)
        self._http = AuthorizedHttp(credentials, http=pool)

    def request(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Return the answer; what may pass is tried again until `deadline`.

        `deadline` is of `time.monotonic`. When time runs out, the last answer is returned.
        Raises `NoAnswerError` where there is none.
        """
        for pause in _pauses():
            outcome: Answer | NoAnswerError
            try:
                outcome = self._attempt(method, path, headers, body, deadline)
                if outcome.status not in _TRANSIENT:
                    return outcome
            except NoAnswerError as error:
                outcome = error
            if time.monotonic() + pause >= deadline:
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
        deadline: float,
    ) -> Answer:
        # Half of what is left: a stalled attempt leaves time for another one.
        seconds = max((deadline - time.monotonic()) / 2, _LEAST_SECONDS)
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
                return Answer(response.status, response.headers, _read(response, deadline))
            except BaseException:
                response.close()  # what is left of the body must not meet the next request
                raise
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, auth.GoogleAuthError, OSError) as error:
            raise NoAnswerError(f"no answer, {type(error).__name__}") from None


def _pauses() -> Iterator[float]:
    """Yield how long to wait between attempts, in seconds: longer each time, never in step."""
    longest = _FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        longest = min(2 * longest, _LONGEST_PAUSE)


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """Return the whole body, however slowly it comes, but not beyond `deadline`."""
    body = bytearray()
    while part := response.read1(_CHUNK_BYTES):
        body += part
        if time.monotonic() > deadline:
            raise NoAnswerError("the answer came too slowly")
    return bytes(body)
