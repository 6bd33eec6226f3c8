"""Exactly one generation of one object in Cloud Storage, read by ranges of its bytes.

Answers become errors of `dcm2bq.errors` here, by their HTTP status and their reasons, with one
exception: when Cloud Storage refuses to return an object's content, it gives no reason but a text
in English. The metadata of the object is then requested to find the reason. The text only supports
it.
"""

import contextlib
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import msgspec

from dcm2bq.deadline import Deadline
from dcm2bq.dicom.read.deflate import GZIP_MAGIC, GunzippedSource
from dcm2bq.dicom.read.source import Window
from dcm2bq.errors import ReadFailedError, RejectedEventError, SupersededError
from dcm2bq.gcs.json_api import object_path
from dcm2bq.stored_object import StoredObject
from dcm2bq.transport import Answer, NoAnswerError, Transport

REQUESTER_PAYS = (
    "the bucket is requester-pays: set input.userProject to the project that pays for reads"
)

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GZIP_CODINGS = frozenset({"gzip", "x-gzip"})  # one coding, two names (RFC 9110 8.4.1.3)
_HEAD_BYTES = 64 * 1024
"""Bytes fetched to see whether an object is gzipped: the conversion's first read needs as many."""
_REQUEST_SECONDS = 600
"""Longest time for a request and its retries if there is no deadline: longer than any event's."""
_EXPLAIN_SECONDS = 5
"""Longest wait for the metadata that explains a refusal: the refusal's text is already there."""

_DESCRIPTION = (
    *("size", "contentType", "contentEncoding", "storageClass", "md5Hash", "crc32c"),
    "customerEncryption",
)
"""Fields of an object's resource that a notification without data leaves out."""

_CUSTOMER_KEY = "resourceIsEncryptedWithCustomerEncryptionKey"
_CUSTOMER_KEY_TEXT = b"encrypted by a customer-supplied encryption key"
_UNDER_CUSTOMER_KEY = (
    "the object is encrypted with a customer-supplied key: "
    "rewrite it with a key of Cloud KMS or of Google's own"
)
_REQUESTER_PAYS_TEXT = b"requester pays bucket but no user project"


class _Resource(msgspec.Struct, rename="camel"):
    """Fields of an object's resource in the JSON API; a request names those that it needs."""

    generation: str | None = None
    size: str | int | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None
    md5_hash: str | None = None
    crc32c: str | None = None
    customer_encryption: dict[str, Any] | None = None
    time_deleted: datetime | None = None


class Generation:
    """One generation of one object; every request about it ends by the same deadline.

    Each request raises `SupersededError` if the generation no longer exists,
    `RejectedEventError` if it cannot be read without a key, and `ReadFailedError` for every
    other failure.
    """

    def __init__(
        self,
        transport: Transport,
        stored: StoredObject,
        user_project: str | None,
        deadline: Deadline,
    ) -> None:
        self._transport = transport
        self._stored = stored
        self._path = object_path(stored.bucket, stored.name)
        self._query: dict[str, str | int] = {"generation": stored.generation}
        if user_project:
            self._query["userProject"] = user_project
        self._deadline = deadline

    def open(self, inflated_limit: int) -> "ObjectReader | GunzippedReader":
        """Return a reader of the content; a gzipped object inflates to that many bytes at most.

        The object's size must be known: `described` returns it. Requests nothing, unless the
        content encoding names gzip.
        """
        assert self._stored.size is not None, "described first"
        if self._stored.has_customer_key:
            raise RejectedEventError(_UNDER_CUSTOMER_KEY)
        reader = ObjectReader(self, self._stored.size)
        if _names_gzip(self._stored.content_encoding) and reader.begins_with(GZIP_MAGIC):
            return GunzippedReader(reader, inflated_limit, self._deadline)
        return reader

    def described(self) -> StoredObject:
        """Return the object with its size, encoding and whatever else rows have of it."""
        resource = self._metadata(*_DESCRIPTION)
        return replace(
            self._stored,
            size=_size(resource),
            content_type=resource.content_type,
            content_encoding=resource.content_encoding,
            storage_class=resource.storage_class,
            md5_hash=resource.md5_hash,
            crc32c=resource.crc32c,
            has_customer_key=bool(resource.customer_encryption),
        )

    def archived_at(self) -> datetime | None:
        """Return when the generation ceased to be the live one, or None if it still is."""
        resource = self._metadata("generation", "timeDeleted")
        if resource.generation != str(self._stored.generation):
            raise ReadFailedError("Cloud Storage: the answer is about another generation")
        return resource.time_deleted

    def media(self, headers: Mapping[str, str]) -> Answer:
        """Return the content, or the range that the headers request."""
        answer = self._get(self._deadline, headers, alt="media")
        if answer.status == HTTPStatus.BAD_REQUEST and not answer.reasons:
            self._explain(answer.body)
        return _checked(answer)

    def _metadata(self, *fields: str) -> _Resource:
        """Return the named fields of the object's resource."""
        return _resource(_checked(self._get(self._deadline, fields=",".join(fields))))

    def _explain(self, text: bytes) -> None:
        """Raise what a refusal in plain text means; return if that remains unclear."""
        has_key = _CUSTOMER_KEY_TEXT in text
        is_requester_pays = _REQUESTER_PAYS_TEXT in text
        deadline = self._deadline.within(_EXPLAIN_SECONDS)
        with contextlib.suppress(ReadFailedError):
            answer = self._get(deadline, fields="customerEncryption")
            if answer.status == HTTPStatus.OK:
                has_key = has_key or bool(_resource(answer).customer_encryption)
            is_requester_pays = is_requester_pays or _is_requester_pays(answer)
        if has_key:
            raise RejectedEventError(_UNDER_CUSTOMER_KEY)
        if is_requester_pays:
            raise ReadFailedError(f"Cloud Storage: HTTP 400: {REQUESTER_PAYS}")

    def _get(
        self, deadline: Deadline, headers: Mapping[str, str] | None = None, **parameters: str
    ) -> Answer:
        if deadline.has_passed:
            raise ReadFailedError("no time left to read the object")
        path = f"{self._path}?{urlencode({**parameters, **self._query})}"
        try:
            return self._transport.request(
                "GET", path, deadline=deadline.or_after(_REQUEST_SECONDS), headers=headers
            )
        except NoAnswerError as error:
            raise ReadFailedError(f"Cloud Storage: {error}") from None


