"""The columns: lifted from the data set, whatever becomes of its JSON."""

import pytest

from dicom.build import IMPLICIT, converted, dicom, element, identity, item, sequence

TAGS = {
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "SOPClassUID": (0x00080016, "UI"),
    "Modality": (0x00080060, "CS"),
    "PatientID": (0x00100020, "LO"),
    "StudyDate": (0x00080020, "DA"),
}


def test_all_are_lifted_from_the_top_level_only() -> None:
    """An item's attributes are another object's."""
    inner = item(*[element(tag, vr, "9") for tag, vr in TAGS.values()])
    values = dict.fromkeys(TAGS, "1.2") | {"StudyDate": "20240229", "Modality": "CT"}
    outer = [element(tag, vr, values[keyword]) for keyword, (tag, vr) in TAGS.items()]
    found = converted(dicom(sequence(0x00081140, inner), *outer)).attributes
    assert found == values | {"StudyDate": "2024-02-29"}
    assert all(
        value is None for value in converted(dicom(sequence(0x00081140, inner))).attributes.values()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"ignoreMetaHeader": True, "ignorePrivate": True, "ignoreBinary": True},
        {"format": "dicom-json"},
        {"useCommonNames": False, "useArrayWithSingleValue": True},
    ],
)
def test_options_do_not_touch_them(options: dict[str, object]) -> None:
    """They come from the elements, not from the JSON."""
    content = dicom(identity(), element(0x00100020, "LO", "X"))
    assert converted(content, jsonOutput=options).attributes == converted(content).attributes


@pytest.mark.parametrize(
    ("date", "column"),
    [
        ("20240229", "2024-02-29"),
        ("00010101", "0001-01-01"),
        ("99991231", "9999-12-31"),
        ("2024.02.29", "2024-02-29"),
        ("", None),
        ("20230229", None),
        ("00000101", None),
        ("20240001", None),
        ("2024", None),
        ("2024-02-29", None),
        ("20240229-20240301", None),
        ("x", None),
        ("٢٠٢٤٠٢٢٩", None),
    ],
)
def test_a_study_date_is_a_date_of_bigquery_or_null(date: str, column: str | None) -> None:
    """With a warning if there was something."""
    found = converted(dicom(identity(), element(0x00080020, "DA", date.encode())))
    assert found.attributes["StudyDate"] == column
    lines = [line for line in found.warnings if "a column can hold" in line]
    assert bool(lines) is (column is None and date != "")


def test_of_several_values_the_first_is_lifted() -> None:
    """With a warning."""
    found = converted(dicom(identity(), element(0x00100020, "LO", "A\\B")))
    assert found.attributes["PatientID"] == "A"
    assert any("first of 2 values" in line for line in found.warnings)


def test_they_are_stripped_and_decoded() -> None:
    """By the character set of the data set."""
    found = converted(
        dicom(
            element(0x00080005, "CS", "ISO_IR 192"),
            element(0x00080018, "UI", " 1.2\0\0"),
            element(0x00100020, "LO", " é ".encode()),
        )
    )
    assert found.attributes["PatientID"] == "é"
    assert found.attributes["SOPInstanceUID"] == "1.2"


@pytest.mark.parametrize("vr", ["UN", "LO", "SH"])
def test_another_vr_does_no_harm(vr: str) -> None:
    """The text counts."""
    found = converted(dicom(identity(), element(0x0020000D, vr, "1.2.3 ")))
    assert found.attributes["StudyInstanceUID"] == "1.2.3"


@pytest.mark.parametrize(
    "content",
    [
        element(0x0020000D, "OB", "1.2.3 "),
        sequence(0x0020000D, item()),
        element(0x0020000D, "UT", "1" * 70_000),
    ],
)
def test_what_is_no_text_is_not_lifted(content: bytes) -> None:
    """With a warning."""
    found = converted(dicom(identity(), content))
    assert found.attributes["StudyInstanceUID"] is None
    assert any(line.startswith("0020000D") and "not lifted" in line for line in found.warnings)


def test_they_do_not_depend_on_the_encoding() -> None:
    """Implicit files have them too."""
    content = identity(implicit=True) + element(0x00080020, "DA", "20240229", implicit=True)
    found = converted(dicom(content, transfer_syntax=IMPLICIT)).attributes
    assert found["StudyDate"] == "2024-02-29"
    assert found["SOPInstanceUID"] == "1.2.3.4"


@pytest.mark.parametrize(
    ("written", "value", "is_warned_of"),
    [
        ("1.2.3\0", "1.2.3", False),
        ("1.2.3 ", "1.2.3", False),
        ("1.2.3  \0 ", "1.2.3", False),
        (" 1.2.3", "1.2.3", True),
        ("\0" + "1.2.3", "1.2.3", True),
        ("1.2 .3", "1.2 .3", True),
        (" 1. 2.3 ", "1. 2.3", True),
        ("1.2.3\t", "1.2.3\t", True),
        (" ", None, False),
    ],
)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("form", ["flat", "dicom-json"])
def test_a_uid_is_the_same_in_metadata_and_column_whatever_blanks_it_has(
    keyword: str, written: str, value: str | None, *, is_warned_of: bool, form: str
) -> None:
    """Blanks around it are no part of it; those before or within it are warned of."""
    tag = TAGS[keyword][0]
    content = dicom(element(0x00080005, "CS"), element(tag, "UI", written))
    found = converted(content, jsonOutput={"format": form})
    key = keyword if form == "flat" else f"{tag:08X}"
    metadata = found.metadata[key]
    if form == "dicom-json":
        (metadata,) = metadata.get("Value", [None])
    assert metadata == value
    column = found.attributes[keyword]
    assert column == (value if value is None or value.isprintable() else None)
    lines = [line for line in found.warnings if line.startswith(f"{tag:08X} UI")]
    assert bool(lines) is is_warned_of


def test_each_of_several_uids_is_held_to_its_blanks() -> None:
    uids = [element(0x00081110, "UI", "1.2\0\\1.3 \\1.4"), element(0x0008001A, "UI", "1.2\\ 1.3")]
    found = converted(dicom(identity(), *uids))
    assert found.metadata["ReferencedStudySequence"] == ["1.2", "1.3", "1.4"]
    assert found.metadata["RelatedGeneralSOPClassUID"] == ["1.2", "1.3"]
    assert [line[:11] for line in found.warnings] == ["0008001A UI"]


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("UN", b"A\0\1B"),
        ("US", b"ABC"),
        ("LO", b"A\0B"),
        ("AE", b"A\nB"),
        ("DA", b"2024\x010101"),
        ("US", b"\1\2\3"),
    ],
)
def test_what_the_metadata_refuses_is_not_lifted(vr: str, value: bytes) -> None:
    """Nor what is broken by control characters; with a warning."""
    found = converted(dicom(identity(), element(0x00100020, vr, value, length=len(value))))
    assert found.attributes["PatientID"] is None
    assert any(line.startswith("00100020") and "not lifted" in line for line in found.warnings)
