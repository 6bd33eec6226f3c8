"""Buckets and the events about them, as Cloud Storage and Eventarc make them."""

import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage.client import Client

TYPE_PREFIX = "google.cloud.storage.object.v1."
SENTINEL = "SENTINEL^PATIENT"
"""A patient's name: it must turn up in rows, and nowhere else."""
ONCE = {"Connection": "close"}
"""Closes the connection after the answer; otherwise, the function can take 2 s longer to stop."""


def google_error(status: int, reason: str, message: str = SENTINEL) -> bytes:
    """Return an error as Google's JSON APIs write it."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return json.dumps({"error": {"code": status, "message": message, "errors": errors}}).encode()


def media_refusal(error: bytes) -> bytes:
    """Return how Cloud Storage words an error when content is read (`alt=media`): in plain text."""
    try:
        return str(json.loads(error)["error"]["message"]).encode()
    except (ValueError, LookupError, TypeError):
        return error


def row_error(reason: str, location: str = "") -> bytes:
    """Return an HTTP 200 of `insertAll` that refuses the only row."""
    errors = [{"reason": reason, "location": location, "message": SENTINEL}]
    return json.dumps({"insertErrors": [{"index": 0, "errors": errors}]}).encode()


@dataclass(frozen=True, kw_only=True)
class Event:
    """A CloudEvent about an object."""

    id: str
    type: str
    time: str
    data: Any

    def but(self, **data: Any) -> "Event":
        """Return the event with other data."""
        return replace(self, data={**self.data, **data})

    def as_type(self, kind: str) -> "Event":
        """Return the event of another type about the same generation."""
        return replace(self, type=TYPE_PREFIX + kind, id=f"{self.id}-{kind}")

    def info_input(self, content: bytes) -> dict[str, Any]:
        """Return what `info.input` of the row must be: the object, as `upload` stored it."""
        return {
            "size": len(content),
            "type": "GCS",
            "storage_class": "STANDARD",
            "content_type": "application/dicom",
            "md5_hash": self.data["md5Hash"],
            "crc32c": self.data["crc32c"],
        }

    @property
    def attributes(self) -> dict[str, str]:
        """The CloudEvent's attributes."""
        data = self.data if isinstance(self.data, dict) else {}
        bucket, name = data.get("bucket", "none"), data.get("name", "none")
        return {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "time": self.time,
            "source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            "subject": f"objects/{quote(str(name), safe='')}",
            "bucket": str(bucket),
        }

    def post(self, url: str, *, structured: bool = False) -> requests.Response:
        """Deliver the event in binary mode, or in structured mode."""
        if structured:
            headers = {"Content-Type": "application/cloudevents+json"}
            body = json.dumps({**self.attributes, "data": self.data})
        else:
            headers = {f"ce-{name}": value for name, value in self.attributes.items()}
            headers["Content-Type"] = "application/json"
            body = json.dumps(self.data)
        return requests.post(url, body, headers={**headers, **ONCE}, timeout=600)


class Bucket:
    """A bucket of the local Cloud Storage, through the real client."""

    def __init__(self, url: str, name: str, *, versioned: bool = False) -> None:
        self._client = Client(
            project="local",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": url},
        )
        self._bucket = self._client.bucket(name)
        self._bucket.versioning_enabled = versioned
        self._bucket.create()
        self.name = name

    def upload(self, name: str, content: bytes, **properties: str) -> Event:
        """Store an object; return the event that Eventarc sends."""
        blob = self._bucket.blob(name)
        for key, value in properties.items():
            setattr(blob, key, value)
        blob.upload_from_string(content, content_type="application/dicom")
        blob.reload()
        return self._event(blob, "finalized")

    def delete(self, name: str) -> Event:
        """Delete an object; return the event that Eventarc sends."""
        blob = self._bucket.get_blob(name)
        assert blob is not None
        blob.delete()
        return self._event(blob, "deleted")

    def names(self, prefix: str = "", *, versions: bool = False) -> dict[str, int]:
        """Return the generation of each live object; with `versions`, the last one kept."""
        found = self._client.list_blobs(self._bucket, prefix=prefix, versions=versions)
        return {blob.name: blob.generation for blob in found}

    def _event(self, blob: Any, kind: str) -> Event:
        resource = dict(blob._properties)
        resource["generation"] = str(resource["generation"])
        resource["size"] = str(resource["size"])
        return Event(
            id=f"{blob.generation}-{kind}",
            type=TYPE_PREFIX + kind,
            time=resource["updated"],
            data=resource,
        )
