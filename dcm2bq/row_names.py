"""The names of objects and of members of archives in the tables: in full, or as keyed hashes.

Names can identify a patient as a header does. With `privacy.path: hash`, rows, markers and dead
letters have hashes in their place: the same name has the same hash in all of them, and the views
and the tools work on them unchanged. Everything that is written to the tables passes here.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dcm2bq import events
from dcm2bq.config import Privacy
from dcm2bq.delivery import Delivery, Message
from dcm2bq.events import ObjectEvent
from dcm2bq.hash_key import required_key
from dcm2bq.stored_object import SCHEME, StoredObject

PREFIX = "hmac-sha256-"
"""The start of a hashed name; 64 hex digits follow. Valid as a name, and in URIs unencoded."""

_OBJECT, _MEMBER = b"dcm2bq\0path of an object\0", b"dcm2bq\0member of an archive\0"
"""What each hash begins with, so that no hash of one kind is one of another.

No value of a header contains a NUL, so that no pseudonym is equal to a hashed name either.
"""
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Ids of Eventarc and Pub/Sub: numbers, UUIDs."""


@dataclass(frozen=True, slots=True)
class RowNames:
    """How the tables name objects and members: by hashes if there is a `key`."""

    key: bytes = b""

    @property
    def are_hashed(self) -> bool:
        """Whether the tables have hashes instead of names."""
        return bool(self.key)

    def path(self, path: str) -> str:
        """Return the path that rows have for the `gs://` path of an object.

        >>> RowNames(bytes(16)).path("gs://scans/Doe^Jane.dcm")[:36]
        'gs://scans/hmac-sha256-6cca218fed12b'
        """
        if not self.key:
            return path
        bucket = path.removeprefix(SCHEME).partition("/")[0]
        return f"{SCHEME}{bucket}/{self._hash(_OBJECT + path.encode())}"

    def member(self, path: str, member: str) -> str:
        """Return the member that rows have for a member of the archive with a path in rows."""
        if not self.key:
            return member
        # A path in rows has a fixed length after the bucket, which has no NUL.
        return self._hash(_MEMBER + path.encode() + b"\0" + member.encode())

    def object(self, stored: StoredObject) -> StoredObject:
        """Return an object under the name that rows have for it."""
        if not self.key:
            return stored
        return stored.renamed(self.path(stored.path))

    def event(self, event: ObjectEvent) -> ObjectEvent:
        """Return an event of an object under the name that rows have for it."""
        return replace(event, object=self.object(event.object)) if self.key else event

    def delivery(self, delivery: Delivery, event: ObjectEvent | None) -> Delivery:
        """Return a delivery as a dead letter may hold it; `event` is what it was parsed into.

        If names are hashed, it is made anew of the event. What could not be parsed may have a name
        anywhere: only the id and a known type are kept.
        """
        if not self.key:
            return delivery
        if event is not None:
            return events.deliver(self.event(event))
        return Delivery(_harmless(delivery.attributes), b"", _anonymous(delivery.message))

    def _hash(self, message: bytes) -> str:
        return PREFIX + hmac.digest(self.key, message, hashlib.sha256).hex()


def row_names(options: Privacy) -> RowNames:
    """Return how the tables name objects by these options.

    Raises `ConfigError` if a key is needed and missing; a secret must have been read before.
    """
    return RowNames(required_key(options)) if options.hashes_paths else RowNames()


def _harmless(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that cannot hold a name."""
    kept = {}
    if _ID.fullmatch(event_id := attributes.get("ce-id", "")):
        kept["ce-id"] = event_id
    if (kind := attributes.get("ce-type")) in events.TYPES:
        kept["ce-type"] = kind
    return kept


def _anonymous(message: Message | None) -> Message | None:
    """Return a message without an id that could hold a name."""
    if message is None or (message.id and _ID.fullmatch(message.id)):
        return message
    return replace(message, id=None)
