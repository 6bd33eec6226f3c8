"""`gs://` URIs as people type them: one value and its parser."""

from dataclasses import dataclass
from typing import Self

from dcm2bq import bucket_names
from dcm2bq.errors import ConfigError
from dcm2bq.stored_object import NAME_MAX_BYTES, SCHEME


@dataclass(frozen=True, slots=True)
class GsUri:
    """A bucket, and the name of an object in it or a prefix of names; `name` may be empty.

    Nothing is encoded: `?`, `#` and `%` in a name stand for themselves.

        >>> GsUri.parse("gs://scans/2026/a.dcm")
        GsUri(bucket='scans', name='2026/a.dcm')
        >>> str(GsUri("scans"))
        'gs://scans/'
    """

    bucket: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the value of `gs://BUCKET` or `gs://BUCKET/NAME`, without any request.

        Raises `ConfigError`, which names the rule, for anything else.
        """
        if not text.startswith(SCHEME):
            raise ConfigError(f"{text}: gs://BUCKET or gs://BUCKET/NAME is expected")
        bucket, _, name = text.removeprefix(SCHEME).partition("/")
        if not bucket_names.is_bucket_name(bucket):
            raise ConfigError(
                f"{text}: gs://BUCKET or gs://BUCKET/NAME is expected; {bucket_names.RULE}"
            )
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise ConfigError(f"{SCHEME}{bucket}/...: the name is not valid UTF-8") from None
        if size > NAME_MAX_BYTES:
            raise ConfigError(
                f"{SCHEME}{bucket}/...: the name has {size} bytes; "
                f"Cloud Storage takes at most {NAME_MAX_BYTES}"
            )
        return cls(bucket, name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.name}"


def is_uri(text: str) -> bool:
    """Return whether a `gs://` URI is meant, valid or not, rather than a local path."""
    return text[: len(SCHEME)].casefold() == SCHEME
