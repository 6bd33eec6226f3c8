"""One generation of one object in Cloud Storage, and the rules for its name."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from dcm2bq.bucket_names import is_bucket_name
from dcm2bq.errors import InvalidEventError

SCHEME = "gs://"
NAME_MAX_BYTES = 1024
"""Longest name of an object in UTF-8: Cloud Storage's own limit."""

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as an event or a listing describes it.

    `size` is in bytes, and None if the event does not give it. `md5_hash` and `crc32c` are
    base64, as in the JSON API. `has_customer_key` says that the object is encrypted with a
    customer-supplied key, which Cloud Storage does not keep (`customerEncryption`). `created`
    is when the generation was uploaded; only listings give it.

    Raises `InvalidEventError`, which names the field, for a value that Cloud Storage cannot
    have sent.
    """

    bucket: str
    name: str
    generation: int
    size: int | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None
    md5_hash: str | None = None
    crc32c: str | None = None
    has_customer_key: bool = False
    created: datetime | None = None

    def __post_init__(self) -> None:
        if not is_bucket_name(self.bucket):
            raise InvalidEventError("data.bucket: is not a bucket name")
        if not 0 < _utf8_length(self.name) <= NAME_MAX_BYTES:
            raise InvalidEventError(f"data.name: is empty or exceeds {NAME_MAX_BYTES} bytes")
        if not 0 < self.generation <= _INT64_MAX:
            raise InvalidEventError("data.generation: is not a generation")
        if self.size is not None and not 0 <= self.size <= _INT64_MAX:
            raise InvalidEventError("data.size: is not a size in bytes")

    @property
    def path(self) -> str:
        """The object's `gs://` URI as people write it: nothing is encoded."""
        return f"{SCHEME}{self.bucket}/{self.name}"

    @property
    def place(self) -> str:
        """Where the object is stored: the column `info.input.type`."""
        return "GCS"

    def renamed(self, path: str) -> Self:
        """Return the object under the `path` that rows have if names are hashed."""
        return replace(self, name=path.split("/", 3)[3])

    @property
    def bulk_data_root(self) -> str:
        """The start of a BulkDataURI that names this generation; `&offset=` follows.

        `%`, `?` and `#` in the name are percent-encoded, so that the query can be recognised.
        """
        name = self.name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        return f"{SCHEME}{self.bucket}/{name}?generation={self.generation}"


def _utf8_length(name: str) -> int:
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        raise InvalidEventError("data.name: is not valid Unicode") from None
