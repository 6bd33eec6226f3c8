"""Cloud Storage: ranged reads of exactly one generation, and listings.

What Cloud Storage answers becomes an error of `dcm2bq.errors` here, by its HTTP status and,
where it gives them, its reasons. A refused read of an object's content gives none, only a text
in English: why is asked of the object's metadata, and the text counts only beside that.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError

from dcm2bq.config import Config
from dcm2bq.dicom.read.deflate import GunzippedSource
from dcm2bq.dicom.read.source import Deadline, Window
from dcm2bq.errors import (
    ReadFailedError,
    RejectedEventError,
    SupersededError,
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

_LIST_SECONDS = 30
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_CODINGS = frozenset({"gzip", "x-gzip"})  # one coding, two names (RFC 9110 8.4.1.3)
_HEAD_BYTES = 64 * 1024
"""Bytes fetched to see whether an object is gzipped: the conversion's first read needs as many."""
_EXPLAIN_SECONDS = 5
"""Longest wait for what the metadata says of a refusal: its text is there already."""

_CUSTOMER_KEY = "resourceIsEncryptedWithCustomerEncryptionKey"
_CUSTOMER_KEY_TEXT = b"encrypted by a customer-supplied encryption key"
_UNDER_CUSTOMER_KEY = (
    "the object is encrypted with a customer-supplied key: "
    "rewrite it with a key of Cloud KMS or of Google's own"
)
_REQUESTER_PAYS_TEXT = b"requester pays bucket but no user project"
_REQUESTER_PAYS = (
    "the bucket is requester-pays: set input.userProject to the project that pays for reads"
)


class _Resource(msgspec.Struct, rename="camel"):
    """What is asked of an object's resource in the JSON API, field by field."""

    generation: str | None = None
    size: str | int | None = None
    content_encoding: str | None = None
    customer_encryption: dict[str, Any] | None = None
    time_deleted: datetime | None = None


_LISTED = (
    "items(name,generation,size,timeCreated,contentType,contentEncoding,storageClass,md5Hash,crc32c),"
    "nextPageToken"
)


class _Generation:
    """Requests about one generation of one object.

    They end at `deadline` (of `time.monotonic`) at the latest. Each raises `SupersededError`
    when the generation is gone, `RejectedEventError` when it cannot be read without a key,
    and `ReadFailedError` for every other failure.
    """

    def __init__(
        self, transport: Transport, event: ObjectEvent, user_project: str | None, deadline: float
    ) -> None:
        self._transport = transport
        self._path = f"/storage/v1/b/{event.bucket}/o/{quote(event.name, safe='')}"
        self._query: dict[str, str | int] = {"generation": event.generation}
        if user_project:
            self._query["userProject"] = user_project
        self._deadline = deadline

    def media(self, headers: Mapping[str, str]) -> Answer:
        """Return the content, or the part of it that the headers ask for."""
        answer = self._get(self._deadline, headers, alt="media")
        if answer.status == HTTPStatus.BAD_REQUEST and not answer.reasons:
            self._explain(answer.body)
        return _checked(answer)

    def metadata(self, *fields: str) -> _Resource:
        """Return the named fields of the object's resource."""
        return _resource(_checked(self._get(self._deadline, fields=",".join(fields))))

    def _explain(self, text: bytes) -> None:
        """Raise what a refusal in plain text means, where that can be told."""
        has_key = _CUSTOMER_KEY_TEXT in text
        is_requester_pays = _REQUESTER_PAYS_TEXT in text
        deadline = min(self._deadline, time.monotonic() + _EXPLAIN_SECONDS)
        with contextlib.suppress(ReadFailedError):
            answer = self._get(deadline, fields="customerEncryption")
            if answer.status == HTTPStatus.OK:
                has_key = has_key or bool(_resource(answer).customer_encryption)
            is_requester_pays = is_requester_pays or _is_requester_pays(answer)
        if has_key:
            raise RejectedEventError(_UNDER_CUSTOMER_KEY)
        if is_requester_pays:
            raise ReadFailedError(f"Cloud Storage: HTTP 400: {_REQUESTER_PAYS}")

    def _get(
        self, deadline: float, headers: Mapping[str, str] | None = None, **parameters: str
    ) -> Answer:
        if time.monotonic() >= deadline:
            raise ReadFailedError("no time left to read the object")
        path = f"{self._path}?{urlencode({**parameters, **self._query})}"
        try:
            return self._transport.request("GET", path, deadline=deadline, headers=headers)
        except NoAnswerError as error:
            raise ReadFailedError(f"Cloud Storage: {error}") from None


