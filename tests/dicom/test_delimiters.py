"""Delimiters and items that are missing, misplaced or superfluous, and what they close."""

import itertools
import time
from contextlib import suppress
from io import BytesIO

import pytest

from dcm2bq.dicom import convert
from dcm2bq.errors import UnreadableDicomError
from tests.dicom.build import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    UNDEFINED,
    converted,
    delimiter,
    dicom,
    element,
    flat,
    header,
    identity,
    item,
    sequence,
    warned,
)

SYNTAXES = pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, "UN"])
SERIES, IMAGE, REGIONS = 0x00081115, 0x00081140, 0x00186011
CODE, DESIGNATOR = 0x00080100, 0x00080102


class Build:
    """Writes elements, sequences and delimiters of one encoding, or of implicit items within UN."""

    def __init__(self, syntax: str) -> None:
        self.hides = syntax == "UN"
        self.transfer_syntax = EXPLICIT if self.hides else syntax
        self.big = syntax == BIG
        self.implicit = syntax == IMPLICIT
        self._inner = {"implicit": self.implicit or self.hides, "big": self.big}

    def text(self, tag: int, value: str) -> bytes:
        """Return an element within a sequence."""
        return element(tag, "SH", value, **self._inner)

    def inner(self, tag: int) -> bytes:
        """Return the header of a sequence of undefined length within a sequence."""
        return header(tag, "SQ", UNDEFINED, **self._inner)

    def outer(self, tag: int, content: bytes, *, defined: bool = False) -> bytes:
        """Return a sequence of the data set: its header and `content`."""
        length = len(content) if defined else UNDEFINED
        vr = "UN" if self.hides else "SQ"
        return header(tag, vr, length, implicit=self.implicit, big=self.big) + content

    def open(self) -> bytes:
        """Return the header of an item of undefined length."""
        return delimiter(0xFFFEE000, UNDEFINED, big=self.big)

    def item(self, content: bytes) -> bytes:
        """Return an item of known length."""
        return delimiter(0xFFFEE000, len(content), big=self.big) + content

    @property
    def item_end(self) -> bytes:
        """The Item Delimitation Item."""
        return delimiter(0xFFFEE00D, big=self.big)

    @property
    def sequence_end(self) -> bytes:
        """The Sequence Delimitation Item."""
        return delimiter(0xFFFEE0DD, big=self.big)

    def read(self, content: bytes) -> tuple[dict[str, object], list[str]]:
        """Return the metadata and warnings of a data set with `content` among other elements."""
        form = {"implicit": self.implicit, "big": self.big}
        whole = [
            identity(**form),
            content,
            element(0x00200010, "SH", "S1", **form),
            element(0x7FE00010, "OW", b"\1" * 64, **form),
        ]
        done = converted(
            dicom(*whole, transfer_syntax=self.transfer_syntax),
            jsonOutput={"ignoreMetaHeader": True},
        )
        assert done.metadata.pop("StudyID") == "S1"
        assert "PixelData" in done.metadata
        return done.metadata, list(done.warnings)


def names(tag: int, warnings: list[str]) -> bool:
    """Return whether a warning names the tag and an offset."""
    return any(line.startswith(f"{tag:08X} ") and "offset " in line for line in warnings)


# Missing delimiters


@SYNTAXES
@pytest.mark.parametrize("before", ["", "known", "delimited", "undelimited", "empty"])
def test_the_delimiter_of_a_sequence_ends_its_last_item(before: str, syntax: str) -> None:
    """As K-PACS wrote it, whatever items come before."""
    build = Build(syntax)
    one, two = build.text(CODE, "1"), build.text(CODE, "2")
    items = {
        "": b"",
        "known": build.item(one),
        "delimited": build.open() + one + build.item_end,
        "undelimited": build.open() + one,
        "empty": build.item(b""),
    }[before]
    metadata, warnings = build.read(
        build.outer(REGIONS, items + build.open() + two + build.sequence_end)
    )
    expected = [{"CodeValue": "2"}]
    if before:
        expected.insert(0, {} if before == "empty" else {"CodeValue": "1"})
    assert metadata["SequenceOfUltrasoundRegions"] == expected
    assert names(REGIONS, warnings)


@SYNTAXES
@pytest.mark.parametrize("defined", [True, False])
def test_the_next_item_closes_the_one_before_it(syntax: str, *, defined: bool) -> None:
    """In a sequence of known length, too."""
    build = Build(syntax)
    items = b"".join(build.open() + build.text(CODE, text) for text in "123")
    end = b"" if defined else build.sequence_end
    metadata, warnings = build.read(build.outer(IMAGE, items + end, defined=defined))
    assert metadata["ReferencedImageSequence"] == [{"CodeValue": text} for text in "123"]
    assert names(IMAGE, warnings)


