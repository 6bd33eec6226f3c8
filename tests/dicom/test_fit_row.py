"""Metadata that is too large for a row: its largest parts become references."""

import json
import time
from typing import Any

import pytest

from dcm2bq.dicom.write.fit_row import escaped_size
from tests.dicom.build import (
    converted,
    dicom,
    element,
    identity,
    item,
    sequence,
)

FRAMES = 0x52009230
NAME = "PerFrameFunctionalGroupsSequence"


def frames(count: int) -> bytes:
    """Return functional groups: a sequence of many small elements."""
    group = item(
        sequence(0x00209113, item(element(0x00200032, "DS", "1.5\\2.5\\3.5"))),
        sequence(0x00209111, item(element(0x00209157, "UL", b"\1\0\0\0"))),
    )
    return sequence(FRAMES, *[group] * count)


def escaped(text: str) -> int:
    """Return the bytes that the text takes as a JSON string."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def test_the_escaped_size_is_the_length_of_a_json_string() -> None:
    """Quotes and backslashes count twice."""
    text = converted(dicom(identity(), element(0x00204000, "LT", 'a"b\\c\n\xe9'))).text
    assert escaped_size(text.encode()) == escaped(text)


@pytest.mark.parametrize("form", ["flat", "dicom-json"])
def test_a_sequence_is_replaced_as_a_whole(form: str) -> None:
    """A warning names it; all other elements and the columns are unchanged."""
    content = dicom(identity(), element(0x00100020, "LO", "X"), frames(2000))
    options: dict[str, Any] = {"format": form}
    whole = converted(content, jsonOutput=options)
    done = converted(content, jsonOutput=options, limits={"outputBytes": 100_000})
    assert escaped(whole.text) > 100_000
    assert escaped(done.text) <= 100_000
    assert json.loads(done.text) == done.metadata
    key = NAME if form == "flat" else f"{FRAMES:08X}"
    offset = len(content) - len(frames(2000)) + 12
    assert done.metadata[key] == {
        "vr": "SQ",
        "BulkDataURI": f"?offset={offset}&length={len(frames(2000)) - 12}",
    }
    changed = {name for name in whole.metadata if whole.metadata[name] != done.metadata[name]}
    assert changed == {key}
    assert done.columns == whole.columns
    assert any(
        line.startswith(f"{FRAMES:08X} SQ: ") and "fit the row" in line for line in done.warnings
    )


def test_the_largest_elements_are_replaced_and_no_more_than_needed() -> None:
    """Up to the last byte of the limit."""
    texts = [element(0x00091000 + number, "UT", "x" * (1000 * number)) for number in range(1, 10)]
    content = dicom(identity(), *texts)
    whole = escaped(converted(content).text)
    for missing, replaced in ((0, 0), (1, 1), (8_000, 1), (9_500, 2), (40_000, 7)):
        done = converted(content, limits={"outputBytes": whole - missing})
        left = [
            key for key, value in done.metadata.items() if isinstance(value, dict) and "vr" in value
        ]
        assert left == [f"{0x00091000 + number:08X}" for number in range(10 - replaced, 10)]
        assert escaped(done.text) <= whole - missing


def test_an_element_that_makes_up_most_of_a_sequence_is_replaced_instead_of_it() -> None:
    """At any depth; its small neighbours stay in the row."""
    big = element(0x00204000, "LT", "x" * 60_000)
    code = element(0x00080100, "SH", "X")
    inner = sequence(0x00081140, item(code, big), item(code))
    content = dicom(identity(), sequence(0x00081115, item(code, inner), item(code)))
    done = converted(content, limits={"outputBytes": 5_000})
    first, second = done.metadata["ReferencedSeriesSequence"]
    assert second == {"CodeValue": "X"}
    image, other = first["ReferencedImageSequence"]
    assert other == {"CodeValue": "X"}
    assert image["CodeValue"] == "X"
    assert image["ImageComments"]["vr"] == "LT"


def test_several_elements_of_one_sequence_can_be_replaced() -> None:
    """One by one, as long as one makes up most of the rest."""
    texts = [element(0x00091000 + n, "UT", "x" * size) for n, size in enumerate((50_000, 20_000))]
    code = element(0x00080100, "SH", "X")
    done = converted(
        dicom(identity(), sequence(0x00081140, item(code, *texts))), limits={"outputBytes": 5_000}
    )
    (image,) = done.metadata["ReferencedImageSequence"]
    assert image["CodeValue"] == "X"
    assert set(image["00091000"]) == set(image["00091001"]) == {"BulkDataURI", "vr"}


def test_of_duplicates_the_first_is_referred_to() -> None:
    """It is the one in the output."""
    content = dicom(
        identity(), element(0x00204000, "LT", "x" * 9000), element(0x00204000, "LT", "y" * 5000)
    )
    done = converted(content, limits={"outputBytes": 5_000})
    offset = content.index(b"xxxx")
    assert done.metadata["ImageComments"]["BulkDataURI"] == f"?offset={offset}&length=9000"


def test_nothing_is_replaced_by_a_longer_reference() -> None:
    """A row that cannot fit stays complete, and BigQuery refuses it."""
    content = dicom(identity(), *[element(0x00091000 + n, "LO", "x") for n in range(200)])
    done = converted(content, limits={"outputBytes": 1_000})
    assert done.metadata == converted(content).metadata


def test_sixty_thousand_small_elements_are_replaced_in_bounded_time() -> None:
    """Each is just longer than a reference."""
    creators = [element(0x000B0000 + n, "LO", "ACME") for n in range(0x10, 0x100)]
    elements = [*creators, *(element(0x000B1000 + n, "LO", "x" * 200) for n in range(0xEF00))]
    done = converted(dicom(identity(), *elements), limits={"outputBytes": 8_000_000})
    assert escaped(done.text) <= 8_000_000
    assert len(done.warnings) == 201
    assert done.warnings[-1].endswith("further warnings")


def test_a_sequence_around_a_replaced_one_can_be_replaced_too() -> None:
    inner = sequence(
        0x00081199, item(*[element(0x00090011 + n, "LO", "v" * 60) for n in range(20)])
    )
    small = [element(0x00111000 + n, "LO", "ab") for n in range(60)]
    content = dicom(identity(), sequence(0x00081140, item(inner)), *small)
    done = converted(content, limits={"outputBytes": 300})
    assert json.loads(done.text) == done.metadata
    assert len(done.warnings) == 1


def test_deeply_nested_text_is_replaced_in_bounded_time() -> None:
    content = b""
    for _ in range(80):
        texts = [element(tag, "LT", b"x" * 60_000) for tag in (0x00104000, 0x00204000, 0x00324000)]
        content = b"".join(texts) + (sequence(0x00400100, item(content)) if content else b"")
    start = time.process_time()
    done = converted(dicom(identity(), content), limits={"outputBytes": 100_000})
    assert time.process_time() - start < 10
    assert escaped(done.text) <= 100_000