class ObjectReader:
    """One generation of one object, read by ranges; a byte source for the conversion.

    Any thread may read. `size` is in bytes. `bytes_read` counts what was fetched.
    """

    def __init__(self, generation: Generation, size: int) -> None:
        self.size = size
        self.bytes_read = 0
        self._generation = generation
        self._head = b""
        self._counting = threading.Lock()

    def begins_with(self, magic: bytes) -> bool:
        """Return whether the content begins with `magic`; the bytes fetched for it are kept."""
        self._head = self.read_at(0, _HEAD_BYTES)
        return self._head.startswith(magic)

    def read_at(self, offset: int, n: int) -> bytes:
        """Return `n` bytes from `offset`; fewer only at the object's end.

        Raises what the requests of `Generation` raise.
        """
        end = min(offset + n, self.size)
        held = self._head[offset:end]
        offset += len(held)
        return held + self._fetch(offset, end) if offset < end else held

    def _fetch(self, offset: int, end: int) -> bytes:
        answer = self._generation.media(
            # Accepting gzip keeps Cloud Storage from inflating: ranges count stored bytes.
            {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"}
        )
        with self._counting:
            self.bytes_read += len(answer.body)
        is_whole = answer.status == HTTPStatus.OK and (offset, end) == (0, self.size)
        if not (is_whole or _content_range(answer) == (offset, end)):
            raise ReadFailedError(f"Cloud Storage: the answer is not the range {offset}-{end - 1}")
        if len(answer.body) != end - offset:
            raise ReadFailedError(
                f"Cloud Storage: {len(answer.body)} of {end - offset} bytes from offset {offset}"
            )
        return answer.body


class GunzippedReader(GunzippedSource):
    """One generation of an object stored with `Content-Encoding: gzip`, inflated as it is read.

    Ranges of such an object are ranges of its compressed bytes, so that reading a late part
    costs all parts before it. `size` is the inflated size, known only at the end. Raises
    `UnreadableDicomError` for content that is not gzip, is cut, or inflates beyond `limit`
    bytes.
    """

    def __init__(self, compressed: ObjectReader, limit: int, deadline: Deadline) -> None:
        super().__init__(Window(compressed, deadline), limit)
        self._reader = compressed

    @property
    def bytes_read(self) -> int:
        """The compressed bytes that were fetched."""
        return self._reader.bytes_read


def _checked(answer: Answer) -> Answer:
    """Return a successful answer; raise what the status and the reasons of another one mean."""
    if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return answer
    if answer.status == HTTPStatus.NOT_FOUND:
        raise SupersededError("that generation no longer exists")
    if _CUSTOMER_KEY in answer.reasons:
        raise RejectedEventError(_UNDER_CUSTOMER_KEY)
    meaning = ""
    if _is_requester_pays(answer):
        meaning = f": {REQUESTER_PAYS}"
    elif answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        meaning = ": the object is shorter than its event says"
    raise ReadFailedError(f"Cloud Storage: {answer}{meaning}")


def _is_requester_pays(answer: Answer) -> bool:
    # HTTP 401 has the same reason, but there it is the login that is required.
    return answer.status == HTTPStatus.BAD_REQUEST and "required" in answer.reasons


def _resource(answer: Answer) -> _Resource:
    try:
        return msgspec.json.decode(answer.body, type=_Resource)
    except ValueError:
        raise ReadFailedError("Cloud Storage: the answer is not an object's metadata") from None


def _names_gzip(content_encoding: str | None) -> bool:
    """Return whether gzip is among the codings, whose names have no case (RFC 9110 8.4.1)."""
    codings = (content_encoding or "").lower().split(",")
    return any(coding.strip() in _GZIP_CODINGS for coding in codings)


def _size(resource: _Resource) -> int:
    try:
        size = int("" if resource.size is None else resource.size)
    except ValueError:
        size = -1
    if size < 0:
        raise ReadFailedError("Cloud Storage: no size in the object's metadata")
    return size


def _content_range(answer: Answer) -> tuple[int, int] | None:
    """Return the offsets of a partial answer: of its first byte, and after its last."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2]) + 1) if match else None
