"""Where a data set ends: with the object, at padding, or at what is no element any more."""

from dcm2bq.dicom.frames import BrokenFramingError
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.source import Window
from dcm2bq.dicom.syntax import HEADER, Syntax, is_vr
from dcm2bq.dicom.tree import PIXEL_DATA

_PADDING_SEEN = 64 * 1024
"""Bytes that are looked at to tell padding."""


class DataSetEnd:
    """Watches the elements of the top level for the end of their data set.

    With `group` it ends before the first element of another group. Behind the pixel data
    only ascending elements of known VR go on with it.
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
        self.clean = True
        """Whether nothing but padding follows the elements."""

    def is_here(self, position: int) -> bool:
        """Return whether the data set ends before the header at `position`."""
        head = self._window.peek(position, HEADER)
        group, number, _ = self._syntax.tag_and_length.unpack(head)
        if self._group is not None:
            return bool(group != self._group)
        if self.behind_pixel_data:
            self._last_start = position
            tag = group << 16 | number
            if tag > self._last_tag and (self._syntax.implicit or is_vr(head[4:6])):
                self._last_tag = tag
                return False
        elif head.strip(b"\0"):
            return False
        return self._is_padding(position, "no element")

    def is_short(self, position: int) -> bool:
        """Return whether the data set ends where no header fits any more."""
        self._last_start = position
        return self._is_padding(position, "cut inside an element's header")

    def give_up(self) -> None:
        """End the data set before the last element that was begun behind the pixel data."""
        rest = self._window.size - self._last_start
        reason = f"{rest} bytes behind the pixel data are no elements"
        self._notes.add(reason, offset=self._last_start)
        self.clean = False

    def _is_padding(self, position: int, otherwise: str) -> bool:
        """Return whether only NULs follow, as far as one look reaches, or raise."""
        window = self._window
        seen = window.fill(position, _PADDING_SEEN)
        at = position - window.base
        if window.data[at : at + seen].strip(b"\0"):
            raise BrokenFramingError(otherwise, position)
        if seen > 0 and not self.behind_pixel_data:
            self._notes.add("padding", offset=position)
        return True
