"""Objects for each kind of `quality_findings`, except the geometry of series."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.dicom_made.part10 import content
from tests.support.dicom_made.scanners import ULTRASOUND, image
from tests.support.dicom_made.series import uid

RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_USUAL: Mapping[str, Any] = {"sop_class": RADIOGRAPH, "modality": "DX"}
_SEVERAL: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "contents": ({}, {"SOPInstanceUID": uid("scanned", "contents", 0), "KVP": 100}),
    "copies": ({}, {"SOPInstanceUID": uid("scanned", "copies", 0)}),
    "parents of an instance": (
        {},
        {
            "SOPInstanceUID": uid("scanned", "parents of an instance", 0),
            "SeriesInstanceUID": uid("else"),
        },
    ),
    "parents of a series": ({}, {"StudyInstanceUID": uid("other study")}),
    "levels": ({"SeriesInstanceUID": uid("scanned", "levels", "study")}, {}),
    "patients": ({}, {"PatientID": "another patient"}),
    "names": ({"PatientName": "Doe^Jane"}, {"PatientName": "DOE^JANE"}),
    "birth dates": ({"PatientBirthDate": "19700101"}, {"PatientBirthDate": "19700102"}),
    "sexes": ({"PatientSex": "F"}, {"PatientSex": "M"}, {"PatientSex": None}),
    "names of two issuers": (
        {"PatientName": "Doe^Jane", "IssuerOfPatientID": "A"},
        {"PatientName": "Roe^Jim", "IssuerOfPatientID": "B"},
    ),
    "dates": (
        {"SeriesDate": "20240302", "AcquisitionDate": "20240301"},
        {"SeriesDate": "20240305", "AcquisitionDate": "20240101"},
        {"AcquisitionDateTime": "20240310120000.5+0100"},
        {"AcquisitionDateTime": "2024"},
    ),
    "date of a derived image": ({"SeriesDate": "20250101", "ImageType": ["DERIVED", "PRIMARY"]},),
    "no study date": ({"SeriesDate": "20250101", "StudyDate": None},),
    "burned in": ({"BurnedInAnnotation": "YES"}, {}),
    "saved screens": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},) * 2,
    "secondary capture": ({"sop_class": SECONDARY_CAPTURE},),
    "converted": ({"ConversionType": "DF"},),
    "ultrasound": ({"sop_class": ULTRASOUND, "modality": "US", "BurnedInAnnotation": None},),
    "reformatted": ({"ImageType": ["DERIVED", "SECONDARY"], "BurnedInAnnotation": None},),
    "no device": (
        {"Manufacturer": None, "ManufacturerModelName": None, "BurnedInAnnotation": None},
    ),
    "no image": ({"ConversionType": "DF", "Rows": None, "Columns": None},),
}
"""What each object of a group has that the usual one of its scanner does not have."""


def files() -> Iterator[tuple[str, bytes]]:
    """Yield each object as `mistakes/GROUP/NUMBER.dcm`."""
    for group, several in _SEVERAL.items():
        for number, changes in enumerate(several):
            made = image(group, number, **{**_USUAL, **changes})
            yield f"mistakes/{group}/{number}.dcm", content(made)
