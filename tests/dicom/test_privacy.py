"""Privacy options: attributes are removed and pseudonymised at every level and in both formats."""

import hashlib
import hmac
import io
import re
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from dcm2bq.dicom import Conversion, convert, privacy_rules
from dcm2bq.errors import ConfigError
from tests.dicom.build import (
    dicom,
    element,
    identity,
    item,
    sequence,
)

KEY = "a key that is long enough"
SENTINEL = "SENTINEL"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)


def pseudonym(value: str) -> str:
    """Return the HMAC of a value in hex, computed in another way than by the code."""
    return hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest().upper()


def uid(value: str) -> str:
    return f"2.25.{int(pseudonym(value)[:32], 16)}"


def private(content: bytes, output: dict[str, Any] | None = None, **options: Any) -> Conversion:
    return convert(io.BytesIO(content), {"privacy": options, "jsonOutput": output or {}})


NESTED = dicom(
    identity(),
    element(0x00080005, "CS", "ISO_IR 100"),
    element(0x00080020, "DA", "20260102"),
    element(0x00080060, "CS", "CT"),
    sequence(
        0x00081140,
        item(
            element(0x00081155, "UI", "1.2.3.9"),
            element(0x00100010, "PN", SENTINEL),
            sequence(0x00401101, item(element(0x00100020, "LO", SENTINEL))),
        ),
    ),
    element(0x00091001, "LO", SENTINEL),
    element(0x00100010, "PN", SENTINEL),
    element(0x00100020, "LO", b"M\xfcller"),
    element(0x0020000D, "UI", "1.2.3.9"),
    element(0x60003000, "OW", b"\0" * 8),
    element(0x60023000, "OW", b"\0" * 8),
)


@pytest.mark.parametrize("output", [{}, {"useCommonNames": False}, {"format": "dicom-json"}])
def test_elements_are_removed_at_every_level(output: dict[str, Any]) -> None:
    done = private(NESTED, output, remove=["PatientName", "PatientID", "private"])
    assert SENTINEL not in done.text
    assert not re.search("PatientName|00100010|PatientID|00100020|00091001", done.text)
    assert done.columns["PatientID"] is None
    assert done.columns["Modality"] == "CT"
    assert done.dropped_tags == ()


def test_a_sequence_is_removed_as_a_whole() -> None:
    done = private(NESTED, remove=["ReferencedImageSequence"])
    assert "ReferencedImageSequence" not in done.metadata
    assert done.metadata["PatientName"] == SENTINEL


@pytest.mark.parametrize("selector", ["OverlayData", "60xx3000"])
def test_an_element_of_a_repeating_group_is_removed_in_every_group(selector: str) -> None:
    done = private(NESTED, remove=[selector])
    assert not any(key.startswith("60") for key in done.metadata)
    assert any(key.startswith("60") for key in private(NESTED).metadata)


def test_equal_values_have_equal_keyed_hashes_everywhere() -> None:
    done = private(NESTED, hash=["PatientID", "StudyInstanceUID", "ReferencedSOPInstanceUID"])
    assert done.metadata["PatientID"] == pseudonym("Müller")
    assert done.columns["PatientID"] == pseudonym("Müller")
    assert done.metadata["StudyInstanceUID"] == uid("1.2.3.9")
    assert done.columns["StudyInstanceUID"] == uid("1.2.3.9")
    (referenced,) = done.metadata["ReferencedImageSequence"]
    assert referenced["ReferencedSOPInstanceUID"] == uid("1.2.3.9")
    (person,) = referenced["PersonIdentificationCodeSequence"]
    assert person["PatientID"] == pseudonym(SENTINEL)
    assert done.warnings == ()


def test_the_text_is_hashed_not_its_bytes() -> None:
    utf8 = dicom(
        identity(),
        element(0x00080005, "CS", "ISO_IR 192"),
        element(0x00100020, "LO", "Müller ".encode()),
    )
    hashed = private(utf8, hash=["PatientID"]).metadata["PatientID"]
    assert hashed == private(NESTED, hash=["PatientID"]).metadata["PatientID"]


def test_each_of_several_values_is_hashed_and_empty_ones_stay_empty() -> None:
    content = dicom(identity(), element(0x00101000, "LO", "a\\\\b"), element(0x00100020, "LO"))
    done = private(content, hash=["OtherPatientIDs", "PatientID"])
    assert done.metadata["OtherPatientIDs"] == [pseudonym("a"), None, pseudonym("b")]
    assert done.metadata["PatientID"] is None


