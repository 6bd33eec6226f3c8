"""What a conversion has to say about an object: warnings, and elements that were lost.

Notes carry tags, VRs, offsets, sizes and counts, never values. Where an object is broken, or
made to look so, anything can be read as a tag: one that nothing vouches for is left out.
"""

from dcm2bq.dicom.dictionary import creator_tag, is_named, is_private
from dcm2bq.dicom.elements import Element, Item, find
from dcm2bq.dicom.vr import VRS

MOST_LINES = 200
"""Lines of warnings, and dropped tags, that one object may have."""


class Notes:
    """Collects warnings; equal ones are counted, not repeated."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, int | None] = {}
        self._beyond = 0
        self._dropped: dict[int, None] = {}

    def add(
        self, reason: str, *, tag: int | None = None, vr: str = "", offset: int | None = None
    ) -> None:
        """Note a reason, the element that it concerns and where it stands.

        The caller knows that the tag is one; `about` finds out.
        """
        vr = vr if vr in VRS else ""
        where = "" if tag is None else f"{tag:08X} {vr}: " if vr else f"{tag:08X}: "
        line = where + reason
        if line in self._counts:
            self._counts[line] += 1
        elif len(self._counts) < MOST_LINES:
            self._counts[line] = 1
            self._first[line] = offset
        else:
            self._beyond += 1

    def about(self, element: Element, item: Item, reason: str, *, vr: str | None = None) -> None:
        """Note a reason and the element of an item that it concerns; the item is sorted by tag."""
        named = element.tag if is_named_in(item, element.tag) else None
        vr = element.written if vr is None else vr
        self.add(reason, tag=named, vr=vr, offset=element.offset)

    def drop(self, tag: int, item: Item) -> None:
        """Note that an element of an item, which is sorted by tag, could not be kept."""
        if len(self._dropped) < MOST_LINES and is_named_in(item, tag):
            self._dropped[tag] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings in the order of their first appearance."""
        lines = [_line(text, count, self._first[text]) for text, count in self._counts.items()]
        if self._beyond:
            lines.append(f"{self._beyond} further warnings")
        return tuple(lines)

    @property
    def dropped_tags(self) -> tuple[str, ...]:
        """The tags of elements that could not be kept, eight uppercase hex digits each."""
        return tuple(f"{tag:08X}" for tag in self._dropped)


def is_named_in(item: Item, tag: int) -> bool:
    """Return whether a tag of an item may be named; the item is sorted by tag."""
    if not is_private(tag):
        return is_named(tag)
    creator = find(item, creator_tag(tag))
    return is_named(tag, creator.value if creator else None)


def _line(text: str, count: int, offset: int | None) -> str:
    details = [] if offset is None else [f"offset {offset}"]
    if count > 1:
        details.append(f"{count} times")
    return f"{text} ({', '.join(details)})" if details else text
