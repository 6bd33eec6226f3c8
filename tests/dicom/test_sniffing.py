"""DICOM is told from other content by the first bytes, whatever the name of the object."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from dcm2bq.dicom import Conversion, UnlikeDicomError, convert, looks_like_dicom
from dcm2bq.dicom.read.source import FIRST_READ
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom.build import (
    SOP_CLASS,
    SOP_INSTANCE,
    CountingSource,
    dicom,
    element,
    header,
    identity,
    meta,
)
from tests.dicom.test_pydicom_files import FILES, path_id

PATIENT = element(0x00100020, "LO", "ID")
PLAIN = dicom(identity(), PATIENT)
CHARSET = element(0x00080005, "CS", "ISO_IR 100")
COMMAND = element(0, "UL", b"\4\0\0\0", implicit=True) + element(2, "UI", SOP_CLASS, implicit=True)


def archived(content: bytes, kind: str) -> bytes:
    """Return an archive that stores a file unchanged."""
    stream = BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as zipped:
            zipped.writestr("scan.dcm", content)
    else:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            member = tarfile.TarInfo("scan.dcm")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return stream.getvalue()


DICOM = {
    "a file": PLAIN,
    "no preamble": PLAIN[132:],
    "a data set": identity() + PATIENT,
    "a data set with a character set": CHARSET + identity() + PATIENT,
    "an implicit data set": identity(implicit=True),
    "a big endian data set": identity(big=True) + element(0x00100020, "LO", "ID", big=True),
    "implicit File Meta Information": element(0x00020002, "UI", SOP_CLASS, implicit=True)
    + identity(implicit=True),
    "an instance without class": element(0x00080018, "UI", SOP_INSTANCE) + PATIENT,
    "a command set before a data set": COMMAND + identity(implicit=True),
    "no transfer syntax": bytes(128) + b"DICM" + identity() + PATIENT,
    "a deflated data set": meta("1.2.840.10008.1.2.1.99")
    + zlib.compress(identity() + PATIENT, wbits=-15),
    "a late identity": CHARSET + element(0x00080006, "OB", bytes(FIRST_READ - 200)) + identity(),
}
OTHER = {
    "nothing": b"",
    "one byte": b"\x08",
    "text": b"CT of the thorax, saved as DICM." * 40,
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type /Catalog>>\nendobj\n",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(500),
    "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + PLAIN[132:],
    "NULs": bytes(5000),
    "gzip": gzip.compress(PLAIN),
    "ZIP": archived(PLAIN, "zip"),
    "TAR": archived(PLAIN, "tar"),
    "TAR of a data set": archived(PLAIN[132:], "tar"),
    "a UID in text": b"SOPInstanceUID: 1.2.840.10008.5.1.4.1.1.7\n" * 5,
    "DICM elsewhere": bytes(127) + b"DICM" + bytes(100),
    "an element that identifies nothing": CHARSET + PATIENT,
    "a UID that is none": element(0x00080018, "UI", "none at all") + PATIENT,
}
BROKEN = {
    "a forged preamble": bytes(128) + b"DICM" + b"\xffjunk" * 100,
    "the prefix alone": bytes(128) + b"DICM",
    "a cut file": PLAIN[:-3],
    "a cut data set": identity() + header(0x00100020, "LO", 60),
}
"""Begins like DICOM, and is not readable: lost data, which must not be passed over."""


def sniffed(content: bytes) -> Conversion:
    return convert(content, sniff=True)


@pytest.mark.parametrize("content", DICOM.values(), ids=DICOM)
def test_what_looks_like_dicom_is_converted_as_usual(content: bytes) -> None:
    assert looks_like_dicom(content[:FIRST_READ])
    assert sniffed(content).text == convert(content).text


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_other_content_is_told_by_its_first_bytes(content: bytes) -> None:
    assert not looks_like_dicom(content)
    with pytest.raises(UnlikeDicomError, match=r"^the first bytes do not look like DICOM$"):
        sniffed(content)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_dicom_fails_as_it_does_under_a_name_of_dicom(content: bytes) -> None:
    with pytest.raises((NotDicomError, UnreadableDicomError)) as usual:
        convert(content)
    with pytest.raises(type(usual.value)) as caught:
        sniffed(content)
    assert (type(caught.value), str(caught.value)) == (type(usual.value), str(usual.value))


@pytest.mark.parametrize("file", FILES, ids=path_id)
def test_every_real_file_is_told_with_and_without_its_preamble(file: Path) -> None:
    content = file.read_bytes()
    for part in (content, content[132:]):
        try:
            usual = convert(part)
        except (NotDicomError, UnreadableDicomError):
            continue
        assert looks_like_dicom(part[:FIRST_READ])
        assert sniffed(part).text == usual.text


def test_sniffing_needs_no_read_of_its_own() -> None:
    pixels = header(0x7FE00010, "OW", 5 << 20)
    reads = []
    for sniff in (False, True):
        source = CountingSource(PLAIN + pixels, gap=5 << 20)
        convert(source, sniff=sniff)
        reads.append(source.reads)
    assert reads[0] == reads[1]


def test_other_content_costs_one_read() -> None:
    source = CountingSource(b"%PDF-1.7\n", gap=1 << 30)
    with pytest.raises(UnlikeDicomError):
        convert(source, sniff=True)
    assert source.reads == [(0, FIRST_READ)]


def test_a_long_look_alike_is_told_in_time_that_grows_with_its_length_alone() -> None:
    """Half of a match at every offset of the first read."""
    head = struct.pack("<HH", 8, 0) + b"\x08\0\x16\0UI" * (FIRST_READ // 6)
    assert not looks_like_dicom(head[:FIRST_READ])
