"""Objects counted by storage class: what reading them costs depends on it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

from dcm2bq.dicom.read.source import FIRST_READ
from dcm2bq.stored_object import StoredObject

STANDARD = "STANDARD"

_OLDER_NAMES = {"REGIONAL": STANDARD, "MULTI_REGIONAL": STANDARD}
"""Names of Standard storage that objects of old buckets still have."""


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """Objects of one storage class: their number and their total size.

    `heads` are the bytes of their first reads: all of a small object, 64 KiB of any other.
    """

    objects: int = 0
    bytes: int = 0
    heads: int = 0

    def __add__(self, other: Self) -> "ClassCount":
        """Return the count of both."""
        return ClassCount(
            objects=self.objects + other.objects,
            bytes=self.bytes + other.bytes,
            heads=self.heads + other.heads,
        )

    def part(self, objects: int) -> "ClassCount":
        """Return the count of that many of the objects, if they are of average size."""
        return ClassCount(
            objects=objects,
            bytes=self.bytes * objects // max(self.objects, 1),
            heads=self.heads * objects // max(self.objects, 1),
        )


type ClassCounts = Mapping[str, ClassCount]


def class_of(stored: StoredObject) -> str:
    """Return the storage class of an object, by its present name."""
    name = stored.storage_class or STANDARD
    return _OLDER_NAMES.get(name, name)


def tally(objects: Iterable[StoredObject]) -> dict[str, ClassCount]:
    """Count objects by storage class."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for stored in objects:
        sizes[class_of(stored)].append(stored.size or 0)
    return {
        name: ClassCount(
            objects=len(group),
            bytes=sum(group),
            heads=sum(min(size, FIRST_READ) for size in group),
        )
        for name, group in sizes.items()
    }


def total(counts: Iterable[ClassCounts]) -> dict[str, ClassCount]:
    """Return the sum of counts by storage class, sorted by name."""
    result: dict[str, ClassCount] = defaultdict(ClassCount)
    for count in counts:
        for name, group in count.items():
            result[name] += group
    return dict(sorted(result.items()))


def sum_of(counts: ClassCounts) -> ClassCount:
    """Return the sum over all storage classes."""
    return sum(counts.values(), start=ClassCount())


def only(counts: ClassCounts, classes: Iterable[str]) -> dict[str, ClassCount]:
    """Return the counts of some storage classes, of all of them if none is named."""
    chosen = set(classes) or counts.keys()
    return {name: group for name, group in counts.items() if name in chosen}
