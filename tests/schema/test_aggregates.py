"""The values of `studies`, `series` and `patients`."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config

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


def test_counts_and_sizes_of_studies_and_series(dataset: Dataset, load: Load, row: MakeRow) -> None:
    """An instance at several paths counts once; deleted and superseded rows do not count."""
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
        (
            series_row["SeriesInstanceUID"],
            series_row["NumberOfSeriesRelatedInstances"],
            series_row["bytes"],
        )
        for series_row in series
    ] == [("A", 2, 210), ("B", 4, 2)]
    assert series[1]["Modality"] == "SR"


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_the_same_for_every_json_format(
    dataset: Dataset, load: Load, row: MakeRow, form: str
) -> None:
    """Whatever the `jsonOutput` options are."""
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
    for aggregate in (study, series):
        assert (aggregate["PatientID"], aggregate["StudyDate"]) == ("P1", date(2024, 5, 6))


def test_missing_attributes_are_null(dataset: Dataset, load: Load, row: MakeRow) -> None:
    """Empty elements are NULL, and `ModalitiesInStudy` is empty."""
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


def test_objects_without_uids_belong_to_no_study(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    load(dataset, [row("gs://none/DICOMDIR", 1, study=None, series=None, instance=None)])
    (live,) = dataset.query("SELECT path FROM instances_live WHERE path LIKE 'gs://none/%'")
    assert live["path"] == "gs://none/DICOMDIR"
    for view in ("studies", "series"):
        assert not dataset.query(f"SELECT * FROM {view} WHERE StudyInstanceUID IS NULL")


def test_patients_are_grouped_by_id_and_issuer(dataset: Dataset, load: Load, row: MakeRow) -> None:
    """With all names, birth dates and sexes of their objects, and counts."""

    def scan(number: int, study: str, issuer: str | None, **columns: Any) -> dict[str, Any]:
        about = {"PatientID": "P-7", "info": {"input": {"size": 10}}, **columns}
        metadata = {"IssuerOfPatientID": issuer} if issuer else {}
        uids = {"study": study, "series": f"{study}.1", "instance": str(number)}
        return row(f"gs://patients/{number}", 1, at=number, metadata=metadata, **uids, **about)

    load(
        dataset,
        [
            scan(1, "p1", "A", PatientName="Doe^Jane", PatientSex="F", StudyDate="2020-01-02"),
            scan(2, "p1", "A", PatientName="Doe^Jane", PatientBirthDate="1970-01-01"),
            scan(3, "p2", "A", PatientName="DOE^JANE", StudyDate="2024-05-06"),
            scan(4, "p3", "B", PatientName="Roe^Richard", PatientSex="M"),
            scan(5, "p4", None),
            row("gs://patients/6", 1, study="p5", PatientID=None),
        ],
    )
    found = dataset.query(
        "SELECT * FROM patients WHERE PatientID = 'P-7' ORDER BY IssuerOfPatientID"
    )
    nobody, jane, richard = found
    assert jane == {
        "PatientID": "P-7",
        "IssuerOfPatientID": "A",
        "names": ["DOE^JANE", "Doe^Jane"],
        "birth_dates": [date(1970, 1, 1)],
        "sexes": ["F"],
        "NumberOfPatientRelatedStudies": 2,
        "NumberOfPatientRelatedSeries": 2,
        "NumberOfPatientRelatedInstances": 3,
        "first_study_date": date(2020, 1, 2),
        "last_study_date": date(2024, 5, 6),
        "bytes": 30,
        "first_timestamp": datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC),
        "last_timestamp": datetime(2024, 1, 1, 0, 0, 3, tzinfo=UTC),
    }
    assert (richard["IssuerOfPatientID"], richard["names"]) == ("B", ["Roe^Richard"])
    assert (nobody["IssuerOfPatientID"], nobody["names"], nobody["birth_dates"]) == (None, [], [])
    assert not dataset.query("SELECT * FROM patients WHERE PatientID IS NULL")


@pytest.mark.parametrize("form", FORMS)
def test_the_issuer_is_read_from_every_json_format(
    dataset: Dataset, load: Load, row: MakeRow, form: str
) -> None:
    header = FORMS[form]("IssuerOfPatientID", "00100021", "Hospital")
    load(dataset, [row(f"gs://issuer/{form}", 1, metadata=header, PatientID=form)])
    (found,) = dataset.query("SELECT * FROM patients WHERE PatientID = @form", {"form": form})
    assert found["IssuerOfPatientID"] == "Hospital"


def test_new_view_columns_follow_the_existing_ones() -> None:
    """So that `SELECT *` and exports by position keep working."""
    shown = {
        definition.name: definition.resource for definition in schema.load(Config(), "project")
    }
    for name, last in (("studies", "last_timestamp"), ("series", "last_timestamp")):
        names = [field["name"] for field in shown[name]["schema"]["fields"]]
        assert names.index(last) == {"studies": 10, "series": 11}[name]
    live = [field["name"] for field in shown["instances_live"]["schema"]["fields"]]
    assert live.index("metadata") == 13
