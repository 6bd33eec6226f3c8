"""Read the framing of a data set: elements, sequences and items (PS3.5 7).

The reader is iterative: nesting costs no stack. Values are cut out, never interpreted;
those that stay in the object are skipped, and their bytes not fetched.
"""

from io import BytesIO

from dcm2bq.config import Config
from dcm2bq.dicom.elements import ALL_PIXEL_DATA, Element, Item
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
from dcm2bq.dicom.read.open_items import BrokenFramingError, OpenItem, OpenSequence
from dcm2bq.dicom.read.source import StreamSource, Window
from dcm2bq.dicom.read.value_field import CutValueError, ValueFields
from dcm2bq.dicom.syntax import (
    DELIMITER_GROUP,
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

_CHECK_EVERY = 1024
_CHECK_EVERY_BYTES = RUN
"""How many elements, or bytes, are read before the clock and the limits are looked at: some
milliseconds of work, and less memory than `AHEAD`."""
_MOST_TAIL_ELEMENTS = 20_000
_DELIMITER_TAGS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0")
"""As encapsulated values have them: little endian (PS3.5 A.4)."""
_LAST_ELEMENTS = 16
"""Elements among which the last one of known tag is looked for, to name it in a message."""


class Reader:
    """Appends the elements from `start` on up to the end, or to the first of another group.

    With `behind_pixel_data`, only what may follow pixel data is an element.
    """

    def __init__(
        self,
        window: Window,
        start: int,
        syntax: Syntax,
        options: Config,
        notes: Notes,
        *,
        elements: Item,
        depth: int,
        group: int | None = None,
        behind_pixel_data: bool = False,
    ) -> None:
        self._window = window
        self._options = options
        self._notes = notes
        self._fields = ValueFields(window, options, notes)
        self._delimiters = Delimiters(window)
        self._most_text = self._fields.most_text
        self._depth = depth
        self._end = DataSetEnd(
            window, syntax, notes, group=group, behind_pixel_data=behind_pixel_data
        )
        self._root = OpenItem(
            elements=elements,
            limit=window.size,
            defined=True,
            syntax=syntax,
            run=None if behind_pixel_data or group is not None else run_of(syntax),
            top_level=True,
        )
        self._item = self._root
        self._sequence: OpenSequence | None = None
        self._start = start
        self._count = 0
        self._paid_count = self._paid = 0
        self._next_count, self._next_position = _CHECK_EVERY, start + _CHECK_EVERY_BYTES
        self._tail_elements = _MOST_TAIL_ELEMENTS
        self._done = False
        self.position = start

    @property
    def clean(self) -> bool:
        """Whether nothing but padding follows the elements."""
        return self._end.clean

    def read(self) -> None:
        """Append the elements; raise `UnreadableDicomError` if they cannot be told apart."""
        while not self._done:
            try:
                while not self._done:
                    self._read_elements(self._item)
            except BrokenFramingError as broken:
                self._recover(broken)
        self._check_limits()

    # Elements

    def _read_elements(self, item: OpenItem) -> None:
        """Read ordinary elements as long as there are any, then one by all the rules."""
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
        """Hold the header at the position; return whether there is room for one."""
        position, window = self.position, self._window
        if position + HEADER > limit:
            return False
        if window.base <= position and position + LONG_HEADER <= window.end:
            return True
        return window.fill(position, min(LONG_HEADER, limit - position)) >= HEADER

    def _read_value(self, item: OpenItem, tag: int, written: str, start: int, length: int) -> None:
        """Append an element, or open the sequence that it is."""
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
            # UN is little endian, whatever surrounds it (PS3.5 6.2.2).
            if value and written != "UN" and not item.syntax.little:
                value = to_little(vr, value)
            element.value = value
            item.elements.append(element)
            self.position = start + length
        if item.top_level and tag in ALL_PIXEL_DATA and vr in BINARY_VRS:
            self._end.behind_pixel_data = True
            item.run = None

    def _read_fragments(self, item: OpenItem, element: Element) -> None:
        if element.vr == "OW" and item.syntax.implicit:
            element.vr = "OB"  # PS3.5 A.4
        end = self._fields.fragments(element, item, self._may_follow)
        if end is None:
            raise BrokenFramingError(
                "the encapsulated value does not end",
                element.offset,
                self._known(item, element.tag),
            )
        item.elements.append(element)
        self.position = end
        if end > item.limit:
            self._stretch(item, end)

    def _stretch(self, item: OpenItem, end: int) -> None:
        """Let what is open reach as far as an encapsulated value in it does.

        Raises `BrokenFramingError` unless the object goes on soundly there.
        """
        sequence: OpenSequence | None = self._sequence
        assert sequence is not None
        following = self._window.peek(end, HEADER)
        if following and not (
            following[:4] in _DELIMITER_TAGS or begins_element(self._window, end, self._root)
        ):
            raise BrokenFramingError(
                "an encapsulated value exceeds its item", sequence.start, sequence.known_tag
            )
        self._notes.add(
            "the length of an item leaves out part of its encapsulated value",
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

        Many places can look like the end; together they are worth a bounded search.
        """
        if self._tail_elements <= 0:
            return False
        reader = Reader(
            Window(StreamSource(BytesIO(remainder)), self._window.deadline, self._window.memory),
            0,
            self._root.syntax,
            self._options,
            Notes(),
            elements=[],
            depth=self._depth,
            behind_pixel_data=True,
        )
        try:
            reader.read()
        except UnreadableDicomError:
            return False
        finally:
            self._tail_elements -= reader._count
        return reader.clean

    # Sequences and items

    def _open_sequence(
        self, item: OpenItem, tag: int, written: str, start: int, length: int
    ) -> None:
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
        """Read empty items as long as there are any, then open one or end the sequence."""
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
                raise BrokenFramingError("expected an item", position, sequence.known_tag)
            if self._count >= self._next_count:
                self._check_limits()
        self._leave(sequence, "SQ", end, sequence.items)

    def _deeper(self, item: OpenItem, tag: int, start: int) -> int:
        """Return the depth of one more sequence, or raise if that is too deep."""
        depth = self._sequence.depth + 1 if self._sequence else 1
        if depth > self._depth:
            raise UnreadableDicomError(
                f"sequences are nested more than {self._depth} deep",
                offset=start,
                tag=_hex(self._known(item, tag)),
            )
        return depth

    def _ends_before(self, sequence: OpenSequence, position: int, tag: int) -> bool:
        """Return whether a sequence of undefined length ends, undelimited, before an element.

        That has to be sound, and to follow the sequence in its parent by the order of tags.
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
            raise BrokenFramingError(
                "an item exceeds its sequence", start - HEADER, sequence.known_tag
            )
        syntax, run = sequence.syntax, sequence.run
        if sequence.either:
            syntax = hidden_item_syntax(self._window, start, syntax)
            run = run_of(syntax)
        self._item = OpenItem(elements, limit, length != UNDEFINED, syntax, run)

    def _leave(self, sequence: OpenSequence, vr: str, end: int, items: list[Item] | None) -> None:
        """Append a sequence to the item that it belongs to, and go on there."""
        parent, start = sequence.parent, sequence.start
        if not sequence.stray:
            length = end - start
            parent.elements.append(
                Element(sequence.tag, vr, start, length, items, sequence.written)
            )
        self._item, self._sequence = parent, sequence.outer

    # Delimiters

    def _read_delimiter(self, item: OpenItem, tag: int) -> None:
        position = self.position
        if tag not in {ITEM, ITEM_END, SEQUENCE_END}:
            raise BrokenFramingError("expected an element", position)
        self.position = position + HEADER
        if tag == ITEM_END and not item.defined:
            self._read_items()
        else:
            self._close_by(tag, position, item, self._sequence)

    def _close_by(
        self, tag: int, position: int, item: OpenItem | None, sequence: OpenSequence | None
    ) -> bool:
        """Close what a misplaced delimiter or item can close; return whether it is anything.

        It stands in `item`, or between the items of `sequence` if `item` is None.
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
            self._note("an item that ends by the delimiter of a sequence", sequence, position)
        else:
            self._note("a sequence that ends by the delimiter of an item", sequence, position)
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
        """Return whether a delimiter follows what has ended by its length: a usual excess."""
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
        """Pass over an item where no sequence is; its elements belong to nothing.

        Rather than to lose elements, a sequence around it is left in the object.
        """
        window = self._window
        start = position + HEADER
        (length,) = item.syntax.long.unpack(window.peek(position + 4, 4))
        if length and self._innermost_defined():
            raise BrokenFramingError("an item outside of a sequence", position)
        if length != UNDEFINED:
            end = start + length
            if end > item.limit or not window.reaches(end):
                raise BrokenFramingError("a stray item exceeds what it stands in", position)
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

    # Ends, limits and recovery

    def _end_without_delimiter(self, item: OpenItem | None) -> None:
        """Let an item, or the sequence if it is None, end by the known length of an outer one.

        Raises `BrokenFramingError` if that is no place to end, or the object ends instead.
        """
        sequence = self._sequence
        assert sequence is not None
        kind, limit = ("an item", item.limit) if item else ("a sequence", sequence.limit)
        is_bounded = (item is not None and item.defined) or _is_bounded(sequence)
        if self.position + HEADER <= limit or not is_bounded:
            raise BrokenFramingError(
                "the object ends inside a sequence", sequence.start, sequence.known_tag
            )
        if self.position != limit:
            raise BrokenFramingError(f"cut inside {kind}", self.position, sequence.known_tag)
        self._note(f"{kind} without its delimiter", sequence, self.position)

    def _exceeds(self, item: OpenItem, tag: int, start: int) -> BrokenFramingError:
        """Return what is wrong with a value that reaches too far. Its length is not sound."""
        within = "object" if item.top_level else "enclosing item"
        return BrokenFramingError(f"a value exceeds the {within}", start, self._known(item, tag))

    def _known(self, item: OpenItem, tag: int) -> int | None:
        """Return a tag if it is known to be one: others may be bytes of a value."""
        return tag if tag == ITEM or item.knows(tag) else None

    def _note(self, reason: str, sequence: OpenSequence, offset: int) -> None:
        self._notes.add(reason, tag=sequence.known_tag, vr=sequence.written, offset=offset)

    def _end_beyond(self, item: OpenItem, element: Element) -> None:
        """End the data set inside its pixel data; no other value may reach beyond the end."""
        tag, start, length = element.tag, element.offset, element.length
        if not item.top_level or tag not in ALL_PIXEL_DATA:
            raise self._exceeds(item, tag, start)
        element.length = actual = self._window.size - start
        # A length beyond the object's size may be anything, bytes of a value too.
        of = f" of {length}" if length <= self._window.size else ""
        reason = f"the object is cut: {actual}{of} bytes"
        self._notes.add(reason, tag=tag, vr=element.vr, offset=start)
        item.elements.append(element)
        self._fields.left += actual
        self.position = start + actual
        self._done = True

    def _recover(self, broken: BrokenFramingError) -> None:
        """Leave the innermost sequence of known length in the object, or give up."""
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
        elif self._end.behind_pixel_data:
            self._end.give_up()
            self._done = True
        else:
            raise self._refusal(broken)

    def _innermost_defined(self) -> OpenSequence | None:
        """Return the innermost open sequence that can be left in the object."""
        sequence = self._sequence
        while sequence and (
            sequence.stray or not (sequence.defined and self._window.reaches(sequence.limit))
        ):
            sequence = sequence.outer
        return sequence

    def _refusal(self, broken: BrokenFramingError) -> UnreadableDicomError:
        """Return the refusal, with the place in the words that are known to be no value's."""
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
        """Pay for what was read; raise beyond the deadline or a limit."""
        limits, position = self._options.limits, self.position
        self._next_count = self._count + _CHECK_EVERY
        self._next_position = position + _CHECK_EVERY_BYTES
        self._window.deadline.check()
        if self._count > limits.elements:
            raise UnreadableDicomError(f"more than {limits.elements} elements", offset=position)
        kept = position - self._start - self._fields.left
        new, self._paid = kept - self._paid, kept
        self._window.memory.charge_elements(self._count - self._paid_count, new)
        self._paid_count = self._count
        if kept > limits.header_bytes:
            raise UnreadableDicomError(
                f"a header of more than {limits.header_bytes} bytes", offset=position
            )


def _is_bounded(sequence: OpenSequence | None) -> bool:
    """Return whether a sequence, or anything that it stands in, has a known length."""
    while sequence:
        parent = sequence.parent
        if (sequence.defined and not sequence.stray) or (parent.defined and not parent.top_level):
            return True
        sequence = sequence.outer
    return False


def _hex(tag: int | None) -> str | None:
    return None if tag is None else f"{tag:08X}"
