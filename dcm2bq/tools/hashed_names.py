"""Objects and the hashes that rows have for their names, with `privacy.path: hash`.

Nothing leads from a hash to its name but hashing the names of a listing, and these hashes have
another order than the listing.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from typing import Protocol

import msgspec

from dcm2bq.gcs.uri import GsUri
from dcm2bq.row_names import RowNames
from dcm2bq.stored_object import StoredObject


class BucketListing(Protocol):
    """The source of a listing; see `gcs.store.Store.list`."""

    def list(self, bucket: str) -> Iterator[StoredObject]:
        """Yield the objects in the order of their names."""


def in_order_of_rows(
    names: RowNames, listed: Iterable[StoredObject]
) -> Iterator[tuple[str, StoredObject]]:
    """Yield listed objects with the paths that rows have for them, in the order of these.

    Objects with names in full have this order already. Others are sorted in a temporary file of
    some 0.7 kB for each, which has no name and is gone with the process; memory does not grow.
    The whole listing is read before the first object is yielded. Raises `OSError` if the file
    cannot be written.
    """
    if not names.are_hashed:
        for stored in listed:
            yield stored.path, stored
        return
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(StoredObject).decode
    # "": a file that SQLite deletes while it is open. Iterators may pass between threads.
    with closing(sqlite3.connect("", check_same_thread=False)) as sorting:
        try:
            sorting.execute("PRAGMA journal_mode = OFF")
            sorting.execute("CREATE TABLE listed (path TEXT, object BLOB)")
            hashed = ((names.path(stored.path), encode(stored)) for stored in listed)
            sorting.executemany("INSERT INTO listed VALUES (?, ?)", hashed)
            for path, content in sorting.execute("SELECT path, object FROM listed ORDER BY path"):
                yield path, decode(content)
        except sqlite3.OperationalError:
            reason = os.strerror(errno.ENOSPC)
            raise OSError(errno.ENOSPC, reason, "temporary file of a sorted listing") from None


def find_objects(
    listing: BucketListing,
    names: RowNames,
    paths: Collection[str],
    on_object: Callable[[], object] = lambda: None,
) -> dict[str, StoredObject]:
    """Return the live objects that rows have these paths for, by path.

    Each bucket is listed until all of its objects are found, and `on_object` is called for each
    object listed. Memory grows with the number of paths, not with the bucket. Raises
    `ReadFailedError` for a bucket that cannot be listed.
    """
    found = {}
    for bucket in sorted({GsUri.parse(path).bucket for path in paths}):
        sought = {path for path in paths if GsUri.parse(path).bucket == bucket}
        for stored in listing.list(bucket):
            on_object()
            path = names.path(stored.path)
            if path in sought:
                found[path] = stored
                sought.remove(path)
                if not sought:
                    break
    return found
