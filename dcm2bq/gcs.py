"""Cloud Storage: ranged reads of exactly one generation, and listings.

Google's exceptions end here: each becomes an error of `dcm2bq.errors`, by its HTTP status.
"""

import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage.blob import Blob
from google.cloud.storage.client import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from dcm2bq.config import Config
from dcm2bq.errors import (
    Dcm2BqError,
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    UnreadableDicomError,
)
from dcm2bq.events import Kind, ObjectEvent

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"

_CHUNK_BYTES = 1024 * 1024
_GZIP = 31  # zlib's wbits for the gzip format
_GZIP_MAGIC = b"\x1f\x8b"

_FAILURES = (
    api.GoogleAPIError,
    auth.GoogleAuthError,
    requests.RequestException,
    DataCorruption,
    InvalidResponse,
    ConnectionError,
    TimeoutError,
)

_GONE = SupersededError("that generation no longer exists")


class ObjectReader:
    """One generation of one object, read by ranges; a byte source for the conversion.

    `size` is in bytes. `bytes_read` counts what was fetched. Reads end at `deadline` (of
    `time.monotonic`) at the latest.
    """

    def __init__(self, blob: Blob, size: int, deadline: float) -> None:
        self.size = size
        self.bytes_read = 0
        self._blob = blob
        self._deadline = deadline

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset`; fewer only at the object's end.

        Raises `SupersededError` when the generation is gone, `RejectedEventError` when the
        object can not be read without a key, and `ReadFailedError` for every other failure.
        """
        n = min(n, self.size - offset)
        if n <= 0:
            return b""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise ReadFailedError("no time left to read the object")
        with _mapped():
            # An attempt that begins at the last moment must still end in time.
            content: bytes = self._blob.download_as_bytes(
                start=offset,
                end=offset + n - 1,
                raw_download=True,
                checksum=None,
                retry=DEFAULT_RETRY.with_timeout(seconds / 2),
                timeout=seconds / 2,
            )
        self.bytes_read += len(content)
        if len(content) != n:
            raise ReadFailedError(f"{len(content)} of {n} bytes came from offset {offset}")
        return content


class GunzippedReader:
    """One generation of an object stored with `Content-Encoding: gzip`, inflated at once.

    Ranges of such an object are ranges of its compressed bytes, so that it is read whole.
    `size` is the inflated one; raises `UnreadableDicomError` when it would exceed `limit`.
    """

    def __init__(self, compressed: ObjectReader, limit: int) -> None:
        inflater = zlib.decompressobj(wbits=_GZIP)
        content = bytearray()
        try:
            for offset in range(0, compressed.size, _CHUNK_BYTES):
                pending = compressed.read_at(offset, _CHUNK_BYTES)
                while pending and len(content) <= limit:
                    content += inflater.decompress(pending, _CHUNK_BYTES)
                    pending = inflater.unconsumed_tail
        except zlib.error:
            raise UnreadableDicomError("the object's gzip encoding is broken") from None
        if len(content) > limit:
            raise UnreadableDicomError(f"gzip encoded, above limits.headerBytes ({limit})")
        self.size = len(content)
        self.bytes_read = compressed.bytes_read
        self._content = content

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset` of the inflated object."""
        return bytes(self._content[offset : offset + n])


class Store:
    """Cloud Storage as the function and the tools read it; made once per process."""

    def __init__(self, config: Config) -> None:
        with _mapped():
            self._client = _connect()
        self._user_project = config.input.user_project
        self._limit = config.limits.header_bytes

    def open(self, event: ObjectEvent, deadline: float) -> ObjectReader | GunzippedReader:
        """Return a reader of the event's generation.

        Requests nothing, unless the event gives no size or names a content encoding.
        """
        bucket = self._client.bucket(event.bucket, user_project=self._user_project)
        blob = bucket.blob(event.name, generation=event.generation)
        size = event.size
        if size is None:
            with _mapped():
                blob.reload(timeout=max(deadline - time.monotonic(), 0.001), retry=None)
            size = blob.size or 0
        reader = ObjectReader(blob, size, deadline)
        if event.content_encoding == "gzip" and reader.read_at(0, 2) == _GZIP_MAGIC:
            return GunzippedReader(reader, self._limit)
        return reader

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectEvent]:
        """Yield the live objects of a bucket by name, as if each had just been finalized."""
        with _mapped(gone=ReadFailedError("no such bucket")):
            for blob in self._client.list_blobs(
                self._client.bucket(bucket, user_project=self._user_project), prefix=prefix
            ):
                yield ObjectEvent(
                    event_id="",
                    kind=Kind.FINALIZED,
                    time=blob.updated,
                    bucket=bucket,
                    name=blob.name,
                    generation=blob.generation,
                    size=blob.size,
                    content_type=blob.content_type,
                    content_encoding=blob.content_encoding,
                    storage_class=blob.storage_class,
                    md5_hash=blob.md5_hash,
                    crc32c=blob.crc32c,
                )


def _connect() -> Client:
    if not os.environ.get(EMULATOR_VARIABLE):
        return Client()
    return Client(project="local", credentials=AnonymousCredentials())


@contextmanager
def _mapped(gone: Dcm2BqError = _GONE) -> Iterator[None]:
    """Turn Google's exceptions, and those of the transport below, into the taxonomy's."""
    try:
        yield
    except _FAILURES as error:
        status = _status(error)
        if status == HTTPStatus.NOT_FOUND:
            raise gone from None
        if status == HTTPStatus.BAD_REQUEST:
            raise RejectedEventError(
                "Cloud Storage refuses the read (HTTP 400): a customer-supplied key?"
            ) from None
        answer = f"HTTP {status}" if status else f"no answer ({type(error).__name__})"
        raise ReadFailedError(f"Cloud Storage: {answer}") from None


def _status(error: Exception) -> int | None:
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        return _status(error.cause)
    status: int | None = None
    if isinstance(error, api.GoogleAPICallError):
        status = error.code
    elif isinstance(error, InvalidResponse):
        status = error.response.status_code
    return status
