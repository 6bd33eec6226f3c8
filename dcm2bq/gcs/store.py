"""Cloud Storage as the function and the tools read it: objects by range, buckets by name."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from dcm2bq import emulators
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import ReadFailedError
from dcm2bq.gcs.bucket_settings import BucketSettings, read_settings
from dcm2bq.gcs.ranged import REQUESTER_PAYS, Generation, GunzippedReader, ObjectReader
from dcm2bq.stored_object import StoredObject
from dcm2bq.transport import Transport

if TYPE_CHECKING:
    from google.cloud.storage.blob import Blob
    from google.cloud.storage.client import Client

SERVICE = "https://storage.googleapis.com"
LISTED_AT_ONCE = 1000
"""Objects for each request of a listing: the most that Cloud Storage gives."""

_LIST_SECONDS = 30
"""How long a failing request of a listing is retried."""
_LISTED = (
    "items(name,generation,size,timeCreated,contentType,contentEncoding,storageClass,md5Hash,crc32c),"
    "nextPageToken"
)


class Store:
    """Reads objects and lists buckets; made once per process, used by all its threads.

    `transport` is its connection to Cloud Storage. Raises `ServiceError` if there are no
    credentials.
    """

    def __init__(self, config: Config) -> None:
        self.transport = Transport(SERVICE, emulators.STORAGE)
        self._user_project = config.input.user_project
        self._inflated_limit = config.limits.inflated_bytes

    def open(self, stored: StoredObject, deadline: Deadline) -> ObjectReader | GunzippedReader:
        """Return a reader of exactly that generation; see `Generation` for what is raised."""
        return self._generation(stored, deadline).open(self._inflated_limit)

    def described(self, stored: StoredObject, deadline: Deadline) -> StoredObject:
        """Return that generation with its size and the rest of its metadata, by one request."""
        return self._generation(stored, deadline).described()

    def archived_at(self, stored: StoredObject, deadline: Deadline) -> datetime | None:
        """Return when that generation ceased to be the live one, or None if it still is.

        Raises `SupersededError` if the generation does not exist at all.
        """
        return self._generation(stored, deadline).archived_at()

    def settings(self, bucket: str) -> BucketSettings | None:
        """Return a bucket's settings, or None if they may not be read; see `read_settings`."""
        return read_settings(self.transport, bucket, self._user_project)

    def list(
        self, bucket: str, prefix: str = "", *, start: str = "", end: str = ""
    ) -> Iterator[StoredObject]:
        """Yield the live objects of a bucket in the order of their names; see `pages`."""
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
    ) -> Iterator[Sequence[StoredObject]]:
        """Yield the live objects whose names begin with `prefix`, `at_once` for each request.

        Names come in the order of their UTF-8 bytes, which is Python's order of text too:
        from `start` on and, unless `end` is empty, less than `end`. Raises `ReadFailedError`
        for a bucket that cannot be listed.
        """
        from google.api_core import exceptions as api  # noqa: PLC0415
        from google.cloud.storage.retry import DEFAULT_RETRY  # noqa: PLC0415

        from dcm2bq.google_errors import FAILURES, cause  # noqa: PLC0415

        try:
            listing = self._client.list_blobs(
                self._client.bucket(bucket, user_project=self._user_project),
                prefix=prefix,
                start_offset=start or None,
                end_offset=end or None,
                page_size=at_once,
                fields=_LISTED,
                retry=DEFAULT_RETRY.with_timeout(_LIST_SECONDS),
            )
            for page in listing.pages:
                yield tuple(_stored_object(blob) for blob in page)
        except api.NotFound:
            raise ReadFailedError("Cloud Storage: there is no such bucket") from None
        except FAILURES as error:
            meaning = f": {REQUESTER_PAYS}" if _is_requester_pays(error) else ""
            raise ReadFailedError(
                f"Cloud Storage: {cause(error, emulators.STORAGE)}{meaning}"
            ) from None

    @cached_property
    def _client(self) -> "Client":
        # Imported here: the import is slow, and the function never lists.
        from google.cloud.storage.client import Client  # noqa: PLC0415

        if self.transport.base == SERVICE:  # decided once, for reads and listings alike
            return Client()
        options = {"api_endpoint": self.transport.base}
        return Client(emulators.PROJECT, emulators.credentials(), client_options=options)

    def _generation(self, stored: StoredObject, deadline: Deadline) -> Generation:
        return Generation(self.transport, stored, self._user_project, deadline)


def _is_requester_pays(error: Exception) -> bool:
    from google.api_core.exceptions import BadRequest  # noqa: PLC0415

    return isinstance(error, BadRequest) and any(
        dict(detail).get("reason") == "required" for detail in error.errors
    )


def _stored_object(blob: "Blob") -> StoredObject:
    return StoredObject(
        bucket=blob.bucket.name,
        name=blob.name,
        generation=blob.generation,
        size=blob.size,
        content_type=blob.content_type,
        content_encoding=blob.content_encoding,
        storage_class=blob.storage_class,
        md5_hash=blob.md5_hash,
        crc32c=blob.crc32c,
        created=blob.time_created,
    )
