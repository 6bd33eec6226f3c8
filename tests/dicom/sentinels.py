"""Objects with what identifies a patient in every place that rules by tag could miss."""

import base64
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

from tests.dicom.build import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    LONG,
    dicom,
    element,
    identity,
    item,
    meta,
    sequence,
)
from tests.support.privacy_options import OPTIONS, PROFILE_WITH_OPTIONS

SECRET = b"SENTINEL^NAME"
NAME = 0x00100010
PATIENT_ID = 0x00100020
STUDY = 0x0020000D
IMAGES = 0x00081140
"""Referenced Image Sequence: the profile keeps it, and the rules apply to its items."""
SHORT = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL"}
    | {"SS", "ST", "TM", "UI", "UL", "US"}
)
VRS = sorted(SHORT | LONG - {"SQ"})
KEPT = {
    0x00080008: "CS",  # Image Type
    0x00180050: "DS",  # Slice Thickness
    0x00181210: "SH",  # Convolution Kernel
    0x00281054: "LO",  # Rescale Type
    0x00281055: "LO",  # Window Center & Width Explanation
    0x00280010: "US",  # Rows
    0x00280034: "IS",  # Pixel Aspect Ratio
    0x00283006: "OW",  # LUT Data
    0x00420011: "OB",  # Encapsulated Document
    IMAGES: "SQ",
}
"""Tags that no rule selects, and their VRs."""
NUMBERS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
RULES: tuple[dict[str, Any], ...] = (
    {"profile": "basic"},
    {
        "remove": ["PatientName", "60xx3000", "private", "0000xxxx", "0002xx16", "0002xx17"],
        "hash": ["PatientID", "StudyInstanceUID", "PatientComments"],
    },
    PROFILE_WITH_OPTIONS | {"options": [*OPTIONS, "retainUids"]},
)


def payloads() -> dict[str, bytes]:
    """Return data sets with the name, in every encoding."""
    name = element(NAME, "PN", SECRET)
    bare = element(NAME, "", SECRET + b" ", implicit=True)
    big = element(NAME, "PN", SECRET + b" ", big=True)
    return {
        "items": item(name),
        "open items": item(name, defined=False),
        "implicit items": item(bare),
        "elements": name,
        "implicit elements": bare,
        "big endian elements": big,
        "a file": dicom(identity(), name),
        "items after text": b"TEXT " + item(name),
    }


def fits(tag: int, vr: str) -> bool:
    """Return whether a VR fits a tag whose values may be any bytes."""
    return KEPT[tag] in BYTES and vr in BYTES | NUMBERS


def kinds() -> Iterator[tuple[str, bytes]]:
    """Yield every kind of object, with a label."""
    for vr in VRS:
        for tag in (NAME, PATIENT_ID):
            yield f"{tag:08X} as {vr}", dicom(identity(), element(tag, vr, SECRET))
            yield f"{tag:08X} as {vr}, long", dicom(identity(), _long(tag, vr))
        yield f"private {vr}", dicom(identity(), *_private(vr, SECRET))
        nested = item(element(NAME, vr, SECRET))
        for _ in range(4):
            nested = item(sequence(IMAGES, nested))
        yield f"five levels, {vr}", dicom(identity(), sequence(IMAGES, nested))
        for tag in KEPT:
            for label, payload in payloads().items():
                if not fits(tag, vr):
                    content = dicom(identity(), element(tag, vr, payload))
                    yield f"{label} in {tag:08X} as {vr}", content
    yield from _others()