def test_the_sop_instance_uid_of_the_file_meta_information_is_hashed_too() -> None:
    done = private(NESTED, hash=["SOPInstanceUID"])
    assert done.metadata["MediaStorageSOPInstanceUID"] == uid("1.2.3.4")
    assert done.metadata["SOPInstanceUID"] == uid("1.2.3.4")
    assert "1.2.3.4" not in done.text


@pytest.mark.parametrize(
    ("vr", "value"),
    [("LO", b"\xff\xfeSENTINEL"), ("OB", b"SENTINEL"), ("US", b"SENTINEL"), ("DA", b"SENTINEL")],
)
def test_odd_values_do_not_escape_the_rules(vr: str, value: bytes) -> None:
    content = dicom(identity(), element(0x00100020, vr, value))
    done = convert(
        io.BytesIO(content),
        {"privacy": {"hash": ["PatientID"]}, "bulkData": {"inlineMaxBytes": 100}},
    )
    assert SENTINEL not in done.text
    assert b"U0VOVElORUw" not in done.text.encode()
    assert SENTINEL not in str(done.columns)
    assert SENTINEL not in str(done.warnings)


def test_remove_precedes_hash_and_both_precede_the_profile() -> None:
    done = private(
        NESTED, profile="basic", hash=["PatientID", "PatientName"], remove=["PatientName"]
    )
    assert "PatientName" not in done.metadata
    assert done.metadata["PatientID"] == pseudonym("Müller")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove": ["PatientNames"]}, "privacy.remove: PatientNames is not a keyword"),
        ({"hash": ["private"]}, "privacy.hash: private names several attributes"),
        ({"hash": ["OverlayData"]}, "privacy.hash: OverlayData names several attributes"),
        ({"hash": ["StudyDate"]}, "privacy.hash: StudyDate has VR DA, which can only be removed"),
        ({"hash": ["PatientWeight"]}, "privacy.hash: PatientWeight has VR DS, which can only be"),
        ({"hash": ["00091001"]}, "privacy.hash: 00091001 is not in the data dictionary"),
        (
            {"hash": ["PatientID"], "hashKeyVariable": "NO_SUCH"},
            "privacy.hashKeyVariable: the environment variable NO_SUCH is not set: it must hold 16",
        ),
        (
            {"profile": "basic", "hashKeyVariable": "NO_SUCH"},
            "privacy.hashKeyVariable: the environment variable NO_SUCH is not set: it must hold 16",
        ),
    ],
)
def test_impossible_rules_are_refused_by_the_name_of_the_option(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        private(NESTED, **options)
    assert str(error.value).startswith(message)


def table() -> dict[str, str]:
    """Return the packaged table: tag to action."""
    text = (
        resources.files("dcm2bq.dicom.privacy").joinpath("confidentiality_profile.tsv").read_text()
    )
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {tag: action for tag, action, *_ in rows[1:]}


def test_the_table_is_complete() -> None:
    actions = table()
    assert len(actions) > 600
    assert actions["00100010"] == "Z"
    assert actions["00100040"] == "Z"
    assert actions["0020000D"] == "U"
    assert actions["00081140"] == "X/Z/U*"
    assert actions["60xx3000"] == actions["50xxxxxx"] == actions["private"] == "X"
    assert set(actions.values()) == {"D", "U", "X", "X/D", "X/Z", "X/Z/D", "X/Z/U*", "Z", "Z/D"}


def attribute(tag: int, action: str) -> tuple[str, Any]:
    """Return a VR and a value that must not reach the output."""
    vr = dictionary_VR(tag)
    if vr == "SQ":
        inner = Dataset()
        inner.AccessionNumber = SENTINEL
        inner.ReferencedSOPInstanceUID = UID("1.2.3.9")
        return vr, Sequence([inner])
    if vr == "UI":
        return vr, UID("1.2.3.9")
    return ("UT" if action == "X" else "LO"), SENTINEL


def is_right(metadata: dict[str, Any], tag: str, action: str) -> bool:
    """Return whether the output has what an action of Table E.1-1 leaves of an attribute."""
    if action == "U":
        return bool(metadata[tag] == uid("1.2.3.9"))
    if action == "X/Z/U*":
        return bool(metadata[tag] == [{"00080050": None, "00081155": uid("1.2.3.9")}])
    return tag not in metadata if action.startswith("X") else metadata[tag] in (None, [])


def test_the_basic_profile_applies_every_row_of_the_table() -> None:
    """To every attribute that pydicom knows, with a sentinel as its value."""
    rows = {
        tag: action
        for tag, action in table().items()
        if re.fullmatch("[0-9A-F]{8}", tag)
        and tag[:4] not in {"0000", "0002", "FFFA", "FFFC"}
        and dictionary_has_tag(int(tag, 16))
    }
    assert len(rows) > 600
    written = Dataset()
    for tag, action in rows.items():
        written.add_new(int(tag, 16), *attribute(int(tag, 16), action))
    done = private(_written(written), {"useCommonNames": False}, profile="basic")
    assert SENTINEL not in done.text
    assert '"1.2.3.9"' not in done.text
    assert [tag for tag, action in rows.items() if not is_right(done.metadata, tag, action)] == []


def test_the_basic_profile_keeps_what_identifies_nobody() -> None:
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    done = private(content, profile="basic")
    for kept in ("Modality", "Rows", "SliceThickness", "KVP", "SOPClassUID", "PixelSpacing"):
        assert done.metadata[kept] == private(content).metadata[kept]
    assert done.columns["StudyDate"] is None
    assert done.columns["PatientID"] is None
    assert done.columns["Modality"] == "CT"
    assert not any(
        key[3] in "13579BDF" for key in done.metadata if re.fullmatch("[0-9A-F]{8}", key)
    )


def _written(data: Dataset) -> bytes:
    data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    data.SOPInstanceUID = UID("1.2.3.9")
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("selector", ["0009xx01", "0009xxxx", "00091001"])
def test_a_mask_matches_private_elements(selector: str) -> None:
    assert "00091001" not in private(NESTED, remove=[selector]).metadata
    assert "00091001" in private(NESTED).metadata


def test_a_mask_to_remove_precedes_a_keyword_to_hash() -> None:
    done = private(NESTED, profile="basic", hash=["PatientID"], remove=["0010xxxx", "0020xxxx"])
    assert not {"PatientID", "PatientName", "StudyInstanceUID"} & set(done.metadata)
    assert done.columns["PatientID"] is None


TEXT_VRS = ["AE", "CS", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"]


@pytest.mark.parametrize("vr", TEXT_VRS)
def test_equal_values_have_equal_pseudonyms_whatever_their_vr(vr: str) -> None:
    """The VR of the dictionary decides, in both formats."""
    options: dict[str, Any] = {"hash": ["PatientID", "StudyInstanceUID"]}
    content = dicom(
        identity(), element(0x00100020, vr, "12345 "), element(0x0020000D, vr, "1.2.3.9 ")
    )
    done = private(content, **options)
    assert done.metadata["PatientID"] == done.columns["PatientID"] == pseudonym("12345")
    assert done.metadata["StudyInstanceUID"] == uid("1.2.3.9")
    model = private(content, {"format": "dicom-json"}, **options).metadata
    assert model["00100020"] == {"vr": "LO", "Value": [pseudonym("12345")]}
    assert model["0020000D"] == {"vr": "UI", "Value": [uid("1.2.3.9")]}


@pytest.mark.parametrize("written", [" 1.2.3.9", "1.2.3.9 ", "1.2.3.9\0", " 1.2.3.9\0", "1.2. 3.9"])
def test_blanks_in_a_uid_do_not_change_its_pseudonym(written: str) -> None:
    done = private(dicom(identity(), element(0x0020000D, "UI", written)), hash=["StudyInstanceUID"])
    assert done.metadata["StudyInstanceUID"] == uid("1.2.3.9")
    assert done.columns["StudyInstanceUID"] == uid("1.2.3.9")


def test_well_known_uids_are_not_hashed() -> None:
    """SOP classes, transfer syntaxes and well-known frames of reference do not identify anyone."""
    known = {
        0x00080016: "1.2.840.10008.5.1.4.1.1.2",
        0x00080018: "1.2.3.9",
        0x00200052: "1.2.840.10008.1.4.1.1",
    }
    content = dicom(*(element(tag, "UI", value) for tag, value in known.items()))
    done = private(content, profile="basic", hash=["SOPClassUID"])
    assert done.metadata["SOPClassUID"] == known[0x00080016]
    assert done.metadata["FrameOfReferenceUID"] == known[0x00200052]
    assert done.metadata["SOPInstanceUID"] == uid("1.2.3.9")


def test_the_profile_keeps_of_the_file_meta_information_only_the_encoding() -> None:
    """And nothing of a command set (PS3.15 E.1.1, E.3.8)."""
    titles = [element(0x00020000 | number, "AE", SENTINEL) for number in (0x16, 0x17, 0x18, 0x35)]
    titles += [element(0x00020013, "SH", "IMPL"), element(0x00020100, "UI", "1.2.3.9")]
    titles += [element(0x00020102, "OB", SENTINEL), element(0x00020099, "LO", SENTINEL)]
    command = element(0x00001030, "", SENTINEL, implicit=True)
    start = dicom()
    content = start + b"".join(titles) + command + identity() + element(0x00081010, "SH", SENTINEL)
    done = private(content, {"ignoreGroupLength": False}, profile="basic")
    assert SENTINEL not in done.text
    assert set(done.metadata) == {
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "SOPClassUID",
        "SOPInstanceUID",
    }
    assert done.metadata["MediaStorageSOPInstanceUID"] == uid("1.2.3.4")
    kept = private(content, {"ignoreGroupLength": False}, remove=["StationName"])
    assert kept.text.count(SENTINEL) == 6


@pytest.mark.parametrize("most", [0, 10, 65_536])
@pytest.mark.parametrize("form", ["flat", "dicom-json"])
@pytest.mark.parametrize("size", [20, 70_000, 300_000])
def test_emptied_and_hashed_values_never_become_references(size: int, form: str, most: int) -> None:
    """Whatever the length of the original, and even if the row must be made to fit."""
    content = dicom(
        identity(),
        element(0x00100010, "UT", "x" * size),
        element(0x00100020, "UT", "A\\B"),
        sequence(0x00101002, item(element(0x00100020, "UT", "x" * size))),
        element(0x0020000D, "UT", "1.2.3.9"),
        element(0x00281055, "LO", "y" * 60),
    )
    done = convert(
        io.BytesIO(content),
        {
            "privacy": {"profile": "basic", "hash": ["PatientID"]},
            "jsonOutput": {"format": form},
            "bulkData": {"textMaxBytes": most},
            "limits": {"outputBytes": 100},
        },
    )
    hashed = [pseudonym("A"), pseudonym("B")]
    if form == "flat":
        assert done.metadata["PatientName"] is None
        assert done.metadata["PatientID"] == hashed
        assert done.metadata["StudyInstanceUID"] == uid("1.2.3.9")
    else:
        assert done.metadata["00100010"] == {"vr": "UT"}
        assert done.metadata["00100020"] == {"vr": "LO", "Value": hashed}
        assert done.metadata["0020000D"] == {"vr": "UI", "Value": [uid("1.2.3.9")]}


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("LO", b"A\x01B"),
        ("LO", b"A\xff"),
        ("CS", "É".encode()),
        ("DA", b"2026\n0101"),
        ("LT", b"\x10\0\x10\0PN\x04\0A^B "),
        ("UT", item(element(0x00100010, "PN", SENTINEL))),
        ("UI", b"1.2\0.3"),
        ("UN", b"A\0\x01B"),
        ("US", b"\xfe\xff\0\xe0\0\0\0\0"),
        ("SS", b"ABCDEF"),
        ("FD", struct.pack("<d", 1)),
    ],
)
def test_with_rules_a_value_that_does_not_fit_its_tag_becomes_a_reference(
    vr: str, value: bytes
) -> None:
    """With a warning; without rules text is kept."""
    content = dicom(identity(), element(0x00281055, vr, value))
    done = private(content, remove=["PatientName"])
    assert "BulkDataURI" in done.metadata["WindowCenterWidthExplanation"]
    assert any(line.startswith("00281055 ") for line in done.warnings)
    if vr != "UN":
        free = private(content).metadata["WindowCenterWidthExplanation"]
        assert "BulkDataURI" not in str(free)


