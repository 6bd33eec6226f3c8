"""The sample of ignored objects is spread over all names, bounded, and never names anyone."""

import random
import threading

import pytest

from dcm2bq.errors import ConfigError, ReadFailedError
from dcm2bq.tools.ignored_names import A_FEW, SAMPLE, IgnoredNames, SampleFindings

DICOM = bytes(128) + b"DICM"
NAMES = [f"{folder}/{number:05}" for folder in "abcd" for number in range(2500)]


def sample_of(names: list[str], size: int = SAMPLE) -> set[str]:
    ignored: IgnoredNames[str] = IgnoredNames(size)
    for name in names:
        ignored.add(name, name)
    sample: set[str] = set()
    lock = threading.Lock()

    def read(name: str, n: int) -> bytes:
        with lock:
            sample.add(name)
        return b"text"[:n]

    ignored.examine(read)
    return sample


def findings_of(contents: dict[str, bytes | Exception | None]) -> SampleFindings:
    """Return what a sample finds; None is the content of an object in a cold storage class."""
    names: IgnoredNames[bytes | Exception | None] = IgnoredNames()
    for name, content in contents.items():
        names.add(name, content, storage_class="STANDARD" if content is not None else "ARCHIVE")

    def read(content: bytes | Exception | None, n: int) -> bytes:
        if isinstance(content, Exception):
            raise content
        assert content is not None, "objects in cold storage classes are not read"
        return content[:n]

    return names.examine(read)[0]


def test_the_sample_depends_on_the_names_and_not_on_their_order() -> None:
    """So two listings, and listings by several threads, sample the same objects."""
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    assert sample_of(NAMES) == sample_of(shuffled)
    assert len(sample_of(NAMES)) == SAMPLE


def test_the_sample_is_spread_over_the_listing() -> None:
    folders = [name[0] for name in sample_of(NAMES)]
    assert all(30 < folders.count(folder) < 70 for folder in "abcd"), "of 200, 50 expected"


def test_a_small_sample_holds_everything() -> None:
    assert sample_of(["x", "y"]) == {"x", "y"}


def test_what_begins_with_dicm_is_counted_by_kinds_of_names_alone() -> None:
    findings = findings_of(
        {"DOE^JOHN": DICOM, "1.2.840": DICOM, "a.img": DICOM, "b.IMG": DICOM, "c.txt": b"text"}
    )
    assert list(findings.dicom) == ["1.2.840", "DOE^JOHN", "a.img", "b.IMG"]
    assert findings.sentences() == [
        (
            "4 of 5 objects that input.namePattern excludes begin with DICM "
            "(2 with no extension, 2 with .img): "
            "set input.otherNames to sniff, or widen input.namePattern"
        )
    ]


def test_a_clean_sample_says_nothing() -> None:
    assert findings_of({"a.txt": b"text", "empty": b""}).sentences() == []


def test_what_is_not_read_is_said() -> None:
    findings = findings_of({"a": None, "b": None, "c": ReadFailedError("x"), "d": OSError("x")})
    assert findings.sentences() == [
        "not sampled: 2 objects in Nearline, Coldline or Archive, where reading costs retrieval",
        "sampled, but not readable: 2 objects",
    ]


def test_a_part_of_the_names_is_called_a_sample() -> None:
    names = {str(number): DICOM for number in range(SAMPLE + 1)}
    (sentence,) = findings_of(dict(names)).sentences()
    assert sentence.startswith("200 of 200 sampled objects that input.namePattern excludes begin")


@pytest.mark.parametrize(("count", "is_alarming"), [(A_FEW, False), (A_FEW + 1, True)])
def test_more_than_a_few_are_a_finding(count: int, *, is_alarming: bool) -> None:
    assert findings_of({str(n): DICOM for n in range(count)}).is_alarming is is_alarming


def test_a_wrong_configuration_ends_the_sample() -> None:
    with pytest.raises(ConfigError):
        findings_of({"a": ConfigError("x")})