class ObjectReader:
    """One generation of one object, read by ranges; a byte source for the conversion.

    `size` is in bytes. `bytes_read` counts what was fetched.
    """

    def __init__(self, generation: _Generation, size: int) -> None:
        self.size = size
        self.bytes_read = 0
        self._generation = generation
        self._head = b""

    def begins_with(self, magic: bytes) -> bool:
        """Return whether the object does; what is fetched for it is not fetched again."""
        self._head = self.read_at(0, _HEAD_BYTES)
        return self._head.startswith(magic)

    def read_at(self, offset: int, n: int) -> bytes:
        """Return `n` bytes from `offset`; fewer only at the object's end.

        Raises `SupersededError` when the generation is gone, `RejectedEventError` when the
        object cannot be read without a key, and `ReadFailedError` for every other failure.
        """
        end = min(offset + n, self.size)
        held = self._head[offset:end]
        offset += len(held)
        return held + self._fetch(offset, end) if offset < end else held

    def _fetch(self, offset: int, end: int) -> bytes:
        answer = self._generation.media(
            # gzip is accepted so that nothing is inflated on the way: ranges count stored bytes.
            {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"}
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


class GunzippedReader(GunzippedSource):
    """One generation of an object stored with `Content-Encoding: gzip`, inflated as it is read.

    Ranges of such an object are ranges of its compressed bytes, so that reading what comes
    late costs what comes before. `size` is the inflated one, known at the end. Raises
    `UnreadableDicomError` for what is not gzip, is cut, or inflates beyond `limit` bytes.
    """

    def __init__(self, compressed: ObjectReader, limit: int, deadline: Deadline) -> None:
        super().__init__(Window(compressed, deadline), limit)
        self._reader = compressed

    @property
    def bytes_read(self) -> int:
        """The compressed bytes that were fetched."""
        return self._reader.bytes_read


class Store:
    """Cloud Storage as the function and the tools read it; made once per process."""

    def __init__(self, config: Config) -> None:
        try:
            self._transport = Transport(SERVICE, EMULATOR_VARIABLE)
        except GoogleAuthError as error:
            raise ReadFailedError(f"no Google credentials ({type(error).__name__})") from None
        self._is_emulated = bool(os.environ.get(EMULATOR_VARIABLE))
        self._user_project = config.input.user_project
        self._limit = config.limits.inflated_bytes
        self._seconds = config.limits.deadline_seconds

    def open(self, event: ObjectEvent, deadline: float) -> ObjectReader | GunzippedReader:
        """Return a reader of the event's generation.

        Requests nothing, unless the event gives no size or names the content encoding gzip.
        Raises what reading does.
        """
        generation = self._generation(event, deadline)
        size, encoding = event.size, event.content_encoding
        has_customer_key = event.has_customer_key
        if size is None:  # then the event tells nothing else of the object either
            resource = generation.metadata("size", "contentEncoding", "customerEncryption")
            size, encoding = _size(resource), resource.content_encoding
            has_customer_key = has_customer_key or bool(resource.customer_encryption)
        if has_customer_key:
            raise RejectedEventError(_UNDER_CUSTOMER_KEY)
        reader = ObjectReader(generation, size)
        if _names_gzip(encoding) and reader.begins_with(_GZIP_MAGIC):
            since = deadline - self._seconds  # not now: memory may have been waited for
            return GunzippedReader(reader, self._limit, Deadline(deadline, since))
        return reader

    def archived_at(self, event: ObjectEvent, deadline: float) -> datetime | None:
        """Return when the event's generation ceased to be the live one; None while it is.

        Raises `SupersededError` when that generation is gone altogether.
        """
        resource = self._generation(event, deadline).metadata("generation", "timeDeleted")
        if resource.generation != str(event.generation):
            raise ReadFailedError("Cloud Storage: the answer is about another generation")
        return resource.time_deleted

    def list(
        self, bucket: str, prefix: str = "", *, start: str = "", end: str = ""
    ) -> Iterator[ObjectEvent]:
        """Yield the live objects of a bucket by name, as if each had just been finalized.

        See `pages`. Raises `ReadFailedError` for a bucket that cannot be listed.
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
            reasons = [str(dict(each).get("reason")) for each in error.errors]
            is_requester_pays = isinstance(error, api.BadRequest) and "required" in reasons
            meaning = f": {_REQUESTER_PAYS}" if is_requester_pays else ""
            raise ReadFailedError(f"Cloud Storage: HTTP {error.code}{meaning}") from None
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

    def _generation(self, event: ObjectEvent, deadline: float) -> _Generation:
        return _Generation(self._transport, event, self._user_project, deadline)


def _checked(answer: Answer) -> Answer:
    """Return the answer if it is one; raise what its status and its reasons mean."""
    if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return answer
    if answer.status == HTTPStatus.NOT_FOUND:
        raise SupersededError("that generation no longer exists")
    if _CUSTOMER_KEY in answer.reasons:
        raise RejectedEventError(_UNDER_CUSTOMER_KEY)
    meaning = ""
    if _is_requester_pays(answer):
        meaning = f": {_REQUESTER_PAYS}"
    elif answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        meaning = ": the object is shorter than its event says"
    raise ReadFailedError(f"Cloud Storage: {answer}{meaning}")


def _is_requester_pays(answer: Answer) -> bool:
    # HTTP 401 has the same reason: there, the login is what is required.
    return answer.status == HTTPStatus.BAD_REQUEST and "required" in answer.reasons


def _resource(answer: Answer) -> _Resource:
    try:
        return msgspec.json.decode(answer.body, type=_Resource)
    except ValueError:
        raise ReadFailedError("Cloud Storage: the answer is not an object's metadata") from None


def _names_gzip(content_encoding: str | None) -> bool:
    """Return whether gzip is among the codings: names in any case (RFC 9110 8.4.1)."""
    codings = (content_encoding or "").lower().split(",")
    return any(each.strip() in _GZIP_CODINGS for each in codings)


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


def _size(resource: _Resource) -> int:
    try:
        size = int("" if resource.size is None else resource.size)
    except ValueError:
        size = -1
    if size < 0:
        raise ReadFailedError("Cloud Storage: no size in the object's metadata")
    return size


def _content_range(answer: Answer) -> tuple[int, int] | None:
    """Return the first offset of a partial answer and the one behind its last."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2]) + 1) if found else None
