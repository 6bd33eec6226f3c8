"""The items and sequences that have begun and not yet ended, while a data set is being read."""

from collections.abc import Callable

import msgspec

from dcm2bq.dicom.dictionary import creator_tag, is_named, is_private, private_vr, public_vr
from dcm2bq.dicom.elements import Item
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import DELIMITER_GROUP, Syntax

type RunEnd = tuple[int, int, int, int]
"""Where a run of ordinary elements ended: the offset of the next header; its tag, if it begins a
sequence or ends the item (else 0); offset and length of the value, if it is a sequence."""
type Run = Callable[[OpenItem, Window, int, int], RunEnd]
"""Appends ordinary elements to an item; called with the item, the window, the offset of the first
header and the most bytes that a value may have."""


class BrokenStructureError(Exception):
    """The bytes are not elements; an enclosing sequence of known length can still be skipped.

    `tag` is only given if it is known to be one: bytes taken for a tag by mistake would spell
    part of a value in the message.
    """

    def __init__(self, reason: str, offset: int, tag: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.tag = tag


class OpenItem(msgspec.Struct, gc=False):
    """An item of a sequence, or the whole data set, that is being read."""

    elements: Item
    """The elements read so far."""
    limit: int
    """The offset that no element may exceed."""
    defined: bool
    """Whether the item ends at `limit`; otherwise it ends at a delimiter."""
    syntax: Syntax
    run: Run | None
    """The fast way to read ordinary elements; None where it must not be used."""
    top_level: bool = False
    """Whether this is the data set itself."""
    first_group: int = 0
    last_group: int = DELIMITER_GROUP - 1
    """The groups that `run` may read: its loops stop at delimiters, and after group 0002."""
    odd_reading: int | None = None
    """How the header of the last element without a known VR was read."""
    odd_until: int = 0
    """The offset up to which `odd_reading` has been verified for all such elements."""
    _creators: dict[int, str] | None = None
    _searched: int = 0

    def known_vr(self, tag: int) -> str:
        """Return the VR that the dictionary has for a tag; UN if it has none."""
        if not is_private(tag):
            return public_vr(tag)
        return private_vr(tag, self._creator_of(tag))

    def knows(self, tag: int) -> bool:
        """Return whether a tag is in the dictionary, or in a private block with a creator.

        Any other could be bytes of a value, and is not named in messages.
        """
        if not is_private(tag):
            return is_named(tag)
        creator = self._creator_of(tag)
        return is_named(tag, creator and creator.encode("latin_1"))

    def _creator_of(self, private_tag: int) -> str | None:
        if self._creators is None:
            self._creators = {}
        # Elements are only appended, so that each is looked at once.
        for element in self.elements[self._searched :]:
            tag, value = element.tag, element.value
            if is_private(tag) and not tag & 0xFF00 and isinstance(value, bytes):
                self._creators.setdefault(tag, str(value, "latin_1").strip(" \0"))
        self._searched = len(self.elements)
        return self._creators.get(creator_tag(private_tag))


class OpenSequence(msgspec.Struct, gc=False):
    """A sequence that is being read."""

    tag: int
    written: str
    """Its VR in the object: SQ or UN."""
    start: int
    """The offset of its value."""
    limit: int
    """The offset that no item may exceed."""
    defined: bool
    """Whether the sequence ends at `limit`; otherwise it ends at a delimiter."""
    syntax: Syntax
    run: Run | None
    """The fast way to read the elements of its items, as in `OpenItem`."""
    either: bool
    """Whether each item may be explicit or implicit, as within UN."""
    depth: int
    parent: OpenItem
    """The item that the sequence is an element of."""
    outer: "OpenSequence | None"
    """The sequence that `parent` is an item of."""
    items: list[Item]
    """The items read so far, the open one included."""
    stray: bool = False
    """Whether this is not a sequence but an item outside any; it is dropped at its end."""

    @property
    def known_tag(self) -> int | None:
        """Its tag, if messages may name it."""
        return self.tag if self.stray or self.parent.knows(self.tag) else None
