"""Shift dates and cap ages: `retainLongitudinalModifiedDates` (PS3.15 E.3.6).

All dates of a patient are shifted by one number of days, which a keyed hash of the patient's
identity gives. The intervals between them survive, whichever process converts which object when;
nobody without the key can tell the number. Times and offsets from UTC are not changed.

A shifted date whose original is public would give the number away, and with it every date of the
patient. So the dates that several patients share, such as that of a calibration, are not shifted
but treated as by the Basic Profile, and those that systems write for want of one are emptied.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial

from dcm2bq.dicom.charset import DEFAULT_CHARSET, Charset, parse_charset
from dcm2bq.dicom.dictionary import is_private, public_vr
from dcm2bq.dicom.elements import SPECIFIC_CHARACTER_SET, Element, Item, find, made
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.values import DECODERS, TEXT_VRS, BadValueError

_PATIENT_ID = 0x00100020
_ISSUER_OF_PATIENT_ID = 0x00100021
_STUDY_INSTANCE_UID = 0x0020000D
_TIMEZONE_OFFSET = 0x00080201

_OF_A_PATIENT = b"dcm2bq\0days of a patient\0"
_OF_A_STUDY = b"dcm2bq\0days of a study\0"
"""What the messages of the hash begin with. No value of a header contains a NUL, so no pseudonym
is the hash of such a message; nor is the digest of the key, whose message begins otherwise."""

_SHARED = frozenset(
    {
        0x00080106,  # Context Group Version: published in PS3.16
        0x00080107,  # Context Group Local Version
        0x0040DB06,  # Template Version: published in PS3.16
        0x0040DB07,  # Template Local Version
        0x00120086,  # Ethics Committee Approval Effectiveness Start Date: the same for a trial
        0x00120087,  # Ethics Committee Approval Effectiveness End Date
        0x00143076,  # Date of Gain Calibration
        0x0014407E,  # Calibration Date
        0x00181200,  # Date of Last Calibration
        0x00181202,  # DateTime of Last Calibration
        0x00181203,  # Calibration DateTime
        0x00181204,  # Date of Manufacture
        0x00181205,  # Date of Installation
        0x0018700C,  # Date of Last Detector Calibration
        0x300A022C,  # Source Strength Reference Date: a source treats several patients
        0x0044000B,  # Product Expiration DateTime
        0x00686226,  # Effective DateTime: of an implant's template
        0x00686270,  # Information Issue DateTime: of an implant's template
        0x0072000A,  # Hanging Protocol Creation DateTime
    }
)
"""Attributes whose dates several patients share."""
DATES_IN_TEXT = frozenset({0x00100033, 0x00100034})
"""Dates of birth and death in another calendar, which are text. Table E.1-1 does not list them."""

_FIRST, _LAST = date(1900, 1, 2), date(2199, 12, 31)
"""Between them are the dates of real objects, and of films that were digitised: earlier and later
ones stand for no date or for an endless time, such as 1900-01-01 and 9999-12-31."""
_PLACEHOLDERS = frozenset({date(1970, 1, 1), date(1980, 1, 1), date(2000, 1, 1)})
"""Where the clocks of computers begin. A scanner without a battery writes one of them."""

_DAY = r"\d{4}(?:\d{4}|\.\d\d\.\d\d)"
"""YYYYMMDD, or YYYY.MM.DD as before DICOM 3.0 (PS3.5 6.2)."""
_TIME = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_OFFSET = r"[+-][01]\d[0-5]\d"
_COLON_TIME = r"\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?"
"""HH:MM:SS.FFFFFF, as before DICOM 3.0 (PS3.5 6.2)."""
_ONE = {
    "DA": _DAY,
    "DT": rf"\d{{8}}(?:{_TIME})?(?:{_OFFSET})?",
    "TM": rf"(?:{_TIME}|{_COLON_TIME})",
}
_SINGLE = {vr: re.compile(one, re.ASCII) for vr, one in _ONE.items()}
_RANGE = {vr: re.compile(rf"(?=.*\d)({one})?-({one})?", re.ASCII) for vr, one in _ONE.items()}
"""Two dates or times of a query, of which one may be missing (PS3.4 C.2.2.2.5)."""
_KINDS = {"DA": "a date", "DT": "a date and time", "TM": "a time"}
_COARSE = re.compile(rf"\d{{4}}(?:0[1-9]|1[0-2])?(?:{_OFFSET})?", re.ASCII)
"""A DT to the year or to the month."""
_UTC_OFFSET = re.compile(_OFFSET, re.ASCII)
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
"""Three digits and a unit (PS3.5 6.2); scanners leave out leading zeros."""

_HIGHEST_AGE = 89
OLDEST = 90
"""In years: all ages above 89 become this one, as the US rules for de-identified data demand."""


def days_back(
    data_set: Item, key: bytes, most: int, notes: Notes, charset: Charset = DEFAULT_CHARSET
) -> int | None:
    """Return by how many days the dates of an object are shifted into the past: 1 to `most`.

    The data set, which must be sorted by tag, must not have been changed by other rules. The
    number is the same for all objects with its Patient ID and Issuer of Patient ID, or, without
    a Patient ID, with its Study Instance UID. Without either it is None, with a warning.
    """
    declared = find(data_set, SPECIFIC_CHARACTER_SET)
    if declared and isinstance(declared.value, bytes):
        charset, _ = parse_charset(declared.value)
    if patient := _text(data_set, _PATIENT_ID, charset):
        issuer = _text(data_set, _ISSUER_OF_PATIENT_ID, charset)
        message = _OF_A_PATIENT + patient.encode() + b"\0" + issuer.encode()
    elif study := _text(data_set, _STUDY_INSTANCE_UID, charset):
        message = _OF_A_STUDY + study.replace(" ", "").encode()
    else:
        notes.add("dates are emptied: there is no Patient ID and no Study Instance UID")
        return None
    digest = hmac.digest(key, message, hashlib.sha256)
    return int.from_bytes(digest) % most + 1  # of 2^256 numbers: all days are equally likely


def _text(data_set: Item, tag: int, charset: Charset) -> str:
    """Return the text of an element without blanks around its values; "" if there is none.

    It is decoded by the VR of the dictionary, as for a pseudonym.
    """
    element = find(data_set, tag)
    if element is None or element.vr not in TEXT_VRS or not isinstance(element.value, bytes):
        return ""
    if not element.value:
        return ""
    try:
        values = DECODERS[public_vr(tag)](element.value, charset)
    except BadValueError as bad:
        values = bad.values or []
    return "\\".join((text or "").strip() for text in values).strip("\\")


def can_be_modified(tag: int) -> bool:
    """Return whether an attribute that Table E.1-1 marks C for modified dates is kept, modified.

    All others, which several patients share or which are bytes, are treated as by the profile.
    """
    return tag not in _SHARED and (public_vr(tag) in _ONE or tag == _TIMEZONE_OFFSET)


def temporal_vr(tag: int, vr: str) -> str | None:
    """Return DA, DT or TM if an element is a date or a time by its tag or its VR, else None.

    The dictionary's VR decides, so that a date that is written as text is one, too.
    """
    known = "UN" if is_private(tag) else public_vr(tag)
    if known in _ONE:
        return known
    return vr if vr in _ONE else None


def modified(element: Element, item: Item, days: int | None, notes: Notes) -> Element:
    """Return an element with its dates shifted and its times unchanged; None as `days` empties.

    A date or time that cannot be read is emptied, with a warning that names the tag. So is a date
    of the year or the month: shifted by days, it would no longer be one. The item must be sorted.
    """
    vr = temporal_vr(element.tag, element.vr)
    if element.value == b"":
        return element
    if days is None and vr != "TM":
        return made(element.tag, vr or public_vr(element.tag), b"")
    if vr is None:
        vr = public_vr(element.tag)
        return _mapped(element, item, notes, vr=vr, change=_offset, kind="an offset from UTC")
    if vr == "TM":
        return checked(element, item, notes, vr)
    shift = partial(shifted, vr, days=days or 0)
    return _mapped(element, item, notes, vr=vr, change=shift, kind="a date that can be shifted")


def checked(element: Element, item: Item, notes: Notes, vr: str) -> Element:
    """Return an element whose values are dates or times of a VR: DA, DT or TM.

    Other values are emptied, with a warning. The item must be sorted.
    """
    if element.value == b"":
        return element
    return _mapped(element, item, notes, vr=vr, change=partial(_formatted, vr), kind=_KINDS[vr])


def capped(element: Element, item: Item, notes: Notes) -> Element:
    """Return an element of VR AS with ages above 89 years as 90 years.

    Months, weeks and days of three digits are less. What is not an age is emptied, with a
    warning. The item must be sorted.
    """
    if element.value == b"":
        return element
    return _mapped(element, item, notes, vr="AS", change=_age, kind="an age")


def _mapped(
    element: Element,
    item: Item,
    notes: Notes,
    *,
    vr: str,
    change: Callable[[str], str | None],
    kind: str,
) -> Element:
    """Return an element with each of its values changed; values without a change are emptied."""
    value = element.value if isinstance(element.value, bytes) else b"?"
    values = [text.strip(" \0") for text in str(value, "latin_1").split("\\")]
    texts = [text and change(text) for text in values]
    if None in texts:
        notes.about(element, item, f"emptied: not {kind}", vr=element.vr)
    return made(element.tag, vr, "\\".join(text or "" for text in texts).encode())


def _formatted(vr: str, text: str) -> str | None:
    return text if is_temporal(vr, text) or _RANGE[vr].fullmatch(text) else None


def _offset(text: str) -> str | None:
    return text if _UTC_OFFSET.fullmatch(text) else None


def _age(text: str) -> str | None:
    """Return an age of at most 90 years; None if the text is not an age.

    >>> _age("089Y"), _age("093Y"), _age("9M"), _age("old")
    ('089Y', '090Y', '9M', None)
    """
    if not (match := _AGE.fullmatch(text)):
        return None
    number, unit = match.groups()
    return f"{OLDEST:03}Y" if unit == "Y" and int(number) > _HIGHEST_AGE else text


def is_temporal(vr: str, text: str) -> bool:
    """Return whether a text is in the form of a date or time of a VR.

    >>> is_temporal("DT", "202402"), is_temporal("TM", "10:15:30"), is_temporal("DA", "1 May")
    (True, True, False)
    """
    return bool(_SINGLE[vr].fullmatch(text) or (vr == "DT" and _COARSE.fullmatch(text)))


def shifted(vr: str, text: str, days: int) -> str | None:
    """Return one value of DA or DT that many days earlier; None if it cannot be shifted.

    Both dates of a range are shifted. What follows the day, a time and an offset, is unchanged.

    >>> shifted("DA", "20240301", 1), shifted("DT", "20240101001500.5-0500", 365)
    ('20240229', '20230101001500.5-0500')
    >>> shifted("DA", "1994.03.01-1994.03.31", 1), shifted("DT", "202403", 1)
    ('1994.02.28-1994.03.30', None)
    """
    if _SINGLE[vr].fullmatch(text):
        return _earlier(text, days)
    if not (match := _RANGE[vr].fullmatch(text)):
        return None
    ends = [_earlier(end, days) if end else "" for end in match.groups()]
    return None if None in ends else "-".join(end or "" for end in ends)


def _earlier(text: str, days: int) -> str | None:
    """Return a text that begins with a day, that many days earlier; None if it is no real one."""
    has_dots = text[4] == "."
    length = len("YYYY.MM.DD" if has_dots else "YYYYMMDD")
    try:
        day = date.fromisoformat(text[:length].replace(".", ""))
    except ValueError:
        return None
    if not _FIRST <= day <= _LAST or day in _PLACEHOLDERS:
        return None
    day -= timedelta(days)
    return f"{day:%Y.%m.%d}{text[length:]}" if has_dots else f"{day:%Y%m%d}{text[length:]}"
