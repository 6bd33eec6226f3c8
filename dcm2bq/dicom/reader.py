"""Read the framing of a data set: elements, sequences and items (PS3.5 7).

The reader is iterative: nesting costs no stack. Values are cut out, never interpreted;
those that stay in the object are skipped, and their bytes not fetched.
"""

from io import BytesIO

from dcm2bq.config import Config
from dcm2bq.dicom.ends import DataSetEnd
from dcm2bq.dicom.fields import CutValueError, ValueFields
from dcm2bq.dicom.frames import BrokenFramingError, OpenItem, OpenSequence
from dcm2bq.dicom.headers import hidden_item_syntax, read_header
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.ordinary import run_of
from dcm2bq.dicom.source import StreamSource, Window
from dcm2bq.dicom.syntax import (
    BINARY_VRS,
    DELIMITER_GROUP,
    FRAGMENTED_VRS,
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
from dcm2bq.dicom.tree import ALL_PIXEL_DATA, UNKNOWN, Item
from dcm2bq.errors import UnreadableDicomError

_CHECK_EVERY = 4096
_CHECK_EVERY_BYTES = 1024 * 1024
_MOST_TAIL_ELEMENTS = 20_000


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
        self._fields = ValueFields(window, options, notes, self._may_follow)
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
        self._next_count, self._next_position = _CHECK_EVERY, start + _CHECK_EVERY_BYTES
        self._tail_elements = _MOST_TAIL_ELEMENTS
        self._done = False
        self.position = start

    @property
    def clean(self) -> bool:
        """Whether nothing but padding follows the elements."""
        return self._end.clean

    def read(self) -> None:
        """Append the elements; raise `UnreadableDicomError` if they can not be told apart."""
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
        elif tag:
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
            if not item.top_level:
                raise BrokenFramingError("cut inside an item", position)
            self._done = self._end.is_short(position)
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
        if length == UNDEFINED:
            vr = "OB" if vr == "OW" and item.syntax.implicit else vr  # PS3.5 A.4
            self._read_fragments(item, tag, vr, start)
        elif start + length > item.limit:
            self._end_beyond(item, tag, vr, start, length)
        else:
            try:
                value = self._fields.value(tag, vr, start, length)
            except CutValueError:
                self._end_beyond(item, tag, vr, start, length)
                return
            if written == "UN":  # little endian, whatever surrounds it (PS3.5 6.2.2)
                vr = vr if vr in BINARY_VRS else UNKNOWN + vr
            elif value and not item.syntax.little:
                value = to_little(vr, value)
            item.elements.append((tag, vr, start, length, value))
            self.position = start + length
        if item.top_level and tag in ALL_PIXEL_DATA and vr in BINARY_VRS:
            self._end.behind_pixel_data = True
            item.run = None

    def _read_fragments(self, item: OpenItem, tag: int, vr: str, start: int) -> None:
        found = self._fields.fragments(tag, vr, start, item)
        if found is None:
            raise BrokenFramingError("encapsulated value without end", start, tag)
        element, self.position = found
        item.elements.append(element)

    def _may_follow(self, remainder: bytes) -> bool:
        """Return whether an object's last bytes are elements that may follow pixel data.

        Many places can look like the end; together they are worth a bounded search.
        """
        if self._tail_elements <= 0:
            return False
        reader = Reader(
            Window(StreamSource(BytesIO(remainder))),
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
        depth = outer.depth + 1 if outer else 1
        if depth > self._depth:
            raise UnreadableDicomError(
                f"sequences are nested more than {self._depth} deep", offset=start, tag=f"{tag:08X}"
            )
        limit = item.limit if length == UNDEFINED else start + length
        if limit > item.limit:
            raise BrokenFramingError(f"length {length} reaches too far", start, tag)
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
                raise BrokenFramingError("cut inside a sequence", position, sequence.tag)
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
                self._notes.add("stray delimiter", tag=tag, offset=position)
            else:
                raise BrokenFramingError("no item where one must stand", position, sequence.tag)
            if self._count >= self._next_count:
                self._check_limits()
        self._leave(sequence, "SQ", end, sequence.items)

    def _open_item(self, sequence: OpenSequence, elements: Item, length: int) -> None:
        start = self.position
        limit = sequence.limit if length == UNDEFINED else start + length
        if limit > sequence.limit:
            raise BrokenFramingError(f"item length {length} reaches too far", start, sequence.tag)
        syntax, run = sequence.syntax, sequence.run
        if sequence.either:
            syntax = hidden_item_syntax(self._window, start, syntax)
            run = run_of(syntax)
        self._item = OpenItem(elements, limit, length != UNDEFINED, syntax, run)

    def _leave(self, sequence: OpenSequence, vr: str, end: int, items: list[Item] | None) -> None:
        """Append a sequence to the item that it belongs to, and go on there."""
        parent, start = sequence.parent, sequence.start
        parent.elements.append((sequence.tag, vr, start, end - start, items))
        self._item, self._sequence = parent, sequence.outer

    def _read_delimiter(self, item: OpenItem, tag: int) -> None:
        position = self.position
        if tag not in {ITEM_END, SEQUENCE_END}:
            raise BrokenFramingError("an item outside of a sequence", position, tag)
        self.position = position + HEADER
        if tag == ITEM_END and not item.defined:
            self._read_items()
        else:
            self._notes.add("stray delimiter", tag=tag, offset=position)

    # Ends, limits and recovery

    def _end_beyond(self, item: OpenItem, tag: int, vr: str, start: int, length: int) -> None:
        """End the data set inside its pixel data; no other value may reach beyond the end."""
        if not item.top_level or tag not in ALL_PIXEL_DATA:
            raise BrokenFramingError(f"length {length} reaches too far", start, tag)
        actual = self._window.size - start
        self._notes.add(
            f"the object is cut: {actual} of {length} bytes", tag=tag, vr=vr, offset=start
        )
        item.elements.append((tag, vr, start, actual, None))
        self._fields.left += actual
        self.position = start + actual
        self._done = True

    def _recover(self, broken: BrokenFramingError) -> None:
        """Leave the innermost sequence of known length in the object, or give up."""
        sequence = self._sequence
        while sequence and not (sequence.defined and self._window.reaches(sequence.limit)):
            sequence = sequence.outer
        if sequence:
            self._notes.add(
                f"broken sequence is left in the object: {broken.reason}",
                tag=sequence.tag,
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
            tag = None if broken.tag is None else f"{broken.tag:08X}"
            raise UnreadableDicomError(broken.reason, offset=broken.offset, tag=tag)

    def _check_limits(self) -> None:
        """Raise if the deadline, the elements or the bytes kept are beyond the limits."""
        limits, position = self._options.limits, self.position
        self._next_count = self._count + _CHECK_EVERY
        self._next_position = position + _CHECK_EVERY_BYTES
        self._window.deadline.check()
        if self._count > limits.elements:
            raise UnreadableDicomError(f"more than {limits.elements} elements", offset=position)
        if position - self._start - self._fields.left > limits.header_bytes:
            raise UnreadableDicomError(
                f"a header of more than {limits.header_bytes} bytes", offset=position
            )
