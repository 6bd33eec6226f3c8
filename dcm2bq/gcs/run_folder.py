"""The folder in Cloud Storage that the processes of a backfill, and later runs, share."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus

import msgspec

from dcm2bq.config import Config
from dcm2bq.errors import ServiceError
from dcm2bq.gcs import json_api
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.transport import Answer

_SECONDS = 300
"""How long a request is retried: an upload takes seconds, and outages often last minutes."""
_NOTE_SECONDS = 5.0
"""How long a note is retried: nothing may wait for it."""


class RunFolder:
    """The objects under `uri`, named relative to it; made once per process, used by all threads.

    Raises `ServiceError` if Cloud Storage does not answer or refuses, and `ReadFailedError` if
    it cannot list the folder.
    """

    def __init__(self, uri: str, config: Config) -> None:
        self.uri = uri.rstrip("/")
        folder = GsUri.parse(self.uri)
        self._bucket = folder.bucket
        self._prefix = f"{folder.name}/" if folder.name else ""
        self._store = Store(config)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists; return whether it was written."""
        answer = self._upload(name, content, {"ifGenerationMatch": "0"}, _SECONDS)
        return answer.status != HTTPStatus.PRECONDITION_FAILED

    def note(self, name: str, content: bytes) -> None:
        """Write an object over any earlier one, or do nothing if that fails within seconds.

        For what informs people, but decides nothing.
        """
        with suppress(ServiceError):
            self._upload(name, content, {}, _NOTE_SECONDS)

    def _upload(self, name: str, content: bytes, query: dict[str, str], seconds: float) -> Answer:
        boundary = uuid.uuid4().hex
        resource = msgspec.json.encode({"name": self._prefix + name})
        body = b"\r\n".join(
            (
                *(f"--{boundary}".encode(), b"Content-Type: application/json", b"", resource),
                *(f"--{boundary}".encode(), b"Content-Type: application/octet-stream", b""),
                *(content, f"--{boundary}--".encode(), b""),
            )
        )
        return self._request(
            "POST",
            json_api.upload_path(self._bucket),
            {"uploadType": "multipart", **query},
            {"Content-Type": f"multipart/related; boundary={boundary}"},
            body,
            seconds=seconds,
        )

    def read(self, name: str) -> bytes | None:
        """Return an object's content, or None if there is no such object."""
        answer = self._request("GET", self._path(name), {"alt": "media"})
        return None if answer.status == HTTPStatus.NOT_FOUND else answer.body

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        self._request("DELETE", self._path(name), {})

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with `prefix`, in order."""
        for name, _ in self.times(prefix):
            yield name

    def times(self, prefix: str = "") -> Iterator[tuple[str, datetime]]:
        """Yield the names that begin with `prefix`, in order, and when each was written."""
        for stored in self._store.list(self._bucket, self._prefix + prefix):
            assert stored.created
            yield stored.name.removeprefix(self._prefix), stored.created

    def subfolders(self) -> Iterator[str]:
        """Yield the names of the folders in this one, in order, by one request for each."""
        start = ""
        while page := next(
            self._store.pages(self._bucket, self._prefix, start=start, end="", at_once=1), ()
        ):
            name, slash, _ = page[0].name.removeprefix(self._prefix).partition("/")
            if slash:
                yield name
            # "0" follows "/" in the order of names: past everything in the folder.
            start = self._prefix + name + ("0" if slash else "\0")

    def _path(self, name: str) -> str:
        return json_api.object_path(self._bucket, self._prefix + name)

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        seconds: float = _SECONDS,
    ) -> Answer:
        place = f"Cloud Storage: {self.uri}"
        answer = json_api.send(
            self._store.transport,
            method,
            path,
            query,
            place=place,
            seconds=seconds,
            headers=headers,
            body=body,
        )
        expected = {HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED}
        is_missing_bucket = method == "POST" and answer.status == HTTPStatus.NOT_FOUND
        if answer.status >= HTTPStatus.BAD_REQUEST and (
            answer.status not in expected or is_missing_bucket
        ):
            raise ServiceError(f"{place}: {answer}")
        return answer
