"""Where a data set ends: with the object, at padding, or at what is no element any more."""

from dcm2bq.dicom.elements import PIXEL_DATA
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.open_items import BrokenFramingError
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import (
    HEADER,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    Syntax,
)
from dcm2bq.dicom.vr import is_vr

_PADDING_SEEN = 64 * 1024
"""Bytes that are looked at to tell padding."""
_DELIMITERS = frozenset({ITEM, ITEM_END, SEQUENCE_END})


class DataSetEnd:
    """Watches the elements of the top level for the end of their data set.

    With `group` it ends before the first element of another group, and at NULs. Behind the
    pixel data only ascending elements of known VR, and stray delimiters, go on with it;
    those do not if it was `behind_pixel_data` from the start, in search for an end.
    """

    def __init__(
        self,
        window: Window,
        syntax: Syntax,
        notes: Notes,
        *,
        group: int | None,
        behind_pixel_data: bool,
    ) -> None:
        self._window = window
        self._syntax = syntax
        self._notes = notes
        self._group = group
        self._last_tag = PIXEL_DATA
        self._last_start = 0
        self.behind_pixel_data = behind_pixel_data
        self._may_be_stray = not behind_pixel_data
        self.clean = True
        """Whether nothing but padding follows the elements."""

    def is_here(self, position: int) -> bool:
        """Return whether the data set ends before the header at `position`."""
        head = self._window.peek(position, HEADER)
        group, number, _ = self._syntax.tag_and_length.unpack(head)
        if self._group is not None:
            return bool(group != self._group) or not (head.strip(b"\0") or self._seen(position))
        if self.behind_pixel_data:
            self._last_start = position
            tag = group << 16 | number
            if tag in _DELIMITERS and self._may_be_stray:
                return False
            if tag > self._last_tag and (self._syntax.implicit or is_vr(head[4:6])):
                self._last_tag = tag
                return False
        elif head.strip(b"\0"):
            return False
        return self._is_padding(position, "expected an element")

    def is_short(self, position: int) -> bool:
        """Return whether the data set ends where no header fits any more."""
        self._last_start = position
        if self._group is not None:  # another part of the file begins
            return True
        return self._is_padding(position, "cut inside an element's header")

    def give_up(self) -> None:
        """End the data set before the last element that was begun behind the pixel data."""
        rest = self._window.size - self._last_start
        reason = f"{rest} bytes after the pixel data are not elements"
        self._notes.add(reason, offset=self._last_start)
        self.clean = False

    def _is_padding(self, position: int, otherwise: str) -> bool:
        """Return whether only NULs follow, as far as one look reaches, or raise."""
        if self._seen(position):
            raise BrokenFramingError(otherwise, position)
        if self._window.reaches(position + 1) and not self.behind_pixel_data:
            self._notes.add("padding", offset=position)
        return True

    def _seen(self, position: int) -> bytes:
        """Return what stands at `position` but NULs, as far as one look reaches."""
        window = self._window
        seen = window.fill(position, _PADDING_SEEN)
        at = position - window.base
        return window.data[at : at + seen].strip(b"\0")
