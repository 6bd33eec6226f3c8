"""Every file that comes with pydicom, compared with pydicom's own reading."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from dcm2bq.dicom import Conversion, convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError

FOLDER = Path(pydicom.data.__file__).parent
NOT_DICOM = frozenset({".py", ".pyc", ".txt", ".dump", ".json", ".icc", ".gz", ".md"})
FILES = sorted(
    path
    for path in FOLDER.rglob("*")
    if path.is_file() and path.suffix not in NOT_DICOM and path.name != "README"
)
CORPUS = sorted(
    path
    for path in Path(os.environ.get("DCM2BQ_CORPUS", os.devnull)).rglob("*")
    if path.is_file() and path.suffix not in NOT_DICOM
)

REFUSED = {
    # A space precedes the data set, so that no element is where one is expected.
    "no_meta.dcm": NotDicomError,
    # The object ends inside a sequence.
    "rtplan_truncated.dcm": UnreadableDicomError,
}
"""The files that are refused, and why."""

# In DICOMDIR-nooffset the length of the last item exceeds its sequence, so that the whole sequence
# stays in the object, with a warning; pydicom ignores it.


def path_id(path: Path) -> str:
    return path.name


def dataset_of(path: Path) -> tuple[Dataset, bytes, bytes]:
    """Return pydicom's data set, the file's bytes and the bytes that offsets refer to."""
    content = path.read_bytes()
    data_set = pydicom.dcmread(BytesIO(content), force=True)
    inflated = content
    if str(data_set.file_meta.get("TransferSyntaxUID", "")) == "1.2.840.10008.1.2.1.99":
        start = 144 + data_set.file_meta.FileMetaInformationGroupLength
        inflated = zlib.decompressobj(-15).decompress(content[start:])
    return data_set, content, inflated


class Comparison:
    """Compares a conversion with pydicom's data set and collects the differences."""

    def __init__(self, conversion: Conversion, content: bytes, inflated: bytes) -> None:
        self.warned = {line[:8] for line in conversion.warnings}
        self.content, self.inflated = content, inflated
        self.different: list[str] = []
        self.compared = 0

    def compare(self, ours: dict[str, Any], theirs: Dataset) -> None:
        """Compare all elements, those of items included."""
        for tag in sorted(theirs.keys()):
            if tag.element == 0:
                continue
            repeating = tag.group >> 8 in {0x50, 0x60}
            key = (not repeating and keyword_for_tag(tag)) or f"{tag:08X}"
            self.compared += 1
            element = theirs[tag]
            if key not in ours or (
                not self._same(ours[key], element.VR, element.value)
                and (f"{tag:08X}" not in self.warned)
            ):
                self.different.append(key)

    def _same(self, ours: Any, vr: str, theirs: Any) -> bool:
        if vr == "SQ":
            if not isinstance(ours, list) or len(ours) != len(theirs):
                return False
            for item, dataset in zip(ours, theirs, strict=True):
                self.compare(item, dataset)
            return True
        if isinstance(theirs, bytes):
            return self._same_bytes(ours, theirs)
        values = list(theirs) if isinstance(theirs, (list, tuple)) else [theirs]
        if isinstance(theirs, pydicom.multival.MultiValue):
            values = list(theirs)
        ours = ours if isinstance(ours, list) else [ours]
        if isinstance(ours[0], dict):
            return False
        return len(ours) == len(values) and all(
            self._same_value(mine, vr, value) for mine, value in zip(ours, values, strict=True)
        )

    @staticmethod
    def _same_value(ours: Any, vr: str, theirs: Any) -> bool:
        text = str(theirs)
        if theirs is None or text.strip() == "":
            return ours is None
        if vr == "FL":
            return struct.pack("<f", ours) == struct.pack("<f", theirs)
        if isinstance(ours, int | float):
            return float(ours) == float(theirs)
        if vr == "AT":
            text = f"{theirs:08X}"
        elif vr == "PN":  # pydicom leaves out empty groups at the end
            ours = ours.rstrip("=")
        elif vr not in {"LT", "ST", "UC", "UR", "UT"}:
            text = text.strip()  # pydicom strips only the last of several values
        return bool(ours == text)

    def _same_bytes(self, ours: Any, theirs: bytes) -> bool:
        if ours is None:
            return theirs == b""
        if not isinstance(ours, dict):
            return False
        where = dict(part.split("=") for part in ours["BulkDataURI"].removeprefix("?").split("&"))
        source = self.inflated if "deflated" in where else self.content
        offset, length = int(where["offset"]), int(where["length"])
        return source[offset : offset + length] == theirs


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Ignore the warnings of pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("path", FILES + CORPUS, ids=path_id)
def test_every_element_that_pydicom_reads_is_in_the_output(path: Path) -> None:
    """With an equal value or with a warning; references point to exactly the element's bytes."""
    if path.name in REFUSED:
        with path.open("rb") as stream, pytest.raises(REFUSED[path.name]):
            convert(stream)
        return
    with path.open("rb") as stream:
        conversion = convert(stream)
    theirs, content, inflated = dataset_of(path)
    comparison = Comparison(conversion, content, inflated)
    comparison.compare(conversion.metadata, theirs)
    comparison.compare(conversion.metadata, theirs.file_meta)
    assert comparison.different == []
    assert comparison.compared > 0


