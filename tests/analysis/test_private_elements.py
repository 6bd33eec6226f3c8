"""`private_creators` and `private_elements`, and what pydicom finds in the same files."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import DataElement
from pydicom import Dataset as Header

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis.conftest import engine_dataset
from tests.support import googlesql
from tests.support.analysis_objects import AnalysisObject, all_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

type Creators = dict[tuple[str, str, str | None], tuple[list[str], int, str]]
type Elements = set[tuple[str, str | None, str]]


def read_creators(dataset: Dataset | EngineDataset) -> Creators:
    rows = dataset.query("SELECT * FROM private_creators")
    return {
        (row["private_creator"], row["private_group"], row["Manufacturer"]): (
            *(row["blocks"], row["instances"], row["for_example"]),
        )
        for row in rows
    }


def private(header: Header, *, nested: bool) -> Iterator[tuple[Header, DataElement]]:
    """Yield the private elements that pydicom can read, with the data sets that have them."""
    for tag in header.keys():  # noqa: SIM118 - iterating a data set reads its values
        if tag.is_private or nested:
            try:
                element = header[tag]
            except Exception:  # pydicom raises anything
                continue
            if tag.is_private:
                yield header, element
            if nested and element.VR == "SQ":
                for item in element.value:
                    yield from private(item, nested=True)


def value(header: Header, keyword: str) -> str | None:
    written = header.get(keyword)
    several = isinstance(written, list | tuple) or hasattr(written, "append")
    return str(written[0] if several and written else written or "").strip() or None


def computed_creators() -> Creators:
    blocks, instances, paths = defaultdict(set), defaultdict(set), defaultdict(set)
    for each in all_objects():
        for _, element in private(each.header, nested=True):
            name = str(element.value or "").strip()
            if element.tag.is_private_creator and name and element.VM == 1:
                manufacturer = value(each.header, "Manufacturer")
                key = (name, f"{element.tag.group:04X}", manufacturer)
                blocks[key].add(f"{element.tag.element:02X}")
                instances[key].add(each.header.get("SOPInstanceUID"))
                paths[key].add(each.path)
    return {
        key: (sorted(blocks[key]), len(instances[key] - {None, ""}), min(paths[key]))
        for key in blocks
    }


def computed_elements(objects: tuple[AnalysisObject, ...]) -> Elements:
    found = set()
    for each in objects:
        for header, element in private(each.header, nested=False):
            tag = element.tag
            if tag.element >= 0x1000:
                creator = header.get((tag.group, tag.element >> 8))
                name = str(creator.value or "").strip() if creator else ""
                found.add((each.path, name or None, f"{tag:08X}"))
    return found


@pytest.fixture(scope="module")
def creators(analysis_dataset: Dataset) -> Creators:
    return read_creators(analysis_dataset)


@pytest.fixture(scope="module")
def elements(analysis_dataset: Dataset) -> list[dict[str, Any]]:
    return analysis_dataset.query("SELECT * FROM private_elements")


def test_private_creators_agree_with_pydicom(creators: Creators) -> None:
    assert creators == computed_creators()


def test_a_creator_has_the_blocks_of_all_its_objects(creators: Creators) -> None:
    blocks, instances, _ = creators["ACME 1.0", "0019", "Acme"]
    assert (blocks, instances) == (["10", "11"], 2)
    assert ("ACME NESTED", "0019", "Acme") in creators
    assert not [name for name, *_ in creators if name == "FAKE"]


def test_private_elements_agree_with_pydicom(elements: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = computed_elements(all_objects())
    read = [(row["path"], row["private_creator"], row["tag"]) for row in elements]
    assert len(read) == len(set(read))
    assert set(read) == truth


@pytest.mark.parametrize("element", ["01", "0019xx01"])
def test_an_element_is_found_in_whatever_block_it_is(
    analysis_dataset: Dataset, element: str
) -> None:
    rows = analysis_dataset.query(
        f"SELECT path, tag, text FROM private_element('ACME 1.0', '{element}') ORDER BY path, tag"
    )
    texts = {row["tag"]: row["text"] for row in rows}
    in_19 = {"00191001": "in block 10", "00191101": "in block 11", "0019AF01": "7"}
    in_21 = {} if "xx" in element else {"00211001": "in group 0021"}
    assert texts == {**in_19, **in_21}
    assert len(rows) == len(texts)


def test_several_values_empty_values_and_sequences(elements: list[dict[str, Any]]) -> None:
    made = {
        (row["path"][-5:-4], row["tag"]): (row["value"], row["text"])
        for row in elements
        if "fleet/private" in row["path"]
    }
    assert made["1", "0019110A"] == ([1.5, 2.5], "1.5\\2.5")
    assert made["1", "0019110B"] == (None, None)
    assert made["3", "00191010"] == ([{"CodeMeaning": "an item"}], None)


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_googles_engine_and_the_local_bigquery_agree(
    creators: Creators, elements: list[dict[str, Any]]
) -> None:
    dataset = engine_dataset("fleet/private/")
    evaluated = read_creators(dataset)
    assert len(evaluated) == 6
    assert evaluated == {key: creators[key] for key in evaluated}
    columns = ("path", "private_creator", "tag", "text")
    rows = dataset.query(f"SELECT {', '.join(columns)} FROM private_elements")
    local = [row for row in elements if "fleet/private" in row["path"]]
    assert {tuple(row.values()) for row in rows} == {
        tuple(row[column] for column in columns) for row in local
    }
