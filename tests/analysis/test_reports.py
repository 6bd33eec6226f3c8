"""The views of structured reports against the same documents as pydicom reads them."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from functools import cache
from typing import Any

import msgspec
import pydicom
import pytest
from pydicom.dataset import Dataset as Header
from pydicom.valuerep import DA, DT, TM

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects, made_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = [
    pytest.mark.timeout(googlesql.TIMEOUT),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydicom, about broken values
]

VIEWS = ("sr_content", "sr_measurements", "dose_events", "dose_summary")

type Row = dict[str, Any]
type Rows = Mapping[str, list[Row]]
type Content = tuple[str, Header]
"""A content item and its position."""


@pytest.fixture(scope="module")
def local(analysis_dataset: Dataset) -> Rows:
    """Every row of each view on the local BigQuery."""
    return {view: analysis_dataset.query(f"SELECT * FROM {view}") for view in VIEWS}


@pytest.fixture(scope="module")
def engine() -> Rows:
    """Every row of each view over the made reports, on Google's evaluator.

    By one query, which evaluates only once the views that others read.
    """
    arrays = ", ".join(f"ARRAY(SELECT AS STRUCT * FROM {view}) AS {view}" for view in VIEWS)
    (rows,) = engine_dataset("reports/").query(f"SELECT {arrays}")
    return rows


# --- what pydicom says ---


@cache
def documents() -> dict[str, AnalysisObject]:
    """Return every document that pydicom can read, by path."""
    readable = {}
    for each in all_objects():
        with suppress(Exception):  # whatever pydicom raises for a broken file
            if "ValueType" in each.header or "ContentSequence" in each.header:
                readable[each.path] = each
    return readable


@cache
def instances() -> list[AnalysisObject]:
    """Return one object for each SOPInstanceUID: that of the first path."""
    chosen: dict[str, AnalysisObject] = {}
    for path, document in sorted(documents().items()):
        chosen.setdefault(str(document.header.get("SOPInstanceUID") or path), document)
    return list(chosen.values())


def walk(item: Header, position: str = "1") -> Iterator[Content]:
    """Yield an item and everything below it, in order."""
    yield position, item
    for number, child in enumerate(item.get("ContentSequence") or (), 1):
        yield from walk(child, f"{position}.{number}")


def coded(item: Header, keyword: str) -> tuple[str | None, ...]:
    """Return scheme, code and meaning of the first item of a code sequence."""
    codes = item.get(keyword) or [Header()]
    keywords = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
    return tuple(codes[0].get(each) or None for each in keywords)


def concept(item: Header) -> str:
    scheme, value, _ = coded(item, "ConceptNameCodeSequence")
    return f"{scheme}:{value}"


def value(item: Header) -> tuple[float | None, str | None]:
    """Return the number of a NUM and its unit."""
    measured = (item.get("MeasuredValueSequence") or [Header()])[0]
    number = None
    with suppress(ValueError, TypeError, KeyError):  # it is not a number, or absent
        first = measured["NumericValue"].value
        number = float(first[0] if isinstance(first, pydicom.multival.MultiValue) else first)
    if number is not None and not math.isfinite(number):
        number = None
    return number, coded(measured, "MeasurementUnitsCodeSequence")[1]


def integers(item: Header, keyword: str) -> list[int]:
    numbers = (item.get("ReferencedSOPSequence") or [Header()])[0].get(keyword)
    return (
        []
        if numbers is None
        else [int(each) for each in (numbers if hasattr(numbers, "__iter__") else [numbers])]
    )


def moment(item: Header, keyword: str, kind: type) -> Any:
    """Return a date or time of an item; None if the text is neither."""
    text = str(item.get(keyword) or "")
    try:
        parsed = kind(text if " " not in text else "")  # pydicom reads what comes before a space
    except (ValueError, TypeError):
        return None
    match parsed:
        case datetime():
            return parsed.replace(tzinfo=None)
        case date():
            return date(parsed.year, parsed.month, parsed.day)
        case time():
            return time(parsed.hour, parsed.minute, parsed.second, parsed.microsecond)
    return None


def in_position(item: Header) -> str | None:
    numbers = item.get("ReferencedContentItemIdentifier")
    return None if numbers is None else ".".join(str(number) for number in numbers)


# --- content items ---


def content_of(item: Header) -> dict[str, Any]:
    """Return the columns of sr_content that depend on the item alone."""
    number, unit = value(item)
    reference = (item.get("ReferencedSOPSequence") or [Header()])[0]
    names = ("scheme", "code", "meaning")
    return {
        **dict(
            zip(
                (f"concept_{name}" for name in names),
                coded(item, "ConceptNameCodeSequence"),
                strict=True,
            )
        ),
        **dict(
            zip(
                ("code_scheme", "code_value", "code_meaning"),
                coded(item, "ConceptCodeSequence"),
                strict=True,
            )
        ),
        **{
            keyword: item.get(keyword) or None
            for keyword in ("RelationshipType", "ValueType", "TextValue", "UID")
        },
        "PersonName": str(item.get("PersonName") or "") or None,
        "NumericValue": number,
        "unit": unit,
        "DateTime": moment(item, "DateTime", DT),
        "Date": moment(item, "Date", DA),
        "Time": moment(item, "Time", TM),
        "ReferencedSOPClassUID": reference.get("ReferencedSOPClassUID"),
        "ReferencedSOPInstanceUID": reference.get("ReferencedSOPInstanceUID"),
        "ReferencedFrameNumber": integers(item, "ReferencedFrameNumber"),
        "ReferencedSegmentNumber": integers(item, "ReferencedSegmentNumber"),
        "ReferencedContentItemIdentifier": in_position(item),
    }


def test_every_content_item_of_every_document_is_a_row(local: Rows) -> None:
    expected = {
        (path, position): content_of(item)
        for path, document in documents().items()
        for position, item in walk(document.header)
    }
    shown = {(row["path"], row["position"]): row for row in local["sr_content"]}
    assert len(shown) == len(local["sr_content"])
    assert shown.keys() == expected.keys()
    for key, columns in expected.items():
        assert {name: shown[key][name] for name in columns} == columns, key


def test_content_items_know_their_place(local: Rows) -> None:
    rows = {(row["path"], row["position"]): row for row in local["sr_content"]}
    for (path, position), row in rows.items():
        assert row["depth"] == position.count(".")
        if row["depth"] == 0:
            assert row["parent"] is None
            continue
        assert row["parent"] == position.rpartition(".")[0]
        parent = rows[path, row["parent"]]
        for column in ("scheme", "code"):
            assert row[f"parent_concept_{column}"] == parent[f"concept_{column}"]
        assert row["PatientID"] == parent["PatientID"]


def test_reading_order_sorts_a_document_as_it_is_read(local: Rows) -> None:
    for path, document in documents().items():
        rows = [row for row in local["sr_content"] if row["path"] == path]
        rows.sort(key=lambda row: row["reading_order"])
        assert [row["position"] for row in rows] == [place for place, _ in walk(document.header)]


def test_a_reference_by_position_finds_its_item(local: Rows) -> None:
    rows = {(row["path"], row["position"]): row for row in local["sr_content"]}
    references = [row for row in rows.values() if row["ReferencedContentItemIdentifier"]]
    assert len(references) > 1
    for row in references:
        assert (row["path"], row["ReferencedContentItemIdentifier"]) in rows


# --- measurements ---

SITES = {"SCT:363698007", "SRT:G-C0E3"}
SIDES = {"SCT:272741003", "SRT:G-C171"}
METHODS = {"SCT:370129005", "SRT:G-C036"}
ABOUT_GROUPS = SITES | {"DCM:121071", "SCT:276214006", "DCM:112039"}


def children(item: Header, *concepts: str) -> list[Header]:
    return [
        child
        for child in item.get("ContentSequence") or ()
        if not concepts or concept(child) in concepts
    ]


def modifier(item: Header, *concepts: str) -> tuple[str | None, ...]:
    """Return scheme, code and meaning of the first child with one of the concepts."""
    return coded((children(item, *concepts) or [Header()])[0], "ConceptCodeSequence")


def side_of(item: Header) -> tuple[str | None, ...]:
    """Return the laterality of an item, or of its site."""
    owners = [item, *children(item, *SITES)]
    sides = [side for owner in owners for side in children(owner, *SIDES)]
    return coded((sides or [Header()])[0], "ConceptCodeSequence")


def results() -> Iterator[tuple[tuple[str, str], Row]]:
    """Yield path, position and columns of every result of a measurement group."""
    for document in instances():
        for group_position, group in walk(document.header):
            if concept(group) != "DCM:125007":
                continue
            for number, result in enumerate(group.get("ContentSequence") or (), 1):
                is_coded = result.get("ValueType") in {"CODE", "TEXT"}
                is_result = result.get("RelationshipType") == "CONTAINS"
                is_about_group = concept(result) in ABOUT_GROUPS
                if result.get("ValueType") == "NUM" or (
                    is_coded and is_result and not is_about_group
                ):
                    position = f"{group_position}.{number}"
                    yield (document.path, position), columns_of(group, result)


def columns_of(group: Header, result: Header) -> Row:
    tracked = (children(group, "DCM:112039") or [Header()])[0]
    tracked_uid = (children(group, "DCM:112040") or [Header()])[0]
    owner = result if children(result, *SITES) else group
    segments = children(group, "DCM:121191", "DCM:121214")
    numbers = integers(segments[0], "ReferencedSegmentNumber") if segments else []
    number, unit = value(result)
    return {
        "tracking_id": tracked.get("TextValue"),
        "tracking_uid": tracked_uid.get("UID"),
        "finding_code": modifier(group, "DCM:121071")[1],
        "site_scheme": modifier(owner, *SITES)[0],
        "site_code": modifier(owner, *SITES)[1],
        "laterality_code": side_of(owner)[1],
        "name_code": coded(result, "ConceptNameCodeSequence")[1],
        "value": number,
        "unit": unit,
        "code_value": coded(result, "ConceptCodeSequence")[1],
        "TextValue": result.get("TextValue"),
        "derivation_code": modifier(result, "DCM:121401")[1],
        "method_code": (modifier(result, *METHODS)[1] or modifier(group, *METHODS)[1]),
        "ReferencedSegmentNumber": numbers[0] if numbers else None,
    }


def test_every_result_of_a_measurement_group_is_one_row(local: Rows) -> None:
    """With or without a site, numeric or coded, once whatever number of paths it has."""
    expected = dict(results())
    shown = {(row["path"], row["position"]): row for row in local["sr_measurements"]}
    assert len(shown) == len(local["sr_measurements"])
    assert shown.keys() == expected.keys()
    for key, columns in expected.items():
        assert {name: shown[key][name] for name in columns} == columns, key
    sites = [row["site_code"] for row in shown.values()]
    assert None in sites
    assert len(set(sites)) > 3
    assert {row["ValueType"] for row in shown.values()} == {"NUM", "CODE", "TEXT"}


# --- dose ---

PREFIXES = {"": 1, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "µ": 1e-6}


def gray_metres(number: float | None, unit: str | None, power: int) -> float | None:
    """Return a number in Gy, Gy.m or Gy.m2; None if its unit is none of that dimension."""
    match = re.fullmatch(r"([dcmuµ]?)Gy[. ]?(?:([dcm]?)m(2?))?", unit or "")
    if number is None or match is None or abs(number) >= 1e15:  # no dose
        return None
    if power != (0 if match[2] is None else 2 if match[3] else 1):
        return None
    return float(number) * PREFIXES[match[1]] * PREFIXES[match[2] or ""] ** power


DOSES = {
    "ctdi_vol_mGy": ("DCM:113830", 0, 1e-3),
    "dlp_mGy_cm": ("DCM:113838", 1, 1e-5),
    "dap_Gy_m2": ("DCM:122130", 2, 1),
    "dose_rp_mGy": ("DCM:113738", 0, 1e-3),
    "agd_mGy": ("DCM:111631", 0, 1e-3),
}
"""For each column its concept, the power of the length in its unit, and the unit in Gy and m."""


def dose(event: Header, name: str) -> float | None:
    concept_name, power, unit = DOSES[name]
    numbers = [
        gray_metres(*value(item), power) for _, item in walk(event) if concept(item) == concept_name
    ]
    known = [number / unit for number in numbers if number is not None]
    return max(known, default=None)


def texts(event: Header, concept_name: str) -> str | None:
    items = [item for _, item in walk(event) if concept(item) == concept_name]
    return max((item.get("TextValue") or item.get("UID") for item in items), default=None)


def codes(event: Header, *concepts: str) -> str | None:
    items = [item for _, item in walk(event) if concept(item) in concepts]
    return coded(items[0], "ConceptCodeSequence")[1] if items else None


def events() -> dict[tuple[str, str | None], Row]:
    """Return each irradiation event, by its UID or place, and its plane."""
    found: dict[tuple[str, str | None], Row] = {}
    planes = {"113620": "A", "113621": "B", "113622": "single", None: None}
    for document in instances():
        for position, event in walk(document.header):
            if concept(event) not in {"DCM:113819", "DCM:113706"}:
                continue
            uid = texts(event, "DCM:113769")
            plane = planes[codes(event, "DCM:113764")]
            found[uid or f"{document.path} {position}", plane] = {
                "StudyInstanceUID": document.header.StudyInstanceUID,
                "event_uid": uid,
                "plane": plane,
                "radiation": "CT" if concept(event) == "DCM:113819" else "projection",
                "protocol": texts(event, "DCM:125203"),
                "type_code": codes(event, "DCM:113820", "DCM:113721"),
                "phantom_code": codes(event, "DCM:113835"),
                "laterality_code": codes(event, *SIDES),
                "device_serial": texts(event, "DCM:113880")
                or texts(document.header, "DCM:121016")
                or document.header.get("DeviceSerialNumber"),
                **{name: dose(event, name) for name in DOSES},
            }
    return found


def close(shown: Any, expected: Any) -> bool:
    if isinstance(shown, float) and isinstance(expected, float):
        return math.isclose(shown, expected, rel_tol=1e-12)
    return bool(shown == expected)


def assert_close(shown: Row, expected: Row, key: object) -> None:
    differing = {
        name: (shown[name], expected[name])
        for name in expected
        if not close(shown[name], expected[name])
    }
    assert differing == {}, key


def test_an_irradiation_event_is_one_row_however_many_reports_repeat_it(local: Rows) -> None:
    expected = events()
    shown = {
        (row["event_uid"] or f"{row['path']} {row['position']}", row["plane"]): row
        for row in local["dose_events"]
    }
    assert len(shown) == len(local["dose_events"])
    assert shown.keys() == expected.keys()
    for key, columns in expected.items():
        assert_close(shown[key], columns, key)


def test_doses_in_unknown_units_are_reported(local: Rows) -> None:
    units = [row["unknown_units"] for row in local["dose_events"] if row["unknown_units"]]
    assert [sorted(each) for each in units] == [["furlong", "none"]]


def test_the_dose_of_a_study_is_that_of_its_events(local: Rows) -> None:
    by_study: dict[str, list[Row]] = {}
    for event in events().values():
        by_study.setdefault(event["StudyInstanceUID"], []).append(event)
    shown = {row["StudyInstanceUID"]: row for row in local["dose_summary"]}
    assert len(shown) == len(local["dose_summary"])
    assert shown.keys() == by_study.keys()
    for study, members in by_study.items():

        def total(name: str, members: list[Row] = members, **only: str) -> float | None:
            values = [
                event[name]
                for event in members
                if event[name] is not None and all(event[key] == only[key] for key in only)
            ]
            return math.fsum(values) if values else None

        radiations = [event["radiation"] for event in members]
        expected = {
            "ct_events": radiations.count("CT"),
            "projection_events": radiations.count("projection"),
            "dlp_mGy_cm": total("dlp_mGy_cm"),
            "dlp_body_phantom_mGy_cm": total("dlp_mGy_cm", phantom_code="113691"),
            "dap_Gy_m2": total("dap_Gy_m2"),
            "dose_rp_b_mGy": total("dose_rp_mGy", plane="B"),
            "agd_left_mGy": total("agd_mGy", laterality_code="7771000"),
            "agd_right_mGy": total("agd_mGy", laterality_code="24028007"),
        }
        assert_close(shown[study], expected, study)


@pytest.mark.parametrize(
    ("file", "stated"),
    [
        (
            "reports/dose/ct.dcm",
            {"stated_ct_events": 3, "stated_dlp_mGy_cm": 344.8, "reports_with_totals": 1},
        ),
        # three cumulative reports, of which one is stored twice
        (
            "reports/dose/cumulative_1.dcm",
            {"stated_ct_events": 3, "stated_dlp_mGy_cm": 60.0, "reports_with_totals": 3},
        ),
        (
            "reports/dose/biplane.dcm",
            {
                "stated_dap_Gy_m2": 0.000128,  # of both planes
                "stated_dose_rp_a_mGy": 20.0,
                "stated_dose_rp_b_mGy": 4.0,
                "fluoro_time_a_s": 61.0,
                "fluoro_time_b_s": 30.0,
            },
        ),
    ],
)
def test_totals_are_shown_as_the_reports_state_them(local: Rows, file: str, stated: Row) -> None:
    (document,) = made_objects(file)
    (row,) = (
        row
        for row in local["dose_summary"]
        if row["StudyInstanceUID"] == document.header.StudyInstanceUID
    )
    assert_close(row, stated, file)


# --- both engines ---


def test_members_of_one_archive_are_reports_of_their_own() -> None:
    """Their windows and events must not mix, since they have the same path."""
    dataset = EngineDataset()
    for name in ("reports/dose/ct.dcm", "reports/dose/biplane.dcm"):
        (document,) = made_objects(name)
        row = msgspec.structs.replace(document.row, path="gs://analysis/a.zip", member=name)
        dataset.insert("instances", msgspec.to_builtins(row))
    rows = dataset.query("SELECT member, radiation, device_manufacturer FROM dose_events")
    assert Counter((row["member"], row["radiation"]) for row in rows) == {
        ("reports/dose/ct.dcm", "CT"): 3,
        ("reports/dose/biplane.dcm", "projection"): 4,
    }
    assert {row["device_manufacturer"] for row in rows if row["radiation"] == "projection"} == {
        "Angio Makers",
        "Workstation Makers",
    }


def test_reports_without_a_study_are_one_row() -> None:
    dataset = EngineDataset()
    for document in made_objects("reports/dose/c"):
        row = msgspec.structs.replace(document.row, StudyInstanceUID=None)
        dataset.insert("instances", msgspec.to_builtins(row))
    (study,) = dataset.query(
        "SELECT StudyInstanceUID, ct_events, stated_ct_events FROM dose_summary"
    )
    assert study == {"StudyInstanceUID": None, "ct_events": 6, "stated_ct_events": 3}


@pytest.mark.parametrize("view", VIEWS)
def test_googles_engine_shows_the_same_rows(local: Rows, engine: Rows, view: str) -> None:
    made = [each.header for each in made_objects("reports/")]
    studies = {header.StudyInstanceUID for header in made}
    shown = [row for row in local[view] if row["StudyInstanceUID"] in studies]

    def key(row: Row) -> str:
        return f"{row.get('path')} {row.get('position')} {row['StudyInstanceUID']}"

    assert len(engine[view]) == len(shown) > 0
    for here, there in zip(sorted(shown, key=key), sorted(engine[view], key=key), strict=True):
        assert_close(there, here, key(here))
