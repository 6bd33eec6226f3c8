"""`series_geometry` and what pydicom computes from the same files."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, isclose
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset as Header

from dcm2bq.bigquery.dataset import Dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects, made_objects
from tests.support.dicom_made import series
from tests.support.dicom_made.part10 import content
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

SOP_CLASSES = {
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "128.1", "130")
}
EXPECTED: dict[str, tuple[int | None, list[str]]] = {
    "regular": (0, []),
    "reversed order": (0, []),
    "sagittal MR": (0, []),
    "tilted but straight": (0, []),
    "PET": (0, []),
    "missing slice": (1, ["missing_slices"]),
    "every other slice missing": (3, ["missing_slices"]),
    "uneven spacing": (0, ["spacing_differs"]),
    "one slice": (None, ["one_slice"]),
    "phases": (0, ["several_at_a_position"]),
    "duplicate position": (0, ["several_at_a_position"]),
    "almost duplicate position": (0, ["several_at_a_position"]),
    "lateral drift": (0, ["lateral_shift"]),
    "gantry tilt": (0, ["lateral_shift"]),
    "mixed orientation": (None, ["orientation_differs"]),
    "mixed pixel spacing": (0, ["pixel_spacing_differs"]),
    "mixed matrix": (0, ["matrix_differs"]),
    "not orthogonal": (0, ["not_orthogonal"]),
    "localizer inside": (0, []),
    "only localizers": (None, ["no_slices"]),
    "unreadable position": (1, ["no_position", "missing_slices"]),
    "position that is not a number": (1, ["no_position", "missing_slices"]),
    "position of enormous numbers": (1, ["no_position", "missing_slices"]),
    "position along enormous directions": (None, ["no_position"]),
    "empty position": (1, ["no_position", "missing_slices"]),
    "no position": (None, ["no_position"]),
    "single values and arrays": (0, []),
    "enhanced": (0, []),
    "enhanced missing slice": (1, ["missing_slices"]),
    "enhanced own groups": (0, []),
    "enhanced without frames": (None, ["one_slice", "no_position"]),
}
"""`missing` and `why_not` of each made series."""

type Key = tuple[str | None, str | None]
type Vector = list[float]


@dataclass(frozen=True)
class Slice:
    """What pydicom reads of a slice; None where that is not numeric."""

    orientation: Vector | None
    position: Vector | None
    pixel_spacing: Vector | None
    matrix: tuple[int, int] | None


def key(header: Header) -> Key:
    return header.get("StudyInstanceUID"), header.get("SeriesInstanceUID")


def vector(header: Header, keyword: str, length: int) -> Vector | None:
    try:
        values = [float(value) for value in header[keyword].value]
    except (KeyError, TypeError, ValueError):
        return None
    limit = 2 if keyword == "ImageOrientationPatient" else 1e6
    return values if len(values) == length and all(abs(value) < limit for value in values) else None


def matrix(header: Header) -> tuple[int, int] | None:
    match header.get("Rows"), header.get("Columns"):
        case int(rows), int(columns):
            return rows, columns
    return None


def inner(header: Header | None, *keywords: str) -> Header:
    """Return the first item of the first item ... of a sequence, or an empty header."""
    for keyword in keywords:
        items = header.get(keyword) if header is not None else None
        header = items[0] if items else None
    return header if header is not None else Header()


def slices_of(header: Header) -> Iterator[Slice]:
    shared = inner(header, "SharedFunctionalGroupsSequence")
    for frame in header.get("PerFrameFunctionalGroupsSequence") or [Header()]:

        def first(group: str, keyword: str, length: int, frame: Header = frame) -> Vector | None:
            places = (inner(frame, group), inner(shared, group), header)
            return next(filter(None, (vector(place, keyword, length) for place in places)), None)

        yield Slice(
            first("PlaneOrientationSequence", "ImageOrientationPatient", 6),
            first("PlanePositionSequence", "ImagePositionPatient", 3),
            first("PixelMeasuresSequence", "PixelSpacing", 2),
            matrix(header),
        )


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def is_excluded(header: Header) -> bool:
    return bool(re.search("LOCALIZER|MIP", str(header.get("ImageType", ""))))


def by_series(objects: Sequence[AnalysisObject]) -> dict[Key, list[Header]]:
    """Return one header an instance: that of its first path."""
    instances: dict[tuple[Key, str], Header] = {}
    for each in sorted(objects, key=lambda each: each.path):
        if each.header.get("SOPClassUID") in SOP_CLASSES and key(each.header)[1]:
            instance = each.header.get("SOPInstanceUID") or each.path
            instances.setdefault((key(each.header), instance), each.header)
    grouped = defaultdict(list)
    for (group, _), header in instances.items():
        grouped[group].append(header)
    return grouped


def computed(headers: Sequence[Header]) -> dict[str, Any]:
    """Return the columns from `slices` on."""
    slices = [each for header in headers if not is_excluded(header) for each in slices_of(header)]
    placed = [(s.orientation, s.position) for s in slices if s.orientation and s.position]
    orientations = [s.orientation for s in slices if s.orientation]
    spread = [max(values) - min(values) for values in zip(*orientations, strict=True)]
    is_parallel = bool(spread) and max(spread) <= 0.001
    normals = [series._normal(orientation) for orientation, _ in placed]
    along = sorted(dot(normal, p) for normal, (_, p) in zip(normals, placed, strict=True))
    numbers = [0] * len(along)
    gaps = []
    for index, (before, after) in enumerate(pairwise(along), start=1):
        numbers[index] = numbers[index - 1] + (after - before >= 0.01)
        if after - before >= 0.01:
            gaps.append(after - before)
    at_position = Counter(numbers).values()
    smallest = min(gaps, default=None)
    is_uniform = True
    spacing, missing = None, None
    if smallest:
        median = sorted(gaps)[(len(gaps) - 1) // 2]
        steps = [round(gap / smallest) for gap in gaps]
        is_uniform = median < 4.5 * smallest and all(
            abs(gap - step * smallest) <= 0.01 * gap for gap, step in zip(gaps, steps, strict=True)
        )
        spacing = sum(gaps) / sum(steps) if is_uniform else median
        missing = sum(max(round(gap / spacing) - 1, 0) for gap in gaps)
    measures = {
        "positions": len(at_position),
        "fewest_at_position": min(at_position, default=None),
        "most_at_position": max(at_position, default=None),
        "spacing": spacing,
        "smallest_gap": smallest,
        "largest_gap": max(gaps, default=None),
        "missing": missing,
    }
    within = [(dot(p, orientation[:3]), dot(p, orientation[3:])) for orientation, p in placed]
    shifts = [max(values) - min(values) for values in zip(*within, strict=True)]
    sizes = [hypot(*series._normal(orientation)) for orientation in orientations]
    pixel_spacings = zip(*(s.pixel_spacing for s in slices if s.pixel_spacing), strict=True)
    reasons = {
        "no_slices": not slices,
        "one_slice": len(slices) == 1,
        "no_position": len(placed) < len(slices),
        "orientation_differs": bool(spread) and not is_parallel,
        "not_orthogonal": any(abs(size - 1) > 0.01 for size in sizes),
        "pixel_spacing_differs": any(max(s) > 1.001 * min(s) for s in pixel_spacings),
        "matrix_differs": len({s.matrix for s in slices if s.matrix}) > 1,
        "lateral_shift": is_parallel and any(shift > 0.1 for shift in shifts),
        "several_at_a_position": is_parallel and max(at_position, default=0) > 1,
        "missing_slices": is_parallel and bool(missing),
        "spacing_differs": is_parallel and not is_uniform,
    }
    return {
        "slices": len(slices),
        "excluded": sum(map(is_excluded, headers)),
        "unplaced": len(slices) - len(placed),
        **(measures if is_parallel else dict.fromkeys(measures)),
        "regular": not any(reasons.values()),
        "why_not": [reason for reason, applies in reasons.items() if applies],
    }


def agrees(row: dict[str, Any], truth: dict[str, Any]) -> bool:
    return all(
        isclose(row[name], value, rel_tol=1e-6) if isinstance(value, float) else row[name] == value
        for name, value in truth.items()
    )


def read(dataset: Dataset | EngineDataset) -> dict[Key, dict[str, Any]]:
    rows = dataset.query("SELECT * FROM series_geometry")
    geometry = {(row["StudyInstanceUID"], row["SeriesInstanceUID"]): row for row in rows}
    assert len(geometry) == len(rows)
    return geometry


@pytest.fixture(scope="module")
def geometry(analysis_dataset: Dataset) -> dict[Key, dict[str, Any]]:
    return read(analysis_dataset)


def of_defect(geometry: dict[Key, dict[str, Any]], name: str) -> dict[str, Any]:
    return geometry[key(made_objects(f"series/{name}/")[0].header)]


def test_the_view_agrees_with_pydicom_about_every_series(
    geometry: dict[Key, dict[str, Any]],
) -> None:
    truth = {group: computed(headers) for group, headers in by_series(all_objects()).items()}
    assert geometry.keys() == truth.keys()
    differing = {
        group: (geometry[group], truth[group])
        for group in truth
        if not agrees(geometry[group], truth[group])
    }
    assert differing == {}


@pytest.mark.parametrize("defect", EXPECTED)
def test_each_defect_is_found_by_its_name(geometry: dict[Key, dict[str, Any]], defect: str) -> None:
    row = of_defect(geometry, defect)
    assert (row["missing"], row["why_not"]) == EXPECTED[defect]
    assert row["regular"] == (EXPECTED[defect][1] == [])


def test_an_instance_counts_once_however_many_paths_it_has(
    geometry: dict[Key, dict[str, Any]],
) -> None:
    """The regular series is stored twice."""
    assert len(made_objects("series/copy of regular/")) == 6
    assert of_defect(geometry, "regular")["slices"] == 6


def test_missing_is_the_number_of_slices_taken_out(geometry: dict[Key, dict[str, Any]]) -> None:
    found = [of_defect(geometry, f"thinned {n}")["missing"] for n in range(series.THINNED)]
    assert found == [series.thinned(number)[1] for number in range(series.THINNED)]


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(
    geometry: dict[Key, dict[str, Any]],
) -> None:
    dataset = EngineDataset()
    objects = [
        each
        for prefix in ("series/m", "series/enhanced", "series/un", "series/pos", "series/phases")
        for each in made_objects(prefix)
    ]
    for each in objects:
        dataset.insert("instances", msgspec.to_builtins(each.row))
    evaluated = read(dataset)
    assert evaluated.keys() == {key(each.header) for each in objects}
    for group, row in evaluated.items():
        assert agrees(row, geometry[group])


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_frames_that_were_left_in_the_object_are_not_judged() -> None:
    """The row of a header that is too long has a BulkDataURI in place of its largest parts."""
    (enhanced,) = made_objects("series/enhanced/")
    row = msgspec.to_builtins(enhanced.row)
    metadata = json.loads(row["metadata"])
    metadata["PerFrameFunctionalGroupsSequence"] = {"BulkDataURI": "?offset=1&length=2", "vr": "SQ"}
    dataset = EngineDataset()
    dataset.insert("instances", {**row, "metadata": metadata})
    (geometry,) = read(dataset).values()
    assert (geometry["slices"], geometry["unplaced"], geometry["missing"]) == (1, 1, None)
    assert geometry["why_not"] == ["one_slice", "no_position"]


THINNED_SERIES = st.integers(4, 9).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.sampled_from([0.5, 1.25, 3.3]),
        st.sets(st.integers(2, count - 2), max_size=3),  # the first two show the spacing
    )
)


@pytest.mark.timeout(googlesql.TIMEOUT)
@settings(max_examples=3)
@given(st.lists(THINNED_SERIES, min_size=3, max_size=4))
def test_whatever_is_taken_out_is_missing(thinned: list[tuple[int, float, set[int]]]) -> None:
    """Several series a query, on Google's engine."""
    dataset = EngineDataset()
    for number, (count, spacing, removed) in enumerate(thinned):
        slices = series.stack(f"{number}", series.evenly(count, spacing))
        for index, each in enumerate(slices):
            if index not in removed:
                made = AnalysisObject(f"{number}/{index}.dcm", content(each))
                dataset.insert("instances", msgspec.to_builtins(made.row))
    geometry = read(dataset)
    for number, (count, spacing, removed) in enumerate(thinned):
        row = geometry[series.uid(f"{number}", "study"), series.uid(f"{number}", "series")]
        assert (row["slices"], row["missing"]) == (count - len(removed), len(removed))
        assert isclose(row["spacing"], spacing)
