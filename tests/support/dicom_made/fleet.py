"""A fleet of scanners with a software upgrade and a changed parameter, and private elements."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset

from tests.support.dicom_made.part10 import content, header
from tests.support.dicom_made.scanners import image
from tests.support.dicom_made.series import CT, MR

ABDOMEN = {
    "ManufacturerModelName": "Fleet CT",
    "ProtocolName": "Abdomen",
    "SliceThickness": 2,
    "KVP": 120,
    "ConvolutionKernel": "B30f",
    "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],  # of no interest to series_geometry
}
_UPGRADE = {"SoftwareVersions": ["VB20", "patch 1"]}
_SERIES: tuple[dict[str, Any], ...] = (
    {"StudyDate": "20240110"},
    {"StudyDate": "20240120"},
    {"StudyDate": "20240210", **_UPGRADE},
    {"StudyDate": "20240220", **_UPGRADE, "SliceThickness": 5},
    {"StudyDate": "20240301", **_UPGRADE, "KVP": 119.99999999999},
    {"StudyDate": "20240115", "DeviceSerialNumber": "F2", "StationName": None},
    {"StudyDate": None, "DeviceSerialNumber": "F2", "ConvolutionKernel": "B70f"},
    {"StudyDate": "20240401", "ProtocolName": "Equally often", "KVP": 80},
    {"StudyDate": "20240402", "ProtocolName": "Equally often", "KVP": 100},
    {"StudyDate": "20240403", "ProtocolName": None},
    {"StudyDate": "20240404", "ProtocolName": "Reference", "SliceThickness": 1.25},
    {"StudyDate": "20240405", "ProtocolName": "Reference", "SliceThickness": 1.5},
)
"""What each series has that the usual one of its protocol does not have."""


def _scans() -> Iterator[tuple[str, Dataset]]:
    for number, changes in enumerate(_SERIES):
        usual = {**ABDOMEN, "DeviceSerialNumber": "F1", "SoftwareVersions": "VA10"}
        for instance in range(2):
            made = image(f"fleet {number}", instance, CT, "CT", **{**usual, **changes})
            yield f"scans/{number}/{instance}.dcm", made
        if number == 0:
            yield f"scans/{number}/copy.dcm", made
    nameless: dict[str, Any] = dict.fromkeys(
        ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber")
    )
    nameless["SoftwareVersions"] = None
    yield "scans/nameless.dcm", image("nameless", 0, CT, "CT", **nameless)


def _private(number: int, *elements: tuple[int, str, Any], **attributes: Any) -> Dataset:
    made = image(f"private {number}", 0, MR, "MR", **{**_UPGRADE, **attributes})
    for tag, vr, value in elements:
        made.add_new(tag, vr, value)
    return made


def _with_private_elements() -> Sequence[Dataset]:
    nested = header()
    nested.add_new(0x00190010, "LO", "ACME NESTED")
    nested.add_new(0x00191001, "LO", "nested")
    return (
        _private(0, (0x00190010, "LO", "ACME 1.0"), (0x00191001, "LO", "in block 10")),
        _private(
            1,
            (0x00190010, "LO", "OTHER"),
            (0x00190011, "LO", "ACME 1.0"),
            (0x00191001, "LO", "another creator's"),
            (0x00191101, "LO", "in block 11"),
            (0x0019110A, "DS", ["1.5", "2.5"]),
            (0x0019110B, "LO", ""),
        ),
        _private(
            2,
            (0x001900AF, "LO", "ACME 1.0"),
            (0x0019AF01, "US", 7),
            (0x00210010, "LO", "ACME 1.0"),
            (0x00211001, "LO", "in group 0021"),
            (0x00251001, "LO", "without a creator"),
            Manufacturer=None,
        ),
        _private(
            3,
            (0x00190010, "LO", 'A "quoted" creator'),
            (0x00191001, "LT", 'looks like a key: "00190020":"FAKE","00192001":1'),
            (0x00191010, "SQ", [header(CodeMeaning="an item")]),
            ReferencedStudySequence=[nested],
        ),
    )


def files() -> Iterator[tuple[str, bytes]]:
    """Yield each object as `fleet/scans/SERIES/NUMBER.dcm` or `fleet/private/NUMBER.dcm`."""
    for name, made in _scans():
        yield f"fleet/{name}", content(made)
    for number, made in enumerate(_with_private_elements()):
        yield f"fleet/private/{number}.dcm", content(made)
