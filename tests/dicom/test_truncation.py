"""Objects cut at every byte: refused, or converted with a warning, never silently shortened."""

import zlib
from io import BytesIO

import pytest
from pydicom.data import get_testdata_file

from dcm2bq.dicom import convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom.build import (
    DEFLATED,
    JPEG,
    dicom,
    element,
    header,
    identity,
    item,
    meta,
    sequence,
)

CODE = item(element(0x00080100, "SH", "X"), element(0x00080102, "SH", "Y"))
SEQUENCES = dicom(
    identity(),
    sequence(0x00081140, CODE, CODE),
    sequence(
        0x00081115, item(sequence(0x00081140, CODE, defined=False), defined=False), defined=False
    ),
    sequence(0x00091001, item(element(0x00080100, "", "X", implicit=True)), vr="UN", defined=False),
    element(0x00100020, "LO", "LAST"),
)
ENCAPSULATED = dicom(
    identity(),
    element(0x00280010, "US", b"\1\0"),
    sequence(
        0x7FE00010,
        item(b"\0\0\0\0"),
        item(b"\x11" * 50),
        item(b"\x22" * 50),
        vr="OB",
        defined=False,
    ),
    element(0x7FE10010, "LO", "AFTER"),
    sequence(0xFFFAFFFA, CODE, defined=False),
    transfer_syntax=JPEG,
)


def boundaries(content: bytes) -> set[int]:
    """Return the offsets between two elements of the top level, found without the product."""
    position, offsets = 132, set()
    while position < len(content):
        offsets.add(position)
        vr = content[position + 4 : position + 6].decode()
        if vr in {"OB", "OW", "SQ", "UN", "UT"}:
            length, start = int.from_bytes(content[position + 8 : position + 12], "little"), 12
        else:
            length, start = int.from_bytes(content[position + 6 : position + 8], "little"), 8
        if length == 0xFFFFFFFF:
            length = end_of_undefined(content, position + start) - position - start
        position += start + length
    assert position == len(content)
    return offsets


def end_of_undefined(content: bytes, position: int) -> int:
    """Return the offset after the delimiter of a value of undefined length."""
    depth = 1
    while depth:
        tag = content[position : position + 4]
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        if tag == b"\xfe\xff\xdd\xe0":
            depth -= 1
            position += 8
        elif tag == b"\xfe\xff\x00\xe0":
            position += 8 + (length if length != 0xFFFFFFFF else 0)
        elif tag == b"\xfe\xff\x0d\xe0":
            position += 8
        elif length == 0xFFFFFFFF or content[position + 8 : position + 12] == b"\xff" * 4:
            depth += 1
            position += 12
        elif content[position + 4 : position + 6].isalpha():
            position += 8 + int.from_bytes(content[position + 6 : position + 8], "little")
        else:
            position += 8 + length
    return position


def verdict(content: bytes) -> str:
    """Return how a conversion ends: refused, warned, or passed without a warning."""
    try:
        conversion = convert(BytesIO(content))
    except (NotDicomError, UnreadableDicomError):
        return "refused"
    return "warned" if conversion.warnings else "passed"


@pytest.mark.parametrize("content", [SEQUENCES, ENCAPSULATED], ids=["sequences", "encapsulated"])
def test_only_a_cut_between_two_elements_can_pass(content: bytes) -> None:
    """But not in an image, between Rows and the pixel data."""
    assert verdict(content) == "passed"
    between = boundaries(content)
    passed = {cut for cut in range(len(content)) if verdict(content[:cut]) == "passed"}
    assert passed <= between
    data_set = content.index(identity())
    rows = content.find(b"\x28\0\x10\0")
    pixels = content.find(b"\xe0\x7f\x10\0")
    expected = {cut for cut in between if cut > data_set and not rows < cut <= pixels}
    assert passed == expected


def test_ct_small_cut_at_every_byte() -> None:
    """At every byte of its header, and at every 997th of its pixels."""
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    with open(path, "rb") as stream:  # noqa: PTH123
        content = stream.read()
    between = boundaries(content)
    pixels = content.rindex(b"\xe0\x7f\x10\x00OW")
    padding = content.rindex(b"\xfc\xff\xfc\xffOB")
    cuts = [*range(pixels + 40), *range(pixels + 40, padding, 997), *range(padding, len(content))]
    for cut in cuts:
        outcome = verdict(content[:cut])
        if cut not in between:
            assert outcome in {"refused", "warned"}, cut
        elif cut > pixels:
            assert outcome == "passed", cut


def test_a_deflated_file_cut_at_every_byte() -> None:
    """A deflate stream shows that it is cut."""
    data_set = SEQUENCES[132 + len(meta()) :]
    deflater = zlib.compressobj(wbits=-15)
    content = b"\0" * 128 + b"DICM" + meta(DEFLATED)
    content += deflater.compress(data_set) + deflater.flush()
    assert verdict(content) == "passed"
    assert {verdict(content[:cut]) for cut in range(len(content))} <= {"refused", "warned"}


def test_a_cut_inside_the_pixel_data_is_reported_with_both_lengths() -> None:
    """The object is converted."""
    content = dicom(identity(), header(0x7FE00010, "OW", 100), b"\1" * 100)
    for missing in range(1, 100):
        conversion = convert(BytesIO(content[:-missing]))
        assert any(f"{100 - missing} of 100 bytes" in line for line in conversion.warnings)
