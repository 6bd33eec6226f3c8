"""`gs://` URIs as people type them: one value, and the one parser of it."""

from dataclasses import dataclass
from typing import Self

from dcm2bq import bucket_names, events
from dcm2bq.errors import ConfigError

SCHEME = "gs://"


@dataclass(frozen=True, slots=True)
class GsUri:
    """A bucket, and the name of an object in it or what names begin with; `name` may be empty.

    Nothing is encoded: `?`, `#` and `%` in a name stand for themselves.
    """

    bucket: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the value of `gs://BUCKET` or `gs://BUCKET/NAME`; ask nothing of the network.

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
        if size > events.NAME_MAX_BYTES:
            raise ConfigError(
                f"{SCHEME}{bucket}/...: the name has {size} bytes; "
                f"Cloud Storage takes at most {events.NAME_MAX_BYTES}"
            )
        return cls(bucket, name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.name}"


def is_uri(text: str) -> bool:
    """Whether a `gs://` URI is meant, rather than a local path: in any case, right or wrong."""
    return text[: len(SCHEME)].casefold() == SCHEME
