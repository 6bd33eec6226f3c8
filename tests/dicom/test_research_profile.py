"""Real files under the profile with all its options, compared with what pydicom reads."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dcm2bq.config import from_overrides
from dcm2bq.dicom import Conversion, convert, deidentification_codes
from tests.dicom.build import dicom, element, identity
from tests.support.privacy_options import KEY, OPTIONS, PROFILE_WITH_OPTIONS

FILES = ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "reportsi.dcm", "rtplan.dcm")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)


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
    codes = {str(element.value) for element in items if element.keyword == "CodeValue"}
    assert codes
    assert [code for code in codes if f'"{code}"' not in text] == []


def test_retained_uids_are_those_of_the_file() -> None:
    data = pydicom.dcmread(path("CT_small.dcm"))
    done = research("CT_small.dcm", options=[*OPTIONS, "retainUids"])
    assert done.columns["StudyInstanceUID"] == data.StudyInstanceUID
    assert done.metadata["MediaStorageSOPInstanceUID"] == data.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in done.metadata
    assert "ImplementationClassUID" not in done.metadata


@pytest.mark.parametrize("vr", ["UI", "LO", "UN"])
def test_a_text_that_is_not_a_uid_is_not_retained_as_one(vr: str) -> None:
    study, series = element(0x0020000D, vr, "DOE^JANE"), element(0x0020000E, vr, "1.2.3")
    options = {"privacy": {"profile": "basic", "options": ["retainUids"]}}
    done = convert(dicom(identity(), study, series), options)
    assert done.metadata["SeriesInstanceUID"] == "1.2.3"
    assert done.columns["StudyInstanceUID"] == done.metadata["StudyInstanceUID"]
    assert re.fullmatch(r"2\.25\.\d+", done.metadata["StudyInstanceUID"])


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


UNLISTED = {
    0x00100033: ("LO", "5714-01-02"),  # date of birth in another calendar
    0x00141020: ("DA", "20240307"),  # Expiry Date, which the table does not list
    0x00081030: ("DA", "20240307"),  # a description written as a date
    0x00181020: ("DT", "20240307101500"),  # software versions: kept with the device's identity
    0x0AF10BC0: ("DA", "20240307"),
    0x0AF20BC0: ("DT", "20240307101500"),  # nobody knows these two
}


@pytest.mark.parametrize(
    ("options", "dates"),
    [
        ([], set()),
        (["retainDeviceIdentity"], set()),
        (["retainDeviceIdentity", "retainLongitudinalModifiedDates"], {"shifted"}),
        (["retainDeviceIdentity", "retainLongitudinalFullDates"], {"20240307", "20240307101500"}),
    ],
)
def test_a_date_that_the_table_does_not_list_is_a_date(options: list[str], dates: set[str]) -> None:
    elements = [element(tag, vr, value) for tag, (vr, value) in sorted(UNLISTED.items())]
    patient = element(0x00100020, "LO", "4711")
    content = dicom(identity(), *sorted([*elements, patient], key=lambda e: e[1::-1] + e[3:1:-1]))
    done = convert(content, {"privacy": {"profile": "basic", "options": options}})
    assert "5714" not in done.text
    left = set(re.findall(r'"(20[0-9]{6}(?:101500)?)"', done.text))
    if dates == {"shifted"}:
        assert {text[:8] for text in left} == {min(left)[:8]}
        assert {text[8:] for text in left} == {"", "101500"}
        assert "20240307" not in done.text
    else:
        assert left == dates


@pytest.mark.parametrize("options", [[], ["retainUids"]])
def test_a_name_or_uid_that_the_table_does_not_list_is_one(options: list[str]) -> None:
    """UIDs of classes are kept: private ones, too, are no UIDs of objects."""
    content = dicom(
        identity(),
        element(0x0008001A, "UI", "1.2.77.1"),  # Related General SOP Class UID
        element(0x00081167, "UI", "1.2.77.2"),  # Multi-frame Source SOP Instance UID
        element(0x00142006, "PN", "Doe^Jane"),  # Evaluator Name
        element(0x0040A067, "PN", "Doe^Jane"),  # Document Author (Trial)
        element(0x0040E030, "UI", "1.2.77.3"),  # Repository Unique ID
        element(0x0AF00CBC, "PN", "Doe^Jane"),  # nobody knows these two
        element(0x0AF00CBE, "UI", "1.2.77.4"),
    )
    assert convert(content).text.count("Doe^Jane") == 3
    done = convert(content, {"privacy": {"profile": "basic", "options": options}})
    assert "Doe" not in done.text
    kept = set(re.findall(r"1\.2\.77\.\d", done.text))
    assert kept == ({f"1.2.77.{n}" for n in range(1, 5)} if options else {"1.2.77.1"})
    assert done.text.count('"2.25.') == (0 if options else 5)


def test_the_column_of_the_study_date_is_the_shifted_date() -> None:
    done = research("CT_small.dcm")
    assert done.columns["StudyDate"] == str(date.fromisoformat(done.metadata["StudyDate"]))
    assert done.columns["StudyTime"] is not None