@pytest.mark.parametrize(
    ("tag", "vr", "value", "expected"),
    [
        (0x00281055, "LO", b"A\\B ", ["A", "B"]),
        (0x00281055, "UT", b"A\r\n\tB", "A\r\n\tB"),
        (0x00281055, "DA", b"yesterday ", "yesterday"),
        (0x00180050, "FD", struct.pack("<d", 1), 1),
        (0x00280008, "US", b"\2\0", 2),
        (0x00280010, "UN", b"\2\0", 2),
        (0x00282000, "OB", b"ICC!", {"InlineBinary": "SUNDIQ=="}),
        (0x00282000, "UN", b"ICC!", {"BulkDataURI": "?offset={}&length=4"}),
        (0x00283006, "US", b"\2\0\3\0\4\0", [2, 3, 4]),
        (0x00091001, "UN", b"ABCD", {"BulkDataURI": "?offset={}&length=4"}),
        (0x00091001, "OB", b"ABCD", {"BulkDataURI": "?offset={}&length=4"}),
        (0x00091001, "US", b"\2\0", 2),
        (0x00281055, "OB", b"ABCD", {"BulkDataURI": "?offset={}&length=4"}),
    ],
)
def test_with_rules_a_value_that_fits_its_tag_is_kept(
    tag: int, vr: str, value: bytes, expected: Any
) -> None:
    """Numbers, printable text, and bytes if the dictionary has bytes; UN is never inlined."""
    content = dicom(identity(), element(tag, vr, value))
    options = {"privacy": {"remove": ["PatientName"]}, "bulkData": {"inlineMaxBytes": 100}}
    last = list(convert(io.BytesIO(content), options).metadata.values())[-1]
    if isinstance(expected, dict) and "BulkDataURI" in expected:
        expected = {"BulkDataURI": expected["BulkDataURI"].format(len(content) - len(value))}
    assert last == expected


