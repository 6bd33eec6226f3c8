"""Segmentations and radiotherapy structure sets."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset

from tests.support.dicom_made.part10 import content, header
from tests.support.dicom_made.reports import SEGMENTATION, code
from tests.support.dicom_made.series import uid

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
FRAME_OF_REFERENCE = uid("regions", "frame of reference")
_LETTERS = b"-7"
"""Written where a number must be, and replaced by letters: pydicom refuses to write them."""


def _object(name: str, sop_class: str, modality: str, **attributes: Any) -> Dataset:
    return header(
        SOPClassUID=sop_class,
        SOPInstanceUID=uid("regions", name),
        StudyInstanceUID=uid("regions", "study"),
        SeriesInstanceUID=uid("regions", name, "series"),
        PatientID=f"regions {name}",
        StudyDate="20240501",
        Modality=modality,
        Manufacturer="Acme",
        ManufacturerModelName="Contours",
        **attributes,
    )


def _segment(number: Any, label: str | None, **attributes: Any) -> Dataset:
    return header(
        SegmentNumber=number,
        SegmentLabel=label,
        SegmentedPropertyCategoryCodeSequence=[code("123037004", "SCT", "Anatomical Structure")],
        SegmentedPropertyTypeCodeSequence=[code("10200004", "SCT", "Liver")],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName="Finder 2",
        **attributes,
    )


def _frame(*numbers: int) -> Dataset:
    return header(
        SegmentIdentificationSequence=[header(ReferencedSegmentNumber=each) for each in numbers]
    )


def _segmentations() -> Iterator[Dataset]:
    kidney = code("64033007", "SCT", "Kidney")
    kidney.SegmentedPropertyTypeModifierCodeSequence = [code("7771000", "SCT", "Left")]
    second = _segment(
        *(2, "Left kidney"),
        TrackingID="K1",
        TrackingUID=uid("regions", "tracking"),
        AnatomicRegionSequence=[code("113345001", "SCT", "Abdomen")],
    )
    second.SegmentedPropertyTypeCodeSequence = [kidney]
    third = header(SegmentNumber=3)
    yield _object(
        *("organs", SEGMENTATION, "SEG"),
        SegmentationType="BINARY",
        SegmentSequence=[_segment(1, "Liver"), second, third],
        PerFrameFunctionalGroupsSequence=[_frame(1), _frame(2), _frame(1), _frame(1), header()],
        ReferencedSeriesSequence=[
            header(SeriesInstanceUID=uid("regions", "b")),
            header(SeriesInstanceUID=uid("regions", "a")),
            header(SeriesInstanceUID=uid("regions", "a")),
            header(),
        ],
    )
    yield _object(
        *("shared", SEGMENTATION, "SEG"),
        SegmentSequence=[_segment(1, None)],
        SharedFunctionalGroupsSequence=[_frame(1)],
        PerFrameFunctionalGroupsSequence=[header(), header()],
    )
    yield _object(
        *("odd", SEGMENTATION, "OT"),
        SegmentSequence=[_segment([1, 2], "two numbers"), _segment(None, "no number")],
        ReferencedSeriesSequence=[],
    )
    yield _object("without segments", SEGMENTATION, "SEG", SegmentSequence=[])
    yield _object("without a sequence", SEGMENTATION, "SEG")


def _contour(points: Sequence[float] | float | None) -> Dataset:
    return header(ContourGeometricType="CLOSED_PLANAR", ContourData=points)


def _structure_sets() -> Iterator[Dataset]:
    rois = [
        header(
            ROINumber=number,
            ROIName=name,
            ROIGenerationAlgorithm="MANUAL",
            ReferencedFrameOfReferenceUID=FRAME_OF_REFERENCE,
        )
        for number, name in ((1, "PTV"), (2, "Heart"), (3, None), (_LETTERS.decode(), "letters"))
    ]
    referenced = header(
        FrameOfReferenceUID=FRAME_OF_REFERENCE,
        RTReferencedStudySequence=[
            header(
                RTReferencedSeriesSequence=[
                    header(SeriesInstanceUID=uid("regions", "drawn on")),
                    header(SeriesInstanceUID=uid("regions", "also")),
                ]
            ),
            header(),
        ],
    )
    yield _object(
        *("structures", STRUCTURE_SET, "RTSTRUCT"),
        StructureSetLabel="Plan 1",
        StructureSetROISequence=rois,
        ROIContourSequence=[
            header(
                ReferencedROINumber=1,
                ContourSequence=[
                    _contour([0, 0, 10, 1, 0, 10, 1, 1, 10]),
                    _contour([5, 5, 10, 6, 5, 10, 6, 6, 10]),
                    _contour([0, 0, 12.5, 1, 0, 12.5, 1, 1, 12.5]),
                    _contour(4),
                    _contour(None),
                ],
            ),
            header(ReferencedROINumber=3, ContourSequence=[]),
            header(ReferencedROINumber=2),
        ],
        RTROIObservationsSequence=[
            header(ReferencedROINumber=1, RTROIInterpretedType="PTV", ROIObservationLabel="b"),
            header(ReferencedROINumber=2, RTROIInterpretedType="ORGAN"),
            header(ReferencedROINumber=2, RTROIInterpretedType="AVOIDANCE"),
            header(ReferencedROINumber=2, RTROIInterpretedType="ORGAN"),
            header(ReferencedROINumber=3, RTROIInterpretedType=None),
        ],
        ReferencedFrameOfReferenceSequence=[referenced],
    )
    yield _object(
        *("bare structures", STRUCTURE_SET, "RTSTRUCT"),
        StructureSetROISequence=[header(ROINumber=9)],
    )
    yield _object("no structures", STRUCTURE_SET, "RTSTRUCT", RTROIObservationsSequence=[])


def files() -> Iterator[tuple[str, bytes]]:
    """Yield each object as `regions/NAME.dcm`; two are stored twice."""
    for made in (*_segmentations(), *_structure_sets()):
        name = made.PatientID.removeprefix("regions ")
        written = (
            content(made).replace(_LETTERS, b"IV", 1) if name == "structures" else content(made)
        )
        yield f"regions/{name}.dcm", written
        if name in {"organs", "structures"}:
            yield f"regions/z copy of {name}.dcm", written
