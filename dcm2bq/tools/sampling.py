"""A sample of named items, for tools that look at a part of a listing."""

import hashlib
import heapq
from collections.abc import Iterator


class Sample[T]:
    """Keeps up to `size` items, those with the smallest hashes of their names.

    The sample is therefore spread evenly over the listing, the same for the same names in any
    order, and of constant size. No two items may have the same name.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, str, T]] = []  # the largest hash on top

    def add(self, name: str, item: T) -> None:
        """Consider an item."""
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
        entry = (-int.from_bytes(digest), name, item)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Yield the names and items, sorted by name."""
        for _, name, item in sorted(self._heap, key=lambda entry: entry[1]):
            yield name, item