def test_most_files_are_converted() -> None:
    """So that the comparison is worth something."""
    assert len(FILES) > 180
    assert len(REFUSED) == 2


WARNED = {
    # Images by their SOP class, without Pixel Data.
    "chrJapMulti.dcm": ["00280010: Rows without pixel data"],
    "chrJapMultiExplicitIR6.dcm": ["00280010: Rows without pixel data"],
    "chrKoreanMulti.dcm": ["00280010: Rows without pixel data"],
    # Two SOP Instance UIDs.
    "winter.dcm": ["00080018 UI: duplicate"],
    # Date and time are written as in ACR-NEMA 2.0, with dots and colons.
    "ExplVR_BigEnd.dcm": ["00080020 DA: not a date", "00080030 TM: not a time"],
    # Bare data sets.
    "ExplVR_BigEndNoMeta.dcm": ["no transfer syntax", "no File Meta Information"],
    "ExplVR_LitEndNoMeta.dcm": ["no transfer syntax", "no File Meta Information"],
    "rtstruct.dcm": ["no transfer syntax", "no File Meta Information"],
    # Made broken, as their names say.
    "MR_truncated.dcm": ["7FE00010 OW: the object is cut"],
    "badVR.dcm": ["00280008 IS: not an integer"],
    "DICOMDIR-nooffset": ["00041220 SQ: broken sequence"],
    "meta_missing_tsyntax.dcm": ["no transfer syntax is declared"],
    # Explicit VR is declared, implicit is written.
    "SC_rgb_jpeg.dcm": ["the transfer syntax is not as declared"],
    # The trailer of a gzip file follows the deflated data set.
    "image_dfl.dcm": ["8 bytes after the deflated data set"],
}
"""The files that cause warnings, how these begin, and what is wrong with each file."""


@pytest.mark.parametrize("path", FILES, ids=path_id)
def test_a_file_causes_a_warning_only_if_something_is_wrong_with_it(path: Path) -> None:
    if path.name in REFUSED:
        return
    with path.open("rb") as stream:
        lines = convert(stream).warnings
    starts = WARNED.get(path.name, [])
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_every_file_listed_with_warnings_exists() -> None:
    assert WARNED.keys() <= {path.name for path in FILES}


# The DICOM JSON Model


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of the attributes that differ from pydicom's without a reason."""
    for tag in sorted(ours.keys() | theirs.keys()):
        if tag.endswith("0000"):
            continue  # group lengths are left out
        mine, other = ours.get(tag), theirs.get(tag)
        if mine is None or other is None or mine["vr"] != other["vr"]:
            yield f"{tag}: {mine and mine['vr']} and {other and other['vr']}"
        elif mine["vr"] == "SQ":
            items = mine.get("Value", []), other.get("Value", [])  # pydicom writes an empty array
            if len(items[0]) != len(items[1]):
                yield f"{tag}: number of items"
            for item, dataset in zip(*items, strict=False):
                yield from (f"{tag}.{difference}" for difference in differences(item, dataset))
        elif "BulkDataURI" in mine:
            if "BulkDataURI" not in other:
                yield f"{tag}: bulk"
        elif plain(mine, mine["vr"]) != plain(other, mine["vr"]):
            yield f"{tag}: value"


def plain(attribute: dict[str, Any], vr: str) -> list[Any]:
    """Return values in a form in which both can be compared."""
    values = attribute.get("Value", [])
    if vr == "FL":  # the shortest text here, all digits of the double there
        return [value and struct.pack("<f", value) for value in values]
    if vr == "PN":  # empty component groups are left out here (PS3.18 F.2.2)
        return [
            value and {name: group for name, group in value.items() if group} for value in values
        ]
    return [value.strip() or None if isinstance(value, str) else value for value in values]


NO_MODEL = {
    # pydicom's `to_json_dict` raises on an IS that is not an integer; here it remains text.
    "badVR.dcm",
    # The sequence stays in the object, see above.
    "DICOMDIR-nooffset",
}
"""The files whose JSON by pydicom is wrong or missing, and why."""


@pytest.mark.parametrize("path", FILES + CORPUS, ids=path_id)
def test_the_json_model_equals_that_of_pydicom(path: Path) -> None:
    """Wherever pydicom's is right."""
    if path.name in REFUSED or path.name in NO_MODEL:
        return
    with path.open("rb") as stream:
        conversion = convert(stream, {"jsonOutput": {"format": "dicom-json"}})
    theirs, _, _ = dataset_of(path)
    expected = theirs.to_json_dict(bulk_data_threshold=0, bulk_data_element_handler=lambda _: "x")
    assert list(differences(conversion.metadata, expected)) == []
