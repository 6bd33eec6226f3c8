"""Views of `dcm2bq columns` and what pydicom reads from the same files."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time
from math import isclose, isfinite
from typing import Any

import pytest
from pydicom import Dataset as Header

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.tools import column_file, column_views
from dcm2bq.tools.attribute_paths import AttributePath
from dcm2bq.tools.column_file import ViewFile
from dcm2bq.tools.column_types import typed
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import all_objects
from tests.support.catalog import columns_of, whole_dataset
from tests.support.googlesql_views import EngineDataset

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom's, of odd files
    pytest.mark.timeout(googlesql.TIMEOUT),
]

ATTRIBUTES = (
    *("SliceThickness", "WindowCenter", "PixelSpacing[0]", "PixelSpacing[1]", "ImageType"),
    *("ImageType[2]", "Rows", "SmallestImagePixelValue", "ContentDate", "ContentTime"),
    *("AcquisitionDateTime", "SoftwareVersions", "InstitutionName", "FrameIncrementPointer"),
    "RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose",
    "RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence[0].CodeValue",
    "SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness",
)
PRIVATE = (
    ("GEMS_PARM_01", "0043xx27"),
    ("GEMS_PARM_01", "0043xx12"),
    ("gems _PARM_01", "0043xx26"),
    ("GEMS_ACQU_01", "0019xx1E"),
)


def view_of(level: str) -> ViewFile:
    columns = [
        f'[[columns]]\nattribute = "{path}"\nname = "c{n}"' for n, path in enumerate(ATTRIBUTES)
    ]
    columns += [
        f'[[columns]]\ncreator = "{creator}"\nelement = "{element}"\nname = "p{n}"'
        for n, (creator, element) in enumerate(PRIVATE)
    ]
    text = f'view = "mine"\nlevel = "{level}"\n' + "\n".join(columns)
    return column_file.parse(text, "mine.toml")


def values(header: Header, *steps: str | int) -> list[str]:
    """Return the values of an attribute as text; none if it is absent or breaks its VR."""
    with suppress(Exception):
        *parents, last = steps
        place: Any = header
        for step in parents:
            place = place[step].value if isinstance(step, str) else place[step]
        element = place[last]
        several = [element.value] if element.VM <= 1 else list(element.value)
        if element.VR == "AT":
            several = [f"{tag:08X}" for tag in several]
        return ["" if value is None else str(value).strip() for value in several]
    return []


def private_values(header: Header, creator: str, element: str) -> list[str]:
    group = int(element[:4], 16)
    plain = "".join(creator.split()).lower()
    for block in range(0x10, 0x100):
        written = (
            "".join(str(header.get((group, block), "").value).split())
            if ((group, block) in header)
            else ""
        )
        if written.lower() == plain:
            return values(header, group << 16 | block << 8 | int(element[6:], 16))
    return []


def number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text) if isfinite(float(text)) else None
    return None


def day(text: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(text.replace(".", ""))
    return None


def clock(text: str) -> time | None:
    whole, _, fraction = text.replace(":", "").partition(".")
    whole = whole.ljust(6, "0")
    with suppress(ValueError):
        hour, minute, second = (int(whole[at : at + 2]) for at in (0, 2, 4))
        return time(hour, minute, second, int(fraction.ljust(6, "0")))
    return None


def moment(text: str) -> datetime | None:
    local = text.partition("+")[0].partition("-")[0]
    days, hours = day(local[:8]), clock(local[8:] or "00")
    return datetime.combine(days, hours) if days and hours else None


CONVERT: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "INT64": lambda text: int(text) if text.lstrip("+-").isdigit() else None,
    "FLOAT64": number,
    "DATE": day,
    "TIME": clock,
    "DATETIME": moment,
}


def computed(header: Header, view: ViewFile) -> dict[str, Any]:
    row = {}
    for column in view.columns:
        source = column.source
        if isinstance(source, AttributePath):
            several = values(header, *source.steps)
            index = source.index
        else:
            several = private_values(header, *PRIVATE[int(column.name[1:])])
            index = None
        if index is not None or column.type != "STRING":
            text = several[index or 0] if len(several) > (index or 0) else ""
        else:
            text = "\\".join(several)
        row[column.name] = CONVERT[column.type](text) if text else None
    return row


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and ours is not None:
        return isclose(ours, theirs, rel_tol=1e-9)
    return bool(ours == theirs)


def differences(row: dict[str, Any], truth: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (row[name], value) for name, value in truth.items() if not same(row[name], value)}


def test_the_columns_of_objects_are_what_pydicom_reads(analysis_dataset: Dataset) -> None:
    view = view_of("instance")
    rows = {
        row["path"]: row
        for row in analysis_dataset.query(column_views.query(view, "instances_live"))
    }
    truth = {each.path: computed(each.header, view) for each in all_objects()}
    assert rows.keys() == truth.keys()
    differing = {
        path: differences(rows[path], truth[path])
        for path in truth
        if differences(rows[path], truth[path])
    }
    assert differing == {}
    for column in view.columns:
        assert any(row[column.name] is not None for row in truth.values()), column.source


def test_a_table_of_dump_has_the_same_values() -> None:
    view = view_of("instance")
    for each in all_objects():
        truth = computed(each.header, view)
        for column in view.columns:
            if isinstance(column.source, AttributePath):
                value = column.source.find(each.conversion.metadata)
                is_value = column.source.index is not None
                ours = typed(column.type, value, is_value=is_value)
                assert same(ours, truth[column.name]), (each.name, column.source.text)


def test_a_series_has_the_greatest_value_and_the_names_of_what_varies(
    analysis_dataset: Dataset,
) -> None:
    view = view_of("series")
    rows = analysis_dataset.query(column_views.query(view, "instances_live"))
    grouped = defaultdict(list)
    for each in all_objects():
        if each.header.get("SeriesInstanceUID"):
            key = each.header.get("StudyInstanceUID"), each.header.SeriesInstanceUID
            grouped[key].append(computed(each.header, view))
    assert len(rows) == len(grouped)
    varying = 0
    for row in rows:
        several = grouped[row["StudyInstanceUID"], row["SeriesInstanceUID"]]
        for column in view.columns:
            known = {each[column.name] for each in several} - {None}
            assert same(row[column.name], max(known, default=None)), column.source
            assert (column.name in row["varying"]) == (len(known) > 1), column.source
        varying += len(row["varying"])
    assert varying > 5


@pytest.mark.parametrize("level", ["instance", "series", "study"])
def test_google_accepts_a_view_and_derives_the_same_columns(level: str) -> None:
    catalog = whole_dataset()
    made = column_views.definition(view_of(level), Config(), "project")
    catalog.define([made], "dicom")
    assert catalog.columns["mine"] == columns_of(made.resource["schema"]["fields"])


def test_google_evaluates_a_view_to_the_same_values() -> None:
    view = view_of("instance")
    rows = engine_dataset("scanners/").query(column_views.query(view, "instances_live"))
    truth = {each.path: computed(each.header, view) for each in all_objects()}
    assert rows
    assert [differences(row, truth[row["path"]]) for row in rows] == [{}] * len(rows)


def test_the_block_of_a_private_creator_is_that_at_the_top_of_the_header() -> None:
    """An item may have another one, and text may look like one."""
    row = {"path": "gs://b/a", "version": "1", "event": "finalized", "timestamp": "2024-01-01"}
    item = {"00430010": "GEMS_PARM_01", "00431012": "item"}
    header = {
        "PatientComments": '"00430011":"GEMS_PARM_01"',
        "ReferencedSeriesSequence": [item],
        "00430010": "OTHER",
        "0043002F": "Gems_Parm_01 ",
        "00431012": "other",
        "00432F12": "top",
    }
    dataset = EngineDataset()
    dataset.insert("instances", {**row, "metadata": header})
    text = (
        'view = "v"\n[[columns]]\ncreator = "GEMS_PARM_01"\nelement = "0043xx12"\n'
        'type = "STRING"\nname = "p"\n'
        '[[columns]]\ncreator = "it\'s"\nelement = "0043xx12"\nname = "q"'
    )
    sql = column_views.query(column_file.parse(text, "f"), "instances_live")
    assert [(each["p"], each["q"]) for each in dataset.query(sql)] == [("top", None)]
