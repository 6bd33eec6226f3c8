"""The columns lifted from the header, in rows of this release and of older ones."""

import itertools
import json
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

import msgspec
import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.dicom import Conversion
from dcm2bq.lifted import ADDED, ORIGINAL
from tests.dicom.build import converted, dicom, element
from tests.support import googlesql
from tests.support.googlesql_views import evaluate
from tests.support.lifted_values import VALUES

MakeRow = Callable[..., dict[str, Any]]
Insert = Callable[..., None]

FORMS: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat, arrays": {"useArrayWithSingleValue": True},
    "flat, hex": {"useCommonNames": False},
    "flat, hex, arrays": {"useCommonNames": False, "useArrayWithSingleValue": True},
    "dicom-json": {"format": "dicom-json"},
}
NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"
ODD: dict[str, tuple[str, Any]] = {
    "PatientName": (NAME, NAME),
    "StudyTime": ("103015.25", time(10, 30, 15, 250000)),
    "AccessionNumber": ("0042", "0042"),
    "StudyDescription": ("Knee, left", "Knee, left"),
    "InstanceNumber": ("-4", -4),
}
"""Values of some columns that SQL could misread: as written, and as queries return them."""
USUAL = {column.keyword: VALUES[column.keyword] for column in ADDED}
EXPECTED = {
    keyword: ODD[keyword][1] if keyword in ODD else value.typed for keyword, value in USUAL.items()
}


def header(form: str) -> Conversion:
    """Return the conversion, in one of `FORMS`, of an object with a value for every column."""
    written = {
        value.tag: (value.vr, ODD[keyword][0] if keyword in ODD else value.written)
        for keyword, value in USUAL.items()
    }
    elements = [element(tag, vr, text.encode()) for tag, (vr, text) in sorted(written.items())]
    charset = element(0x00080005, "CS", "ISO_IR 192")
    return converted(dicom(charset, *elements), jsonOutput=FORMS[form])


