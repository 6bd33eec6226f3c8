"""Read a data set: elements, sequences and their items (PS3.5 7).

A data set is a list of elements, sorted by tag. An element is a header (tag, VR, length) and a
value field of that length (7.1). The value of a sequence, VR SQ, is a list of items, and each item
is in turn a list of elements (7.5). Sequences and items say in one of two ways where they end, and
any combination occurs (7.5.1, 7.5.2):

    known length         (0008,1140) SQ 24 | (FFFE,E000) 16 | elements, 16 bytes
    undefined length     (0008,1140) SQ FFFFFFFF
                             (FFFE,E000) FFFFFFFF | elements | (FFFE,E00D) 0    item delimiter
                             (FFFE,E0DD) 0                                      sequence delimiter

`DataSetReader` keeps what is open in linked records, `OpenItem` and `OpenSequence`, and does not
call itself: nesting costs no stack. It alternates between two states. In an item it reads elements
until a sequence begins or the item ends (`_read_elements`); between items it reads their headers
until one begins or the sequence ends (`_read_items`). Values are cut out, never interpreted; those
that stay in the object are skipped, and their bytes not fetched.

Objects that break these rules are read as far as no element can be lost. What follows a misplaced
delimiter or item decides what it closes (`delimiters`). If the bytes inside a sequence of known
length make no sense, that sequence is left in the object (`_recover`); anywhere else before the end
of the pixel data they make the object unreadable.
"""

from functools import cached_property
from io import BytesIO

from dcm2bq.config import Config
from dcm2bq.dicom.elements import ALL_PIXEL_DATA, CHECK_EVERY, Element, Item
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.data_set_end import DataSetEnd
from dcm2bq.dicom.read.delimiters import Delimiters
from dcm2bq.dicom.read.element_header import (
    RUN,
    begins_element,
    hidden_item_syntax,
    read_header,
    run_of,
)
from dcm2bq.dicom.read.open_items import BrokenStructureError, OpenItem, OpenSequence
from dcm2bq.dicom.read.source import StreamSource, Window
from dcm2bq.dicom.read.value_field import CutValueError, ValueFields
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
    DELIMITERS,
    HEADER,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    LONG_HEADER,
    SEQUENCE_END,
    UNDEFINED,
    Syntax,
    to_little,
)
from dcm2bq.dicom.vr import BINARY_VRS, FRAGMENTED_VRS
from dcm2bq.errors import UnreadableDicomError

_CHECK_EVERY_BYTES = RUN
"""Bytes between two checks of the clock and the limits, where elements are large."""
_MOST_TAIL_ELEMENTS = 20_000
"""Elements that are read in search of the end of encapsulated pixel data: some 20 ms of work."""
_DELIMITER_TAGS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0")
"""As they follow encapsulated values, which are always little endian (PS3.5 A.4)."""
_LAST_ELEMENTS = 16
"""Elements before an error among which one of known tag is looked for, to name it in the message:
more would hardly help to find the place."""


