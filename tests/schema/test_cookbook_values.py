"""The cookbook's queries of values that headers write in several ways."""

import json
import re
from datetime import time

import pytest

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.dicom.notes import Notes
from tests.schema.test_schema_docs import QUERIES, Insert, MakeRow, run
from tests.support import googlesql
from tests.support.googlesql import engine


def recipe(part: str) -> str:
    """Return the query of the cookbook that contains a text."""
    found: list[str] = [query for query in QUERIES if part in query]
    assert len(found) == 1
    return found[0]


def test_single_values_and_arrays_are_both_read(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    headers = {
        "several": '{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "WindowCenter": [40, 50.5]}',
        "single": '{"ImageType": "ORIGINAL", "WindowCenter": -600}',
        "none": '{"ImageType": ["ORIGINAL", "PRIMARY"], "WindowCenter": null}',
        "derived": '{"ImageType": ["DERIVED", "PRIMARY"], "WindowCenter": 1}',
        "absent": "{}",
    }
    rows = (row(f"gs://values/{name}.dcm", 1, metadata=text) for name, text in headers.items())
    insert(dataset, "instances", *rows)
    found = [tuple(result.values()) for result in run(dataset, recipe("image_kind"))]
    assert [row for row in found if "//values/" in row[0]] == [
        ("gs://values/none.dcm", None, None),
        ("gs://values/several.dcm", "AXIAL", 40.0),
        ("gs://values/single.dcm", None, -600.0),
    ]


TIMES = {"09": "09:00:00", "0930": "09:30:00", "093015": "09:30:15", "093015.25": "09:30:15.250000"}
ODD_TIMES = ("9:30", "93015", "noon", "", "2530")


def test_times_with_and_without_fractions_are_read(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    rows = (
        row(f"gs://times/{text}", 1, metadata=json.dumps({"AcquisitionTime": text}))
        for text in (*TIMES, *ODD_TIMES)
    )
    insert(dataset, "instances", *rows)
    found = {
        result["path"]: result["acquired_at"] for result in run(dataset, recipe("acquired_at"))
    }
    read = {path.rpartition("/")[2]: when.isoformat() for path, when in found.items() if when}
    assert read == TIMES


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_times_and_arrays_are_read_the_same_on_googles_engine() -> None:
    cast = re.search(
        r"SAFE_CAST\(\s*REGEXP_REPLACE.*?AS TIME\s*\)", recipe("acquired_at"), re.DOTALL
    )
    array = re.search(r"IF\(.*?\]\s*\)", recipe("image_kind"), re.DOTALL)
    assert cast
    assert array
    for written, expected in TIMES.items():
        text = f"FORMAT_TIME('%H:%M:%E6S', {cast[0]})"
        ((value,),) = engine().query(f"SELECT {text} FROM (SELECT @time AS time)", time=written)
        assert value == f"{time.fromisoformat(expected):%H:%M:%S.%f}"
    header = "(SELECT PARSE_JSON(@header) AS metadata)"
    for text, values in (('["A", "B"]', ["A", "B"]), ('"A"', ["A"]), ("null", [None])):
        found = engine().query(
            f"SELECT {array[0]} FROM {header}", header=f'{{"ImageType": {text}}}'
        )
        assert found == [(values,)]


def test_warnings_are_grouped_without_offsets_sizes_and_counts(
    dataset: Dataset, insert: Insert, row: MakeRow
) -> None:
    first, second = Notes(), Notes()
    for notes, offset, times, size in ((first, 10, 1, 8130), (second, 2222, 3, 12)):
        for _ in range(times):
            notes.add("not an odd integer", tag=0x00280008, vr="IS", offset=offset)
            notes.add("twice odd", tag=0x00280009)
        notes.add(f"odd: {size} of 8192 bytes", tag=0x7FE00010, vr="OW", offset=offset)
        notes.add(f"{size} odd bytes behind")
        notes.add(f"the first of {size} values is odd")
    rows = (
        row(f"gs://odd/{n}", 1, info={"warnings": list(notes.warnings)})
        for n, notes in enumerate((first, second))
    )
    insert(dataset, "instances", *rows)
    found = {result["kind"]: result["objects"] for result in run(dataset, recipe("AS kind"))}
    assert {kind: count for kind, count in found.items() if "odd" in kind and kind != "odd"} == {
        "00280008 IS: not an odd integer": 2,
        "00280009: twice odd": 2,
        "7FE00010 OW: odd: N bytes": 2,
        "8130 odd bytes behind": 1,
        "12 odd bytes behind": 1,
        "the first of N values is odd": 2,
    }
