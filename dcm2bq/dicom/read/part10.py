"""Read a DICOM file (PS3.10 7), or what passes for one.

    preamble, 128 bytes              of any content
    prefix, 4 bytes                  DICM
    File Meta Information            group 0002, explicit VR little endian; has the transfer syntax
    data set                         encoded as the transfer syntax says (PS3.5 10, A)

Files are found without preamble and prefix, without File Meta Information, with a transfer syntax
that is not the one used, and with a command set (group 0000) that a network node left in front of
the data set. All these are read, with a warning, if a SOP Class or SOP Instance UID shows that
they are DICOM.

Where names say nothing about the content, `looks_like_dicom` decides by the first bytes.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom.elements import Item
from dcm2bq.dicom.memory import Claim
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.data_set import DataSetReader
from dcm2bq.dicom.read.deflate import (
    InflatedSource,
    InflatedWindow,
    is_deflated,
    window_over,
)
from dcm2bq.dicom.read.element_header import begins_with_odd_vr
from dcm2bq.dicom.read.open_items import BrokenStructureError
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
from dcm2bq.errors import NotDicomError, UnlikeDicomError, UnreadableDicomError

_PREAMBLE = 128
_PREFIX = b"DICM"
_META_GROUP = b"\x02\0"
_COMMAND_GROUP = b"\0\0"
_TRAILING_PADDING = 0xFFFCFFFC
_TRANSFER_SYNTAX_UID = 0x00020010
_IDENTIFYING = frozenset({0x00020002, 0x00020003, 0x00080016, 0x00080018})
"""SOP Class and SOP Instance UID, in the File Meta Information and in the data set."""

PREFIXED = _PREAMBLE + len(_PREFIX)
"""First bytes of an object that `has_prefix` needs."""
_UNPREFIXED = re.compile(
    rb"\x02\0\0\0UL\x04\0|"  # the group length of File Meta Information; or:
    # The first element is of the File Meta Information, of a data set in either byte order
    # (0008,0018 is the last that may precede both UIDs) or the group length of a command set.
    rb"(?=[\x02\x08]\0[\0-\x18]\0|\0\x08\0[\0-\x18]|\0\0\0\0\x04\0\0\0)"
    # Then comes one of `_IDENTIFYING`, explicit or implicit, with the first two parts of a UID.
    rb".*?(?:(?:\x02\0[\x02\x03]\0|\x08\0[\x16\x18]\0)(?:UI..|..\0\0)"
    rb"|\0\x08\0[\x16\x18]UI..)[0-2]\.[0-9]",
    re.DOTALL,
)
"""The beginning of a file without preamble and prefix."""

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
"""The encodings of transfer syntaxes; all others are Explicit VR Little Endian (PS3.5 10)."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """The elements of a file."""

    meta: Item
    """The File Meta Information."""
    data_set: Item
    """The data set; before it the command set, if there is one."""
    transfer_syntax_uid: str | None
    """The declared one; None if there is none."""
    deflated: bool
    """Whether the offsets of the data set are those of the inflated one."""


def read_file(
    source: Source,
    config: Config,
    notes: Notes,
    *,
    depth: int,
    deadline: Deadline,
    memory: Claim,
    sniff: bool = False,
) -> DicomFile:
    """Return the elements of an object, without the bulk values.

    Raises `NotDicomError` if it is not DICOM, `UnreadableDicomError` if it is broken or exceeds
    a limit. With `sniff`, raises `UnlikeDicomError` after the first read, before any other error,
    unless the object `looks_like_dicom`.
    """
    window = window_over(source, deadline, memory)
    start = PREFIXED
    is_empty = not window.fill(0, start + HEADER)
    if sniff and not looks_like_dicom(window.data):
        raise UnlikeDicomError("the first bytes do not look like DICOM")
    if is_empty:
        raise NotDicomError("the file is empty")
    prefixed = window.peek(_PREAMBLE, len(_PREFIX)) == _PREFIX
    if prefixed and _is_prefix_by_chance(window, config, depth, deadline):
        prefixed = False
    file = _FileReader(window, config, notes, depth, deadline)
    try:
        file.read(start if prefixed else 0)
    except UnreadableDicomError as error:
        # Bytes that are not elements may be anything; an object that exceeds a limit has elements.
        is_broken = isinstance(error.__cause__, BrokenStructureError)
        if prefixed or file.identified or not is_broken:
            raise
        raise NotDicomError("no DICM prefix and no data set at the start") from None
    if not ((prefixed and file.meta) or file.identified):
        raise NotDicomError("no File Meta Information and no SOP Class or Instance UID")
    if not any(_is_of_data_set(element.tag) for element in file.data_set):
        raise UnreadableDicomError("the object has no data set", offset=file.data_set_start)
    if not prefixed or not file.meta:
        notes.add("no preamble" if file.meta else "no File Meta Information")
    return DicomFile(file.meta, file.data_set, file.transfer_syntax_uid, file.deflated)


def has_prefix(head: bytes) -> bool:
    """Return whether an object with these first bytes has the prefix DICM (PS3.10 7.1)."""
    return head[_PREAMBLE:PREFIXED] == _PREFIX


def looks_like_dicom(head: bytes) -> bool:
    r"""Return whether an object with these first bytes, as many as one read gives, may be DICOM.

    That is so if it has the prefix, or begins as File Meta Information or a data set does and has
    a SOP Class or Instance UID. Such an object may still turn out to be broken, and any other is
    not worth converting.

    >>> looks_like_dicom(bytes(128) + b"DICM"), looks_like_dicom(b"%PDF-1.7")
    (True, False)
    >>> looks_like_dicom(b"\x08\0\x16\0UI\x1a\0" + b"1.2.840.10008.5.1.4.1.1.7")
    True
    """
    return has_prefix(head) or _UNPREFIXED.match(head) is not None


def _is_of_data_set(tag: int) -> bool:
    """Return whether an element is part of a data set: not of a command, a length or padding."""
    return bool(tag >> 16 and tag & 0xFFFF) and tag != _TRAILING_PADDING


def _is_prefix_by_chance(window: Window, config: Config, depth: int, deadline: Deadline) -> bool:
    """Return whether "DICM" is part of a value, in a file without preamble.

    It is the prefix if File Meta Information follows, unless that has begun at the first byte.
    Otherwise the file is read from the first byte on, on trial: "DICM" is part of a value if that
    works and the letters are in the value of an element.
    """
    begins_with_meta = window.peek(0, len(_META_GROUP)) == _META_GROUP
    followed = window.peek(_PREAMBLE + len(_PREFIX), len(_META_GROUP)) == _META_GROUP
    if followed and not begins_with_meta:
        return False
    file = _FileReader(window, config, Notes(), depth, deadline)
    with suppress(UnreadableDicomError), window.memory.trial():
        file.read(0)
    return file.identified and any(
        element.offset <= _PREAMBLE and element.offset + element.length >= _PREAMBLE + len(_PREFIX)
        for element in file.meta + file.data_set
    )


class _FileReader:
    """The parts of a file, as far as they have been read."""

    def __init__(
        self, window: Window, config: Config, notes: Notes, depth: int, deadline: Deadline
    ) -> None:
        self._window = window
        self._config = config
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
        """Whether a SOP Class or SOP Instance UID has been read."""
        return any(element.tag in _IDENTIFYING for element in self.meta + self.data_set)

    def read(self, start: int) -> None:
        """Read the parts that the file has, the first of them at `start`."""
        window = self._window
        position = start
        head = window.peek(position, HEADER)
        if head[:2] == _META_GROUP:
            # Some writers write it implicitly, against the standard.
            syntax = EXPLICIT_LITTLE if is_vr(head[4:6]) else IMPLICIT_LITTLE
            position = self._read_part(self.meta, window, position, syntax, group=2)
        self.transfer_syntax_uid = _first_text(self.meta, _TRANSFER_SYNTAX_UID)
        if self.meta and window.peek(position, 2) == _COMMAND_GROUP:
            # Commands are implicit VR little endian (PS3.7 6.3.1).
            position = self._read_part(self.data_set, window, position, IMPLICIT_LITTLE, group=0)
        if self.transfer_syntax_uid in _DEFLATED:
            self.deflated = is_deflated(window, position)
            if not self.deflated:
                self._notes.add("the transfer syntax is not as declared: nothing is deflated")
        if self.deflated:
            limit = self._config.limits.inflated_bytes
            source = InflatedSource(window, position, limit, self._notes)
            window, position = InflatedWindow(source, self._deadline, window.memory), 0
        self.data_set_start = position
        syntax = self._recognise(window, position)
        self._read_part(self.data_set, window, position, syntax)

    def _read_part(
        self, elements: Item, window: Window, start: int, syntax: Syntax, group: int | None = None
    ) -> int:
        """Append the elements of one part; return the offset after it."""
        reader = DataSetReader(
            window,
            start,
            syntax,
            self._config,
            self._notes,
            elements=elements,
            depth=self._depth,
            group=group,
        )
        reader.read()
        return reader.position

    def _recognise(self, window: Window, start: int) -> Syntax:
        """Return the encoding of the data set: the declared one unless the bytes contradict it."""
        uid = self.transfer_syntax_uid
        declared = None if uid is None else _SYNTAXES.get(uid, EXPLICIT_LITTLE)
        actual = _actual_syntax(window, start, declared)
        if declared is None:
            self._notes.add(f"no transfer syntax is declared: read as {actual.name}")
        elif actual is not declared:
            self._notes.add(f"the transfer syntax is not as declared: read as {actual.name}")
        return actual


def _actual_syntax(window: Window, start: int, declared: Syntax | None) -> Syntax:
    """Return the encoding by which the first element of a data set can be read.

    The declared one is preferred.
    """
    head = window.peek(start, HEADER)
    if len(head) < HEADER:
        return declared or IMPLICIT_LITTLE
    explicit = is_vr(head[4:6])
    if declared and not declared.implicit and not explicit:
        explicit = (
            is_vr_like(head[4:6])
            or _leads_to_vr(window, start, IMPLICIT_LITTLE)
            or begins_with_odd_vr(window, start, declared)
        )
    if not explicit:
        return IMPLICIT_LITTLE
    # The first group is below 0100, so that its bytes show their order.
    big = head[0] < head[1] if declared is None else declared is EXPLICIT_BIG
    likely, other = (EXPLICIT_BIG, EXPLICIT_LITTLE) if big else (EXPLICIT_LITTLE, EXPLICIT_BIG)
    swapped = not _leads_to_vr(window, start, likely) and _leads_to_vr(window, start, other)
    return other if swapped else likely


def _leads_to_vr(window: Window, start: int, syntax: Syntax) -> bool:
    """Return whether, read by `syntax`, the first element is the last or the second has a VR."""
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
    """Return the text of the first element with a tag; None if there is none, or it is empty."""
    for element in elements:
        if element.tag == tag and isinstance(element.value, bytes):
            text = str(element.value, "ascii", "replace").strip(" \0")
            return text.replace("\0", "\ufffd") or None
    return None
