"""Dates are shifted by patient, ages are capped, and what cannot be read is emptied."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from dcm2bq.dicom.elements import Element, Item
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.dates import (
    can_be_modified,
    capped,
    days_back,
    modified,
    shifted,
    temporal_vr,
)

KEY = b"a key that is long enough"
STUDY_DATE = 0x00080020
ACQUISITION_DATETIME = 0x0008002A
STUDY_TIME = 0x00080030
TIMEZONE = 0x00080201
PATIENT_AGE = 0x00101010


def element(tag: int, vr: str, value: bytes | str | list[Item] | None) -> Element:
    value = value.encode() if isinstance(value, str) else value
    return Element(tag, vr, 0, len(value or b""), value, vr)


def patient(
    identifier: bytes | str | None = "4711",
    issuer: str | None = None,
    study: str | None = "1.2.3",
    *more: Element,
) -> Item:
    """Return a data set with these identifiers."""
    values = [
        (0x00100020, "LO", identifier),
        (0x00100021, "LO", issuer),
        (0x0020000D, "UI", study),
    ]
    made = [element(*value) for value in values if value[2] is not None]
    return sorted([*made, *more], key=lambda made: made.tag)


def days(data_set: Item, key: bytes = KEY, most: int = 365) -> int | None:
    return days_back(data_set, key, most, Notes())


def changed(
    tag: int, vr: str, value: bytes | str | list[Item] | None, back: int | None = 10
) -> str:
    """Return the values of an element with its dates shifted, and its warnings, if any."""
    notes = Notes()
    one = element(tag, vr, value)
    result = modified(one, [one], back, notes)
    assert isinstance(result.value, bytes)
    assert result.vr == temporal_vr(tag, vr) or tag == TIMEZONE
    return " ! ".join((result.value.decode(), *notes.warnings))


def test_all_objects_of_a_patient_are_shifted_by_the_same_days() -> None:
    """Whatever their study, padding, character set and the VR in which the ID is written."""
    latin = element(0x00080005, "CS", "ISO_IR 100")
    utf8 = element(0x00080005, "CS", "ISO_IR 192")
    objects = [
        patient("Müller".encode(), None, "1.2.3", utf8),
        patient(" Müller ".encode(), " ", "1.2.4", utf8),
        patient("Müller".encode("latin_1"), None, None, latin),
        [element(0x00100020, "SH", "Müller".encode())],  # no character set: UTF-8 is recognised
    ]
    assert len({days(data_set) for data_set in objects}) == 1


def test_patients_of_two_issuers_are_different_patients() -> None:
    shifts = {days(patient("4711", issuer), most=3650) for issuer in ("A", "B", None)}
    assert len(shifts) == 3


def test_without_a_patient_id_the_study_decides() -> None:
    expected = days(patient(None, None, "1.2.3"))
    assert days(patient("", "A", "1.2.3 ")) == days(patient(None, None, "1.2.3\0")) == expected
    assert days(patient(None, None, "1.2.4")) != expected
    assert days(patient("1.2.3", None, None)) != expected, "an ID is not a study"


def test_without_patient_id_and_study_dates_are_emptied_with_a_warning() -> None:
    notes = Notes()
    data_set = patient(None, "A", None)
    assert days_back(data_set, KEY, 365, notes) is None
    assert notes.warnings == (
        "dates are emptied: there is no Patient ID and no Study Instance UID",
    )
    assert changed(STUDY_DATE, "DA", "20240229", None) == ""
    assert changed(ACQUISITION_DATETIME, "DT", "20240229101500", None) == ""
    assert changed(STUDY_TIME, "TM", "101500", None) == "101500"


def test_equal_keys_give_equal_shifts_in_every_process_and_others_do_not() -> None:
    data_sets = [patient(str(number)) for number in range(50)]
    here = [days(data_set, most=3650) for data_set in data_sets]
    other = [days(data_set, b"another key that is long enough", 3650) for data_set in data_sets]
    assert sum(a == b for a, b in zip(here, other, strict=True)) < 5
    script = (
        "from tests.dicom.test_dates import days, patient\n"
        "print([days(patient(str(number)), most=3650) for number in range(50)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == str(here)


def test_all_numbers_of_days_are_equally_likely() -> None:
    """20,000 patients on 20 days: a fair choice exceeds this chi-square once in 10,000 keys."""
    counts = Counter(days(patient(str(number)), most=20) for number in range(20_000))
    assert set(counts) == set(range(1, 21))
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 52


@given(st.dates(date(1900, 1, 2), date(2199, 12, 31)), st.integers(1, 3650))
def test_dates_are_shifted_back_by_whole_days(day: date, back: int) -> None:
    """Across leap days, the ends of months and of centuries."""
    result = shifted("DA", f"{day:%Y%m%d}", back)
    if result is None:
        assert (day.month, day.day) == (1, 1)
        return
    assert date.fromisoformat(result) == day - timedelta(back)


@given(st.lists(st.floats(0, 200), min_size=2, max_size=6), st.integers(1, 3650))
def test_the_intervals_between_dates_and_times_survive(years: list[float], back: int) -> None:
    moments = [datetime(1950, 6, 1, tzinfo=UTC) + timedelta(365.25 * year) for year in years]
    moments = [moment for moment in moments if (moment.month, moment.day) != (1, 1)]
    texts = [f"{moment:%Y%m%d%H%M%S.%f}+0000" for moment in moments]
    results = [str(shifted("DT", text, back)) for text in texts]
    read = [datetime.strptime(result, "%Y%m%d%H%M%S.%f%z") for result in results]
    assert [b - a for a, b in pairwise(read)] == [b - a for a, b in pairwise(moments)]
    assert [result[8:] for result in results] == [text[8:] for text in texts]


BAD_DATE = "emptied: not a date that can be shifted (offset 0)"


@pytest.mark.parametrize(
    ("tag", "vr", "value", "expected"),
    [
        # Dates: today's form and that before DICOM 3.0, several values, padding and ranges.
        (STUDY_DATE, "DA", "20240305", "20240224"),
        (STUDY_DATE, "DA", "1994.03.05 ", "1994.02.23"),
        (STUDY_DATE, "DA", "20240305\\20230111", "20240224\\20230101"),
        (STUDY_DATE, "DA", "20240305-20240312", "20240224-20240302"),
        (STUDY_DATE, "DA", "20240305-", "20240224-"),
        (STUDY_DATE, "DA", "-20240305", "-20240224"),
        (STUDY_DATE, "DA", "", ""),
        (STUDY_DATE, "DA", "        ", ""),
        # Dates with times: offset, fraction and precision stay.
        (ACQUISITION_DATETIME, "DT", "20240305", "20240224"),
        (ACQUISITION_DATETIME, "DT", "2024030509", "2024022409"),
        (ACQUISITION_DATETIME, "DT", "202403052359", "202402242359"),
        (ACQUISITION_DATETIME, "DT", "20240305235960.123456-0330", "20240224235960.123456-0330"),
        (ACQUISITION_DATETIME, "DT", "20240305-0500", "20240224-0500"),
        (ACQUISITION_DATETIME, "DT", "20240305-20240306", "20240224-20240225"),
        (ACQUISITION_DATETIME, "DT", "2024030510+0100-", "2024022410+0100-"),
        # The dictionary's VR decides, or the written one if there is none.
        (STUDY_DATE, "LO", "20240305", "20240224"),
        (STUDY_DATE, "UN", "20240305", "20240224"),
        (0x00191001, "DA", "20240305", "20240224"),
        (0x00081030, "DA", "20240305", "20240224"),
        # Times.
        (STUDY_TIME, "TM", "101530.25 ", "101530.25"),
        (STUDY_TIME, "TM", "10:15:30", "10:15:30"),
        (STUDY_TIME, "TM", "10-11", "10-11"),
        (TIMEZONE, "SH", "+0100 ", "+0100"),
    ],
)
def test_a_date_is_shifted_in_every_form(tag: int, vr: str, value: str, expected: str) -> None:
    assert changed(tag, vr, value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "SENTINEL",
        "20230229",
        "20241301",
        "00000000",
        "2024-03-05",
        "20240305101500",
        "5 March",
        "20240305 Doe",
        "-",
        "\uff12\uff10\uff12\uff14\uff10\uff13\uff10\uff15",
        b"\xff\xfe",
        b"20240305\0\0\x01",
    ],
)
def test_a_date_that_cannot_be_read_is_emptied(value: str | bytes) -> None:
    assert changed(STUDY_DATE, "DA", value) == f" ! 00080020 DA: {BAD_DATE}"


@pytest.mark.parametrize("value", [None, [], [[]]])
def test_a_date_without_bytes_is_emptied(value: list[Item] | None) -> None:
    assert changed(STUDY_DATE, "SQ", value) == f" ! 00080020 SQ: {BAD_DATE}"


def test_of_several_dates_only_the_broken_one_is_emptied() -> None:
    assert changed(STUDY_DATE, "DA", "20240305\\later\\20240306") == (
        f"20240224\\\\20240225 ! 00080020 DA: {BAD_DATE}"
    )


@pytest.mark.parametrize("value", ["2024", "202403", "2024+0100", "202403-0500"])
def test_a_date_of_a_year_or_a_month_is_emptied(value: str) -> None:
    """Shifted by days it would be a day; cut again, no interval to another date would be right."""
    assert changed(ACQUISITION_DATETIME, "DT", value) == f" ! 0008002A DT: {BAD_DATE}"


@pytest.mark.parametrize(
    "value",
    ["00010101", "19000101", "18991230", "19700101", "1970.01.01", "20000101", "99991231"],
)
def test_a_date_that_stands_for_none_would_reveal_the_days_and_is_emptied(value: str) -> None:
    assert changed(STUDY_DATE, "DA", value) == f" ! 00080020 DA: {BAD_DATE}"


@pytest.mark.parametrize(
    ("tag", "vr", "value", "kind"),
    [
        (STUDY_TIME, "TM", "20240305", "a time"),
        (STUDY_TIME, "TM", "20240305101530", "a time"),
        (STUDY_TIME, "TM", "noon", "a time"),
        (TIMEZONE, "SH", "Berlin", "an offset from UTC"),
    ],
)
def test_a_time_that_could_be_a_date_is_emptied(tag: int, vr: str, value: str, kind: str) -> None:
    assert changed(tag, vr, value) == f" ! {tag:08X} {vr}: emptied: not {kind} (offset 0)"


def test_dates_that_patients_share_are_not_shifted() -> None:
    """One of these, known from elsewhere, would reveal the days of every patient who has it."""
    names = [
        "CalibrationDate",
        "ContextGroupVersion",
        "DateOfInstallation",
        "DateOfLastCalibration",
        "DateOfManufacture",
        "EthicsCommitteeApprovalEffectivenessStartDate",
    ]
    assert [name for name in names if can_be_modified(tag_for_keyword(name) or 0)] == []
    assert can_be_modified(STUDY_DATE)
    assert can_be_modified(TIMEZONE)
    assert not can_be_modified(tag_for_keyword("FrameOriginTimestamp") or 0), "bytes"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("045Y", "045Y"),
        ("089Y ", "089Y"),
        ("090Y", "090Y"),
        ("091Y", "090Y"),
        ("123Y", "090Y"),
        ("93Y", "090Y"),
        ("999M", "999M"),
        ("005D", "005D"),
        ("101Y\\044Y", "090Y\\044Y"),
        ("", ""),
    ],
)
def test_ages_above_89_years_become_90_years(value: str, expected: str) -> None:
    notes = Notes()
    one = element(PATIENT_AGE, "AS", value)
    assert capped(one, [one], notes).value == expected.encode()
    assert notes.warnings == ()


@pytest.mark.parametrize(
    "value", ["93", "1093M", "93 years", "SENTINEL", "093y", b"\xb9\xb2Y", None]
)
def test_what_is_not_an_age_is_emptied_with_a_warning(value: str | bytes | None) -> None:
    notes = Notes()
    one = element(PATIENT_AGE, "LO", value)
    assert capped(one, [one], notes).value == b""
    assert notes.warnings == ("00101010 LO: emptied: not an age (offset 0)",)