@SYNTAXES
@pytest.mark.parametrize("items", [1, 2])
def test_the_end_of_a_sequence_of_known_length_ends_its_item(items: int, syntax: str) -> None:
    """And everything that is open in it."""
    build = Build(syntax)
    inner = build.inner(IMAGE) + build.open() + build.text(CODE, "X")
    first = build.item(build.text(CODE, "1")) * (items - 1)
    content = first + build.open() + build.text(CODE, "2") + inner
    metadata, warnings = build.read(build.outer(SERIES, content, defined=True))
    last = {"CodeValue": "2", "ReferencedImageSequence": [{"CodeValue": "X"}]}
    assert metadata["ReferencedSeriesSequence"] == [{"CodeValue": "1"}] * (items - 1) + [last]
    assert names(SERIES, warnings)
    assert names(IMAGE, warnings)


@SYNTAXES
def test_the_end_of_an_item_of_known_length_ends_the_sequence_in_it(syntax: str) -> None:
    """That is of undefined length, and its item too."""
    build = Build(syntax)
    inner = build.inner(IMAGE) + build.open() + build.text(CODE, "X")
    content = build.item(inner) + build.item(build.text(CODE, "Y")) + build.sequence_end
    metadata, warnings = build.read(build.outer(SERIES, content))
    assert metadata["ReferencedSeriesSequence"] == [
        {"ReferencedImageSequence": [{"CodeValue": "X"}]},
        {"CodeValue": "Y"},
    ]
    assert names(IMAGE, warnings)


@SYNTAXES
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_one_delimiter_of_a_sequence_closes_all_that_is_open_in_it(depth: int, syntax: str) -> None:
    """Where what follows shows that it is the outermost one's."""
    build = Build(syntax)
    content = build.open()
    for _ in range(depth - 1):
        content += build.text(CODE, "X") + build.inner(IMAGE) + build.open()
    content += build.text(CODE, "X") + build.sequence_end
    metadata, warnings = build.read(build.outer(SERIES, content))
    expected: dict[str, object] = {"CodeValue": "X"}
    for _ in range(depth - 1):
        expected = {"CodeValue": "X", "ReferencedImageSequence": [expected]}
    assert metadata["ReferencedSeriesSequence"] == [expected]
    assert names(IMAGE, warnings)


@SYNTAXES
@pytest.mark.parametrize("inner", ["no item", "known", "delimited"])
def test_the_delimiter_of_an_item_closes_the_sequence_in_it(inner: str, syntax: str) -> None:
    """The inner sequence has no delimiter."""
    build = Build(syntax)
    text = build.text(CODE, "X")
    items = {
        "no item": b"",
        "known": build.item(text),
        "delimited": build.open() + text + build.item_end,
    }[inner]
    content = build.open() + build.inner(IMAGE) + items + build.item_end
    again = build.open() + build.text(CODE, "Y") + build.item_end
    for more, after in ((b"", []), (again, [{"CodeValue": "Y"}])):
        metadata, warnings = build.read(build.outer(SERIES, content + more + build.sequence_end))
        expected = [] if inner == "no item" else [{"CodeValue": "X"}]
        assert metadata["ReferencedSeriesSequence"] == [
            {"ReferencedImageSequence": expected},
            *after,
        ]
        assert names(IMAGE, warnings)


@SYNTAXES
def test_an_element_of_the_parent_ends_a_sequence(syntax: str) -> None:
    """If it is sound, and its tag is higher than that of the sequence."""
    build = Build(syntax)
    if build.hides:
        content = build.outer(
            SERIES,
            build.open()
            + build.inner(IMAGE)
            + build.item(build.text(CODE, "X"))
            + build.text(0x00200010, "Y")
            + build.item_end
            + build.sequence_end,
        )
        metadata, warnings = build.read(content)
        image = {"ReferencedImageSequence": [{"CodeValue": "X"}], "StudyID": "Y"}
        assert metadata["ReferencedSeriesSequence"] == [image]
    else:
        items = build.item(build.text(CODE, "X")) + build.open() + build.item_end
        metadata, warnings = build.read(build.outer(IMAGE, items))
        assert metadata["ReferencedImageSequence"] == [{"CodeValue": "X"}, {}]
    assert names(IMAGE, warnings)


