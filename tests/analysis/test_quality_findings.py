"""`quality_findings` and what pydicom computes from the same files."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from typing import Any

import google_crc32c
import msgspec
import pytest
from pydicom import Dataset as Header

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis import test_series_geometry as geometry
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects, made_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

IDENTIFIERS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IRREGULAR = {
    *("no_position", "orientation_differs", "not_orthogonal", "pixel_spacing_differs"),
    *("matrix_differs", "lateral_shift", "spacing_differs"),
}
KINDS_BY_GROUP = {
    "contents": {"several_contents"},
    "copies": set(),
    "parents of an instance": {"several_parents", "several_contents"},
    "parents of a series": {"several_parents"},
    "levels": {"uid_reused"},
    "patients": {"several_patients"},
    "names": {"several_names"},
    "birth dates": {"several_birth_dates"},
    "sexes": {"several_sexes"},
    "names of two issuers": set(),
    "dates": {"dates_disagree"},
    "date of a derived image": set(),
    "no study date": set(),
    "burned in": {"burned_in_risk"},
    "saved screens": {"burned_in_risk"},
    "secondary capture": {"burned_in_risk"},
    "converted": {"burned_in_risk"},
    "ultrasound": {"burned_in_risk"},
    "reformatted": {"burned_in_risk"},
    "no device": {"burned_in_risk"},
    "no image": set(),
}
"""The kinds of findings about each group of `dicom_made.mistakes`."""

type Finding = tuple[str | None, ...]
type Attribute = tuple[str | None, str | None, str]
"""Study, series, and an attribute or a reason."""


def finding(kind: str, detail: str, **where: str | None) -> Finding:
    """Return the columns of a finding, without `member`."""
    columns = ("PatientID", "IssuerOfPatientID", *IDENTIFIERS[1:], "path")
    return (kind, *(where.get(column) for column in columns), detail)


def text(header: Header, keyword: str) -> str | None:
    """Return the first value of an attribute, or None if it has none that pydicom can read."""
    with suppress(Exception):
        element = header[keyword]
        value = element.value if element.VM == 1 else element.value[0]
        return str(value).strip() or None
    return None


def distinct(objects: Sequence[AnalysisObject], keyword: str) -> set[str]:
    return {value for each in objects if (value := text(each.header, keyword))}


def greatest(objects: Sequence[AnalysisObject], keyword: str) -> str | None:
    return max(distinct(objects, keyword), default=None)


def grouped(
    objects: Sequence[AnalysisObject], *keywords: str
) -> Iterator[tuple[dict[str, str | None], list[AnalysisObject]]]:
    """Yield the values of attributes with their objects; of the first one, only if it has one."""
    groups = defaultdict(list)
    for each in objects:
        groups[tuple(text(each.header, keyword) for keyword in keywords)].append(each)
    for values, members in groups.items():
        if values[0] is not None:
            yield dict(zip(keywords, values, strict=True)), members


def above(objects: Sequence[AnalysisObject], *keywords: str) -> dict[str, str | None]:
    return {keyword: greatest(objects, keyword) for keyword in keywords}


def first_path(objects: Sequence[AnalysisObject]) -> str:
    return min(each.path for each in objects)


def about_uids(objects: Sequence[AnalysisObject]) -> Iterator[Finding]:
    for uid, same in grouped(objects, "SOPInstanceUID"):
        where = {**above(same, *IDENTIFIERS[:3]), **uid, "path": first_path(same)}
        contents = {google_crc32c.value(each.content) for each in same}
        if len(contents) > 1:
            detail = f"distinct contents: {len(contents)}, objects: {len(same)}"
            yield finding("several_contents", detail, **where)
        studies, series = (distinct(same, keyword) for keyword in IDENTIFIERS[1:3])
        if len(studies) > 1 or len(series) > 1:
            detail = f"distinct StudyInstanceUID: {len(studies)}, SeriesInstanceUID: {len(series)}"
            yield finding("several_parents", detail, **where)
    for uid, same in grouped(objects, "SeriesInstanceUID"):
        studies = distinct(same, "StudyInstanceUID")
        if len(studies) > 1:
            where = {**above(same, *IDENTIFIERS[:2]), **uid, "path": first_path(same)}
            yield finding("several_parents", f"distinct StudyInstanceUID: {len(studies)}", **where)
    users: dict[str, dict[str, list[AnalysisObject]]] = defaultdict(lambda: defaultdict(list))
    for level in IDENTIFIERS[1:]:
        for uid, same in grouped(objects, level):
            users[str(uid[level])][level] += same
    for reused, levels in users.items():
        if len(levels) > 1:
            same = [each for members in levels.values() for each in members]
            where = {**above(same, "PatientID"), **dict.fromkeys(levels, reused)}
            detail = f"one UID as {', '.join(sorted(levels))}"
            yield finding("uid_reused", detail, **where, path=first_path(same))


def about_patients(objects: Sequence[AnalysisObject]) -> Iterator[Finding]:
    for study, same in grouped(objects, "StudyInstanceUID"):
        patients = distinct(same, "PatientID")
        if len(patients) > 1:
            detail = f"distinct PatientID: {len(patients)}"
            yield finding("several_patients", detail, **above(same, "PatientID"), **study)
    for patient, same in grouped(objects, "PatientID", "IssuerOfPatientID"):
        for kind, keyword in (
            ("several_names", "PatientName"),
            ("several_birth_dates", "PatientBirthDate"),
            ("several_sexes", "PatientSex"),
        ):
            values = distinct(same, keyword)
            if len(values) > 1:
                yield finding(kind, f"distinct {keyword}: {len(values)}", **patient)


def day(written: str | None) -> date | None:
    with suppress(ValueError, TypeError):
        return date.fromisoformat(written.replace(".", "")[:8]) if written else None
    return None


def image_type(header: Header) -> str:
    return str(header.get("ImageType") or "")


def reason(header: Header) -> str | None:
    """Return why text may be burned in, by the rules of docs/SCHEMA.md."""
    burned_in = text(header, "BurnedInAnnotation")
    device = text(header, "Manufacturer") or text(header, "ManufacturerModelName")
    rules = (
        (burned_in == "YES", "BurnedInAnnotation is YES"),
        (
            any(word in image_type(header) for word in ("SAVE", "SCREEN")),
            "ImageType names a saved screen",
        ),
        (str(header.get("SOPClassUID")).startswith(SECONDARY_CAPTURE), "secondary capture"),
        (bool(text(header, "ConversionType")), "converted from another source"),
        (burned_in == "NO", None),
        (text(header, "Modality") == "US", "ultrasound image"),
        ("SECONDARY" in image_type(header), "ImageType is SECONDARY"),
        (not device, "no device is named"),
    )
    return next((why for applies, why in rules if applies), None)


def about_images(objects: Sequence[AnalysisObject]) -> Iterator[Finding]:
    images = [each for each in objects if text(each.header, "Rows")]
    distances: dict[Attribute, dict[AnalysisObject, int]] = defaultdict(dict)
    risks: dict[Attribute, list[AnalysisObject]] = defaultdict(list)
    for each in images:
        header = each.header
        key = (text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID"))
        why = reason(header)
        if why:
            risks[*key, why].append(each)
        study_day = day(text(header, "StudyDate"))
        if text(header, "ImageType") != "DERIVED" and study_day:
            for keyword in ("SeriesDate", "AcquisitionDate", "AcquisitionDateTime"):
                other = day(text(header, keyword))
                if other and abs((other - study_day).days) > 1:
                    distances[*key, keyword][each] = abs((other - study_day).days)
    for (study, series, keyword), days in distances.items():
        where = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        where |= {**above(list(days), "PatientID"), "path": first_path(list(days))}
        detail = f"{keyword} (days from StudyDate: {max(days.values())})"
        yield finding("dates_disagree", detail, **where)
    for (study, series, why), same in risks.items():
        where = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        where |= {**above(same, "PatientID"), "path": first_path(same)}
        yield finding("burned_in_risk", f"{why} (objects: {len(same)})", **where)


def about_geometry(objects: Sequence[AnalysisObject]) -> Iterator[Finding]:
    for (study, series), headers in geometry.by_series(objects).items():
        row = geometry.computed(headers)
        patients = {value for header in headers if (value := text(header, "PatientID"))}
        where = {
            "PatientID": max(patients, default=None),
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
        }
        if row["missing"]:
            detail = f"missing: {row['missing']}, positions: {row['positions']}"
            yield finding("missing_slices", detail, **where)
        if (row["fewest_at_position"] or 0) < (row["most_at_position"] or 0):
            placed = row["slices"] - row["unplaced"]
            detail = f"slices: {placed}, positions: {row['positions']}"
            yield finding("duplicate_positions", detail, **where)
        if IRREGULAR & set(row["why_not"]):
            yield finding("irregular_geometry", ", ".join(row["why_not"]), **where)


def computed() -> list[Finding]:
    objects = all_objects()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            *about_uids(objects),
            *about_patients(objects),
            *about_images(objects),
            *about_geometry(objects),
        ]


def read(dataset: Dataset | EngineDataset) -> list[Finding]:
    rows = dataset.query("SELECT * FROM quality_findings")
    assert {row.pop("member") for row in rows} <= {None}
    return [tuple(row.values()) for row in rows]


@pytest.fixture(scope="module")
def findings(analysis_dataset: Dataset) -> list[Finding]:
    return read(analysis_dataset)


def test_the_view_agrees_with_pydicom_about_every_object(findings: list[Finding]) -> None:
    assert sorted(findings, key=str) == sorted(computed(), key=str)


@pytest.mark.parametrize("group", KINDS_BY_GROUP)
def test_each_mistake_is_found_and_nothing_else(findings: list[Finding], group: str) -> None:
    patients = {text(each.header, "PatientID") for each in made_objects(f"mistakes/{group}/")}
    assert {kind for kind, patient, *_ in findings if patient in patients} == KINDS_BY_GROUP[group]


def test_no_detail_has_a_value_of_a_header(findings: list[Finding]) -> None:
    values = {
        value
        for each in all_objects()
        for keyword in (*IDENTIFIERS, "PatientName", "PatientBirthDate", "StudyDate")
        if (value := text(each.header, keyword)) and len(value) > 3
    }
    assert not [each for each in findings if any(value in str(each[-1]) for value in values)]


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(findings: list[Finding]) -> None:
    patients = {text(each.header, "PatientID") for each in made_objects("mistakes/")}
    local = [each for each in findings if each[1] in patients]
    assert sorted(read(engine_dataset("mistakes/")), key=str) == sorted(local, key=str)


def member(of: AnalysisObject, name: str) -> dict[str, Any]:
    """Return the row of an object that is a member of an archive, whose checksum it has."""
    row: dict[str, Any] = msgspec.to_builtins(of.row)
    row["info"]["input"]["crc32c"] = "AAAAAA=="
    return {**row, "path": "gs://analysis/scans.zip", "member": name}


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_members_of_archives_are_named_and_not_compared_by_checksum() -> None:
    dataset = EngineDataset()
    for number, each in enumerate(made_objects("mistakes/saved screens/")):
        dataset.insert("instances", member(each, f"{number}.dcm"))
    for each in made_objects("mistakes/copies/"):
        dataset.insert("instances", msgspec.to_builtins(each.row), member(each, "copy.dcm"))
    (found,) = dataset.query("SELECT kind, path, member, detail FROM quality_findings")
    assert found == {
        "kind": "burned_in_risk",
        "path": "gs://analysis/scans.zip",
        "member": "0.dcm",
        "detail": "ImageType names a saved screen (objects: 2)",
    }
