"""Generated data sets that pydicom writes, in every encoding, are read back."""

import math
import struct
import warnings
from decimal import Decimal, InvalidOperation
from io import BytesIO
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dcm2bq.dicom import convert
from dcm2bq.errors import RejectedEventError
from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    dicom,
    element,
    flat,
    identity,
)

PRINTABLE = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\")
LATIN_1 = st.characters(
    max_codepoint=0xFF, exclude_categories=("Cs", "Cc"), exclude_characters="\\"
)
CHARSETS = {"ISO_IR 100": LATIN_1, "ISO_IR 192": PRINTABLE, "GB18030": PRINTABLE}


def text(alphabet: st.SearchStrategy[str], size: int) -> st.SearchStrategy[str]:
    """Return text without spaces at its ends."""
    return st.text(alphabet, max_size=size).map(lambda each: each.strip(" "))


def several(values: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[list[Any]]:
    """Return lists of values."""
    return st.lists(values, min_size=1, max_size=most)


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[list[int]]:
    """Return lists of integers with a number of bits."""
    least = -(2 ** (bits - 1)) if signed else 0
    return several(st.integers(least, least + 2**bits - 1))


def values_of(vr: str, charset: str) -> st.SearchStrategy[list[Any]]:
    """Return values of a VR, as the flat format has them."""
    alphabet = CHARSETS[charset]
    strategies: dict[str, st.SearchStrategy[list[Any]]] = {
        "AE": several(st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True)),
        "AS": several(st.from_regex(r"[0-9]{3}[DWMY]", fullmatch=True)),
        "AT": several(st.from_regex(r"[0-9A-F]{8}", fullmatch=True)),
        "CS": several(st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True)),
        "DA": several(st.dates().map(lambda day: day.strftime("%Y%m%d").zfill(8))),
        "DS": several(st.integers(-(10**14), 10**14) | st.decimals(-999, 999, places=5).map(float)),
        "FD": several(st.floats(allow_nan=False, allow_infinity=False)),
        "FL": several(st.floats(width=32, allow_nan=False, allow_infinity=False)),
        "IS": several(st.integers(-(2**31), 2**31 - 1)),
        "LO": several(text(alphabet, 16)),
        "LT": text(alphabet, 40).map(lambda each: [each]),
        "PN": several(text(alphabet, 16).filter(lambda each: "=" not in each and "^" not in each)),
        "SH": several(text(alphabet, 4)),
        "SL": integers(32, signed=True),
        "SS": integers(16, signed=True),
        "SV": integers(64, signed=True),
        "TM": several(st.times().map(lambda time: time.strftime("%H%M%S"))),
        "UC": several(text(alphabet, 40)),
        "UI": several(st.from_regex(r"[1-9]([0-9]{0,3}\.[1-9]){0,9}", fullmatch=True)),
        "UL": integers(32, signed=False),
        "US": integers(16, signed=False),
        "UT": text(alphabet, 40).map(lambda each: [each]),
        "UV": integers(64, signed=False),
    }
    return strategies[vr]


VRS = sorted(
    "AE AS AT CS DA DS FD FL IS LO LT PN SH SL SS SV TM UC UI UL US UT UV".split()  # noqa: SIM905
)
TAGS = st.integers(0x00091000, 0x000910FF)


@st.composite
def data_sets(draw: st.DrawFn, charset: str, depth: int = 3) -> dict[int, tuple[str, Any]]:
    """Return a data set as tag to VR and values; the values of a sequence are data sets."""
    elements: dict[int, tuple[str, Any]] = {}
    for tag in draw(st.lists(TAGS, unique=True, max_size=5)):
        if depth and draw(st.integers(0, 3)) == 0:
            elements[tag] = ("SQ", draw(st.lists(data_sets(charset, depth - 1), max_size=3)))
        else:
            vr = draw(st.sampled_from(VRS))
            elements[tag] = (vr, draw(values_of(vr, charset)))
    return elements


def written(elements: dict[int, tuple[str, Any]], *, defined: bool) -> Dataset:
    """Return the data set as one of pydicom's."""
    dataset = Dataset()
    for tag, (vr, values) in sorted(elements.items()):
        if vr == "SQ":
            items = [written(item, defined=defined) for item in values]
            for item in items:
                item.is_undefined_length_sequence_item = not defined
            dataset.add_new(tag, vr, Sequence(items))
            dataset[tag].is_undefined_length = not defined
        elif vr == "AT":
            dataset.add_new(tag, vr, [int(value, 16) for value in values])
        else:
            plain = [str(value) for value in values] if vr == "DS" else values
            dataset.add_new(tag, vr, plain if len(plain) > 1 else plain[0])
    return dataset


def expected(elements: dict[int, tuple[str, Any]]) -> dict[str, Any]:
    """Return the metadata that the data set must become."""
    metadata = {}
    for tag, (vr, values) in sorted(elements.items()):
        if vr == "SQ":
            plain: Any = [expected(item) for item in values]
        else:
            plain = [None if value == "" else value for value in values]
            plain = plain[0] if len(plain) == 1 else plain
        metadata[f"{tag:08X}"] = plain
    return metadata


def same(ours: Any, theirs: Any) -> bool:
    """Return whether two values are equal, or equal in single precision."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, float):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=1e-7, abs_tol=1e-45)
    return bool(ours == theirs and type(ours) is type(theirs))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_data_sets_written_by_pydicom_are_read_back(data: st.DataObject) -> None:
    """With all VRs, nested, in all encodings and several character sets."""
    charset = data.draw(st.sampled_from(sorted(CHARSETS)))
    syntax = data.draw(st.sampled_from([EXPLICIT, BIG, DEFLATED]))
    elements = data.draw(data_sets(charset))
    defined = data.draw(st.booleans())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = written(elements, defined=defined)
        dataset.SpecificCharacterSet = charset
        dataset.SOPClassUID, dataset.SOPInstanceUID = UID("1.2.3"), UID("1.2.4")
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
    done = convert(BytesIO(stream.getvalue()))
    private = {key: value for key, value in done.metadata.items() if key.startswith("0009")}
    assert same(private, expected(elements))
    assert done.warnings == ()


@settings(max_examples=300, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_single_precision_reads_back(number: float) -> None:
    """As the same four bytes, from at most nine digits."""
    content = struct.pack("<f", number)
    metadata = flat(element(0x00091001, "FL", content))["00091001"]
    assert struct.pack("<f", metadata) == content
    assert len(repr(metadata).split("e")[0].strip("-0.").replace(".", "")) <= 9


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789+-.eE ", max_size=20))
def test_a_decimal_string_keeps_every_digit_or_stays_text(string: str) -> None:
    """A number is exactly the one that is written."""
    metadata = flat(element(0x00091001, "DS", string))["00091001"]
    if isinstance(metadata, int | float):
        assert Decimal(string.strip()) == Decimal(repr(metadata))
    elif metadata is not None:
        assert metadata == string.strip()
        try:
            exact = Decimal(metadata)
        except InvalidOperation:
            return
        assert "e" in metadata.lower() or abs(exact) >= 2**63 or float(metadata) != exact


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_data_set_are_converted_or_refused(noise: bytes) -> None:
    """Only errors of the taxonomy are raised."""
    for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED):
        try:
            convert(BytesIO(dicom(identity(), noise, transfer_syntax=syntax)))
        except RejectedEventError:
            continue
