"""Real files under the profile with all its options, compared with what pydicom reads."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dcm2bq.config import from_overrides
from dcm2bq.dicom import Conversion, convert, deidentification_codes, privacy_rules
from tests.support.privacy_options import KEY, OPTIONS, PROFILE_WITH_OPTIONS

FILES = ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "reportsi.dcm", "rtplan.dcm")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    yield
    privacy_rules.cache_clear()


def path(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def research(name: str, **privacy: Any) -> Conversion:
    return convert(path(name), {"privacy": PROFILE_WITH_OPTIONS | privacy})


def values(data: Dataset, vr: str, *, but: str = "") -> set[str]:
    """Return all values of a VR in a data set, at every level, `but` those of one keyword."""
    elements = [e for e in data.iterall() if vr == e.VR and e.value and e.keyword != but]
    multiple = [e.value if e.VM > 1 else [e.value] for e in elements]
    return {str(value) for parts in multiple for value in parts}


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_keeps_no_name_no_uid_and_no_date(name: str) -> None:
    data = pydicom.dcmread(path(name))
    done = research(name)
    originals = values(data, "PN") | values(data, "DA") | values(data, "DT")
    uids = values(data, "UI", but="CodingSchemeUID")
    secrets = originals | {uid for uid in uids if not uid.startswith("1.2.840.10008.")}
    assert len(secrets) > 3
    text = f"{done.text} {dict(done.columns)} {done.warnings}"
    assert [secret for secret in secrets if len(secret) > 3 and secret in text] == []
    assert done.metadata["PatientID"] is None
    assert done.metadata["SOPClassUID"] == data.SOPClassUID


def test_the_dates_of_a_ct_are_shifted_by_the_same_days_and_its_times_stay() -> None:
    data = pydicom.dcmread(path("CT_small.dcm"))
    done = research("CT_small.dcm")
    keywords = ["StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"]
    shifts = {
        date.fromisoformat(str(data[keyword].value)) - date.fromisoformat(done.metadata[keyword])
        for keyword in keywords
    }
    (shift,) = shifts
    assert 1 <= shift.days <= 365
    assert done.columns["StudyDate"] == str(date.fromisoformat(done.metadata["StudyDate"]))
    assert done.metadata["StudyTime"] == data.StudyTime
    (fewer,) = {
        (date.fromisoformat(str(data.StudyDate)) - date.fromisoformat(text)).days
        for text in [research("CT_small.dcm", shiftDays=1).metadata["StudyDate"]]
    }
    assert fewer == 1


def test_a_ct_keeps_device_institution_characteristics_and_what_is_listed() -> None:
    data = pydicom.dcmread(path("CT_small.dcm"))
    metadata = research("CT_small.dcm").metadata
    for keyword in ("StationName", "InstitutionName", "PatientSex", "StudyDescription"):
        assert metadata[keyword] == data[keyword].value
    assert metadata["PatientWeight"] == data.PatientWeight
    assert metadata["PatientID"] is None
    assert "AdditionalPatientHistory" not in metadata
    assert "ImageComments" not in metadata


def test_of_the_private_elements_of_a_ct_only_listed_ones_stay_with_their_creators() -> None:
    before = convert(path("CT_small.dcm")).metadata
    after = research("CT_small.dcm").metadata
    kept = {key: value for key, value in after.items() if re.fullmatch("[0-9A-F]{8}", key)}
    assert kept == {
        key: before[key]
        for key in (
            *("00190010", "00191023", "00191024", "00191027"),
            *("00250010", "00251007", "00430010", "00431027", "00450010"),
            *("00451001", "00451002"),
        )
        if key in before
    }
    assert {"00190010", "00191023", "00430010"} <= kept.keys()


@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm"])
def test_a_report_keeps_numbers_and_codes_and_no_text(name: str) -> None:
    data = pydicom.dcmread(path(name))
    text = research(name).text
    numbers = [str(e.value) for e in data.iterall() if e.keyword == "NumericValue"]
    assert [number for number in numbers if number not in text] == []
    types = {item.ValueType for item in data.ContentSequence}
    assert types & {"TEXT", "PNAME", "CONTAINER"}
    assert set(re.findall(r'"(?:TextValue|PersonName)":([^,}]*)', text)) <= {"null"}
    items = [element for item in data.ContentSequence for element in item.iterall()]
    codes = {str(element.value) for element in items if element.keyword == "CodeValue"} - {"cm"}
    assert codes  # all but a word in a scheme that nobody knows
    assert [code for code in codes if f'"{code}"' not in text] == []


def test_retained_uids_are_those_of_the_file() -> None:
    data = pydicom.dcmread(path("CT_small.dcm"))
    done = research("CT_small.dcm", options=[*OPTIONS, "retainUids"])
    assert done.columns["StudyInstanceUID"] == data.StudyInstanceUID
    assert done.metadata["MediaStorageSOPInstanceUID"] == data.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in done.metadata
    assert "ImplementationClassUID" not in done.metadata


def test_remove_and_hash_precede_the_options() -> None:
    done = research("CT_small.dcm", remove=["StudyDate", "private"], hash=["StationName"])
    assert "StudyDate" not in done.metadata
    assert re.fullmatch("[0-9A-F]{64}", done.metadata["StationName"])
    assert not [key for key in done.metadata if key.startswith("0019")]


def test_what_was_done_is_said_by_codes() -> None:
    """113100 to 113112 of CID 7050; codes of options that concern pixels are not among them."""
    privacy = from_overrides({"privacy": PROFILE_WITH_OPTIONS}).privacy
    assert deidentification_codes(privacy) == (
        *("113100", "113104", "113105", "113107", "113108", "113109", "113111", "113112"),
    )
    full = from_overrides(
        {"privacy": {"profile": "basic", "options": ["retainLongitudinalFullDates", "retainUids"]}}
    )
    assert deidentification_codes(full.privacy) == ("113100", "113106", "113110")
    hashed = from_overrides({"privacy": {"hash": ["PatientID"]}}).privacy
    assert deidentification_codes(hashed) == ()