def _others() -> Iterator[tuple[str, bytes]]:
    name = element(NAME, "PN", SECRET)
    yield "twice", dicom(identity(), name, name)
    yield "out of order", dicom(name, identity(), element(NAME, "UT", SECRET))
    yield "undecodable", dicom(identity(), element(NAME, "PN", b"\xff" + SECRET))
    yield "emptied sequence", dicom(identity(), sequence(0x00101002, item(_long(NAME, "UT"))))
    yield "sequence", dicom(identity(), sequence(NAME, item(_long(0x00281055, "UT"))))
    yield "open sequence as UN", dicom(identity(), sequence(IMAGES, item(name), vr="UN"))
    open_un = sequence(IMAGES, item(element(NAME, "", SECRET, implicit=True), defined=False))
    yield "open items in UN", dicom(identity(), open_un.replace(b"SQ", b"UN", 1))
    for syntax in (IMPLICIT, BIG):
        implicit, big = syntax == IMPLICIT, syntax == BIG
        tail = element(NAME, "PN", SECRET + b" ", implicit=implicit, big=big)
        inside = sequence(IMAGES, item(tail, big=big), implicit=implicit, big=big)
        start = identity(implicit=implicit, big=big)
        yield f"syntax {syntax}", dicom(start, inside, tail, transfer_syntax=syntax)
    titles = b"".join(element(0x00020000 | n, "AE", SECRET) for n in (0x16, 0x17))
    yield "AE titles", b"\0" * 128 + b"DICM" + meta(EXPLICIT) + titles + identity() + name
    command = element(0x00000600, "", SECRET + b" ", implicit=True)
    command += element(0x00001030, "", SECRET + b" ", implicit=True)
    yield "command set", b"\0" * 128 + b"DICM" + meta(EXPLICIT) + command + identity()


def random_object(rng: random.Random) -> bytes:
    """Return an object with the name in several places."""
    payload = list(payloads().values())
    elements = []
    for _ in range(rng.randint(1, 4)):
        vr = rng.choice(VRS)
        tag = rng.choice(list(KEPT))
        choice = rng.randrange(4)
        if choice == 0:
            elements.append(element(rng.choice((NAME, PATIENT_ID)), vr, SECRET * rng.randint(1, 9)))
        elif choice == 1:
            elements += _private(vr, rng.choice(payload))
        elif not fits(tag, vr):
            elements.append(element(tag, vr, rng.choice(payload)))
    body = b"".join(elements)
    for _ in range(rng.randint(0, 5)):
        body = sequence(IMAGES, item(body, defined=rng.random() < 0.5))
    return dicom(identity(), body)


MARKS = {
    "name": b"SENTINEL^NAME",
    "uid": b"1.2.77.65432.1",
    "date": b"19871123",
    "unlisted date": b"19761209",
    "device": b"MACHINE-SENTRY",
    "institution": b"HOSPITAL-SENTRY",
    "patient": b"ETHNIC-SENTRY",
    "description": b"DESCRIBED-SENTRY",
}
"""What identifies somebody or something, by kind."""
KEPT_BY = {
    "uid": "retainUids",
    "date": "retainLongitudinalFullDates",
    "unlisted date": "retainLongitudinalFullDates",
    "device": "retainDeviceIdentity",
    "institution": "retainInstitutionIdentity",
    "patient": "retainPatientCharacteristics",
}
"""The options of the profile that keep a kind. Nothing keeps names, nor descriptions that are not
listed."""
_EVERY_OPTION = (*OPTIONS, "retainUids", "retainLongitudinalFullDates")
_DATE_OPTIONS = ["retainLongitudinalModifiedDates", "retainLongitudinalFullDates"]
_UNLISTED = {0x00100033: "LO", 0x00143076: "DA", 0x0014407A: "DT", 0x00189999: "DA"}
"""Dates that the table does not list, and an unknown tag."""
_PLACES = {
    "name": [
        NAME,
        PATIENT_ID,
        0x00080014,
        0x00101001,
        0x00104000,
        0x00080090,
        0x0040A123,
        0x00081070,
    ],
    "uid": [STUDY, 0x0020000E, 0x00081155, 0x00080018, 0x00200052, 0x0040A171],
    "date": [0x00080020, 0x00080021, 0x0008002A, 0x00100030, 0x0040A121, 0x0040A032, 0x00181012],
    "device": [0x00081010, 0x00181000, 0x00500020],
    "institution": [0x00080080, 0x00080081, 0x00081040],
    "patient": [0x00102160, 0x001021A0],
    "unlisted date": list(_UNLISTED),
    "description": [0x00081030, 0x0008103E, 0x00181030, 0x00204000, 0x00102110, 0x40080300],
}
"""Tags that have a row in Table E.1-1, which the options of a kind keep."""
_DATES = (b"%s", b"%s101112.5+0200", b"%s-%s", b"198711 %s", b"SENTINEL %s")
_SEQUENCES = [IMAGES, 0x0040A730, 0x0040A168, 0x00400555, 0x00189346, 0x00081084, 0x00080082]
"""Sequences that are kept, cleaned or removed."""


