"""What the privacy options name leaves the output, at every level and in every form."""

import hashlib
import hmac
import io
import re
from collections.abc import Iterator
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
from dicom.build import dicom, element, identity, item, sequence

KEY = "a key that is long enough"
SENTINEL = "SENTINEL"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    yield
    privacy_rules.cache_clear()


def pseudonym(value: str) -> str:
    """Return the HMAC of a value in hex, by another way than the code's."""
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
def test_removed_elements_are_gone_at_every_level(output: dict[str, Any]) -> None:
    done = private(NESTED, output, remove=["PatientName", "PatientID", "private"])
    assert SENTINEL not in done.text
    assert not re.search("PatientName|00100010|PatientID|00100020|00091001", done.text)
    assert done.attributes["PatientID"] is None
    assert done.attributes["Modality"] == "CT"
    assert done.dropped_tags == ()


def test_a_sequence_is_removed_as_a_whole() -> None:
    done = private(NESTED, remove=["ReferencedImageSequence"])
    assert "ReferencedImageSequence" not in done.metadata
    assert done.metadata["PatientName"] == SENTINEL


@pytest.mark.parametrize("selector", ["OverlayData", "60xx3000"])
def test_a_repeating_group_is_removed_in_each_of_its_groups(selector: str) -> None:
    done = private(NESTED, remove=[selector])
    assert not any(key.startswith("60") for key in done.metadata)
    assert any(key.startswith("60") for key in private(NESTED).metadata)


def test_a_hash_is_the_keyed_one_and_the_same_wherever_the_value_stands() -> None:
    done = private(NESTED, hash=["PatientID", "StudyInstanceUID", "ReferencedSOPInstanceUID"])
    assert done.metadata["PatientID"] == pseudonym("Müller")
    assert done.attributes["PatientID"] == pseudonym("Müller")
    assert done.metadata["StudyInstanceUID"] == uid("1.2.3.9")
    assert done.attributes["StudyInstanceUID"] == uid("1.2.3.9")
    (referenced,) = done.metadata["ReferencedImageSequence"]
    assert referenced["ReferencedSOPInstanceUID"] == uid("1.2.3.9")
    (person,) = referenced["PersonIdentificationCodeSequence"]
    assert person["PatientID"] == pseudonym(SENTINEL)
    assert done.warnings == ()


def test_a_hash_is_of_the_text_not_of_its_bytes() -> None:
    utf8 = dicom(
        identity(),
        element(0x00080005, "CS", "ISO_IR 192"),
        element(0x00100020, "LO", "Müller ".encode()),
    )
    hashed = private(utf8, hash=["PatientID"]).metadata["PatientID"]
    assert hashed == private(NESTED, hash=["PatientID"]).metadata["PatientID"]


def test_each_value_is_hashed_by_itself_and_an_empty_one_stays_empty() -> None:
    content = dicom(identity(), element(0x00101000, "LO", "a\\\\b"), element(0x00100020, "LO"))
    done = private(content, hash=["OtherPatientIDs", "PatientID"])
    assert done.metadata["OtherPatientIDs"] == [pseudonym("a"), None, pseudonym("b")]
    assert done.metadata["PatientID"] is None


def test_the_sop_instance_uid_of_the_file_meta_information_goes_with_it() -> None:
    done = private(NESTED, hash=["SOPInstanceUID"])
    assert done.metadata["MediaStorageSOPInstanceUID"] == uid("1.2.3.4")
    assert done.metadata["SOPInstanceUID"] == uid("1.2.3.4")
    assert "1.2.3.4" not in done.text


@pytest.mark.parametrize(
    ("vr", "value"),
    [("LO", b"\xff\xfeSENTINEL"), ("OB", b"SENTINEL"), ("US", b"SENTINEL"), ("DA", b"SENTINEL")],
)
def test_what_is_odd_does_not_slip_through(vr: str, value: bytes) -> None:
    content = dicom(identity(), element(0x00100020, vr, value))
    done = convert(
        io.BytesIO(content),
        {"privacy": {"hash": ["PatientID"]}, "bulkData": {"inlineMaxBytes": 100}},
    )
    assert SENTINEL not in done.text
    assert b"U0VOVElORUw" not in done.text.encode()
    assert SENTINEL not in str(done.attributes)
    assert SENTINEL not in str(done.warnings)


