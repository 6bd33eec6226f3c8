"""The objects of a bucket in the order in which the rows name them."""

from collections.abc import Iterator

from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.stored_object import SCHEME, StoredObject


class ListedObjects:
    """The objects under a `gs://bucket[/prefix]`.

    This class alone knows that rows name an object by its `gs://` URI, so that the order of the
    listing is the order of their paths.
    """

    def __init__(self, store: Store, location: GsUri) -> None:
        self._store = store
        self._location = location
        self._root = f"{SCHEME}{location.bucket}/"

    @property
    def prefix(self) -> str:
        """The prefix of the rows' paths."""
        return str(self._location)

    def between(self, start: str, end: str) -> Iterator[tuple[str, StoredObject]]:
        """Yield the objects from one path up to, but excluding, another, with their paths.

        They are listed in the order of their paths. Raises `ReadFailedError` for a bucket that
        cannot be listed.
        """
        first = start.removeprefix(self._root) if start.startswith(self._root) else ""
        after = end.removeprefix(self._root) if end.startswith(self._root) else ""
        bucket, prefix = self._location.bucket, self._location.name
        for stored in self._store.list(bucket, prefix, start=first, end=after):
            yield stored.path, stored

    def generation(self, path: str, version: str | None) -> StoredObject:
        """Return the generation that a row is about, whether or not it exists."""
        return StoredObject(
            bucket=self._location.bucket,
            name=path.removeprefix(self._root),
            generation=int(version or 0),
        )
