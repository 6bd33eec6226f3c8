"""A folder in Cloud Storage for what a run leaves for its other parts, and for a later run."""

import time
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import quote, urlencode

import msgspec
from google.auth.exceptions import GoogleAuthError

from dcm2bq.config import Config
from dcm2bq.errors import WriteFailedError
from dcm2bq.gcs.store import EMULATOR_VARIABLE, SERVICE, Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.transport import Answer, NoAnswerError, Transport

_SECONDS = 300


class Folder:
    """The objects under `uri`, named relative to it; made once per process, used by all threads.

    Raises `ReadFailedError` and `WriteFailedError` where Cloud Storage does not answer, or refuses.
    """

    def __init__(self, uri: str, config: Config) -> None:
        self.uri = uri.rstrip("/")
        folder = GsUri.parse(self.uri)
        self._bucket, self._prefix = folder.bucket, folder.name
        self._store = Store(config)
        try:
            self._transport = Transport(SERVICE, EMULATOR_VARIABLE)
        except GoogleAuthError as error:
            raise WriteFailedError(f"no Google credentials ({type(error).__name__})") from None

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists; return whether it was written."""
        boundary = uuid.uuid4().hex
        resource = msgspec.json.encode({"name": f"{self._prefix}/{name}".lstrip("/")})
        body = b"\r\n".join(
            (
                *(f"--{boundary}".encode(), b"Content-Type: application/json", b"", resource),
                *(f"--{boundary}".encode(), b"Content-Type: application/octet-stream", b""),
                *(content, f"--{boundary}--".encode(), b""),
            )
        )
        answer = self._request(
            "POST",
            f"/upload/storage/v1/b/{self._bucket}/o",
            {"uploadType": "multipart", "ifGenerationMatch": "0"},
            {"Content-Type": f"multipart/related; boundary={boundary}"},
            body,
        )
        return answer.status != HTTPStatus.PRECONDITION_FAILED

    def read(self, name: str) -> bytes | None:
        """Return an object's content, or None where there is none."""
        answer = self._request("GET", self._path(name), {"alt": "media"})
        return None if answer.status == HTTPStatus.NOT_FOUND else answer.body

    def delete(self, name: str) -> None:
        """Delete an object, unless it is gone already."""
        self._request("DELETE", self._path(name), {})

    def names(self, under: str) -> Iterator[str]:
        """Yield the names that begin with `under`, in order."""
        prefix = f"{self._prefix}/".lstrip("/")
        for each in self._store.list(self._bucket, prefix + under):
            yield each.name.removeprefix(prefix)

    def _path(self, name: str) -> str:
        whole = f"{self._prefix}/{name}".lstrip("/")
        return f"/storage/v1/b/{self._bucket}/o/{quote(whole, safe='')}"

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        try:
            answer = self._transport.request(
                method,
                f"{path}?{urlencode(query)}",
                deadline=time.monotonic() + _SECONDS,
                headers=headers,
                body=body,
            )
        except NoAnswerError as error:
            raise WriteFailedError(f"{self.uri}: {error}") from None
        expected = {HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED}
        is_missing_bucket = method == "POST" and answer.status == HTTPStatus.NOT_FOUND
        if answer.status >= HTTPStatus.BAD_REQUEST and (
            answer.status not in expected or is_missing_bucket
        ):
            raise WriteFailedError(f"{self.uri}: {answer}")
        return answer
