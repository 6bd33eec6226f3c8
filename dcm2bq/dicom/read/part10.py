"""A DICOM file: preamble, File Meta Information, data set (PS3.10 7), or what passes for one."""

from contextlib import suppress
from dataclasses import dataclass

from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom.elements import Item
from dcm2bq.dicom.memory import Claim
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.data_set import Reader
from dcm2bq.dicom.read.deflate import (
    InflatedSource,
    InflatedWindow,
    is_deflated,
    window_over,
)
from dcm2bq.dicom.read.element_header import begins_with_odd_vr
from dcm2bq.dicom.read.source import Source, Window
from dcm2bq.dicom.syntax import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    LONG_HEADER,
    Syntax,
)
from dcm2bq.dicom.vr import LONG_VRS, is_vr, is_vr_like
from dcm2bq.errors import NotDicomError, UnreadableDicomError

_PREAMBLE = 128
_PREFIX = b"DICM"
_META_GROUP = b"\x02\0"
_TRAILING_PADDING = 0xFFFCFFFC
_TRANSFER_SYNTAX_UID = 0x00020010
_IDENTIFYING = frozenset({0x00020002, 0x00020003, 0x00080016, 0x00080018})
"""SOP Class and Instance UID, in the File Meta Information and in the data set."""

_DEFLATED = frozenset(
    {
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    }
)
_SYNTAXES = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
    "1.2.840.10008.1.20": IMPLICIT_LITTLE,  # Papyrus 3
}
"""All others are Explicit VR Little Endian (PS3.5 10)."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """The elements of a file; offsets in the data set are those of the inflated one."""

    meta: Item
    data_set: Item
    transfer_syntax_uid: str | None
    deflated: bool


def read_file(
    source: Source,
    options: Config,
    notes: Notes,
    *,
    depth: int,
    deadline: Deadline,
    memory: Claim,
) -> DicomFile:
    """Return the elements of an object; bulk values are left in it.

    Raises `NotDicomError` for what is no DICOM, `UnreadableDicomError` for what is broken.
    """
    window = window_over(source, deadline, memory)
    start = _PREAMBLE + len(_PREFIX)
    window.fill(0, start + HEADER)
    prefixed = window.peek(_PREAMBLE, len(_PREFIX)) == _PREFIX
    if prefixed and _is_prefix_by_chance(window, options, depth, deadline):
        prefixed = False
    file = _FileReader(window, options, notes, depth, deadline)
    try:
        file.read(start if prefixed else 0)
    except UnreadableDicomError:
        if prefixed or file.identified:
            raise
        raise NotDicomError("no DICM prefix and no data set at the start") from None
    if not ((prefixed and file.meta) or file.identified):
        raise NotDicomError("no File Meta Information and no SOP Class or Instance UID")
    if not any(_is_of_data_set(element.tag) for element in file.data_set):
        raise UnreadableDicomError("there is no data set", offset=file.data_set_start)
    if not prefixed or not file.meta:
        notes.add("no preamble" if file.meta else "no File Meta Information")
    return DicomFile(file.meta, file.data_set, file.transfer_syntax_uid, file.deflated)


def _is_of_data_set(tag: int) -> bool:
    """Return whether an element says anything: no command, group length or padding does."""
    return bool(tag >> 16 and tag & 0xFFFF) and tag != _TRAILING_PADDING


def _is_prefix_by_chance(window: Window, options: Config, depth: int, deadline: Deadline) -> bool:
    """Return whether "DICM" is part of a value in a file without preamble.

    It is not where File Meta Information follows, unless that has begun at the start. Else
    what can be read from the start tells, if a value in it lies around the letters.
    """
    begins_with_meta = window.peek(0, len(_META_GROUP)) == _META_GROUP
    followed = window.peek(_PREAMBLE + len(_PREFIX), len(_META_GROUP)) == _META_GROUP
    if followed and not begins_with_meta:
        return False
    file = _FileReader(window, options, Notes(), depth, deadline)
    with suppress(UnreadableDicomError):
        file.read(0)
    return file.identified and any(
        element.offset <= _PREAMBLE and element.offset + element.length >= _PREAMBLE + len(_PREFIX)
        for element in file.meta + file.data_set
    )


class _FileReader:
    """The parts of a file, as far as they have been read."""

    def __init__(
        self, window: Window, options: Config, notes: Notes, depth: int, deadline: Deadline
    ) -> None:
        self._window = window
        self._options = options
        self._notes = notes
        self._depth = depth
        self._deadline = deadline
        self.meta: Item = []
        self.data_set: Item = []
        self.transfer_syntax_uid: str | None = None
        self.deflated = False
        self.data_set_start = 0

    @property
    def identified(self) -> bool:
        """Whether a SOP Class or Instance UID has been read."""
        return any(element.tag in _IDENTIFYING for element in self.meta + self.data_set)

    def read(self, start: int) -> None:
        """Read File Meta Information, command set and data set, as many as there are."""
        window = self._window
        position = start
        head = window.peek(position, HEADER)
        if head[:2] == _META_GROUP:
            syntax = EXPLICIT_LITTLE if is_vr(head[4:6]) else IMPLICIT_LITTLE
            position = self._read_part(self.meta, window, position, syntax, group=2)
        self.transfer_syntax_uid = _first_text(self.meta, _TRANSFER_SYNTAX_UID)
        if self.meta and window.peek(position, 2) == b"\0\0":
            position = self._read_part(self.data_set, window, position, IMPLICIT_LITTLE, group=0)
        if self.transfer_syntax_uid in _DEFLATED:
            self.deflated = is_deflated(window, position)
            if not self.deflated:
                self._notes.add("the transfer syntax is not as declared: nothing is deflated")
        if self.deflated:
            limit = self._options.limits.inflated_bytes
            source = InflatedSource(window, position, limit, self._notes)
            window, position = InflatedWindow(source, self._deadline, window.memory), 0
        self.data_set_start = position
        syntax = self._recognise(window, position)
        self._read_part(self.data_set, window, position, syntax)

    def _read_part(
        self, elements: Item, window: Window, start: int, syntax: Syntax, group: int | None = None
    ) -> int:
        reader = Reader(
            window,
            start,
            syntax,
            self._options,
            self._notes,
            elements=elements,
            depth=self._depth,
            group=group,
        )
        reader.read()
        return reader.position

    def _recognise(self, window: Window, start: int) -> Syntax:
        """Return the encoding of the data set: the declared one unless the bytes deny it."""
        uid = self.transfer_syntax_uid
        declared = None if uid is None else _SYNTAXES.get(uid, EXPLICIT_LITTLE)
        found = _found_syntax(window, start, declared)
        if declared is None:
            self._notes.add(f"no transfer syntax is declared: {found.name} is found")
        elif found is not declared:
            self._notes.add(f"the transfer syntax is not as declared: {found.name} is found")
        return found


def _found_syntax(window: Window, start: int, declared: Syntax | None) -> Syntax:
    """Return the encoding that the first element of a data set has.

    What is declared counts unless the element cannot be read so.
    """
    head = window.peek(start, HEADER)
    if len(head) < HEADER:
        return declared or IMPLICIT_LITTLE
    explicit = is_vr(head[4:6])
    if declared and not declared.implicit and not explicit:
        explicit = (
            is_vr_like(head[4:6])
            or _vr_behind(window, start, IMPLICIT_LITTLE)
            or begins_with_odd_vr(window, start, declared)
        )
    if not explicit:
        return IMPLICIT_LITTLE
    big = head[0] < head[1] if declared is None else declared is EXPLICIT_BIG
    likely, other = (EXPLICIT_BIG, EXPLICIT_LITTLE) if big else (EXPLICIT_LITTLE, EXPLICIT_BIG)
    swapped = not _vr_behind(window, start, likely) and _vr_behind(window, start, other)
    return other if swapped else likely


def _vr_behind(window: Window, start: int, syntax: Syntax) -> bool:
    """Return whether a VR stands in the second element, or the first one is the last."""
    head = window.peek(start, LONG_HEADER)
    begin = start + HEADER
    if syntax.implicit or len(head) < LONG_HEADER:
        length = int.from_bytes(head[4:8], "little")
    elif head[4:6] in LONG_VRS:
        begin += LONG_HEADER - HEADER
        length = syntax.long.unpack_from(head, 8)[0]
    else:
        length = syntax.explicit.unpack_from(head)[3]
    end = begin + length
    return end == window.size or is_vr(window.peek(end, HEADER)[4:6])


def _first_text(elements: Item, tag: int) -> str | None:
    for element in elements:
        if element.tag == tag and isinstance(element.value, bytes):
            return (
                str(element.value, "ascii", "replace").strip(" \0").replace("\0", "\ufffd") or None
            )
    return None
