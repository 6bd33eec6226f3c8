"""Value fields: which are kept, which stay in the object, and where those of no length end."""

from collections.abc import Callable

from dcm2bq.config import Config
from dcm2bq.dicom.elements import (
    EXTENDED_OFFSET_TABLE,
    LEAST_HELD,
    PIXEL_DATA,
    Element,
)
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.read.encapsulated import find_end
from dcm2bq.dicom.read.open_items import OpenItem
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import BINARY_VRS, HEADER

_MOST_EXCESS = 1024
"""Bytes that the length of an item may leave out of an encapsulated value in it: 128 headers
of fragments, which some writers forget to count."""


class CutValueError(Exception):
    """A value reaches beyond the object's end."""


class ValueFields:
    """Cuts values out of a window, or leaves them in the object; counts the bytes left."""

    def __init__(self, window: Window, options: Config, notes: Notes) -> None:
        self._window = window
        self._notes = notes
        self._hops = options.limits.hops
        self._has_rules = options.privacy.is_on
        self._last_frame: int | None = None
        self.most_text = max(options.bulk_data.text_max_bytes, LEAST_HELD)
        self.most_binary = options.bulk_data.inline_max_bytes
        self.left = 0

    def value(self, tag: int, vr: str, start: int, length: int) -> bytes | None:
        """Return a value of known length, None if it stays in the object.

        Raises `CutValueError` if the object ends before the value does.
        """
        window = self._window
        if length <= (self.most_binary if vr in BINARY_VRS else self.most_text):
            value = self._held(start, length)
            if len(value) < length:
                raise CutValueError
            return value
        if not window.reaches(start + length):
            raise CutValueError
        if tag == EXTENDED_OFFSET_TABLE and window.random_access:
            self._last_frame = int.from_bytes(self._held(start + length - 8, 8), "little")
        self.left += length
        return None

    def fragments(
        self, element: Element, item: OpenItem, may_follow: Callable[[bytes], bool]
    ) -> int | None:
        """Complete an encapsulated element (PS3.5 A.4); return the offset behind it, if it ends.

        It may exceed its item by a few bytes, which is not the value's fault. `may_follow` tells
        whether an object's last bytes may follow pixel data.
        """
        window, tag, start = self._window, element.tag, element.offset
        if item.top_level and tag == PIXEL_DATA and window.random_access:
            end = find_end(
                window,
                start,
                item.limit,
                hops=self._hops,
                last_frame=self._last_frame,
                may_follow=may_follow,
            )
        else:
            end = find_end(window, start, item.limit)
            if end is None and window.random_access and not item.top_level:
                end = find_end(window, start, min(item.limit + _MOST_EXCESS, window.size))
        if end is None:
            return None
        if end.problem:
            known_tag = tag if item.knows(tag) else None
            reason = f"encapsulated value: {end.problem}"
            self._notes.add(reason, tag=known_tag, vr=element.written, offset=start)
        element.length = length = end.offset - start
        within_reach = window.random_access or window.base <= start
        # What stands before an end that was guessed could be elements, which have rules.
        sound = end.walked or not self._has_rules
        if length <= self.most_binary and within_reach and sound:
            element.value = window.peek(start, length)
        self.left += length
        return end.offset + HEADER * end.delimited

    def _held(self, start: int, length: int) -> bytes:
        window = self._window
        window.fill(start, length)
        return window.data[start - window.base : start - window.base + length]