def test_remove_wins_over_hash_and_both_over_the_profile() -> None:
    done = private(
        NESTED, profile="basic", hash=["PatientID", "PatientName"], remove=["PatientName"]
    )
    assert "PatientName" not in done.metadata
    assert done.metadata["PatientID"] == pseudonym("Müller")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove": ["PatientNames"]}, "privacy.remove: PatientNames is neither a keyword"),
        ({"hash": ["private"]}, "privacy.hash: private is not one attribute"),
        ({"hash": ["OverlayData"]}, "privacy.hash: OverlayData is not one attribute"),
        ({"hash": ["StudyDate"]}, "privacy.hash: StudyDate is DA, which can only be removed"),
        ({"hash": ["PatientWeight"]}, "privacy.hash: PatientWeight is DS, which can only be"),
        ({"hash": ["00091001"]}, "privacy.hash: 00091001 is not in the data dictionary"),
        (
            {"hash": ["PatientID"], "hashKeyVariable": "NO_SUCH"},
            "privacy.hashKeyVariable: NO_SUCH must hold 16 bytes or more",
        ),
        (
            {"profile": "basic", "hashKeyVariable": "NO_SUCH"},
            "privacy.hashKeyVariable: NO_SUCH must hold 16 bytes or more",
        ),
    ],
)
def test_what_can_not_be_followed_is_told_with_the_options_path(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        private(NESTED, **options)
    assert str(error.value).startswith(message)


def table() -> dict[str, str]:
    """Return the shipped table, tag to action."""
    text = resources.files("dcm2bq.dicom").joinpath("basic_profile.tsv").read_text()
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return dict(rows)


def test_the_table_is_whole() -> None:
    actions = table()
    assert len(actions) > 600
    assert actions["00100010"] == "Z"
    assert actions["00100040"] == "Z"
    assert actions["0020000D"] == "U"
    assert actions["00081140"] == "X/Z/U*"
    assert actions["60xx3000"] == actions["50xxxxxx"] == actions["private"] == "X"
    assert set(actions.values()) == {"D", "U", "X", "X/D", "X/Z", "X/Z/D", "X/Z/U*", "Z", "Z/D"}


def attribute(tag: int, action: str) -> tuple[str, Any]:
    """Return a VR and a value that must not come through."""
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
    """Whether the output holds what an action of Table E.1-1 leaves of an attribute."""
    if action == "U":
        return bool(metadata[tag] == uid("1.2.3.9"))
    if action == "X/Z/U*":
        return bool(metadata[tag] == [{"00080050": None, "00081155": uid("1.2.3.9")}])
    return tag not in metadata if action.startswith("X") else metadata[tag] in (None, [])


def test_the_basic_profile_applies_every_row_of_the_table() -> None:
    """Each attribute that pydicom knows, with a sentinel in it, by the table's action."""
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


def test_the_basic_profile_leaves_what_is_no_ones() -> None:
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    done = private(content, profile="basic")
    for kept in ("Modality", "Rows", "SliceThickness", "KVP", "SOPClassUID", "PixelSpacing"):
        assert done.metadata[kept] == private(content).metadata[kept]
    assert done.attributes["StudyDate"] is None
    assert done.attributes["PatientID"] is None
    assert done.attributes["Modality"] == "CT"
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
def test_a_mask_reaches_private_elements(selector: str) -> None:
    assert "00091001" not in private(NESTED, remove=[selector]).metadata
    assert "00091001" in private(NESTED).metadata


def test_a_mask_to_remove_wins_over_what_is_hashed_by_name() -> None:
    done = private(NESTED, profile="basic", hash=["PatientID"], remove=["0010xxxx", "0020xxxx"])
    assert not {"PatientID", "PatientName", "StudyInstanceUID"} & set(done.metadata)
    assert done.attributes["PatientID"] is None
