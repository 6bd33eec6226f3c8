"""The short version of the mutation run."""

import random
from io import BytesIO

import pytest

from dcm2bq.dicom import Conversion, convert, reader, source
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from dicom.fuzz import mutate, run, seeds


def test_mutated_files_are_converted_or_refused() -> None:
    """Nothing but the taxonomy's errors, and valid JSON; both happen."""
    outcomes = run(count=2_000, seed=7)
    assert sum(outcomes.values()) == 2_000
    assert outcomes["warned"] > 100
    assert outcomes["UnreadableDicomError"] > 100


def test_the_fast_way_of_reading_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of ordinary elements only save time, and so does the size of the window."""
    rng = random.Random(5)
    files = seeds()
    contents = files + [mutate(rng.choice(files), rng, files) for _ in range(1_000)]
    expected = [result(content) for content in contents]
    assert sum(isinstance(each, Conversion) for each in expected) > 300
    monkeypatch.setattr(reader, "run_of", lambda _: None)
    monkeypatch.setattr(source, "FIRST_READ", 100)
    monkeypatch.setattr(source, "HOP_READ", 20)
    assert [result(content) for content in contents] == expected


def result(content: bytes) -> Conversion | str:
    """Return the conversion or the refusal."""
    try:
        return convert(BytesIO(content))
    except (NotDicomError, UnreadableDicomError) as refusal:
        return f"{type(refusal).__name__}: {refusal}"
