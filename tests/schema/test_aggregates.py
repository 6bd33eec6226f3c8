"""The figures of `studies` and `series`."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from dcm2bq.bigquery.dataset import Dataset

MakeRow = Callable[..., dict[str, Any]]
Load = Callable[[Dataset, Sequence[dict[str, Any]]], None]

FORMS: dict[str, Callable[[str, str, Any], dict[str, Any]]] = {
    "flat": lambda keyword, _, value: {keyword: value},
    "flat, arrays": lambda keyword, _, value: {keyword: [value]},
    "flat, hex": lambda _, tag, value: {tag: value},
    "flat, hex, arrays": lambda _, tag, value: {tag: [value]},
    "dicom-json": lambda _, tag, value: {tag: {"vr": "LO", "Value": [value]}},
}


def one(dataset: Dataset, view: str, study: str) -> dict[str, Any]:
    (row,) = dataset.query(f"SELECT * FROM {view} WHERE StudyInstanceUID = @uid", {"uid": study})
    return row


def size(count: int) -> dict[str, Any]:
    return {"input": {"size": count}}


def test_figures(dataset: Dataset, load: Load, row: MakeRow) -> None:
    """Instances count once wherever they lie; deleted and superseded rows count nowhere."""
    load(
        dataset,
        [
            row("gs://f/1", 1, at=10, study="S", series="A", instance="1", info=size(100)),
            row("gs://f/copy", 1, at=30, study="S", series="A", instance="1", info=size(100)),
            row("gs://f/2", 1, at=20, study="S", series="A", instance="2", info=size(10)),
            row("gs://f/3", 1, at=5, study="S", series="B", instance="3", info=size(1)),
            row("gs://f/3", 2, at=40, study="S", series="B", instance="3", info=size(2)),
            row("gs://f/4", 1, at=50, study="S", series="C", instance="4", info=size(1000)),
            row("gs://f/4", 1, "deleted", at=60, study=None, series=None, instance=None),
        ],
    )
    load(
        dataset,
        [
            row("gs://f/5", 1, at=15, study="S", series="B", instance="5", Modality="SR"),
            row("gs://f/6", 1, at=16, study="S", series="B", instance="6", Modality="CT"),
            row("gs://f/7", 1, at=17, study="S", series="B", instance="7", Modality="CT"),
        ],
    )
    study = one(dataset, "studies", "S")
    assert study["ModalitiesInStudy"] == ["CT", "SR"]
    assert study["NumberOfStudyRelatedSeries"] == 2
    assert study["NumberOfStudyRelatedInstances"] == 6
    assert study["bytes"] == 212
    assert study["first_timestamp"] == datetime(2024, 1, 1, 0, 0, 10, tzinfo=UTC)
    assert study["last_timestamp"] == datetime(2024, 1, 1, 0, 0, 40, tzinfo=UTC)
    series = dataset.query(
        "SELECT * FROM series WHERE StudyInstanceUID = 'S' ORDER BY SeriesInstanceUID"
    )
    assert [
        (each["SeriesInstanceUID"], each["NumberOfSeriesRelatedInstances"], each["bytes"])
        for each in series
    ] == [("A", 2, 210), ("B", 4, 2)]
    assert series[1]["Modality"] == "SR"


@pytest.mark.parametrize("form", FORMS)
def test_values_of_the_header_in_every_form(
    dataset: Dataset, load: Load, row: MakeRow, form: str
) -> None:
    """Whatever `jsonOutput` says, the same columns come out."""
    header: dict[str, Any] = {}
    for keyword, tag, value in [
        ("StudyDescription", "00081030", "Knee"),
        ("AccessionNumber", "00080050", "0042"),
        ("SeriesNumber", "00200011", 7),
        ("SeriesDescription", "0008103E", "Axial"),
        ("BodyPartExamined", "00180015", "KNEE"),
    ]:
        header |= FORMS[form](keyword, tag, value)
    lifted = {"PatientID": "P1", "StudyDate": "2024-05-06", "Modality": "MR"}
    load(dataset, [row(f"gs://form/{form}", 1, study=form, metadata=header, **lifted)])
    study, series = one(dataset, "studies", form), one(dataset, "series", form)
    assert study["StudyDescription"] == "Knee"
    assert study["AccessionNumber"] == "0042"
    assert (series["SeriesNumber"], series["SeriesDescription"]) == (7, "Axial")
    assert series["BodyPartExamined"] == "KNEE"
    for each in (study, series):
        assert (each["PatientID"], each["StudyDate"]) == ("P1", date(2024, 5, 6))


def test_nothing_known_but_the_uids(dataset: Dataset, load: Load, row: MakeRow) -> None:
    """Empty elements are null, a modality that nobody gives is no modality."""
    header: dict[str, Any] = {
        "StudyDescription": None,
        "SeriesNumber": "seven",
        "AccessionNumber": [],
    }
    load(dataset, [row("gs://bare/1", 1, study="bare", metadata=header)])
    study, series = one(dataset, "studies", "bare"), one(dataset, "series", "bare")
    assert study["ModalitiesInStudy"] == []
    sql = "SELECT StudyInstanceUID FROM studies WHERE ModalitiesInStudy IS NULL"
    assert dataset.query(sql) == []
    for column in ("PatientID", "StudyDate", "StudyDescription", "AccessionNumber", "bytes"):
        assert study[column] is None
    assert series["SeriesNumber"] is None


def test_objects_without_uids_are_in_no_study(dataset: Dataset, load: Load, row: MakeRow) -> None:
    load(dataset, [row("gs://none/DICOMDIR", 1, study=None, series=None, instance=None)])
    (live,) = dataset.query("SELECT path FROM instances_live WHERE path LIKE 'gs://none/%'")
    assert live["path"] == "gs://none/DICOMDIR"
    for view in ("studies", "series"):
        assert not dataset.query(f"SELECT * FROM {view} WHERE StudyInstanceUID IS NULL")
