"""Keep the descriptions that a list allows: `cleanDescriptors` (PS3.15 E.3.5)."""

import re
from collections.abc import Iterable

from dcm2bq.dicom.charset import Charset
from dcm2bq.dicom.dictionary import public_vr, tags_by_keyword
from dcm2bq.dicom.elements import Element
from dcm2bq.dicom.values import DECODERS, TEXT_VRS, BadValueError

_TAG = re.compile("[0-9A-Fa-f]{8}")


class Descriptors:
    """The list of `privacy.keptDescriptors`.

    An entry that is a keyword or a tag keeps an attribute whatever its value. Any other entry is a
    value, which is kept in every attribute of the column Clean Desc. of Table E.1-1. Neither case
    nor the number of blanks counts.

    >>> listed = Descriptors(["ProtocolName", "CT Thorax"])
    >>> listed.keeps_attribute(0x00181030), listed.keeps_text(" CT  THORAX "), listed.keeps_text("")
    (True, True, False)
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._tags = set()
        self._texts = set()
        for entry in entries:
            tag = int(entry, 16) if _TAG.fullmatch(entry) else tags_by_keyword().get(entry)
            if tag is None:
                self._texts.add(_normalized(entry))
            else:
                self._tags.add(tag)

    def keeps_attribute(self, tag: int) -> bool:
        """Return whether an attribute is kept whatever its value."""
        return tag in self._tags

    def keeps_text(self, text: str) -> bool:
        """Return whether a value is in the list."""
        return _normalized(text) in self._texts

    def keeps(self, element: Element, charset: Charset) -> bool:
        """Return whether an element is kept: by its tag, or because all its values are listed.

        A sequence is only kept by its tag. Its items are then subject to the other rules.
        """
        if self.keeps_attribute(element.tag):
            return True
        if element.vr not in TEXT_VRS or not isinstance(element.value, bytes):
            return False
        if not element.value:
            return False
        try:
            values = DECODERS[public_vr(element.tag)](element.value, charset)
        except (BadValueError, KeyError):  # a broken text, or the VR of a sequence
            return False
        texts = [str(value) for value in values if value is not None]
        return bool(texts) and all(map(self.keeps_text, texts))


def _normalized(text: str) -> str:
    return " ".join(text.split()).casefold()