def test_rows_of_every_release_show_every_column(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    """In the view and the functions; older rows get the values from their headers."""
    rows = {}
    for release, form in itertools.product(("this", "older"), FORMS):
        study = f"{release} {form}"
        done = header(form)
        lifted = {} if release == "older" else added(done.columns)
        rows[study] = row(f"gs://c/{study}", 1, study=study, metadata=done.text, **lifted)
    insert(dataset, "instances", *rows.values())
    interval = "(TIMESTAMP '2023-12-31 00:00:00+00', TIMESTAMP '2024-01-02 00:00:00+00')"
    every_study = (f"SELECT * FROM `{dataset.name}.study`('{study}')" for study in rows)
    for source in (
        "instances_live",
        f"({' UNION ALL '.join(every_study)})",
        f"`{dataset.name}.ingested_between`{interval}",
        f"`{dataset.name}.changes_between`{interval}",
    ):
        shown = dataset.query(
            f"SELECT StudyInstanceUID, {', '.join(EXPECTED)} FROM {source} "
            "WHERE StudyInstanceUID IN UNNEST(@studies) ORDER BY StudyInstanceUID",
            {"studies": list(rows)},
        )
        assert shown == [{"StudyInstanceUID": study, **EXPECTED} for study in sorted(rows)], source
    stored = dataset.query(
        "SELECT StudyInstanceUID, PatientName, StudyTime FROM instances "
        "WHERE StudyInstanceUID IN UNNEST(@studies)",
        {"studies": list(rows)},
    )
    empty = {each["StudyInstanceUID"] for each in stored if each["PatientName"] is None}
    assert empty == {study for study in rows if study.startswith("older")}


def added(attributes: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return a row's values in the columns that older rows lack."""
    return {column.keyword: attributes[column.keyword] for column in ADDED}


def test_the_columns_of_the_first_release_are_unchanged() -> None:
    """Rows of every release have them, so no view fills them in."""
    assert [column.keyword for column in ORIGINAL] == [
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "SOPClassUID",
        "Modality",
        "PatientID",
        "StudyDate",
    ]
    assert list(EXPECTED) == [column.keyword for column in ADDED]


def test_studies_and_series_show_the_lifted_columns(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    """With rows of both releases in one study."""
    for number, form in enumerate(FORMS):
        done = header(form)
        lifted = added(done.columns) if number % 2 else {}
        about = {"study": "both", "instance": form, "metadata": done.text}
        insert(dataset, "instances", row(f"gs://both/{number}", 1, **about, **lifted))
    (study,) = dataset.query("SELECT * FROM studies WHERE StudyInstanceUID = 'both'")
    for column in (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyTime",
        "AccessionNumber",
        "StudyDescription",
    ):
        assert study[column] == EXPECTED[column]
    (series,) = dataset.query("SELECT * FROM series WHERE StudyInstanceUID = 'both'")
    for column in (
        "SeriesNumber",
        "SeriesDescription",
        "BodyPartExamined",
        "Manufacturer",
        "ManufacturerModelName",
        "StationName",
    ):
        assert series[column] == EXPECTED[column]
    assert study["NumberOfStudyRelatedInstances"] == len(FORMS)


TEXTS = {
    "StudyTime": [
        *("235959", "235960", "240000", "2359", "23", "2", "235", "1030.5", "103015.", "٢٣"),
        *("103015.25", "103015.123456", "103015.1234567", "10:30:15.5", "10:30", "1030:15", "x"),
    ],
    "PatientBirthDate": [
        *("20240229", "20230229", "00000101", "00010101", "99991231", "2024.02.29", "2024.0229"),
        *("2024-02-29", "2024", "19701301", "x"),
    ],
    "SeriesNumber": [
        *("7", "+7", "-007", "7.0", "0x10", "seven", "9223372036854775807", "9223372036854775808"),
    ],
}


@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.timeout(googlesql.TIMEOUT)
def test_older_rows_get_the_values_that_this_release_lifts(column: str, row: MakeRow) -> None:
    """On Google's engine, for any text: the same value or NULL."""
    (tag,) = [lifted.tag for lifted in ADDED if lifted.keyword == column]
    vr = {"StudyTime": "TM", "PatientBirthDate": "DA", "SeriesNumber": "IS"}[column]
    rows = []
    for number, text in enumerate(TEXTS[column]):
        done = converted(dicom(element(tag, vr, text.encode())))
        for release, lifted in enumerate(({}, {column: done.columns[column]})):
            path = f"gs://text/{release}/{number:02}"
            rows.append(row(path, 1, metadata=done.text, **lifted))
    found = evaluate(f"SELECT CAST({column} AS STRING) FROM instances_live ORDER BY path", rows)
    older, newer = found[: len(found) // 2], found[len(found) // 2 :]
    assert older == newer
    assert len({value for (value,) in older}) > 2


def test_extreme_values_are_stored_unchanged(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    """Dates, times and integers are sent as text; no lifted value makes BigQuery refuse a row."""
    extremes = {
        "PatientBirthDate": (0x00100030, "DA", "00010101"),
        "StudyTime": (0x00080030, "TM", "235959.999999"),
        "SeriesNumber": (0x00200011, "IS", "9223372036854775807"),
        "InstanceNumber": (0x00200013, "IS", "-9223372036854775808"),
    }
    done = converted(dicom(*(element(*extreme) for extreme in extremes.values())))
    columns = msgspec.json.encode(added(done.columns))
    insert(dataset, "instances", row("gs://extreme/1", 1, study="extreme", **json.loads(columns)))
    (found,) = dataset.query(
        f"SELECT {', '.join(extremes)} FROM instances WHERE StudyInstanceUID = 'extreme'"
    )
    assert tuple(found.values()) == (
        date(1, 1, 1),
        time(23, 59, 59, 999999),
        2**63 - 1,
        -(2**63),
    )