def profiles(rng: random.Random) -> dict[str, Any]:
    """Return privacy options: the Basic Profile with any options that may be combined."""
    options = {option for option in _EVERY_OPTION if rng.random() < 0.5}
    if options >= set(_DATE_OPTIONS):
        options.remove(rng.choice(_DATE_OPTIONS))
    listed = ["CT THORAX", "PatientWeight"] if "cleanDescriptors" in options else []
    return {"profile": "basic", "options": sorted(options), "keptDescriptors": listed}


def marked_object(rng: random.Random) -> bytes:
    """Return an object with marks of every kind, at several levels, in VRs that fit or do not."""
    body = b"".join(_marked(rng) for _ in range(6))
    for _ in range(rng.randint(0, 4)):
        inside = item(_value_type(rng), body, defined=rng.random() < 0.5)
        block = element(0x20010010, "LO", "Philips Imaging DD 001")
        nested = [
            sequence(rng.choice(_SEQUENCES), inside),
            block + sequence(0x2001105F, inside),  # Stack Sequence: listed as safe
            block + sequence(0x20011001, inside),
        ]
        body = rng.choice(nested) + _marked(rng)
    return dicom(identity(), body, element(PATIENT_ID, "LO", MARKS["name"]))


def _value_type(rng: random.Random) -> bytes:
    kind = rng.choice(["TEXT", "PNAME", "DATE", "DATETIME", "NUM", "CODE", "UIDREF", "OTHER"])
    return element(0x0040A040, "CS", kind)


def _marked(rng: random.Random) -> bytes:
    """Return elements with a mark."""
    kind = rng.choice(list(MARKS))
    mark = MARKS[kind]
    tag = rng.choice(_PLACES[kind])
    if tag in _UNLISTED:
        return element(tag, _UNLISTED[tag], mark)
    if kind == "date":
        dated = rng.choice(_DATES).replace(b"%s", mark)
        return element(tag, rng.choice(["DA", "DT", "LO", "UN", "UT"]), dated)
    name = MARKS["name"]
    private = 0x00190010
    others = [
        element(tag, rng.choice(VRS), mark),
        element(tag, "LO", mark) * 2,
        _long(tag, rng.choice(["UT", "UN", "LO"])),
        sequence(0x0040A730, item(_value_type(rng), element(0x0040A160, "UT", name))),
        element(0x60043000, "OW", name) + element(0x60044000, "LO", name),
        element(0x50020010, "LO", name),
        element(private, "LO", "ACME 1.0") + element(0x00191001, rng.choice(VRS), name),
        element(private, "LO", "SIEMENS MR HEADER")
        + element(private, "LO", name)
        + element(0x0019100C, rng.choice(["LO", "OB", "UN", "SH", "UT"]), name)
        + element(0x00191008, "LO", name)
        + element(0x00191123, "DS", name),
        element(0x00990010, "LO", "NQHeader") + element(0x00991002, "UI", MARKS["uid"]),
    ]
    return element(tag, "UI" if kind == "uid" else "LO", mark) + rng.choice(others)


def traces(text: str, mark: str = "SENTINEL") -> list[str]:
    """Return where JSON text reveals a mark: as text, in base64 or in numbers."""
    places = ["text"] if mark in text else []
    inline = re.findall(r'"InlineBinary":\s*"([^"]*)"', text)
    places += ["base64" for each in inline if mark.encode() in base64.b64decode(each)]
    for numbers in re.findall(r"\[([-0-9., ]+)\]", text):
        values = [float(part) for part in numbers.split(",")]
        for code in "BbHhLlQqfd":
            try:
                packed = struct.pack(
                    f"<{len(values)}{code}", *(v if code in "fd" else int(v) for v in values)
                )
            except (struct.error, OverflowError):
                continue
            if mark.encode() in packed:
                places.append("numbers")
    return places


def _long(tag: int, vr: str) -> bytes:
    value = SECRET * (5000 if vr in LONG or vr == "UT" else 4000)
    return element(tag, vr, value[: 0xFFF0 if vr not in LONG else 80_000])


def _private(vr: str, value: bytes) -> list[bytes]:
    return [element(0x00090010, "LO", "ACME 1.0"), element(0x00091001, vr, value)]