class DataSetReader:
    """Reads the elements of one data set from `start` on, and appends them to `elements`.

    With `group` it reads the elements of that group alone, as File Meta Information is read.
    With `after_pixel_data` only what may follow pixel data is an element. `depth` is the most
    levels of sequences.
    """

    def __init__(
        self,
        window: Window,
        start: int,
        syntax: Syntax,
        config: Config,
        notes: Notes,
        *,
        elements: Item,
        depth: int,
        group: int | None = None,
        after_pixel_data: bool = False,
    ) -> None:
        self._window = window
        self._config = config
        self._notes = notes
        self._fields = ValueFields(window, config, notes)
        self._most_text = self._fields.most_text
        self._depth = depth
        self._end = DataSetEnd(
            window, syntax, notes, group=group, after_pixel_data=after_pixel_data
        )
        self._root = OpenItem(
            elements=elements,
            limit=window.size,
            defined=True,
            syntax=syntax,
            run=None if after_pixel_data else run_of(syntax),
            top_level=True,
        )
        if group is not None:
            self._root.first_group = self._root.last_group = group
            if syntax.implicit:  # its loop does not check groups
                self._root.run = None
        self._item = self._root
        self._sequence: OpenSequence | None = None
        self._start = start
        self._count = 0
        self._paid_count = self._paid = 0
        self._next_count, self._next_position = CHECK_EVERY, start + _CHECK_EVERY_BYTES
        self._tail_elements = _MOST_TAIL_ELEMENTS
        self._done = False
        self.position = start
        """The offset of what is read next; after reading, of what follows the data set."""

    @property
    def clean(self) -> bool:
        """Whether nothing but padding follows the elements."""
        return self._end.clean

    def read(self) -> None:
        """Read up to the end of the data set.

        Raises `UnreadableDicomError` if its structure is broken beyond recovery, with the
        `BrokenStructureError` as its cause, or if it exceeds a limit.
        """
        while not self._done:
            try:
                self._read_elements(self._item)
            except BrokenStructureError as broken:
                self._recover(broken)
        self._check_limits()

    # Elements (PS3.5 7.1)

    def _read_elements(self, item: OpenItem) -> None:
        """Read a run of ordinary elements, and then what ends it.

        That is a sequence, a delimiter, the end of the item, or an element that needs care.
        """
        tag = 0
        if item.run is not None:
            before = len(item.elements)
            self.position, tag, start, length = item.run(
                item, self._window, self.position, self._most_text
            )
            self._count += len(item.elements) - before
        if self._count >= self._next_count or self.position >= self._next_position:
            self._check_limits()
        if tag == ITEM_END:
            self._read_delimiter(item, tag)
        elif tag and (length == UNDEFINED or start + length <= item.limit):
            self._open_sequence(item, tag, "SQ", start, length)
        elif self.position < item.limit or not item.defined:
            self._read_element(item)
        elif item.top_level:
            self._done = True
        else:
            self._read_items()

    def _read_element(self, item: OpenItem) -> None:
        """Read one element or delimiter, or end the data set."""
        position = self.position
        if not self._holds_header(item.limit):
            if item.top_level:
                self._done = self._end.is_short(position)
            else:
                self._end_without_delimiter(item)
                self._read_items()
        elif item.top_level and self._end.is_here(position):
            self._done = True
        else:
            tag, written, start, length = read_header(self._window, position, item, self._notes)
            if tag >> 16 == DELIMITER_GROUP:
                self._read_delimiter(item, tag)
            else:
                self._read_value(item, tag, written, start, length)

    def _holds_header(self, limit: int) -> bool:
        """Hold the header at the position; return whether one fits before `limit`."""
        position, window = self.position, self._window
        if position + HEADER > limit:
            return False
        if window.base <= position and position + LONG_HEADER <= window.end:
            return True
        return window.fill(position, min(LONG_HEADER, limit - position)) >= HEADER

    def _read_value(self, item: OpenItem, tag: int, written: str, start: int, length: int) -> None:
        """Append an element with its value, or open the sequence that it is.

        UN has the VR of the dictionary, if that has one; UN of undefined length is a sequence in
        implicit VR little endian, whatever surrounds it (6.2.2).
        """
        vr = item.known_vr(tag) if written == "UN" and not item.syntax.implicit else written
        if vr == "SQ" or (length == UNDEFINED and vr not in FRAGMENTED_VRS):
            self._open_sequence(item, tag, written, start, length)
            return
        self._count += 1
        element = Element(tag, vr, start, length, None, written)
        if length == UNDEFINED:
            self._read_fragments(item, element)
        elif start + length > item.limit:
            self._end_beyond(item, element)
        else:
            try:
                value = self._fields.value(tag, vr, start, length)
            except CutValueError:
                self._end_beyond(item, element)
                return
            if value and written != "UN" and not item.syntax.little:  # UN is little endian
                value = to_little(vr, value)
            element.value = value
            item.elements.append(element)
            self.position = start + length
        if item.top_level and tag in ALL_PIXEL_DATA and vr in BINARY_VRS:
            self._end.after_pixel_data = True
            item.run = None

    def _read_fragments(self, item: OpenItem, element: Element) -> None:
        """Append an element with an encapsulated value (A.4)."""
        if element.vr == "OW" and item.syntax.implicit:
            element.vr = element.written = "OB"  # the dictionary says OW, but fragments are bytes
        end = self._fields.fragments(element, item, self._may_follow)
        if end is None:
            tag = self._known(item, element.tag)
            raise BrokenStructureError("the encapsulated value does not end", element.offset, tag)
        item.elements.append(element)
        self.position = end
        if end > item.limit:
            self._stretch(item, end)

    def _stretch(self, item: OpenItem, end: int) -> None:
        """Move the limits of all that is open to the end of an encapsulated value in it.

        Raises `BrokenStructureError` unless a sound header follows.
        """
        sequence: OpenSequence | None = self._sequence
        assert sequence is not None
        following = self._window.peek(end, HEADER)
        if following and not (
            following[:4] in _DELIMITER_TAGS or begins_element(self._window, end, self._root)
        ):
            raise BrokenStructureError(
                "an encapsulated value exceeds its item", sequence.start, sequence.known_tag
            )
        self._notes.add(
            "the length of an item excludes part of its encapsulated value",
            tag=sequence.known_tag,
            offset=sequence.start,
        )
        item.limit = end
        while sequence:
            sequence.limit = max(sequence.limit, end)
            sequence.parent.limit = max(sequence.parent.limit, end)
            sequence = sequence.outer

    def _may_follow(self, remainder: bytes) -> bool:
        """Return whether an object's last bytes are elements that may follow pixel data.

        Many places are tried in search of the end of pixel data; `_MOST_TAIL_ELEMENTS` bounds
        the cost of all of them.
        """
        if self._tail_elements <= 0:
            return False
        memory = self._window.memory
        window = Window(StreamSource(BytesIO(remainder)), self._window.deadline, memory)
        reader = DataSetReader(
            window,
            0,
            self._root.syntax,
            self._config,
            Notes(),
            elements=[],
            depth=self._depth,
            after_pixel_data=True,
        )
        try:
            with memory.trial():
                reader.read()
        except UnreadableDicomError:
            return False
        finally:
            window.release()
            self._tail_elements -= reader._count
        return reader.clean

    # Sequences and items (PS3.5 7.5)

    def _open_sequence(
        self, item: OpenItem, tag: int, written: str, start: int, length: int
    ) -> None:
        """Begin a sequence, the element `tag` of `item`."""
        self._count += 1
        outer = self._sequence
        depth = self._deeper(item, tag, start)
        limit = item.limit if length == UNDEFINED else start + length
        if limit > item.limit:
            raise self._exceeds(item, tag, start)
        hidden = written == "UN"
        syntax = IMPLICIT_LITTLE if hidden else item.syntax
        either = hidden or (outer is not None and outer.either)
        self._sequence = OpenSequence(
            tag=tag,
            written="UN" if hidden else "SQ",
            start=start,
            limit=limit,
            defined=length != UNDEFINED,
            syntax=syntax,
            run=run_of(syntax) if hidden else item.run,
            either=either,
            depth=depth,
            parent=item,
            outer=outer,
            items=[],
        )
        self.position = start
        self._read_items()

    def _read_items(self) -> None:
        """Read headers of items: up to one that has elements, or to the end of the sequence."""
        sequence, window = self._sequence, self._window
        assert sequence is not None
        unpack = sequence.syntax.tag_and_length.unpack_from
        end = sequence.limit
        while self.position < sequence.limit or not sequence.defined:
            position = self.position
            if not self._holds_header(sequence.limit):
                self._end_without_delimiter(None)
                end = position
                break
            group, number, length = unpack(window.data, position - window.base)
            tag = group << 16 | number
            self.position = position + HEADER
            self._count += 1
            if tag == ITEM:
                elements: Item = []
                sequence.items.append(elements)
                if length:
                    self._open_item(sequence, elements, length)
                    return
            elif tag == SEQUENCE_END and not sequence.defined:
                end = position
                break
            elif tag in {ITEM_END, SEQUENCE_END}:
                if self._close_by(tag, position, None, sequence):
                    return
            elif self._ends_before(sequence, position, tag):
                end = self.position = position
                break
            else:
                raise BrokenStructureError("expected an item", position, sequence.known_tag)
            if self._count >= self._next_count:
                self._check_limits()
        self._leave(sequence, "SQ", end, sequence.items)

    def _deeper(self, item: OpenItem, tag: int, start: int) -> int:
        """Return the depth of one more sequence; raise `UnreadableDicomError` beyond the limit."""
        depth = self._sequence.depth + 1 if self._sequence else 1
        if depth > self._depth:
            raise UnreadableDicomError(
                f"sequences are nested more than {self._depth} levels deep",
                offset=start,
                tag=_hex(self._known(item, tag)),
            )
        return depth

    def _ends_before(self, sequence: OpenSequence, position: int, tag: int) -> bool:
        """Return whether a sequence ends, without its delimiter, before an element of its parent.

        That element must be sound, and by its tag follow the sequence.
        """
        parent = sequence.parent
        if sequence.defined or sequence.stray or tag <= sequence.tag:
            return False
        if not begins_element(self._window, position, parent):
            return False
        self._note("a sequence without its delimiter", sequence, position)
        return True

    def _open_item(self, sequence: OpenSequence, elements: Item, length: int) -> None:
        start = self.position
        limit = sequence.limit if length == UNDEFINED else start + length
        if limit > sequence.limit:
            raise BrokenStructureError(
                "an item exceeds its sequence", start - HEADER, sequence.known_tag
            )
        syntax, run = sequence.syntax, sequence.run
        if sequence.either:
            syntax = hidden_item_syntax(self._window, start, syntax)
            run = run_of(syntax)
        self._item = OpenItem(elements, limit, length != UNDEFINED, syntax, run)

    def _leave(self, sequence: OpenSequence, vr: str, end: int, items: list[Item] | None) -> None:
        """Append a sequence to its parent and return there."""
        parent, start = sequence.parent, sequence.start
        if not sequence.stray:
            parent.elements.append(
                Element(sequence.tag, vr, start, end - start, items, sequence.written)
            )
        self._item, self._sequence = parent, sequence.outer

    # Delimiters (PS3.5 7.5.1, 7.5.2)

    @cached_property
    def _delimiters(self) -> Delimiters:
        return Delimiters(self._window)

    def _read_delimiter(self, item: OpenItem, tag: int) -> None:
        """Read a delimiter, or an item, inside of `item`."""
        position = self.position
        if tag not in DELIMITERS:
            raise BrokenStructureError("expected an element", position)
        self.position = position + HEADER
        if tag == ITEM_END and not item.defined:
            self._read_items()
        else:
            self._close_by(tag, position, item, self._sequence)

    def _close_by(
        self, tag: int, position: int, item: OpenItem | None, sequence: OpenSequence | None
    ) -> bool:
        """Close what a misplaced delimiter or item closes; return whether it closes anything.

        It is inside `item`, or between the items of `sequence` if `item` is None.
        """
        closed = self._delimiters.levels_closed(
            tag, position, item, sequence, likely_stray=self._is_stray(position, item, sequence)
        )
        if not closed:
            if tag == ITEM:
                self._skip_item(item or self._item, position)
            else:
                self._notes.add("stray delimiter", tag=tag, offset=position)
            return False
        assert sequence is not None
        if tag == ITEM:
            self._note("an item without its delimiter", sequence, position)
            self.position = position
        elif item:
            self._note("an item that ends with a sequence's delimiter", sequence, position)
        else:
            self._note("a sequence that ends with an item's delimiter", sequence, position)
        in_item = item is not None
        for _ in range(closed):
            if not in_item:
                assert self._sequence is not None
                self._leave(self._sequence, "SQ", position, self._sequence.items)
            in_item = not in_item
        if not in_item:
            self._read_items()
        return True

    def _is_stray(
        self, position: int, item: OpenItem | None, sequence: OpenSequence | None
    ) -> bool:
        """Return whether a delimiter follows what has already ended by its length.

        Some writers give both the length and the delimiter.
        """
        if item:
            if not item.elements:
                return False
            last = item.elements[-1]
            return last.vr == "SQ" and last.offset + last.length == position
        assert sequence is not None
        if self._item is sequence.parent or (sequence.items and not sequence.items[-1]):
            return bool(sequence.items)
        return self._item.defined

    def _skip_item(self, item: OpenItem, position: int) -> None:
        """Skip an item outside any sequence: its elements belong to nothing.

        A sequence of known length around it is left in the object instead, so that no element is
        lost.
        """
        window = self._window
        start = position + HEADER
        (length,) = item.syntax.long.unpack(window.peek(position + 4, 4))
        if length and self._innermost_defined():
            raise BrokenStructureError("an item outside a sequence", position)
        if length != UNDEFINED:
            end = start + length
            if end > item.limit or not window.reaches(end):
                raise BrokenStructureError("a stray item exceeds the enclosing item", position)
            self._fields.left += length
            self.position = end
        else:
            depth = self._deeper(item, ITEM, start)
            outer = self._sequence
            self._sequence = OpenSequence(
                tag=ITEM,
                written="",
                start=start,
                limit=0,
                defined=True,
                syntax=item.syntax,
                run=item.run,
                either=outer is not None and outer.either,
                depth=depth,
                parent=item,
                outer=outer,
                items=[],
                stray=True,
            )
            self._item = OpenItem([], item.limit, defined=False, syntax=item.syntax, run=item.run)
        self._notes.add("a stray item is skipped", offset=position)

    # Ends, recovery and limits

    def _end_without_delimiter(self, item: OpenItem | None) -> None:
        """End an item (the sequence if None) with the known length of an enclosing one.

        Raises `BrokenStructureError` if it does not end exactly there, or if the object ends.
        """
        sequence = self._sequence
        assert sequence is not None
        kind, limit = ("an item", item.limit) if item else ("a sequence", sequence.limit)
        is_bounded = (item is not None and item.defined) or _is_bounded(sequence)
        if self.position + HEADER <= limit or not is_bounded:
            raise BrokenStructureError(
                "the object ends inside a sequence", sequence.start, sequence.known_tag
            )
        if self.position != limit:
            raise BrokenStructureError(f"cut inside {kind}", self.position, sequence.known_tag)
        self._note(f"{kind} without its delimiter", sequence, self.position)

    def _exceeds(self, item: OpenItem, tag: int, start: int) -> BrokenStructureError:
        """Return the error for a value that exceeds its item, without the wrong length."""
        outer = "object" if item.top_level else "enclosing item"
        return BrokenStructureError(f"a value exceeds the {outer}", start, self._known(item, tag))

    def _known(self, item: OpenItem, tag: int) -> int | None:
        """Return a tag that messages may name: others could be bytes of a value."""
        return tag if tag == ITEM or item.knows(tag) else None

    def _note(self, reason: str, sequence: OpenSequence, offset: int) -> None:
        self._notes.add(reason, tag=sequence.known_tag, vr=sequence.written, offset=offset)

    def _end_beyond(self, item: OpenItem, element: Element) -> None:
        """End the data set inside its pixel data; no other value may exceed the object."""
        tag, start, length = element.tag, element.offset, element.length
        if not item.top_level or tag not in ALL_PIXEL_DATA:
            raise self._exceeds(item, tag, start)
        element.length = actual = self._window.size - start
        # A length beyond the object's size could be bytes of a value: leave it out.
        of = f" of {length}" if length <= self._window.size else ""
        reason = f"the object is cut: {actual}{of} bytes"
        self._notes.add(reason, tag=tag, vr=element.vr, offset=start)
        item.elements.append(element)
        self._fields.left += actual
        self.position = start + actual
        self._done = True

    def _recover(self, broken: BrokenStructureError) -> None:
        """Leave the innermost sequence of known length in the object and continue after it.

        After the pixel data the data set ends instead. Otherwise raises `UnreadableDicomError`.
        """
        sequence = self._innermost_defined()
        if sequence:
            self._notes.add(
                f"broken sequence is left in the object: {broken.reason}",
                tag=sequence.known_tag,
                vr=sequence.written,
                offset=broken.offset,
            )
            self._leave(sequence, sequence.written, sequence.limit, None)
            self._fields.left += sequence.limit - self.position
            self.position = sequence.limit
        elif self._end.after_pixel_data:
            self._end.give_up()
            self._done = True
        else:
            raise self._refusal(broken) from broken

    def _innermost_defined(self) -> OpenSequence | None:
        """Return the innermost open sequence that can be left in the object."""
        sequence = self._sequence
        while sequence and (
            sequence.stray or not (sequence.defined and self._window.reaches(sequence.limit))
        ):
            sequence = sequence.outer
        return sequence

    def _refusal(self, broken: BrokenStructureError) -> UnreadableDicomError:
        """Return the error for the object, which names the nearest known tag to show the place."""
        reason, sequence = broken.reason, self._sequence
        while sequence and sequence.known_tag is None:
            sequence = sequence.outer
        if broken.tag is None and sequence:
            reason += f" in the sequence {_hex(sequence.known_tag)} at offset {sequence.start}"
        elif broken.tag is None:
            for element in reversed(self._root.elements[-_LAST_ELEMENTS:]):
                if self._root.knows(element.tag):
                    reason += f" after the element {_hex(element.tag)}"
                    break
        return UnreadableDicomError(reason, offset=broken.offset, tag=_hex(broken.tag))

    def _check_limits(self) -> None:
        """Pay for what was read; raise `UnreadableDicomError` beyond the deadline or a limit."""
        limits, position = self._config.limits, self.position
        self._next_count = self._count + CHECK_EVERY
        self._next_position = position + _CHECK_EVERY_BYTES
        self._window.deadline.check()
        if self._count > limits.elements:
            raise UnreadableDicomError(
                f"more elements than limits.elements, {limits.elements}", offset=position
            )
        kept = position - self._start - self._fields.left
        new, self._paid = kept - self._paid, kept
        self._window.memory.charge_elements(self._count - self._paid_count, new)
        self._paid_count = self._count
        if kept > limits.header_bytes:
            raise UnreadableDicomError(
                f"the header exceeds limits.headerBytes, {limits.header_bytes}", offset=position
            )


def _is_bounded(sequence: OpenSequence | None) -> bool:
    """Return whether a sequence, or anything around it, has a known length."""
    while sequence:
        parent = sequence.parent
        if (sequence.defined and not sequence.stray) or (parent.defined and not parent.top_level):
            return True
        sequence = sequence.outer
    return False


def _hex(tag: int | None) -> str | None:
    return None if tag is None else f"{tag:08X}"
