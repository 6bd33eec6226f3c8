"""Read runs of ordinary elements fast: short values of known VR that the window holds.

Most of all elements are such. These loops only save time; the reader would read the same
elements in the same way. They are for little endian elements.
"""

from dcm2bq.dicom.dictionary import PUBLIC_VR
from dcm2bq.dicom.elements import Element
from dcm2bq.dicom.read.open_items import OpenItem, Run, RunEnd
from dcm2bq.dicom.read.source import Window
from dcm2bq.dicom.syntax import (
    BINARY_VRS,
    DELIMITER_GROUP,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    ITEM_END,
    LONG_HEADER,
    SHORT_VRS,
    Syntax,
)

RUN = 32 * 1024
"""The most bytes of a run: a window of megabytes holds more elements than one step may cost."""

_SQ = "SQ"
_SQ_CODE = b"SQ"
_IMPLICIT_VRS = {tag: vr for tag, vr in PUBLIC_VR.items() if tag and vr not in BINARY_VRS}
_explicit_header = EXPLICIT_LITTLE.explicit.unpack_from
_implicit_header = IMPLICIT_LITTLE.tag_and_length.unpack_from
_long_length = EXPLICIT_LITTLE.long.unpack_from


def run_of(syntax: Syntax) -> Run | None:
    """Return the loop for an encoding, None if there is none."""
    if not syntax.little:
        return None
    return _implicit_run if syntax.implicit else _explicit_run


def _explicit_run(item: OpenItem, window: Window, position: int, most: int) -> RunEnd:
    data, base = window.data, window.base
    append, vr_of = item.elements.append, SHORT_VRS.get
    at = position - base
    horizon = min(item.limit, window.end, position + RUN) - base
    last = horizon - HEADER
    while 0 <= at <= last:
        group, number, code, length = _explicit_header(data, at)
        vr = vr_of(code)
        start = at + HEADER
        end = start + length
        if vr is None or end > horizon or length > most or group == DELIMITER_GROUP:
            tag = group << 16 | number
            if code == _SQ_CODE and at + LONG_HEADER <= horizon and group != DELIMITER_GROUP:
                return at + base, tag, at + base + LONG_HEADER, _long_length(data, at + 8)[0]
            return at + base, tag if tag == ITEM_END else 0, 0, 0
        append(Element(group << 16 | number, vr, start + base, length, data[start:end], vr))
        at = end
    return at + base, 0, 0, 0


def _implicit_run(item: OpenItem, window: Window, position: int, most: int) -> RunEnd:
    data, base = window.data, window.base
    append, vr_of = item.elements.append, _IMPLICIT_VRS.get
    at = position - base
    horizon = min(item.limit, window.end, position + RUN) - base
    last = horizon - HEADER
    while 0 <= at <= last:
        group, number, length = _implicit_header(data, at)
        tag = group << 16 | number
        vr = vr_of(tag)
        start = at + HEADER
        end = start + length
        if vr is None or end > horizon or length > most or vr == _SQ:
            if vr == _SQ:
                return at + base, tag, start + base, length
            return at + base, tag if tag == ITEM_END else 0, 0, 0
        append(Element(tag, vr, start + base, length, data[start:end], vr))
        at = end
    return at + base, 0, 0, 0
