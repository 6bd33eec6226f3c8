"""What the rules remove leaves no trace, wherever it is in the object."""

import io
import random
from typing import Any

import pytest

from dcm2bq.dicom import Conversion, convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom.sentinels import (
    KEPT_BY,
    MARKS,
    RULES,
    kinds,
    marked_object,
    profiles,
    random_object,
    traces,
)

KINDS = dict(kinds())
OUTPUTS: tuple[dict[str, Any], ...] = (
    {},
    {"jsonOutput": {"format": "dicom-json"}, "bulkData": {"inlineMaxBytes": 100_000}},
    {"bulkData": {"inlineMaxBytes": 100_000, "textMaxBytes": 20}, "limits": {"outputBytes": 300}},
    {"jsonOutput": {"ignoreGroupLength": False}, "bulkData": {"textMaxBytes": 200_000}},
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key that is long enough")


def converted(content: bytes, options: dict[str, Any]) -> Conversion | None:
    """Return the conversion of an object; None if it is refused."""
    try:
        return convert(io.BytesIO(content), options)
    except (NotDicomError, UnreadableDicomError):
        return None


def left(done: Conversion) -> list[str]:
    """Return where a conversion reveals the name.

    Attributes that the rules select must not be references: these would point to the name.
    """
    named = {"PatientName", "00100010", "PatientID", "00100020"} & done.metadata.keys()
    assert not [key for key in named if "BulkDataURI" in str(done.metadata[key])]
    rest = (done.columns, done.warnings, done.dropped_tags, done.transfer_syntax_uid)
    return traces(done.text) + [str(part) for part in rest if "SENTINEL" in str(part)]


@pytest.mark.parametrize("rules", RULES, ids=["profile", "remove and hash", "options"])
def test_no_kind_of_object_reveals_the_name(rules: dict[str, Any]) -> None:
    revealed = {}
    read = 0
    for kind, content in KINDS.items():
        for number, output in enumerate(OUTPUTS):
            done = converted(content, {**output, "privacy": rules})
            read += done is not None
            if done and (traces_left := left(done)):
                revealed[f"{kind}, output {number}"] = traces_left
    assert revealed == {}
    assert len(KINDS) > 60
    assert read > 0.9 * len(KINDS) * len(OUTPUTS)


def test_without_rules_the_objects_reveal_the_name() -> None:
    """Without this, the test above would prove nothing."""
    revealed = [
        kind
        for kind, content in KINDS.items()
        if (done := converted(content, OUTPUTS[1])) and traces(done.text)
    ]
    assert len(revealed) > len(KINDS) / 2


def test_no_random_object_reveals_the_name(pytestconfig: pytest.Config) -> None:
    count = 20_000 if pytestconfig.getoption("--long") else 500
    rng = random.Random(20261126)
    for _ in range(count):
        content = random_object(rng)
        options = {**rng.choice(OUTPUTS), "privacy": rng.choice(RULES)}
        done = converted(content, options)
        assert done is None or left(done) == []


def revealed(done: Conversion, kind: str) -> list[str]:
    """Return where a conversion reveals a mark of a kind."""
    text = f"{done.text} {done.warnings} {done.dropped_tags}"
    columns = [value for name, value in done.columns.items() if name != "SOPInstanceUID"]
    marks = {"date": ["19871123", "1987-11-23"], "name": ["SENTINEL"]}
    return [
        place
        for mark in marks.get(kind, [MARKS[kind].decode()])
        for place in [*traces(text, mark), *(["columns"] if mark in str(columns) else [])]
    ]


def test_no_combination_of_options_reveals_what_it_removes(pytestconfig: pytest.Config) -> None:
    """Names, UIDs, dates, devices, institutions, characteristics and descriptions."""
    count = 5000 if pytestconfig.getoption("--long") else 300
    rng = random.Random(20261127)
    kept: set[str] = set()
    for _ in range(count):
        content = marked_object(rng)
        for _ in range(3):
            privacy = profiles(rng)
            done = converted(content, {**rng.choice(OUTPUTS), "privacy": privacy})
            assert done is not None
            for kind in MARKS:
                places = revealed(done, kind)
                if KEPT_BY.get(kind) in privacy["options"]:
                    kept |= {kind} if places else set()
                else:
                    assert (places, kind, privacy, content) == ([], kind, privacy, content)
    assert kept == KEPT_BY.keys()


def test_the_error_of_an_object_that_is_cut_reveals_nothing() -> None:
    """The error becomes the text of a dead letter."""
    rng = random.Random(20261128)
    errors = []
    for _ in range(300):
        content = marked_object(rng)
        try:
            convert(io.BytesIO(content[: rng.randrange(132, len(content))]))
        except (NotDicomError, UnreadableDicomError) as error:
            errors.append(str(error))
    assert len(errors) > 250
    assert [mark for mark in MARKS.values() if mark.decode() in str(errors)] == []


def test_without_rules_marked_objects_reveal_every_kind() -> None:
    rng = random.Random(20261127)
    done = [converted(marked_object(rng), OUTPUTS[3]) for _ in range(100)]
    for kind in MARKS:
        assert sum(bool(each and revealed(each, kind)) for each in done) > 30, kind
