"""`devices`, `protocols` and `protocol_deviations`, and what pydicom computes from the files."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import msgspec
import pytest

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis import test_series_attributes as attributes
from tests.analysis.conftest import REFERENCE, engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import all_objects, made_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

DEVICE = (
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "StationName"),
    "SoftwareVersions",
)
PROTOCOL = ("Manufacturer", "ManufacturerModelName", "Modality", "ProtocolName")
PARAMETERS = (
    *("BodyPartExamined", "PatientPosition", "Rows", "Columns", "SliceThickness"),
    *("SpacingBetweenSlices", "KVP", "ConvolutionKernel", "SpiralPitchFactor"),
    *("GantryDetectorTilt", "DistanceSourceToDetector", "ViewPosition", "MagneticFieldStrength"),
    *("ScanningSequence", "SequenceName", "MRAcquisitionType", "RepetitionTime", "EchoTime"),
    *("InversionTime", "FlipAngle", "EchoTrainLength", "NumberOfAverages", "Units"),
    *("DecayCorrection", "CorrectedImage", "TransducerType"),
)
SINCE = "protocol_deviations(DATE '2024-02-01')"

type Row = dict[str, Any]
type Rows = dict[tuple[Any, ...], Row]


@cache
def all_series() -> tuple[Row, ...]:
    return tuple(
        {"study": study, "uid": series, **attributes.computed(headers)}
        for (study, series), headers in attributes.by_series(all_objects()).items()
    )


def computed_devices() -> Rows:
    groups = defaultdict(list)
    for series in all_series():
        device = tuple(series[name] for name in DEVICE)
        if any(device):
            groups[device].append(series)
    rows = {}
    for device, several in groups.items():
        dates = [series["StudyDate"] for series in several if series["StudyDate"]]
        rows[device] = {
            "modalities": sorted({series["Modality"] for series in several} - {None}),
            "first_study_date": min(dates, default=None),
            "last_study_date": max(dates, default=None),
            "studies": len({series["study"] for series in several} - {None}),
            "series": len(several),
            "instances": sum(series["NumberOfSeriesRelatedInstances"] for series in several),
        }
    return rows


def settings(series: Row) -> Iterator[tuple[str, str]]:
    for name in PARAMETERS:
        value = series[name]
        if value is not None:
            yield name, f"{value:.10g}" if isinstance(value, float) else str(value)


def computed_protocols() -> Rows:
    frequencies: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for series in all_series():
        if series["ProtocolName"]:
            for name, value in settings(series):
                key = (*(series[each] for each in PROTOCOL), name)
                frequencies[key][value] += 1
    rows = {}
    for key, values in frequencies.items():
        usual, times = min(values.items(), key=lambda item: (-item[1], item[0]))
        reference = {
            ("Reference", "SliceThickness"): ("1.20", 0.1),
            ("Reference", "ConvolutionKernel"): ("B31f", None),
        }.get(key[3:], (None, None))
        rows[key] = {
            "usual_value": usual,
            "series": values.total(),
            "usual_series": times,
            "usual_share": times / values.total(),
            "distinct_values": len(values),
            "reference_value": reference[0],
            "tolerance": reference[1],
        }
    return rows


def by_key(rows: list[Row], names: tuple[str, ...]) -> Rows:
    keyed = {tuple(row.pop(name) for name in names): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def read_devices(dataset: Dataset | EngineDataset) -> Rows:
    return by_key(dataset.query("SELECT * FROM devices"), DEVICE)


def read_protocols(dataset: Dataset | EngineDataset) -> Rows:
    return by_key(dataset.query("SELECT * FROM protocols"), (*PROTOCOL, "parameter"))


@pytest.fixture(scope="module")
def devices(analysis_dataset: Dataset) -> Rows:
    return read_devices(analysis_dataset)


@pytest.fixture(scope="module")
def protocols(analysis_dataset: Dataset) -> Rows:
    return read_protocols(analysis_dataset)


@pytest.fixture(scope="module")
def deviations(analysis_dataset: Dataset) -> list[Row]:
    return analysis_dataset.query(f"SELECT * FROM {SINCE}")


def test_devices_agree_with_pydicom(devices: Rows) -> None:
    assert devices == computed_devices()


def test_a_software_upgrade_begins_a_row_of_the_same_scanner(devices: Rows) -> None:
    """An instance at two paths counts once."""
    versions = {
        device[4]: (row["first_study_date"], row["last_study_date"], row["instances"])
        for device, row in devices.items()
        if device[2] == "F1"
    }
    assert versions == {
        "VA10": (date(2024, 1, 10), date(2024, 4, 5), 14),
        "VB20\\patch 1": (date(2024, 2, 10), date(2024, 3, 1), 6),
    }


def test_protocols_agree_with_pydicom(protocols: Rows) -> None:
    assert protocols == computed_protocols()


def test_of_equally_frequent_values_the_first_in_order_is_usual(protocols: Rows) -> None:
    row = protocols["Acme", "Fleet CT", "CT", "Equally often", "KVP"]
    assert (row["usual_value"], row["usual_share"]) == ("100", 0.5)


def changed(rows: list[Row], protocol: str) -> set[tuple[Any, ...]]:
    columns = ("StudyDate", "parameter", "value", "expected_value", "from_reference")
    return {
        tuple(row[column] for column in columns) for row in rows if row["ProtocolName"] == protocol
    }


def test_the_one_changed_parameter_is_found(deviations: list[Row]) -> None:
    """A series before the date, or without one, is not among them; nor is rounding."""
    thick = (date(2024, 2, 20), "SliceThickness", "5", "2", False)
    assert changed(deviations, "Abdomen") == {thick}


def test_a_reference_is_expected_in_place_of_the_usual_value(deviations: list[Row]) -> None:
    """1.25 is within 0.1 of 1.20, and the most specific row counts."""
    assert changed(deviations, "Reference") == {
        (date(2024, 4, 5), "SliceThickness", "1.5", "1.20", True),
        (date(2024, 4, 4), "ConvolutionKernel", "B30f", "B31f", True),
        (date(2024, 4, 5), "ConvolutionKernel", "B30f", "B31f", True),
    }


def computed_deviations(protocols: Mapping[tuple[Any, ...], Row]) -> set[tuple[Any, ...]]:
    found = set()
    for series in all_series():
        if series["ProtocolName"] and (series["StudyDate"] or date.min) >= date(2024, 2, 1):
            for name, value in settings(series):
                row = protocols[(*(series[each] for each in PROTOCOL), name)]
                expected = row["reference_value"] or row["usual_value"]
                try:
                    differs = abs(float(value) - float(expected)) > (row["tolerance"] or 0)
                except ValueError:
                    differs = value != expected
                if differs:
                    found.add((series["uid"], name, value, expected, name in series["varying"]))
    return found


def test_deviations_agree_with_pydicom(deviations: list[Row]) -> None:
    columns = ("SeriesInstanceUID", "parameter", "value", "expected_value", "varies")
    found = [tuple(row[column] for column in columns) for row in deviations]
    assert len(found) == len(set(found))
    assert set(found) == computed_deviations(computed_protocols())


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_numbers_deviate_even_if_their_difference_overflows() -> None:
    dataset = EngineDataset()
    for number, name in ((0, "1.7e308"), (1, "1.7e308"), (2, "-1.7e308")):
        (scan,) = made_objects(f"fleet/scans/{number}/0.dcm")
        row = msgspec.to_builtins(scan.row)
        metadata = {**json.loads(row["metadata"]), "SequenceName": name}
        dataset.insert("instances", {**row, "metadata": metadata})
    deviating = dataset.query(
        "SELECT value, expected_value FROM protocol_deviations", {"since": "2024-01-01"}
    )
    assert deviating == [{"value": "-1.7e308", "expected_value": "1.7e308"}]


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(devices: Rows, protocols: Rows) -> None:
    dataset = engine_dataset("fleet/scans/")
    evaluated = read_devices(dataset)
    assert len(evaluated) == 4
    assert evaluated == {device: devices[device] for device in evaluated}
    names = ("Manufacturer", "ManufacturerModelName", "Modality", "ProtocolName", "parameter")
    columns = (*names, "value", "tolerance", "note")
    reference = eval(f"[{REFERENCE.replace('NULL', 'None')}]")
    dataset.insert(
        "protocol_reference", *(dict(zip(columns, row, strict=True)) for row in reference)
    )
    evaluated = read_protocols(dataset)
    fleet = {key: row for key, row in protocols.items() if key[1] == "Fleet CT"}
    assert evaluated == fleet
