"""The folder in Cloud Storage that the processes of a backfill, and later runs, share."""

import uuid
from collections.abc import Iterator
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
        boundary = uuid.uuid4().hex
        resource = msgspec.json.encode({"name": self._prefix + name})
        body = b"\r\n".join(
            (
                *(f"--{boundary}".encode(), b"Content-Type: application/json", b"", resource),
                *(f"--{boundary}".encode(), b"Content-Type: application/octet-stream", b""),
                *(content, f"--{boundary}--".encode(), b""),
            )
        )
        answer = self._request(
            "POST",
            json_api.upload_path(self._bucket),
            {"uploadType": "multipart", "ifGenerationMatch": "0"},
            {"Content-Type": f"multipart/related; boundary={boundary}"},
            body,
        )
        return answer.status != HTTPStatus.PRECONDITION_FAILED

    def read(self, name: str) -> bytes | None:
        """Return an object's content, or None if there is no such object."""
        answer = self._request("GET", self._path(name), {"alt": "media"})
        return None if answer.status == HTTPStatus.NOT_FOUND else answer.body

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        self._request("DELETE", self._path(name), {})

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with `prefix`, in order."""
        for stored in self._store.list(self._bucket, self._prefix + prefix):
            yield stored.name.removeprefix(self._prefix)

    def _path(self, name: str) -> str:
        return json_api.object_path(self._bucket, self._prefix + name)

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        place = f"Cloud Storage: {self.uri}"
        answer = json_api.send(
            self._store.transport,
            method,
            path,
            query,
            place=place,
            seconds=_SECONDS,
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