@pytest.mark.parametrize("vr", ["UN", "OB"])
def test_without_rules_un_bytes_follow_the_dictionary(vr: str) -> None:
    """They can be inlined, or omitted like other binary values."""
    content = dicom(identity(), element(0x00282000, vr, b"ICC!"))
    options: dict[str, Any] = {"bulkData": {"inlineMaxBytes": 100}}
    assert convert(io.BytesIO(content), options).metadata["ICCProfile"] == {
        "InlineBinary": "SUNDIQ=="
    }
    options["jsonOutput"] = {"format": "dicom-json"}
    assert convert(io.BytesIO(content), options).metadata["00282000"]["vr"] == "OB"
    options["jsonOutput"] = {"ignoreBinary": True}
    assert "ICCProfile" not in convert(io.BytesIO(content), options).metadata


@pytest.mark.parametrize("vr", ["LO", "UN"])
def test_with_rules_an_unknown_tag_that_could_be_text_is_left_out(vr: str) -> None:
    content = dicom(
        identity(), element(0x4E53454D, vr, "X"), element(0x00189999, "LO", "of a newer edition")
    )
    assert "4E53454D" in private(content).metadata
    done = private(content, remove=["PatientName"])
    assert "4E53454D" not in done.metadata
    assert done.metadata["00189999"] == "of a newer edition"
    assert any("left out: its tag is unknown" in line for line in done.warnings)


