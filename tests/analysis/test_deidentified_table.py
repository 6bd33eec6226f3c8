"""The views work on a de-identified table, and say which of their columns are then empty."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from dcm2bq.dicom import Conversion, convert, privacy_rules
from dcm2bq.schema import Definition
from dcm2bq.tools.refresh import refresh
from tests.analysis.conftest import other_objects
from tests.support.analysis_objects import AnalysisObject, made_objects
from tests.support.datasets import in_dataset
from tests.support.privacy_options import KEY, PROFILE_WITH_OPTIONS

BASIC: dict[str, Any] = {"profile": "basic"}
RESEARCH: dict[str, Any] = {
    **PROFILE_WITH_OPTIONS,
    "hash": ["PatientID"],
    "keptDescriptors": [
        *("ContrastBolusAgent", "ProtocolName", "ROIName", "ROIObservationLabel"),
        *("SeriesDescription", "StructureSetLabel", "StudyDescription"),
    ],
}
"""Every condition under which a column is not empty."""

NO_ROWS = re.compile(r"With privacy\.profile, there are no rows ([^.]+)\.")
EMPTY = re.compile(r"With privacy\.profile, these columns are empty: ([^.]+)\.$")
CLAUSE = re.compile(r"([\w, ]+) \(([^)]+)\)")


@dataclass(frozen=True)
class DeidentifiedObject(AnalysisObject):
    """An object whose row is made under privacy options."""

    privacy: dict[str, Any]

    @cached_property
    def conversion(self) -> Conversion:
        return convert(self.content, {"privacy": self.privacy})


def objects(privacy: dict[str, Any]) -> list[DeidentifiedObject]:
    return [DeidentifiedObject(each.name, each.content, privacy) for each in made_objects()]


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCM2BQ_HASH_KEY", KEY)
        privacy_rules.cache_clear()
        yield
        privacy_rules.cache_clear()


def definitions() -> list[Definition]:
    """Return the views and functions that have columns and describe objects."""
    every = schema.load(Config(), "local")
    return [
        each
        for each in every
        if (each.resource.get("type") == "VIEW" or each.resource.get("columns"))
        and each.name not in {"dead_letters", "dismissed_letters"}
    ]


def rowless(definition: Definition) -> str:
    """Return when a view has no rows by its description; "" if it always has."""
    match = NO_ROWS.search(definition.resource["description"])
    return match[1] if match else ""


def empty_columns(definition: Definition) -> dict[str, str]:
    """Return the columns that are empty by the description, with the condition."""
    match = EMPTY.search(definition.resource["description"])
    assert match or rowless(definition), definition.name
    clauses = CLAUSE.findall(match[1]) if match else []
    return {name: when for names, when in clauses for name in names.strip().split(", ")}


def columns(definition: Definition) -> list[str]:
    resource = definition.resource
    fields = resource.get("columns") or resource["schema"]["fields"]
    return [field["name"] for field in fields]


def filled_keywords(made: Sequence[AnalysisObject]) -> set[str]:
    """Return the keywords that have a value anywhere in a header."""
    texts = (each.conversion.text for each in made)
    return {word for text in texts for word in re.findall(r'"(\w+)":(?!null|\[\])', text)}


def test_each_view_names_the_attributes_that_the_profile_empties() -> None:
    """And no other: compared with the rows of all objects, with and without the profile."""
    before, after = filled_keywords(made_objects()), filled_keywords(objects(BASIC))
    for definition in definitions():
        named = empty_columns(definition)
        assert set(named) <= set(columns(definition)), definition.name
        if rowless(definition):
            continue
        attributes = {name for name in columns(definition) if tag_for_keyword(name)}
        emptied = attributes & before - after
        assert emptied <= set(named), definition.name
        assert not set(named) & after, definition.name


def test_with_every_option_only_what_is_always_empty_is_empty(
    bigquery_url: str, analysis_dataset: Dataset
) -> None:
    """Each view is read once. A function filters the rows of one of them."""
    research = objects(RESEARCH)
    views = [definition for definition in definitions() if _is_view(definition)]
    with other_objects(bigquery_url, analysis_dataset, research):
        refresh(analysis_dataset, from_overrides(in_dataset(analysis_dataset.dataset_id, {})))
        read = {definition.name: _read(analysis_dataset, definition.name) for definition in views}
    wrong = []
    for view in views:
        rows = read[view.name]
        filled = {name for row in rows for name, value in row.items() if value not in {None, ()}}
        paths = {row.get("path") for row in rows}
        read_objects = [each for each in research if paths == {None} or each.path in paths]
        present = filled_keywords(read_objects)
        assert rows or view.name.startswith("private_"), view.name
        for name, when in empty_columns(view).items():
            is_possible = name in present or not tag_for_keyword(name)
            if (name in filled) != (when != "always" and is_possible):
                wrong.append(f"{view.name}.{name}")
    assert wrong == []


def _is_view(definition: Definition) -> bool:
    return definition.resource.get("type") == "VIEW"


def _read(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    rows = dataset.query(f"SELECT * FROM {name}")
    return [
        {column: tuple(value) if isinstance(value, list) else str(value or "") or None
         for column, value in row.items()}
        for row in rows
    ]  # fmt: skip
