"""`segments` and `rois`, and what pydicom computes from the same files."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from pydicom import Dataset as Header

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects, made_objects
from tests.support.dicom_made.regions import STRUCTURE_SET
from tests.support.dicom_made.reports import SEGMENTATION
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

type Rows = list[dict[str, Any]]


def text(header: Header, keyword: str) -> str | None:
    with suppress(Exception):
        element = header[keyword]
        return str(element.value).strip() or None if element.VM == 1 else None
    return None


def number(header: Header, keyword: str) -> int | None:
    with suppress(TypeError, ValueError):
        return int(text(header, keyword) or "")
    return None


def items(header: Header, keyword: str) -> list[Header]:
    return list(header.get(keyword) or [])


def first(header: Header, keyword: str) -> Header:
    return next(iter(items(header, keyword)), Header())


def code(header: Header, keyword: str, prefix: str) -> dict[str, str | None]:
    coded = first(header, keyword)
    return {
        f"{prefix}_scheme": text(coded, "CodingSchemeDesignator"),
        f"{prefix}_code": text(coded, "CodeValue"),
        f"{prefix}_meaning": text(coded, "CodeMeaning"),
    }


def sorted_uids(several: Iterable[Header]) -> list[str]:
    return sorted({uid for each in several if (uid := text(each, "SeriesInstanceUID"))})


def once(objects: Iterable[AnalysisObject], sop_class: str) -> list[AnalysisObject]:
    """Return the objects of a SOP class, each instance at its first path."""
    kept: dict[Any, AnalysisObject] = {}
    for each in sorted(objects, key=lambda each: each.path):
        header = each.header
        if header.get("SOPClassUID") == sop_class:
            uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
            kept.setdefault(tuple(text(header, uid) for uid in uids), each)
    return list(kept.values())


def segments_of(each: AnalysisObject) -> Rows:
    header = each.header
    shared = first(first(header, "SharedFunctionalGroupsSequence"), "SegmentIdentificationSequence")
    frames = Counter(
        text(first(frame, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
        or text(shared, "ReferencedSegmentNumber")
        for frame in items(header, "PerFrameFunctionalGroupsSequence")
    )
    has_frames = "PerFrameFunctionalGroupsSequence" in header
    keywords = ("SegmentLabel", "SegmentAlgorithmType", "SegmentAlgorithmName", "TrackingID")
    return [
        {
            "path": each.path,
            "SegmentationType": text(header, "SegmentationType"),
            "SegmentNumber": number(item, "SegmentNumber"),
            **{keyword: text(item, keyword) for keyword in (*keywords, "TrackingUID")},
            **code(item, "SegmentedPropertyCategoryCodeSequence", "category"),
            **code(item, "SegmentedPropertyTypeCodeSequence", "type"),
            **code(item, "AnatomicRegionSequence", "region"),
            "modifier_meaning": text(
                first(
                    first(item, "SegmentedPropertyTypeCodeSequence"),
                    "SegmentedPropertyTypeModifierCodeSequence",
                ),
                "CodeMeaning",
            ),
            "frames": frames[text(item, "SegmentNumber")] if has_frames else None,
            "referenced_series": sorted_uids(items(header, "ReferencedSeriesSequence")),
        }
        for item in items(header, "SegmentSequence")
    ]


def rois_of(each: AnalysisObject) -> Rows:
    header = each.header
    rows = []
    for roi in items(header, "StructureSetROISequence"):
        key = text(roi, "ROINumber")

        def about(keyword: str, key: str | None = key) -> list[Header]:
            same = items(header, keyword)
            return [item for item in same if key and text(item, "ReferencedROINumber") == key]

        def distinct(keyword: str, about: Callable[[str], list[Header]] = about) -> str | None:
            observations = about("RTROIObservationsSequence")
            values = {value for item in observations if (value := text(item, keyword))}
            return "\\".join(sorted(values)) or None

        contours = [
            contour
            for drawn in about("ROIContourSequence")
            for contour in items(drawn, "ContourSequence")
        ]
        points = [contour["ContourData"] for contour in contours]
        frame = text(roi, "ReferencedFrameOfReferenceUID")
        rows.append(
            {
                "path": each.path,
                "StructureSetLabel": text(header, "StructureSetLabel"),
                "ROINumber": number(roi, "ROINumber"),
                "ROIName": text(roi, "ROIName"),
                "ROIGenerationAlgorithm": text(roi, "ROIGenerationAlgorithm"),
                "RTROIInterpretedType": distinct("RTROIInterpretedType"),
                "ROIObservationLabel": distinct("ROIObservationLabel"),
                "contours": len(contours),
                "planes": len({float(data.value[2]) for data in points if data.VM > 2}),
                "FrameOfReferenceUID": frame,
                "referenced_series": sorted_uids(
                    series
                    for place in items(header, "ReferencedFrameOfReferenceSequence")
                    if frame and text(place, "FrameOfReferenceUID") == frame
                    for study in items(place, "RTReferencedStudySequence")
                    for series in items(study, "RTReferencedSeriesSequence")
                ),
            }
        )
    return rows


def read(dataset: Dataset | EngineDataset, view: str) -> Rows:
    rows = dataset.query(f"SELECT * FROM {view}")
    for row in rows:
        assert row.pop("member") is None
        for column in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            row.pop(column)
        row.pop("PatientID")
        row.pop("StudyDate")
    return sorted(rows, key=as_text)


def as_text(row: dict[str, Any]) -> str:
    return str(sorted(row.items()))


@pytest.fixture(scope="module")
def segments(analysis_dataset: Dataset) -> Rows:
    return read(analysis_dataset, "segments")


@pytest.fixture(scope="module")
def rois(analysis_dataset: Dataset) -> Rows:
    return read(analysis_dataset, "rois")


def test_segments_agree_with_pydicom(segments: Rows) -> None:
    truth = [row for each in once(all_objects(), SEGMENTATION) for row in segments_of(each)]
    assert segments == sorted(truth, key=as_text)


def test_rois_agree_with_pydicom(rois: Rows) -> None:
    truth = [row for each in once(all_objects(), STRUCTURE_SET) for row in rois_of(each)]
    assert rois == sorted(truth, key=as_text)


def test_frames_are_counted_by_segment(segments: Rows) -> None:
    """Numbers that break their VR have no frames, and an instance at two paths counts once."""
    of = {
        (row["path"].split("/")[-1], row["SegmentLabel"]): row["frames"]
        for row in segments
        if "/regions/" in row["path"]
    }
    assert of == {
        ("organs.dcm", "Liver"): 3,
        ("organs.dcm", "Left kidney"): 1,
        ("organs.dcm", None): 0,
        ("shared.dcm", None): 2,
        ("odd.dcm", "two numbers"): None,
        ("odd.dcm", "no number"): None,
    }


def test_contours_and_planes_are_counted_by_roi(rois: Rows) -> None:
    of = {
        row["ROIName"]: (row["ROINumber"], row["contours"], row["planes"])
        for row in rois
        if row["path"].endswith("regions/structures.dcm")
    }
    assert of == {"PTV": (1, 5, 2), "Heart": (2, 0, 0), None: (3, 0, 0), "letters": (None, 0, 0)}


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(segments: Rows, rois: Rows) -> None:
    dataset = engine_dataset("regions/")
    paths = {each.path for each in made_objects("regions/")}
    assert read(dataset, "segments") == [row for row in segments if row["path"] in paths]
    assert read(dataset, "rois") == [row for row in rois if row["path"] in paths]