def test_with_rules_pixel_data_with_an_inferred_end_is_not_inlined() -> None:
    """It could contain stray elements."""
    stray = element(0x00104000, "LT", SENTINEL)
    content = dicom(identity(), sequence(0x7FE00010, stray, item(b"12"), vr="OB", defined=False))
    options: dict[str, Any] = {"bulkData": {"inlineMaxBytes": 1000}}
    assert "InlineBinary" in convert(io.BytesIO(content), options).metadata["PixelData"]
    options["privacy"] = {"remove": ["PatientComments"]}
    assert "BulkDataURI" in convert(io.BytesIO(content), options).metadata["PixelData"]


@pytest.mark.parametrize("tag", [0x00110000, 0x05AE0000, 0x00091001, 0x00189999])
def test_numbers_that_could_contain_elements_stay_in_the_object(tag: int) -> None:
    """A group length is one number; those of unknown tags are unbounded."""
    nested = b"\1\0\0\0" + item(element(0x00100010, "PN", SENTINEL))
    content = dicom(identity(), element(tag, "UL", nested))
    options: dict[str, Any] = {"jsonOutput": {"ignoreGroupLength": False}}
    free = convert(io.BytesIO(content), options).metadata[f"{tag:08X}"]
    options["privacy"] = {"remove": ["PatientName"]}
    assert free[0] == 1
    assert "BulkDataURI" in convert(io.BytesIO(content), options).metadata[f"{tag:08X}"]


def test_numbers_that_are_items_of_a_sequence_stay_in_the_object() -> None:
    """A sequence with another VR, under an unknown tag."""
    nested = item(element(0x00100010, "PN", SENTINEL))
    content = dicom(identity(), element(0x00091001, "US", nested))
    assert "BulkDataURI" in private(content, remove=["PatientName"]).metadata["00091001"]
    assert private(content).metadata["00091001"][:2] == [0xFFFE, 0xE000]


def test_one_newline_at_the_end_of_the_key_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret written by a pipe has one; a shell that passes it on strips it."""
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}\n")
    assert private(NESTED, hash=["PatientID"]).metadata["PatientID"] == pseudonym("Müller")
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}\n\n")
    assert private(NESTED, hash=["PatientID"]).metadata["PatientID"] != pseudonym("Müller")
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "fifteen bytes..\n")
    with pytest.raises(ConfigError):
        private(NESTED, hash=["PatientID"])


def test_a_key_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DCM2BQ_HASH_KEY", "\udcff" * 16
    )  # how Python shows bytes that are not UTF-8
    expected = hmac.new(b"\xff" * 16, "Müller".encode(), hashlib.sha256).hexdigest().upper()
    assert private(NESTED, hash=["PatientID"]).metadata["PatientID"] == expected