@SYNTAXES
@pytest.mark.parametrize("count", [40, 1_000])
def test_each_item_of_a_long_sequence_may_lack_its_delimiter(syntax: str, count: int) -> None:
    """A writer that forgets it always forgets it; after the last item the situation differs."""
    build = Build(syntax)
    one = build.open() + build.text(CODE, "X") + build.text(DESIGNATOR, "Y")
    expected = [{"CodeValue": "X", "CodingSchemeDesignator": "Y"}] * count
    for between in (b"", build.sequence_end):
        metadata, warnings = build.read(
            build.outer(IMAGE, (one + between) * count) + (build.sequence_end)
        )
        assert metadata["ReferencedImageSequence"] == expected
        assert names(IMAGE, warnings)


# One delimiter instead of the other


@SYNTAXES
def test_an_item_may_end_with_the_delimiter_of_a_sequence(syntax: str) -> None:
    """Each item does, and the sequence as well."""
    build = Build(syntax)
    one = build.open() + build.text(CODE, "X") + build.sequence_end
    for count in (1, 2, 3):
        metadata, warnings = build.read(build.outer(IMAGE, one * count + build.sequence_end))
        assert metadata["ReferencedImageSequence"] == [{"CodeValue": "X"}] * count
        assert names(IMAGE, warnings)


@SYNTAXES
@pytest.mark.parametrize("count", [3, 5])
def test_a_fault_may_be_repeated_within_an_item_of_undefined_length(
    syntax: str, count: int
) -> None:
    """All following delimiters are considered together, not one by one."""
    build = Build(syntax)
    one = build.open() + build.text(CODE, "X") + build.sequence_end
    content = build.open() + build.inner(IMAGE) + one * count + build.sequence_end
    content += build.text(0x00200010, "Y") + build.item_end
    content += build.item(build.text(CODE, "Z"))
    metadata, warnings = build.read(build.outer(SERIES, content + build.sequence_end))
    first = {"ReferencedImageSequence": [{"CodeValue": "X"}] * count, "StudyID": "Y"}
    assert metadata["ReferencedSeriesSequence"] == [first, {"CodeValue": "Z"}]
    assert names(IMAGE, warnings)


@SYNTAXES
def test_a_sequence_may_end_with_the_delimiter_of_an_item(syntax: str) -> None:
    """In the data set, and in an item with more elements."""
    build = Build(syntax)
    one = build.open() + build.text(CODE, "X") + build.item_end
    metadata, _ = build.read(build.outer(IMAGE, one + build.item_end))
    assert metadata["ReferencedImageSequence"] == [{"CodeValue": "X"}]
    content = build.open() + build.inner(IMAGE) + one + build.item_end
    content += build.text(0x00200010, "Y") + build.item_end + build.sequence_end
    metadata, warnings = build.read(build.outer(SERIES, content))
    expected = {"ReferencedImageSequence": [{"CodeValue": "X"}], "StudyID": "Y"}
    assert metadata["ReferencedSeriesSequence"] == [expected]
    assert names(IMAGE, warnings)


# Superfluous ones


@SYNTAXES
@pytest.mark.parametrize("kind", ["item_end", "sequence_end"])
def test_a_superfluous_delimiter_closes_nothing(kind: str, syntax: str) -> None:
    """After an item or sequence that ended by its length, whatever surrounds it."""
    build = Build(syntax)
    stray = getattr(build, kind)
    known = build.outer(IMAGE, build.item(build.text(CODE, "X")), defined=True)
    if build.hides:
        known = sequence(IMAGE, item(build.text(CODE, "X")), implicit=True)
    content = build.open() + known
    content += (stray if kind == "sequence_end" else b"") + build.text(0x00200010, "Y")
    content += build.item_end + build.item(build.text(CODE, "Z"))
    content += stray if kind == "item_end" else b""
    metadata, warnings = build.read(build.outer(SERIES, content + build.sequence_end))
    first = {"ReferencedImageSequence": [{"CodeValue": "X"}], "StudyID": "Y"}
    assert metadata["ReferencedSeriesSequence"] == [first, {"CodeValue": "Z"}]
    assert names(
        0xFFFEE00D if kind == "item_end" else 0xFFFEE0DD, [w.replace(":", " ") for w in warnings]
    )


STRAY_ITEMS = {
    "empty": item(),
    "of known length": item(element(CODE, "SH", "X")),
    "of undefined length": item(element(CODE, "SH", "X"), defined=False),
    "of undefined length and empty": item(defined=False),
    "with a sequence": item(
        sequence(IMAGE, item(element(CODE, "SH", "X"), defined=False), defined=False),
        defined=False,
    ),
    "with its sequence's delimiter": item(element(CODE, "SH", "X"), defined=False)
    + delimiter(0xFFFEE0DD),
    "ended by its sequence's delimiter": delimiter(0xFFFEE000, UNDEFINED)
    + element(CODE, "SH", "X")
    + delimiter(0xFFFEE0DD),
    "repeated": item() * 3 + item(element(CODE, "SH", "X"), defined=False) * 2,
}


