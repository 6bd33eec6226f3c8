"""One delivery of an event, unchanged, and checked access to its attributes and data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from dcm2bq.errors import InvalidEventError

NOT_JSON = (ValueError, RecursionError)  # msgspec raises a bare ValueError for invalid UTF-8

_DATA_MAX_BYTES = 1024 * 1024
_ATTRIBUTES_MAX, _ATTRIBUTE_MAX_CHARS = 64, 4096
"""Bounds far above the events of Cloud Storage, and far below what a row can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What Pub/Sub says about a message that it delivers, apart from its attributes and data.

    `attempt` counts the deliveries; it is None if the subscription has no dead-letter policy.
    """

    id: str | None
    published: datetime | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of an event, unchanged: a dead letter keeps it for another attempt.

    It is a CloudEvent, whose `attributes` have their HTTP names (`ce-id`, `ce-type` ...) and
    whose `data` is JSON. Or it is a notification in a `message` of Pub/Sub, whose `attributes`
    are the message's (`eventType`, `objectId` ...) and whose `data` is JSON or empty.
    """

    attributes: Mapping[str, str]
    data: bytes
    message: Message | None = None

    @property
    def id(self) -> str | None:
        """The id of the event or of the message; each of its deliveries has the same."""
        return self.message.id if self.message else self.attributes.get("ce-id")

    @property
    def excerpt(self) -> "Delivery":
        """The delivery, cut to a size that fits a row; genuine events are never that large.

        Lone surrogates in attributes, which UTF-8 cannot encode, are escaped.
        """
        kept = islice(self.attributes.items(), _ATTRIBUTES_MAX)
        attributes = {_excerpt(key): _excerpt(value) for key, value in kept}
        message = self.message
        if message and message.id:
            message = replace(message, id=_excerpt(message.id))
        return Delivery(attributes, self.data[:_DATA_MAX_BYTES], message)

    def attribute(self, key: str) -> str:
        """Return an attribute; raise `InvalidEventError` if it is missing or far too long."""
        value = self.attributes.get(key)
        name = key.removeprefix("ce-")
        if not value:
            raise InvalidEventError(f"{name}: is missing")
        if len(value) > _ATTRIBUTE_MAX_CHARS:
            raise InvalidEventError(f"{name}: exceeds {_ATTRIBUTE_MAX_CHARS} characters")
        return value

    def decoded(self) -> dict[str, Any]:
        """Return the data, decoded; raise `InvalidEventError` if it is not a JSON object."""
        if len(self.data) > _DATA_MAX_BYTES:
            raise InvalidEventError(f"data: exceeds {_DATA_MAX_BYTES} bytes")
        decoded = decode(self.data)
        if not isinstance(decoded, dict):
            raise InvalidEventError("data: is not a JSON object")
        return decoded


def decode(data: bytes | str) -> Any:
    """Decode JSON; raise `InvalidEventError` if it is invalid or nested too deeply."""
    try:
        return msgspec.json.decode(data)
    except NOT_JSON:
        raise InvalidEventError("data: is not JSON") from None


def _excerpt(text: str) -> str:
    text = text[:_ATTRIBUTE_MAX_CHARS]
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
