"""What the reader is inside of: items and sequences that have begun and not yet ended."""

from collections.abc import Callable

import msgspec

from dcm2bq.dicom.dictionary import creator_tag, is_named, is_private, private_vr, public_vr
from dcm2bq.dicom.elements import Item
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import (
    Syntax,
)

type RunEnd = tuple[int, int, int, int]
"""Where a run ended; if a sequence stands there, its tag and its value's offset and length; if
an item delimiter, its tag."""
type Run = Callable[[OpenItem, Window, int, int], RunEnd]
"""Appends ordinary elements to an item; takes their offset and the most bytes of a value."""


class BrokenFramingError(Exception):
    """The bytes are no elements; the innermost sequence of known length can yet be kept.

    `tag` is that of an element that is known to be one: tags read from bytes that may be
    anything would spell parts of values in messages.
    """

    def __init__(self, reason: str, offset: int, tag: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.tag = tag


class OpenItem(msgspec.Struct, gc=False):
    """An item, or the whole data set, that is being read.

    No element reaches beyond `limit`; a `defined` item ends there, others at a delimiter.
    `run` reads ordinary elements, if they may be read so. `odd_reading` is how the header of
    the last element without a known VR was read, and holds for all such up to `odd_until`.
    """

    elements: Item
    limit: int
    defined: bool
    syntax: Syntax
    run: Run | None
    top_level: bool = False
    odd_reading: int | None = None
    odd_until: int = 0
    _creators: dict[int, str] | None = None
    _searched: int = 0

    def known_vr(self, tag: int) -> str:
        """Return the VR that the dictionary has for a tag; UN if it has none."""
        if not is_private(tag):
            return public_vr(tag)
        return private_vr(tag, self._creator_of(tag))

    def knows(self, tag: int) -> bool:
        """Return whether a tag is in the dictionary, or in a private block that has a creator.

        Others may be anything, among them bytes of a value, and are not named in messages.
        """
        if not is_private(tag):
            return is_named(tag)
        creator = self._creator_of(tag)
        return is_named(tag, creator and creator.encode("latin_1"))

    def _creator_of(self, private_tag: int) -> str | None:
        if self._creators is None:
            self._creators = {}
        for element in self.elements[self._searched :]:
            tag, value = element.tag, element.value
            if is_private(tag) and not tag & 0xFF00 and isinstance(value, bytes):
                self._creators.setdefault(tag, str(value, "latin_1").strip(" \0"))
        self._searched = len(self.elements)
        return self._creators.get(creator_tag(private_tag))


class OpenSequence(msgspec.Struct, gc=False):
    """A sequence that is being read, of the element `tag` in `parent`.

    `start` and `limit` are those of its value; `written` is its VR in the object. With
    `either`, each item may be explicit or implicit. A `stray` one holds an item that stands
    where no sequence is: it has one item, and both are dropped when that ends.
    """

    tag: int
    written: str
    start: int
    limit: int
    defined: bool
    syntax: Syntax
    run: Run | None
    either: bool
    depth: int
    parent: OpenItem
    outer: "OpenSequence | None"
    items: list[Item]
    stray: bool = False

    @property
    def known_tag(self) -> int | None:
        """Its tag, if that is known to be one."""
        return self.tag if self.stray or self.parent.knows(self.tag) else None