@pytest.mark.parametrize("stray", STRAY_ITEMS.values(), ids=STRAY_ITEMS.keys())
@pytest.mark.parametrize("where", ["first", "top", "after an empty sequence", "end", "pixels"])
def test_a_stray_item_loses_nothing_around_it(where: str, stray: bytes) -> None:
    """An empty sequence before it stays empty."""
    before = header(IMAGE, "SQ", 0) if where == "after an empty sequence" else b""
    parts = {
        "first": [identity(), stray],
        "end": [identity()],
        "pixels": [identity()],
    }.get(where, [identity(), before, stray])
    parts += [element(0x00200010, "SH", "S1")]
    if where == "pixels":
        parts += [element(0x7FE00010, "OW", b"\1" * 8), stray, element(0x7FE10010, "LO", "X")]
    elif where == "end":
        parts += [stray]
    metadata = flat(*parts)
    assert metadata["StudyID"] == "S1"
    assert set(metadata) - {
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyID",
        "PixelData",
        "7FE10010",
    } == ({"ReferencedImageSequence"} if before else set())
    assert metadata.get("ReferencedImageSequence", []) == []
    assert where != "pixels" or metadata["7FE10010"] == "X"
    assert any("stray item" in line and "offset" in line for line in warned(*parts))


@SYNTAXES
@pytest.mark.parametrize("defined", [True, False])
def test_a_stray_item_within_an_item_loses_nothing(syntax: str, *, defined: bool) -> None:
    """Although it could be the next item of the enclosing sequence."""
    build = Build(syntax)
    empty = build.inner(IMAGE)[:-4] + bytes(4)
    content = empty + build.item(b"") + build.text(0x00200010, "Y")
    whole = build.item(content) if defined else build.open() + content + build.item_end
    metadata, warnings = build.read(build.outer(SERIES, whole + build.sequence_end))
    assert metadata["ReferencedSeriesSequence"] == [{"ReferencedImageSequence": [], "StudyID": "Y"}]
    assert any("stray item" in line for line in warnings)


@SYNTAXES
@pytest.mark.parametrize("content", ["", "X"])
def test_a_stray_item_and_delimiter_within_an_item_lose_nothing(syntax: str, content: str) -> None:
    """No element of the item gets into the data set."""
    build = Build(syntax)
    empty = build.inner(IMAGE)[:-4] + bytes(4)
    stray = build.item(b"")
    if content:
        stray = build.open() + build.text(CODE, content) + build.item_end
    whole = build.open() + empty + stray + build.sequence_end + build.text(0x00200010, "Y")
    whole += build.item_end + build.item(build.text(CODE, "Z")) + build.sequence_end
    metadata, warnings = build.read(build.outer(SERIES, whole))
    first = {"ReferencedImageSequence": [], "StudyID": "Y"}
    assert metadata["ReferencedSeriesSequence"] == [first, {"CodeValue": "Z"}]
    assert any("stray item" in line for line in warnings)


# Objects that cannot be read


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("kind", ["sequence", "item", "nested"])
def test_a_sequence_without_end_is_reported_where_it_begins(kind: str, syntax: str) -> None:
    """And not where the object ends."""
    build = Build(syntax)
    form = {"implicit": build.implicit, "big": build.big}
    text = build.text(CODE, "X")
    content = {
        "sequence": build.item(text),
        "item": build.open() + text,
        "nested": build.open() + build.inner(0x00081199) + build.open() + text,
    }[kind]
    whole = dicom(
        identity(**form), build.outer(IMAGE, content), transfer_syntax=build.transfer_syntax
    )
    with pytest.raises(UnreadableDicomError) as caught:
        convert(BytesIO(whole))
    tag, inner = (IMAGE, content) if kind != "nested" else (0x00081199, build.open() + text)
    assert caught.value.tag == f"{tag:08X}"
    assert caught.value.offset == whole.index(inner)


