"""Where a data set ends: with the object, at padding, or where the bytes are no longer elements."""

from dcm2bq.dicom.elements import PIXEL_DATA
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.open_items import BrokenStructureError
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import DELIMITERS, HEADER, Syntax
from dcm2bq.dicom.vr import is_vr

_PADDING_SEEN = 64 * 1024
"""Bytes that must be NUL to count as padding: those of one read. Padding can be much longer."""


class DataSetEnd:
    """Decides at each element of the top level whether the data set ends before it.

    A data set of one `group` ends before the first element of another, and at NULs. After pixel
    data, where writers leave all kinds of bytes, only ascending elements of known VR and stray
    delimiters continue the data set. Those delimiters do not if the reading began
    `after_pixel_data`, in search of the end of encapsulated pixel data.
    """

    def __init__(
        self,
        window: Window,
        syntax: Syntax,
        notes: Notes,
        *,
        group: int | None,
        after_pixel_data: bool,
    ) -> None:
        self._window = window
        self._syntax = syntax
        self._notes = notes
        self._group = group
        self._last_tag = PIXEL_DATA
        self._last_start = 0
        self._may_be_stray = not after_pixel_data
        self.after_pixel_data = after_pixel_data
        """Whether pixel data has been read."""
        self.clean = True
        """Whether nothing but padding follows the elements."""

    def is_here(self, position: int) -> bool:
        """Return whether the data set ends before the header at `position`."""
        head = self._window.peek(position, HEADER)
        group, number, _ = self._syntax.tag_and_length.unpack(head)
        if self._group is not None:
            is_other = bool(group != self._group)
            return is_other or not (head.strip(b"\0") or self._content_at(position))
        if self.after_pixel_data:
            self._last_start = position
            tag = group << 16 | number
            if tag in DELIMITERS and self._may_be_stray:
                return False
            if tag > self._last_tag and (self._syntax.implicit or is_vr(head[4:6])):
                self._last_tag = tag
                return False
        elif head.strip(b"\0"):
            return False
        return self._is_padding(position, "expected an element")

    def is_short(self, position: int) -> bool:
        """Return whether the data set ends at `position`, where no further header fits."""
        self._last_start = position
        if self._group is not None:  # another part of the file begins
            return True
        return self._is_padding(position, "cut inside an element's header")

    def give_up(self) -> None:
        """End the data set before the element after the pixel data that could not be read."""
        rest = self._window.size - self._last_start
        reason = f"{rest} bytes after the pixel data are not elements"
        self._notes.add(reason, offset=self._last_start)
        self.clean = False

    def _is_padding(self, position: int, otherwise: str) -> bool:
        """Return True if only padding follows, else raise `BrokenStructureError`."""
        if self._content_at(position):
            raise BrokenStructureError(otherwise, position)
        if self._window.reaches(position + 1) and not self.after_pixel_data:
            self._notes.add("padding", offset=position)
        return True

    def _content_at(self, position: int) -> bytes:
        """Return the bytes from `position` on without the NULs around them."""
        window = self._window
        seen = window.fill(position, _PADDING_SEEN)
        at = position - window.base
        return window.data[at : at + seen].strip(b"\0")
