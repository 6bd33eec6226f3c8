"""Series of several modalities with the attributes that `series_attributes` shows."""

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

from tests.support.dicom_made.part10 import content, header
from tests.support.dicom_made.reports import code
from tests.support.dicom_made.series import AXIAL, CT, MR, PET, uid

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_NOT_A_NUMBER = b"99999.25"
_INFINITE = b"88888888"


def image(series: str, number: int, sop_class: str, modality: str, **attributes: Any) -> Dataset:
    """Return an image of a series, from a scanner whose values other attributes replace."""
    usual: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid("scanned", series, number),
        "StudyInstanceUID": uid("scanned", series, "study"),
        "SeriesInstanceUID": uid("scanned", series, "series"),
        "Modality": modality,
        "PatientID": f"scanned {series}",
        "StudyDate": "20240229",
        "SeriesNumber": 3,
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Model 1",
        "StationName": "ROOM1",
        "DeviceSerialNumber": "0042",
        "SoftwareVersions": ["1.0", "b\u00fcild 7"],
        "InstitutionName": "Hospital",
        "SpecificCharacterSet": "ISO_IR 100",
        "BurnedInAnnotation": "NO",
        "Rows": 4,
        "Columns": 6,
    }
    return header(**{**usual, **attributes})


def _ct() -> Iterator[Dataset]:
    usual: dict[str, Any] = {
        "ProtocolName": "Thorax",
        "SeriesDescription": "Lung 1.0",
        "BodyPartExamined": "CHEST",
        "PatientPosition": "HFS",
        "ContrastBolusAgent": "Agent",
        "PatientWeight": "71.5",
        "PixelSpacing": [0.5, 0.75],
        "ImageOrientationPatient": AXIAL,
        "SliceThickness": "1.0",
        "SpacingBetweenSlices": "0.7",
        "ReconstructionDiameter": 350,
        "ExposureTime": 500,
        "Exposure": 120,
        "SpiralPitchFactor": 1.2,
        "GantryDetectorTilt": -3.5,
        "ConvolutionKernel": ["B30f", "2"],
    }
    yield image("CT", 1, CT, "CT", **usual, KVP=120, XRayTubeCurrent=200, CTDIvol=7.25)
    other = {**usual, "SoftwareVersions": "1.0", "ConvolutionKernel": "B30f"}
    yield image("CT", 2, CT, "CT", **other, KVP=100, XRayTubeCurrent=210, CTDIvol=float("nan"))
    broken = {**usual, "ReconstructionDiameter": None, "Exposure": [120, 130]}
    yield image(
        *("CT", 3, CT, "CT"),
        **{**broken, "SliceThickness": _NOT_A_NUMBER.decode(), "SpacingBetweenSlices": "88888888"},
        KVP="1e999",
    )


def _mr() -> Iterator[Dataset]:
    usual: dict[str, Any] = {
        "MagneticFieldStrength": 3,
        "ScanningSequence": ["SE", "IR"],
        "SequenceName": "tse2d1_15",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 4500.5,
        "EchoTime": 98,
        "InversionTime": 150,
        "FlipAngle": 90,
        "EchoTrainLength": 15,
        "NumberOfAverages": 1.5,
        "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    }
    yield image("MR", 1, MR, "MR", **usual)
    yield image("MR", 2, MR, "MR", **{**usual, "EchoTime": 12, "Laterality": "L"})
    oblique = [0.7071068, 0.7071068, 0, 0, 0, -1]
    yield image("oblique MR", 1, MR, "MR", **{**usual, "ImageOrientationPatient": oblique})
    shared = header(
        PixelMeasuresSequence=[header(PixelSpacing=[1.25, 1.5], SliceThickness=4)],
        PlaneOrientationSequence=[header(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])],
        MRTimingAndRelatedParametersSequence=[
            header(RepetitionTime=800, FlipAngle=20, EchoTrainLength=3)
        ],
        MREchoSequence=[header(EffectiveEchoTime=4.5)],
        MRModifierSequence=[header(InversionTimes=[900.0, 1800.0])],
        MRAveragesSequence=[header(NumberOfAverages=2)],
    )
    enhanced: dict[str, Any] = {"SharedFunctionalGroupsSequence": [shared], "NumberOfFrames": 40}
    yield image("enhanced MR", 1, ENHANCED_MR, "MR", **enhanced)


def _pet() -> Iterator[Dataset]:
    dose = header(
        Radiopharmaceutical="FDG",
        RadiopharmaceuticalStartTime="101530.25",
        RadionuclideTotalDose=370000000,
        RadionuclideHalfLife=6586.2,
        RadionuclideCodeSequence=[code("C-111A1", "SRT", "^18^Fluorine")],
    )
    usual: dict[str, Any] = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "PatientWeight": 80,
    }
    yield image("PET", 1, PET, "PT", **usual, RadiopharmaceuticalInformationSequence=[dose])
    coded = header(
        RadiopharmaceuticalCodeSequence=[code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")],
        RadiopharmaceuticalStartDateTime="20240229083000.5+0100",
    )
    yield image("coded PET", 1, PET, "PT", **usual, RadiopharmaceuticalInformationSequence=[coded])
    yield image("bare PET", 1, PET, "PT", RadiopharmaceuticalInformationSequence=[])


def _others() -> Iterator[Dataset]:
    yield image(
        *("MG", 1, MAMMOGRAPHY, "MG"),
        ViewPosition="MLO",
        BodyPartThickness=52,
        CompressionForce=110,
        DistanceSourceToDetector=650,
        DistanceSourceToPatient=600,
        ExposureIndex=410,
        DeviationIndex=-0.5,
        KVP=28,
    )
    yield image("US", 1, ULTRASOUND, "US", TransducerType="SECTOR_PHASED", FrameTime=33.3)
    slide: dict[str, Any] = {"ContainerIdentifier": "S24-1", "NumberOfFrames": 12}
    for number, width in enumerate((40000, 10000, 2500)):
        yield image(
            *("SM", number, SLIDE, "SM"),
            **slide,
            TotalPixelMatrixColumns=width,
            TotalPixelMatrixRows=width // 2,
        )


def files() -> Iterator[tuple[str, bytes]]:
    """Yield each object as `scanners/SERIES/NUMBER.dcm`."""
    for made in (*_ct(), *_mr(), *_pet(), *_others()):
        series = made.PatientID.removeprefix("scanned ")
        written = content(made).replace(_NOT_A_NUMBER, b"thin mm.")
        name = f"scanners/{series}/{made.SOPInstanceUID[-8:]}.dcm"
        yield name, written.replace(_INFINITE, b"Infinity")
