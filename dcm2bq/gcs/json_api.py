"""Requests to the JSON API of Cloud Storage, for the tools that write and delete objects."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from dcm2bq.deadline import Deadline
from dcm2bq.errors import ServiceError
from dcm2bq.transport import Answer, NoAnswerError, Transport


def bucket_path(bucket: str) -> str:
    """Return the path of a bucket's resource."""
    return f"/storage/v1/b/{bucket}"


def object_path(bucket: str, name: str) -> str:
    """Return the path of an object's resource; any character may be in the name."""
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


def upload_path(bucket: str) -> str:
    """Return the path that takes uploads to a bucket."""
    return f"/upload/storage/v1/b/{bucket}/o"


def send(
    transport: Transport,
    method: str,
    path: str,
    query: Mapping[str, str],
    *,
    place: str,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Return the answer to a request, whatever its status, after retries for that many seconds.

    Raises `ServiceError`, which begins with `place`, if there is no answer.
    """
    try:
        return transport.request(
            method,
            f"{path}?{urlencode(query)}",
            deadline=Deadline.after(seconds),
            headers=headers,
            body=body,
        )
    except NoAnswerError as error:
        raise ServiceError(f"{place}: {error}") from None
