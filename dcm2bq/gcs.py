"""Cloud Storage: ranged reads of exactly one generation, and listings.

What Cloud Storage answers becomes an error of `dcm2bq.errors` here, by its HTTP status.
"""

import os
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError

from dcm2bq.config import Config
from dcm2bq.errors import (
    ReadFailedError,
    RejectedEventError,
    SupersededError,
    UnreadableDicomError,
)
from dcm2bq.events import Kind, ObjectEvent
from dcm2bq.transport import EMULATOR_PROJECT, Answer, NoAnswerError, Transport

if TYPE_CHECKING:
    from google.cloud.storage.blob import Blob
    from google.cloud.storage.client import Client

SERVICE = "https://storage.googleapis.com"
EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
LISTED_AT_ONCE = 1000
"""Objects for each request of a listing: the most that Cloud Storage gives."""

_CHUNK_BYTES = 1024 * 1024
_LIST_SECONDS = 30
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GZIP = 31  # zlib's wbits for the gzip format
_GZIP_MAGIC = b"\x1f\x8b"
_CUSTOMER_KEY = "resourceIsEncryptedWithCustomerEncryptionKey"


class _Version(msgspec.Struct, rename="camel"):
    generation: str
    time_deleted: datetime | None = None


_LISTED = (
    "items(name,generation,size,timeCreated,contentType,contentEncoding,storageClass,md5Hash,crc32c),"
    "nextPageToken"
)


