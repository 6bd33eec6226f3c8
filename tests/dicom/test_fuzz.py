"""Short runs of what `make fuzz` does at length."""

import json
import random
from dataclasses import replace
from io import BytesIO

import pytest

from dcm2bq.dicom import Conversion, convert
from dcm2bq.dicom.read import data_set, source
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom import fuzz_structure
from tests.dicom.fuzz import mutate, run, seeds
from tests.dicom.structure import random_object


def test_mutated_files_are_converted_or_refused() -> None:
    """To valid JSON, or with an error of ours; both happen."""
    outcomes = run(count=1_000, seed=7)
    assert sum(outcomes.values()) == 1_000
    assert outcomes["warned"] > 50
    assert outcomes["UnreadableDicomError"] > 50


def test_a_valid_object_is_read_as_by_pydicom_without_a_warning() -> None:
    """The mutations in the next tests are made of such objects."""
    outcomes, findings = fuzz_structure.against_pydicom(count=150, seed=7, mutated=False)
    assert findings == []
    assert outcomes["converted"] == 150


def test_no_element_of_a_mutated_object_is_lost_or_changed_in_silence() -> None:
    outcomes, findings = fuzz_structure.against_pydicom(count=500, seed=7)
    assert findings == []
    assert outcomes["converted"] > 100
    assert outcomes["warned"] > 100


def test_the_comparison_detects_a_lost_and_a_changed_element() -> None:
    """So that the test above could fail."""
    rng = random.Random(5)
    whole = random_object(rng, fuzz_structure.words(rng))
    content = bytes(whole)
    done = convert(BytesIO(content), fuzz_structure.ALL)
    assert fuzz_structure.lost(whole, content, done) == []
    values = {str(value): key for key, value in done.metadata.items() if value["vr"] == "LT"}
    key = next(iter(values.values()))
    for metadata in (
        {other_key: value for other_key, value in done.metadata.items() if other_key != key},
        done.metadata | {key: {"vr": "LO", "Value": ["another"]}},
    ):
        other = replace(done, text=json.dumps(metadata))
        assert fuzz_structure.lost(whole, content, other)


def test_no_mutated_object_reveals_what_privacy_rules_hide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key that is long enough")
    outcomes, findings = fuzz_structure.privacy(count=500, seed=7)
    assert findings == []
    assert outcomes["converted"] > 100


def test_the_fast_way_of_reading_does_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does the size of the window."""
    rng = random.Random(5)
    files = seeds()
    contents = files + [mutate(rng.choice(files), rng, files) for _ in range(1_000)]
    expected = [result(content) for content in contents]
    assert sum(isinstance(outcome, Conversion) for outcome in expected) > 300
    monkeypatch.setattr(data_set, "run_of", lambda _: None)
    monkeypatch.setattr(source, "FIRST_READ", 100)
    monkeypatch.setattr(source, "HOP_READ", 20)
    assert [result(content) for content in contents] == expected


def result(content: bytes) -> Conversion | str:
    """Return the conversion or the refusal."""
    try:
        return convert(BytesIO(content))
    except (NotDicomError, UnreadableDicomError) as refusal:
        return f"{type(refusal).__name__}: {refusal}"
