"""The objects that a trial uploads: all under one prefix, and all removed at the end."""

import uuid
from http import HTTPStatus

import msgspec

from dcm2bq.config import Config
from dcm2bq.errors import ReadFailedError, ServiceError
from dcm2bq.gcs import json_api
from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.stored_object import StoredObject
from dcm2bq.transport import Answer

FOLDER = "dcm2bq-try"

_SECONDS = 60
"""How long a request is retried: an upload of some megabytes takes seconds."""
_REFUSED = "; uploading and deleting needs roles/storage.objectUser on the bucket"


class _Uploaded(msgspec.Struct):
    """The fields of an object's resource that a trial needs."""

    generation: str


class TrialObjects:
    """Objects under a new prefix of a bucket.

    Raises `ServiceError` if Cloud Storage does not answer or refuses.
    """

    def __init__(self, config: Config, bucket: str, prefix: str) -> None:
        self._store = Store(config)
        self._user_project = config.input.user_project
        self._bucket = bucket
        self._prefix = prefix
        self._generations: list[StoredObject] = []

    @property
    def path(self) -> str:
        """The prefix as a `gs://` URI."""
        return f"gs://{self._bucket}/{self._prefix}"

    def upload(
        self, name: str, content: bytes, *, over: StoredObject | None = None
    ) -> StoredObject:
        """Write an object: it replaces the generation `over`, or is new."""
        full_name = self._prefix + name
        query = {
            "uploadType": "media",
            "name": full_name,
            # A repeated request must not make a second generation.
            "ifGenerationMatch": str(over.generation if over else 0),
        }
        answer = self._request(
            "POST", json_api.upload_path(self._bucket), query, content, full_name
        )
        stored = StoredObject(
            bucket=self._bucket,
            name=full_name,
            generation=int(
                msgspec.json.decode(answer.body, type=_Uploaded, strict=False).generation
            ),
            size=len(content),
        )
        self._generations.append(stored)
        return stored

    def delete(self, stored: StoredObject) -> None:
        """Delete the live generation, as users do; a bucket with versioning keeps it."""
        self._request("DELETE", self._object(stored), {}, b"", stored.name)

    def remove_all(self) -> list[str]:
        """Remove every generation for good; return the paths of those that could not be."""
        return [
            f"{stored.path}#{stored.generation}"
            for stored in self._generations
            if not self._is_removed(stored)
        ] + self._others()

    def _others(self) -> list[str]:
        """Remove other objects under the prefix; return the paths of those that could not be.

        There is one if the answer to an upload was lost.
        """
        known = {(stored.name, stored.generation) for stored in self._generations}
        try:
            left = [
                stored
                for stored in self._store.list(self._bucket, self._prefix)
                if (stored.name, stored.generation) not in known
            ]
        except ReadFailedError:
            return []  # without the right to list, only uploads whose answer was lost are missed
        return [stored.path for stored in left if not self._is_removed(stored)]

    def _is_removed(self, stored: StoredObject) -> bool:
        query = {"generation": str(stored.generation)}
        try:
            self._request("DELETE", self._object(stored), query, b"", stored.name)
        except ServiceError:
            return False
        return True

    def _object(self, stored: StoredObject) -> str:
        return json_api.object_path(self._bucket, stored.name)

    def _request(
        self, method: str, path: str, query: dict[str, str], body: bytes, name: str
    ) -> Answer:
        if self._user_project:
            query = {**query, "userProject": self._user_project}
        place = f"Cloud Storage: gs://{self._bucket}/{name}"
        answer = json_api.send(
            self._store.transport,
            method,
            path,
            query,
            place=place,
            seconds=_SECONDS,
            headers={"Content-Type": "application/dicom"},
            body=body,
        )
        is_gone = method == "DELETE" and answer.status == HTTPStatus.NOT_FOUND
        if answer.status >= HTTPStatus.BAD_REQUEST and not is_gone:
            is_refused = answer.status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}
            raise ServiceError(f"{place}: {answer}{_REFUSED if is_refused else ''}")
        return answer


def new_prefix(location: GsUri) -> str:
    """Return a prefix of names under a location that no object has."""
    folder = f"{location.name.rstrip('/')}/" if location.name else ""
    return f"{folder}{FOLDER}/{uuid.uuid4().hex[:12]}/"
