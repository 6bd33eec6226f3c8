"""A bucket of a local Cloud Storage server, written through its JSON API."""

import http
import json
from urllib.parse import quote

import urllib3

from dcm2bq import emulators
from dcm2bq.local.mirror import CONTENT_TYPE, Resource
from dcm2bq.local.servers import ServerError
from dcm2bq.stored_object import NAME_MAX_BYTES

_ANSWER_SECONDS = 60


class Bucket:
    """The bucket `name` of the Cloud Storage at `url`. Thread-safe.

    Every method raises `ServerError` if the request fails.
    """

    def __init__(self, url: str, name: str, *, connections: int) -> None:
        self.name = name
        self._pool = urllib3.connection_from_url(url, maxsize=connections, retries=False)

    def create(self) -> None:
        """Create the bucket."""
        self._request(
            "POST",
            f"/storage/v1/b?project={emulators.PROJECT}",
            json.dumps({"name": self.name}).encode(),
            "application/json",
        )

    def upload(self, name: str, content: bytes) -> Resource:
        """Make `content` the object's next generation; return the new object."""
        path = f"/upload/storage/v1/b/{self.name}/o?uploadType=media&name={quote(name, safe='')}"
        resource: Resource = json.loads(self._request("POST", path, content, CONTENT_TYPE))
        return resource

    def delete(self, name: str) -> None:
        """Delete the object."""
        self._request("DELETE", f"/storage/v1/b/{self.name}/o/{quote(name, safe='')}")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _request(
        self, method: str, path: str, body: bytes = b"", content_type: str | None = None
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            answer = self._pool.request(
                method, path, body=body, headers=headers, timeout=_ANSWER_SECONDS
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(f"Cloud Storage: no answer ({type(error).__name__})") from None
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ServerError(f"Cloud Storage: {method} answered HTTP {answer.status}")
        return answer.data


def is_object_name(name: str) -> bool:
    """Return whether Cloud Storage accepts a name: 1 to 1,024 bytes of UTF-8 without CR and LF."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= NAME_MAX_BYTES and "\r" not in name and "\n" not in name
