"""The attributes that become columns: lifted from the data set, whatever its JSON omits."""

import re
from datetime import date

from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.source import NO_DEADLINE, Deadline
from dcm2bq.dicom.tree import SPECIFIC_CHARACTER_SET, UNKNOWN, Element, Item, find
from dcm2bq.dicom.values import DECODERS, NUMBER_VRS, BadValueError, has_controls

_TAGS = {
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SOPInstanceUID": 0x00080018,
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "PatientID": 0x00100020,
    "StudyDate": 0x00080020,
}
_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})", re.ASCII)
"""YYYYMMDD, or YYYY.MM.DD as before DICOM 3.0 (PS3.5 6.2)."""


def lift(data_set: Item, notes: Notes, deadline: Deadline = NO_DEADLINE) -> dict[str, str | None]:
    """Return keyword to value; what can not be a column's is None, with a note.

    The elements are in the order of their tags.
    """
    declared = find(data_set, SPECIFIC_CHARACTER_SET)
    charset = DEFAULT_CHARSET
    if declared and isinstance(declared[4], bytes):
        charset, _ = parse_charset(declared[4])
    deadline.check()
    attributes = {
        keyword: _text(find(data_set, tag), charset, notes) for keyword, tag in _TAGS.items()
    }
    if attributes["StudyDate"] is not None:
        attributes["StudyDate"] = _iso_date(attributes["StudyDate"])
        if attributes["StudyDate"] is None:
            notes.add("not a date that a column can hold", tag=_TAGS["StudyDate"])
    return attributes


def _text(element: Element | None, charset: Charset, notes: Notes) -> str | None:
    if element is None:
        return None
    tag, vr, offset, _, value = element
    decode = DECODERS.get(vr.removeprefix(UNKNOWN))
    if value == b"":
        return None
    if decode is None or not isinstance(value, bytes):
        notes.add("not lifted into its column", tag=tag, vr=vr, offset=offset)
        return None
    try:
        values = decode(value, charset)
    except BadValueError as bad:
        # As in the metadata: what breaks UN or numbers is a reference there, not text.
        refused = vr.startswith(UNKNOWN) or vr in NUMBER_VRS or has_controls(value)
        if refused or bad.values is None:
            notes.add("not lifted into its column", tag=tag, vr=vr, offset=offset)
            return None
        values = bad.values
    if len(values) > 1:
        notes.add(f"the first of {len(values)} values is lifted", tag=tag, vr=vr, offset=offset)
    return None if values[0] is None else str(values[0]).strip(" ") or None


def _iso_date(text: str) -> str | None:
    match = _DATE.fullmatch(text)
    if not match:
        return None
    year, _, month, day = match.groups()
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None