def test_a_message_has_no_tag_and_no_length_from_unsound_bytes() -> None:
    """It has the offset, and the sequence or the last element that is known."""
    secret = b"EVE^ADAM 19580131"
    for content in (
        identity() + secret,
        identity() + sequence(IMAGE, secret, defined=False),
        identity() + sequence(IMAGE, item(secret, defined=False), defined=False),
        identity() + sequence(IMAGE, delimiter(0xFFFEE000, 0x4D414441) + secret, defined=False),
        identity() + element(0x45564500, "LO", secret, length=0x4441),
        identity() + element(0x45564501, "UN", secret, length=0x4D414441),
    ):
        with pytest.raises(UnreadableDicomError) as caught:
            convert(BytesIO(dicom(content)))
        text = str(caught.value)
        digits = text.replace("offset", "")
        for part in (secret[i : i + 4] for i in range(len(secret) - 3)):
            for order in ("little", "big"):
                number = int.from_bytes(part, order)
                assert f"{number:08X}" not in digits
                assert str(number) not in digits
        assert "4556" not in text
        assert any(name in text for name in ("00081140", "00080018"))


# Encapsulated values in items


ICON = sequence(0x7FE00010, item(), item(b"abcd"), vr="OB", defined=False)


@pytest.mark.parametrize("missing", [8, 16, 24])
@pytest.mark.parametrize("of_sequence", [True, False])
def test_the_length_of_an_item_may_exclude_part_of_its_encapsulated_value(
    missing: int, *, of_sequence: bool
) -> None:
    """The fragments lead to their delimiter; the sequence may have the same wrong length."""
    content = element(0x00280010, "US", b"\1\0") + ICON
    short = delimiter(0xFFFEE000, len(content) - missing) + content
    length = len(short) - missing * of_sequence
    icon = header(0x00880200, "SQ", length) + short
    pixels = sequence(0x7FE00010, item(), item(b"wxyz"), vr="OB", defined=False)
    whole = dicom(identity(), icon, element(0x00880904, "LO", "X"), pixels, transfer_syntax=JPEG)
    conversion = converted(whole)
    (image,) = conversion.metadata["IconImageSequence"]
    assert image["Rows"] == 1
    assert image["PixelData"]["BulkDataURI"] == f"?offset={whole.index(ICON[12:])}&length=20"
    assert conversion.metadata["TopicTitle"] == "X"
    assert set(conversion.metadata["PixelData"]) == {"BulkDataURI"}
    assert any(line.startswith("00880200") and "offset" in line for line in conversion.warnings)


@pytest.mark.parametrize("defined", [True, False])
def test_a_fragment_of_odd_length_may_be_padded(*, defined: bool) -> None:
    """At the top level and in items; any fragment, not only the last."""
    odd = delimiter(0xFFFEE000, 3) + b"abc\0"
    for fragments in (odd, odd + item(b"abcd"), odd + odd):
        value = sequence(0x7FE00010, item(), fragments, vr="OB", defined=False)
        icon = sequence(0x00880200, item(value, defined=defined), defined=defined)
        whole = dicom(identity(), icon, value, transfer_syntax=JPEG)
        conversion = converted(whole)
        (image,) = conversion.metadata["IconImageSequence"]
        size = 8 + len(fragments)
        start = whole.index(value) + 12
        assert image["PixelData"]["BulkDataURI"] == f"?offset={start}&length={size}"
        last = whole.rindex(value) + 12
        assert conversion.metadata["PixelData"]["BulkDataURI"] == f"?offset={last}&length={size}"
        assert any("odd length" in line for line in conversion.warnings)


# Bounds


@pytest.mark.parametrize(
    ("start", "piece", "count"),
    [
        (b"", item(), 100_000),
        (b"", item(defined=False), 60_000),
        (b"", delimiter(0xFFFEE00D), 100_000),
        (b"", delimiter(0xFFFEE0DD), 100_000),
        (header(IMAGE, "SQ", UNDEFINED), delimiter(0xFFFEE00D), 250_000),
        (b"", header(IMAGE, "SQ", UNDEFINED) + delimiter(0xFFFEE000, UNDEFINED), 100_000),
        (b"", delimiter(0xFFFEE000, UNDEFINED), 250_000),
        (header(IMAGE, "SQ", UNDEFINED), delimiter(0xFFFEE000, UNDEFINED), 250_000),
        (
            header(IMAGE, "SQ", UNDEFINED),
            delimiter(0xFFFEE000, UNDEFINED) + delimiter(0xFFFEE0DD),
            100_000,
        ),
    ],
    ids=itertools.count(),
)
def test_misplaced_delimiters_take_linear_time(
    start: bytes, piece: bytes, count: int, pytestconfig: pytest.Config
) -> None:
    """One or two megabytes of them, or a fifth of that in less time."""
    part, seconds = (1, 10) if pytestconfig.getoption("--long") else (5, 4)
    content = start + piece * (count // part)
    whole = dicom(identity(), content, element(0x00200010, "SH", "S1"))
    begin = time.process_time()
    with suppress(UnreadableDicomError):
        convert(BytesIO(whole))
    assert time.process_time() - begin < seconds
