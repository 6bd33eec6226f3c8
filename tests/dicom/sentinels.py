"""Objects with a patient's name in every place that rules by tag could miss."""

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


def traces(text: str) -> list[str]:
    """Return where JSON text reveals the name: as text, in base64 or in numbers."""
    places = ["text"] if "SENTINEL" in text else []
    inline = re.findall(r'"InlineBinary":\s*"([^"]*)"', text)
    places += ["base64" for each in inline if b"SENTINEL" in base64.b64decode(each)]
    for numbers in re.findall(r"\[([-0-9., ]+)\]", text):
        values = [float(part) for part in numbers.split(",")]
        for code in "BbHhLlQqfd":
            try:
                packed = struct.pack(
                    f"<{len(values)}{code}", *(v if code in "fd" else int(v) for v in values)
                )
            except (struct.error, OverflowError):
                continue
            if b"SENTINEL" in packed:
                places.append("numbers")
    return places


def _long(tag: int, vr: str) -> bytes:
    value = SECRET * (5000 if vr in LONG or vr == "UT" else 4000)
    return element(tag, vr, value[: 0xFFF0 if vr not in LONG else 80_000])


def _private(vr: str, value: bytes) -> list[bytes]:
    return [element(0x00090010, "LO", "ACME 1.0"), element(0x00091001, vr, value)]