class ObjectReader:
    """One generation of one object, read by ranges; a byte source for the conversion.

    `size` is in bytes. `bytes_read` counts what was fetched. Reads end at `deadline` (of
    `time.monotonic`) at the latest.
    """

    def __init__(self, transport: Transport, path: str, size: int, deadline: float) -> None:
        self.size = size
        self.bytes_read = 0
        self._transport = transport
        self._path = path
        self._deadline = deadline

    def read_at(self, offset: int, n: int) -> bytes:
        """Return `n` bytes from `offset`; fewer only at the object's end.

        Raises `SupersededError` when the generation is gone, `RejectedEventError` when the
        object can not be read without a key, and `ReadFailedError` for every other failure.
        """
        end = min(offset + n, self.size)
        if end <= offset:
            return b""
        answer = _get(
            self._transport,
            self._path,
            self._deadline,
            # gzip is accepted so that nothing is inflated on the way: ranges count stored bytes.
            {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"},
        )
        self.bytes_read += len(answer.body)
        whole = answer.status == HTTPStatus.OK and (offset, end) == (0, self.size)
        if not (whole or _content_range(answer) == (offset, end)):
            raise ReadFailedError(f"Cloud Storage: not the range {offset}-{end - 1}")
        if len(answer.body) != end - offset:
            raise ReadFailedError(
                f"Cloud Storage: {len(answer.body)} of {end - offset} bytes from offset {offset}"
            )
        return answer.body


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
                while pending:
                    if inflater.eof:  # a gzip file may have several members (RFC 1952 2.2)
                        inflater = zlib.decompressobj(wbits=_GZIP)
                    content += inflater.decompress(pending, _CHUNK_BYTES)
                    pending = inflater.unconsumed_tail or inflater.unused_data.lstrip(b"\0")
                    if len(content) > limit:
                        raise UnreadableDicomError(
                            f"gzip encoded, above limits.headerBytes ({limit})"
                        )
        except zlib.error:
            raise UnreadableDicomError("the object's gzip encoding is broken") from None
        if not inflater.eof:
            raise UnreadableDicomError("the object's gzip encoding is cut")
        self.size = len(content)
        self.bytes_read = compressed.bytes_read
        self._content = memoryview(content)

    def read_at(self, offset: int, n: int) -> bytes:
        """Return up to `n` bytes from `offset` of the inflated object."""
        return bytes(self._content[offset : offset + n])


class Store:
    """Cloud Storage as the function and the tools read it; made once per process."""

    def __init__(self, config: Config) -> None:
        try:
            self._transport = Transport(SERVICE, EMULATOR_VARIABLE)
        except GoogleAuthError as error:
            raise ReadFailedError(f"no Google credentials ({type(error).__name__})") from None
        self._is_emulated = bool(os.environ.get(EMULATOR_VARIABLE))
        self._user_project = config.input.user_project
        self._limit = config.limits.header_bytes

    def open(self, event: ObjectEvent, deadline: float) -> ObjectReader | GunzippedReader:
        """Return a reader of the event's generation.

        Requests nothing, unless the event gives no size or names a content encoding.
        """
        path = f"/storage/v1/b/{event.bucket}/o/{quote(event.name, safe='')}"
        size = event.size
        if size is None:
            query = self._query(fields="size", generation=event.generation)
            size = _size(_get(self._transport, f"{path}?{query}", deadline))
        media = self._query(alt="media", generation=event.generation)
        reader = ObjectReader(self._transport, f"{path}?{media}", size, deadline)
        if event.content_encoding == "gzip" and reader.read_at(0, 2) == _GZIP_MAGIC:
            return GunzippedReader(reader, self._limit)
        return reader

    def archived_at(self, event: ObjectEvent, deadline: float) -> datetime | None:
        """Return when the event's generation ceased to be the live one; None while it is.

        Raises `SupersededError` when that generation is gone altogether.
        """
        path = f"/storage/v1/b/{event.bucket}/o/{quote(event.name, safe='')}"
        query = self._query(fields="generation,timeDeleted", generation=event.generation)
        answer = _get(self._transport, f"{path}?{query}", deadline)
        try:
            found = msgspec.json.decode(answer.body, type=_Version)
        except msgspec.DecodeError:
            raise ReadFailedError("Cloud Storage: the answer is not an object's metadata") from None
        if found.generation != str(event.generation):
            raise ReadFailedError("Cloud Storage: the answer is about another generation")
        return found.time_deleted

    def list(
        self, bucket: str, prefix: str = "", *, start: str = "", end: str = ""
    ) -> Iterator[ObjectEvent]:
        """Yield the live objects of a bucket by name, as if each had just been finalized.

        See `pages`. Raises `ReadFailedError` for a bucket that can not be listed.
        """
        for page in self.pages(bucket, prefix, start=start, end=end):
            yield from page

    def pages(
        self,
        bucket: str,
        prefix: str = "",
        *,
        start: str = "",
        end: str = "",
        at_once: int = LISTED_AT_ONCE,
    ) -> Iterator[Sequence[ObjectEvent]]:
        """Yield what `list` does, `at_once` objects for each request.

        Names are ordered as their UTF-8 bytes are, which is Python's order too: from `start`
        on, and less than `end` unless that is empty.
        """
        from google.api_core import exceptions as api  # noqa: PLC0415
        from google.cloud.storage.retry import DEFAULT_RETRY  # noqa: PLC0415

        try:
            found = self._client.list_blobs(
                self._client.bucket(bucket, user_project=self._user_project),
                prefix=prefix,
                start_offset=start or None,
                end_offset=end or None,
                page_size=at_once,
                fields=_LISTED,
                retry=DEFAULT_RETRY.with_timeout(_LIST_SECONDS),
            )
            for page in found.pages:
                yield tuple(_event(blob) for blob in page)
        except api.NotFound:
            raise ReadFailedError("Cloud Storage: there is no such bucket") from None
        except api.GoogleAPICallError as error:
            raise ReadFailedError(f"Cloud Storage: HTTP {error.code}") from None
        except (api.GoogleAPIError, GoogleAuthError, OSError) as error:
            raise ReadFailedError(f"Cloud Storage: no answer, {type(error).__name__}") from None

    @cached_property
    def _client(self) -> "Client":
        # Slow to import, and the function never lists.
        from google.cloud.storage.client import Client  # noqa: PLC0415

        if not self._is_emulated:
            return Client()
        options = {"api_endpoint": self._transport.base}
        return Client(EMULATOR_PROJECT, AnonymousCredentials(), client_options=options)

    def _query(self, **parameters: str | int) -> str:
        project = {"userProject": self._user_project} if self._user_project else {}
        return urlencode({**parameters, **project})


def _get(
    transport: Transport, path: str, deadline: float, headers: dict[str, str] | None = None
) -> Answer:
    if time.monotonic() >= deadline:
        raise ReadFailedError("no time left to read the object")
    try:
        answer = transport.request("GET", path, deadline=deadline, headers=headers)
    except NoAnswerError as error:
        raise ReadFailedError(f"Cloud Storage: {error}") from None
    if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return answer
    if answer.status == HTTPStatus.NOT_FOUND:
        raise SupersededError("that generation no longer exists")
    if _CUSTOMER_KEY in answer.reasons:
        raise RejectedEventError("the object is encrypted with a customer-supplied key")
    hint = ": input.userProject?" if "required" in answer.reasons else ""
    raise ReadFailedError(f"Cloud Storage: {answer}{hint}")


def _event(blob: "Blob") -> ObjectEvent:
    return ObjectEvent(
        event_id="",
        kind=Kind.FINALIZED,
        time=blob.time_created,
        bucket=blob.bucket.name,
        name=blob.name,
        generation=blob.generation,
        size=blob.size,
        content_type=blob.content_type,
        content_encoding=blob.content_encoding,
        storage_class=blob.storage_class,
        md5_hash=blob.md5_hash,
        crc32c=blob.crc32c,
    )


def _size(answer: Answer) -> int:
    try:
        return int(msgspec.json.decode(answer.body)["size"])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        raise ReadFailedError("Cloud Storage: no size in the object's metadata") from None


def _content_range(answer: Answer) -> tuple[int, int] | None:
    """Return the first offset of a partial answer and the one behind its last."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2]) + 1) if found else None
