"""The objects of a bucket in the order in which the rows name them."""

from collections.abc import Callable, Iterator

from dcm2bq.gcs.store import Store
from dcm2bq.gcs.uri import GsUri
from dcm2bq.row_names import RowNames
from dcm2bq.stored_object import SCHEME, StoredObject
from dcm2bq.tools.hashed_names import in_order_of_rows


class ListedObjects:
    """The objects under a `gs://bucket[/prefix]`, by the paths that rows have for them.

    This class alone knows these paths. If rows name an object by its `gs://` URI, the order of the
    listing is that of the paths. If names are hashed, the whole listing is sorted first.
    `on_object` is called for each object when it is listed.
    """

    def __init__(self, store: Store, location: GsUri, names: RowNames) -> None:
        self._store = store
        self._location = location
        self._names = names
        self._root = f"{SCHEME}{location.bucket}/"
        self._sorted: Iterator[tuple[str, StoredObject]] | None = None
        self._next: tuple[str, StoredObject] | None = None
        self.on_object: Callable[[], object] = lambda: None

    @property
    def prefix(self) -> str:
        """The prefix of the rows' paths; that of the bucket if names are hashed."""
        return self._root if self._names.are_hashed else str(self._location)

    @property
    def is_whole(self) -> bool:
        """Whether a row under `prefix` without an object is about one that is gone.

        A hash does not show whether the name begins with the prefix of the location.
        """
        return not (self._names.are_hashed and self._location.name)

    def path(self, stored: StoredObject) -> str:
        """Return the path that rows have for an object."""
        return self._names.path(stored.path)

    def between(self, start: str, end: str) -> Iterator[tuple[str, StoredObject]]:
        """Yield the objects from one path up to, but excluding, another, with their paths.

        They come in the order of their paths; ranges must be asked for in this order, too. Raises
        `ReadFailedError` for a bucket that cannot be listed.
        """
        if not self._names.are_hashed:
            yield from in_order_of_rows(self._names, self._listing(start, end))
            return
        if self._sorted is None:
            self._sorted = in_order_of_rows(self._names, self._listing("", ""))
            self._next = next(self._sorted, None)
        while self._next is not None and self._next[0] < end:
            yield self._next
            self._next = next(self._sorted, None)

    def generation(self, path: str, version: str | None) -> StoredObject:
        """Return the generation that a row is about, whether or not it exists.

        If names are hashed, it has the hash as name.
        """
        return StoredObject(
            bucket=self._location.bucket,
            name=path.removeprefix(self._root),
            generation=int(version or 0),
        )

    def _listing(self, start: str, end: str) -> Iterator[StoredObject]:
        first = start.removeprefix(self._root) if start.startswith(self._root) else ""
        after = end.removeprefix(self._root) if end.startswith(self._root) else ""
        bucket, prefix = self._location.bucket, self._location.name
        for stored in self._store.list(bucket, prefix, start=first, end=after):
            self.on_object()
            yield stored
