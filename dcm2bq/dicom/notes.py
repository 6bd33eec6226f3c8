"""What a conversion reports about an object: warnings, and the elements that were dropped.

Notes hold tags, VRs, offsets, sizes and counts, never values. In an object that is broken, or
forged, any bytes can be read as a tag, those of a value included. So a tag is only named if the
dictionary knows it or its private block has a creator.
"""

from dcm2bq.dicom.dictionary import creator_tag, is_named, is_private
from dcm2bq.dicom.elements import Element, Item, find
from dcm2bq.dicom.vr import VRS

MOST_LINES = 200
"""Warnings, and dropped tags, that are kept of one object: some 20 KB of its row."""


class Notes:
    """Collects warnings and dropped tags; equal warnings are counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first_offsets: dict[str, int | None] = {}
        self._beyond = 0
        self._dropped: dict[int, None] = {}

    def add(
        self, reason: str, *, tag: int | None = None, vr: str = "", offset: int | None = None
    ) -> None:
        """Add a warning, with the tag, the VR and the offset that it concerns.

        `tag` must be known to be a tag; if it could be bytes of a value, call `about` instead. A VR
        that is not in the standard is left out.
        """
        vr = vr if vr in VRS else ""
        where = "" if tag is None else f"{tag:08X} {vr}: " if vr else f"{tag:08X}: "
        line = where + reason
        if line in self._counts:
            self._counts[line] += 1
        elif len(self._counts) < MOST_LINES:
            self._counts[line] = 1
            self._first_offsets[line] = offset
        else:
            self._beyond += 1

    def about(self, element: Element, item: Item, reason: str, *, vr: str | None = None) -> None:
        """Add a warning about an element of `item`, which must be sorted by tag."""
        tag = element.tag if is_named_in(item, element.tag) else None
        vr = element.written if vr is None else vr
        self.add(reason, tag=tag, vr=vr, offset=element.offset)

    def drop(self, tag: int, item: Item) -> None:
        """Record that an element of `item`, which must be sorted by tag, was dropped."""
        if len(self._dropped) < MOST_LINES and is_named_in(item, tag):
            self._dropped[tag] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings in the order of their first occurrence."""
        lines = [
            _line(text, count, self._first_offsets[text]) for text, count in self._counts.items()
        ]
        if self._beyond:
            lines.append(f"{self._beyond} further warnings")
        return tuple(lines)

    @property
    def dropped_tags(self) -> tuple[str, ...]:
        """The tags of dropped elements, eight uppercase hex digits each."""
        return tuple(f"{tag:08X}" for tag in self._dropped)


def is_named_in(item: Item, tag: int) -> bool:
    """Return whether messages may name a tag of an item, which must be sorted by tag."""
    if not is_private(tag):
        return is_named(tag)
    creator = find(item, creator_tag(tag))
    return is_named(tag, creator.value if creator else None)


def _line(text: str, count: int, offset: int | None) -> str:
    details = [] if offset is None else [f"offset {offset}"]
    if count > 1:
        details.append(f"{count} times")
    return f"{text} ({', '.join(details)})" if details else text
