"""The objects of a trial, written byte by byte: without any patient, and with new UIDs."""

import struct
import uuid
from collections.abc import Iterator

PATIENT_ID = "DCM2BQ-TRY"

NOT_DICOM = b"dcm2bq try: this object is not DICOM, and must become a dead letter.\n"

_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PREAMBLE = bytes(128) + b"DICM"  # PS3.10 7.1
_LONG_VRS = frozenset({"OB", "SQ", "UT"})
"""VRs with a length of 32 bits, after two reserved bytes (PS3.5 7.1.2)."""
_ITEM = 0xFFFEE000
_CONTENT_SEQUENCE, _TEXT_VALUE = 0x0040A730, 0x0040A160
_ODD_NUMBER = 67.174118
"""A number whose shortest text BigQuery's PARSE_JSON refuses in its exact mode."""
_TEXT_BYTES = 60_000
"""Below bulkData.textMaxBytes, so that each text is kept in the row."""


def dicom_object(*, instance_number: int = 1, text_bytes: int = 0) -> bytes:
    """Return a DICOM file without pixel data, with about `text_bytes` bytes of text."""
    instance = _new_uid()
    meta = b"".join(
        (
            _element(0x00020001, "OB", b"\0\1"),
            _element(0x00020002, "UI", _SECONDARY_CAPTURE),
            _element(0x00020003, "UI", instance),
            _element(0x00020010, "UI", _EXPLICIT_LITTLE_ENDIAN),
            _element(0x00020012, "UI", "1.2.826.0.1.3680043.8.498.1"),
        )
    )
    data_set = (
        _element(0x00080005, "CS", "ISO_IR 192"),
        _element(0x00080016, "UI", _SECONDARY_CAPTURE),
        _element(0x00080018, "UI", instance),
        _element(0x00080020, "DA", "20260131"),
        _element(0x00080030, "TM", "101112"),
        _element(0x00080060, "CS", "OT"),
        _element(0x00080070, "LO", "dcm2bq"),
        _element(0x0008103E, "LO", "Trial: é, 日本"),
        _element(0x00100010, "PN", "DCM2BQ^TRY"),
        _element(0x00100020, "LO", PATIENT_ID),
        _element(0x00189073, "FD", struct.pack("<d", _ODD_NUMBER)),
        _element(0x0020000D, "UI", _new_uid()),
        _element(0x0020000E, "UI", _new_uid()),
        _element(0x00200013, "IS", str(instance_number)),
        *_content(text_bytes),
    )
    return b"".join((_PREAMBLE, _element(0x00020000, "UL", _long(len(meta))), meta, *data_set))


def _content(text_bytes: int) -> Iterator[bytes]:
    """Yield a sequence of items with text, or nothing if `text_bytes` is 0."""
    if not text_bytes:
        return
    text = _element(_TEXT_VALUE, "UT", "dcm2bq try " * (_TEXT_BYTES // 11))
    item = struct.pack("<HHL", _ITEM >> 16, _ITEM & 0xFFFF, len(text)) + text
    yield _element(_CONTENT_SEQUENCE, "SQ", item * (text_bytes // _TEXT_BYTES))


def _element(tag: int, vr: str, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    content += (b"\0" if vr == "UI" else b" ") * (len(content) % 2)  # PS3.5 6.2: even lengths
    group, number = tag >> 16, tag & 0xFFFF
    form = "<HH2sHL" if vr in _LONG_VRS else "<HH2sH"
    reserved = (0,) if vr in _LONG_VRS else ()
    return struct.pack(form, group, number, vr.encode(), *reserved, len(content)) + content


def _long(number: int) -> bytes:
    return struct.pack("<L", number)


def _new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"  # PS3.5 B.2
