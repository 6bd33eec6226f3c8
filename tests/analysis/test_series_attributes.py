"""`series_attributes` and what pydicom computes from the same files."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, time
from math import isclose, isfinite
from typing import Any

import pytest
from pydicom import Dataset as Header
from pydicom.datadict import tag_for_keyword

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects, made_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

(VIEW,) = (d for d in schema.load(Config(), "p") if d.name == "series_attributes")
FIELDS: dict[str, str] = {
    field["name"]: field["type"]
    for field in VIEW.resource["schema"]["fields"]
    if field["name"] not in {"NumberOfSeriesRelatedInstances", "varying"}
}
DESCRIPTIONS = {field["name"]: field["description"] for field in VIEW.resource["schema"]["fields"]}
SHARED = {
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "XRayTubeCurrent": ("CTExposureSequence", "XRayTubeCurrentInmA"),
    "ExposureTime": ("CTExposureSequence", "ExposureTimeInms"),
    "Exposure": ("CTExposureSequence", "ExposureInmAs"),
    "CTDIvol": ("CTExposureSequence", "CTDIvol"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "ReconstructionDiameter": ("CTReconstructionSequence", "ReconstructionDiameter"),
    "SpiralPitchFactor": ("CTTableDynamicsSequence", "SpiralPitchFactor"),
    "GantryDetectorTilt": ("CTGeometrySequence", "GantryDetectorTilt"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "EchoTrainLength": ("MRTimingAndRelatedParametersSequence", "EchoTrainLength"),
    "NumberOfAverages": ("MRAveragesSequence", "NumberOfAverages"),
}
"""Where an enhanced object has the attribute: PS3.3 C.7.6.16.2, C.8.13.5 and C.8.15.3."""
DOSE = "RadiopharmaceuticalInformationSequence"
FIRST_ONLY = {  # columns of instances_live, which have the first of several values
    *("Manufacturer", "ManufacturerModelName", "StationName", "SeriesDescription"),
    *("BodyPartExamined", "SOPClassUID", "PatientID", "Modality"),
}

type Series = tuple[str | None, str]


def values(header: Header, keyword: str) -> list[str]:
    """Return the values of an attribute as text; none if pydicom cannot read them."""
    with suppress(Exception):  # values that break their VR
        element = header[keyword]
        several = [element.value] if element.VM == 1 else list(element.value or ())
        return ["" if value is None else str(value).strip() for value in several]
    return []


def item(header: Header, keyword: str) -> Header:
    items = header.get(keyword)
    return items[0] if items else Header()


def places(header: Header, keyword: str) -> list[list[str]]:
    """Return the values in each place that an attribute can be in, the first one first."""
    dose = item(header, DOSE)
    coded = "CodeMeaning"
    match keyword:
        case "radionuclide":
            return [values(item(dose, "RadionuclideCodeSequence"), coded)]
        case "Radiopharmaceutical":
            code = item(dose, "RadiopharmaceuticalCodeSequence")
            return [values(dose, keyword), values(code, coded)]
        case "RadionuclideTotalDose" | "RadionuclideHalfLife":
            return [values(dose, keyword)]
        case "RadiopharmaceuticalStartTime":
            stamp = values(dose, "RadiopharmaceuticalStartDateTime")
            return [values(dose, keyword), [each[8:] for each in stamp]]
    group, nested = SHARED.get(keyword, ("", ""))
    shared = item(item(header, "SharedFunctionalGroupsSequence"), group) if group else Header()
    return [values(header, keyword), values(shared, nested) if nested else []]


def text(header: Header, keyword: str) -> str | None:
    found = next((each for each in places(header, keyword) if any(each)), [])
    joined = "\\".join(found[:1] if keyword in FIRST_ONLY else found)
    return joined or None


def number(header: Header, keyword: str, index: int = 0) -> float | None:
    found = next((each for each in places(header, keyword) if any(each)), [])
    try:
        value = float(found[index])
    except (IndexError, ValueError):
        return None
    return value if isfinite(value) else None


def orientation(header: Header) -> str | None:
    cosines = [number(header, "ImageOrientationPatient", index) for index in range(6)]
    match cosines:
        case [float(a), float(b), float(c), float(d), float(e), float(f)] if (
            max(map(abs, (a, b, c, d, e, f))) < 1e6
        ):
            normal = {"sagittal": b * f - c * e, "coronal": c * d - a * f, "axial": a * e - b * d}
            return next((name for name, size in normal.items() if abs(size) > 0.8), "oblique")
    return None


def clock(header: Header) -> time | None:
    written = (text(header, "RadiopharmaceuticalStartTime") or "")[:6]
    try:
        return time(int(written[:2]), int(written[2:4]), int(written[4:6]))
    except ValueError:
        return None


def day(header: Header) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat((text(header, "StudyDate") or "").replace(".", ""))
    return None


SPECIAL: dict[str, Callable[[Header], Any]] = {
    "row_spacing": lambda header: number(header, "PixelSpacing", 0),
    "column_spacing": lambda header: number(header, "PixelSpacing", 1),
    "orientation": orientation,
    "RadiopharmaceuticalStartTime": clock,
    "StudyDate": day,
}


def attribute(header: Header, column: str) -> Any:
    if column in SPECIAL:
        return SPECIAL[column](header)
    return text(header, column) if FIELDS[column] == "STRING" else number(header, column)


def computed(headers: Sequence[Header]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    varying = []
    columns = list(FIELDS)[2:]
    for column in columns:
        found = {attribute(header, column) for header in headers} - {None}
        row[column] = max(found, default=None)
        if len(found) > 1:
            varying.append(column)
    instances = {header.get("SOPInstanceUID") for header in headers} - {None}
    known = set(columns[columns.index("SOPClassUID") :]) - {"SeriesNumber"}
    return {
        **row,
        "NumberOfSeriesRelatedInstances": len(instances),
        "varying": [column for column in varying if column in known],
    }


def read(dataset: Dataset | EngineDataset) -> dict[Series, dict[str, Any]]:
    rows = dataset.query("SELECT * FROM series_attributes")
    series = {(row["StudyInstanceUID"], row["SeriesInstanceUID"]): row for row in rows}
    assert len(series) == len(rows)
    return series


def by_series(objects: Sequence[AnalysisObject]) -> dict[Series, list[Header]]:
    grouped = defaultdict(list)
    for each in objects:
        series = each.header.get("SeriesInstanceUID")
        if series:
            grouped[each.header.get("StudyInstanceUID"), str(series)].append(each.header)
    return grouped


def differences(row: dict[str, Any], truth: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (row[name], value)
        for name, value in truth.items()
        if not (
            isclose(row[name], value, rel_tol=1e-6)
            if isinstance(value, float) and row[name] is not None
            else row[name] == value
        )
    }


@pytest.fixture(scope="module")
def attributes(analysis_dataset: Dataset) -> dict[Series, dict[str, Any]]:
    return read(analysis_dataset)


def test_the_view_agrees_with_pydicom_about_every_series(
    attributes: dict[Series, dict[str, Any]],
) -> None:
    truth = {series: computed(headers) for series, headers in by_series(all_objects()).items()}
    assert attributes.keys() == truth.keys()
    differing = {
        series: differences(attributes[series], truth[series])
        for series in truth
        if differences(attributes[series], truth[series])
    }
    assert differing == {}


def of_scanner(attributes: dict[Series, dict[str, Any]], name: str) -> dict[str, Any]:
    (series,) = by_series(made_objects(f"scanners/{name}/"))
    return attributes[series]


def test_what_varies_within_a_series_is_named(attributes: dict[Series, dict[str, Any]]) -> None:
    """An attribute that only some objects have does not vary."""
    varying = ["SoftwareVersions", "KVP", "XRayTubeCurrent", "ConvolutionKernel"]
    assert of_scanner(attributes, "CT")["varying"] == varying
    assert of_scanner(attributes, "MR")["varying"] == ["EchoTime"]
    assert of_scanner(attributes, "PET")["varying"] == []


def test_values_that_are_not_numbers_are_null(attributes: dict[Series, dict[str, Any]]) -> None:
    """Text, NaN and infinity; of several values, the first is taken."""
    row = of_scanner(attributes, "CT")
    assert (row["SliceThickness"], row["CTDIvol"], row["SpacingBetweenSlices"]) == (1, 7.25, 0.7)
    assert (row["Exposure"], row["KVP"]) == (120, 120)


def test_several_values_are_joined_as_in_dicom(attributes: dict[Series, dict[str, Any]]) -> None:
    row = of_scanner(attributes, "CT")
    assert row["SoftwareVersions"] == "1.0\\b\u00fcild 7"
    assert row["ImageType"] == "ORIGINAL\\PRIMARY\\"


def test_enhanced_objects_have_values_from_their_shared_groups(
    attributes: dict[Series, dict[str, Any]],
) -> None:
    row = of_scanner(attributes, "enhanced MR")
    assert (row["row_spacing"], row["column_spacing"], row["orientation"]) == (
        *(1.25, 1.5),
        "sagittal",
    )
    assert (row["RepetitionTime"], row["EchoTime"], row["InversionTime"]) == (800, 4.5, 900)


def test_the_injection_of_a_pet_is_read_from_its_sequence(
    attributes: dict[Series, dict[str, Any]],
) -> None:
    assert of_scanner(attributes, "PET")["RadiopharmaceuticalStartTime"] == time(10, 15, 30)
    coded = of_scanner(attributes, "coded PET")
    assert coded["Radiopharmaceutical"] == "Fluorodeoxyglucose F^18^"
    assert coded["RadiopharmaceuticalStartTime"] == time(8, 30)
    assert of_scanner(attributes, "bare PET")["Radiopharmaceutical"] is None


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(
    attributes: dict[Series, dict[str, Any]],
) -> None:
    evaluated = read(engine_dataset("scanners/"))
    assert len(evaluated) == 10
    for series, row in evaluated.items():
        assert differences(attributes[series], row) == {}


def test_each_column_with_a_keyword_is_described_by_its_tag() -> None:
    keywords = {name: tag_for_keyword(name) for name in FIELDS if name[0].isupper()}
    for name, tag in keywords.items():
        assert tag is not None, name
        if name not in {"StudyInstanceUID", "SeriesInstanceUID"}:
            written = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            assert DESCRIPTIONS[name].startswith(written), name
