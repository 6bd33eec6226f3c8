"""Columns: lifted from the data set, independently of its JSON."""

import msgspec
import pytest

from dcm2bq.bigquery.row_sink import ROW_LIMIT_BYTES
from dcm2bq.config import Config
from tests.dicom.build import (
    IMPLICIT,
    converted,
    dicom,
    element,
    identity,
    item,
    sequence,
)
from tests.support.lifted_values import VALUES

COLUMNS = {keyword: value.column for keyword, value in VALUES.items()}
ELEMENTS = [element(value.tag, value.vr, value.written) for value in VALUES.values()]


def test_columns_are_lifted_from_the_top_level_only() -> None:
    """The attributes of an item describe another object."""
    inner = item(*[element(value.tag, value.vr, "9") for value in VALUES.values()])
    columns = converted(dicom(sequence(0x00081140, inner), *ELEMENTS)).columns
    assert columns == COLUMNS
    assert all(
        value is None for value in converted(dicom(sequence(0x00081140, inner))).columns.values()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"ignoreMetaHeader": True, "ignorePrivate": True, "ignoreBinary": True},
        {"format": "dicom-json"},
        {"useCommonNames": False, "useArrayWithSingleValue": True},
    ],
)
def test_output_options_do_not_affect_columns(options: dict[str, object]) -> None:
    """Columns come from the elements, not from their JSON."""
    content = dicom(identity(), element(0x00100020, "LO", "X"))
    assert converted(content, jsonOutput=options).columns == converted(content).columns


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
def test_a_study_date_is_a_bigquery_date_or_null(date: str, column: str | None) -> None:
    """With a warning if there is a value that is not a date."""
    done = converted(dicom(identity(), element(0x00080020, "DA", date.encode())))
    assert done.columns["StudyDate"] == column
    lines = [line for line in done.warnings if "a column can hold" in line]
    assert bool(lines) is (column is None and date != "")


@pytest.mark.parametrize(
    ("time", "column"),
    [
        ("235959", "23:59:59"),
        ("235959.999999", "23:59:59.999999"),
        ("000000.5", "00:00:00.5"),
        ("1030", "10:30:00"),
        ("10", "10:00:00"),
        ("10:30:15.25", "10:30:15.25"),
        ("10:30", "10:30:00"),
        ("103015 ", "10:30:15"),
        ("", None),
        ("235960", None),
        ("240000", None),
        ("106000", None),
        ("1", None),
        ("103", None),
        ("103015.", None),
        ("103015.1234567", None),
        ("10:3015", None),
        ("1030:15", None),
        ("1000-1100", None),
        ("noon", None),
        ("١٠٣٠", None),
    ],
)
def test_a_study_time_is_a_bigquery_time_or_null(time: str, column: str | None) -> None:
    """BigQuery has no second 60; missing parts are zero."""
    done = converted(dicom(identity(), element(0x00080030, "TM", time.encode())))
    assert done.columns["StudyTime"] == column
    lines = [
        line for line in done.warnings if line == "00080030: not a time that a column can hold"
    ]
    assert bool(lines) is (column is None and time != "")
    assert not time or done.metadata["StudyTime"] == time.rstrip()


@pytest.mark.parametrize(
    ("vr", "number", "column"),
    [
        ("IS", "7", "7"),
        ("IS", " -007 ", "-7"),
        ("IS", "+9223372036854775807", "9223372036854775807"),
        ("IS", "-9223372036854775808", "-9223372036854775808"),
        ("IS", "9223372036854775808", None),
        ("IS", "7.0", None),
        ("IS", "0x10", None),
        ("IS", "seven", None),
        ("IS", "1" * 5000, None),
        ("LO", "7", "7"),
        ("DS", "7.5", None),
        ("DS", "1e3", None),
        ("US", b"\7\0", "7"),
        ("UV", b"\xff" * 8, None),
        ("IS", "", None),
    ],
)
def test_a_number_is_a_bigquery_integer_or_null(
    vr: str, number: str | bytes, column: str | None
) -> None:
    done = converted(dicom(identity(), element(0x00200013, vr, number)))
    assert done.columns["InstanceNumber"] == column
    lines = [line for line in done.warnings if "a column can hold" in line or "not lifted" in line]
    assert bool(lines) is (column is None and number != "")


def test_a_name_keeps_its_component_groups() -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    charset = element(0x00080005, "CS", "ISO_IR 192")
    done = converted(dicom(charset, identity(), element(0x00100010, "PN", name.encode())))
    assert done.columns["PatientName"] == name


@pytest.mark.parametrize(("length", "is_lifted"), [(4096, True), (4098, False)])
def test_text_that_is_too_long_for_a_column_is_in_the_metadata_only(
    length: int, *, is_lifted: bool
) -> None:
    """The longest columns must fit into a row with the longest metadata."""
    text = "x" * length
    done = converted(dicom(identity(), element(0x00081030, "LO", text)))
    assert done.metadata["StudyDescription"] == text
    assert done.columns["StudyDescription"] == (text if is_lifted else None)
    lines = [line for line in done.warnings if line.startswith("00081030 LO: not lifted")]
    assert bool(lines) is not is_lifted


def test_the_longest_columns_fit_into_a_row_with_the_longest_metadata() -> None:
    """Even if every character is escaped."""
    text = [
        element(tag, "UT", "\x01" * 4096) for tag in sorted(value.tag for value in VALUES.values())
    ]
    done = converted(dicom(*text))
    columns = msgspec.json.encode(dict(done.columns))
    assert 6 * 4096 * 10 < len(columns) < ROW_LIMIT_BYTES - Config().limits.output_bytes


def test_of_a_duplicate_attribute_the_first_is_lifted() -> None:
    twice = [element(0x00081010, "SH", letter) for letter in ("A", "B")]
    assert converted(dicom(identity(), *twice)).columns["StationName"] == "A"


@pytest.mark.parametrize("keyword", VALUES)
def test_an_attribute_removed_by_privacy_rules_has_no_column_value(keyword: str) -> None:
    columns = converted(dicom(*ELEMENTS), privacy={"remove": [keyword]}).columns
    assert columns == {**COLUMNS, keyword: None}


def test_of_several_values_the_first_is_lifted() -> None:
    """With a warning."""
    done = converted(dicom(identity(), element(0x00100020, "LO", "A\\B")))
    assert done.columns["PatientID"] == "A"
    assert any("first of 2 values" in line for line in done.warnings)


def test_column_values_are_stripped_and_decoded() -> None:
    """By the character set of the data set."""
    done = converted(
        dicom(
            element(0x00080005, "CS", "ISO_IR 192"),
            element(0x00080018, "UI", " 1.2\0\0"),
            element(0x00100020, "LO", " é ".encode()),
        )
    )
    assert done.columns["PatientID"] == "é"
    assert done.columns["SOPInstanceUID"] == "1.2"


@pytest.mark.parametrize("vr", ["UN", "LO", "SH"])
def test_an_unexpected_vr_is_lifted_by_its_text(vr: str) -> None:
    done = converted(dicom(identity(), element(0x0020000D, vr, "1.2.3 ")))
    assert done.columns["StudyInstanceUID"] == "1.2.3"


@pytest.mark.parametrize(
    "content",
    [
        element(0x0020000D, "OB", "1.2.3 "),
        sequence(0x0020000D, item()),
        element(0x0020000D, "UT", "1" * 70_000),
    ],
)
def test_a_value_that_is_not_text_is_not_lifted(content: bytes) -> None:
    """With a warning."""
    done = converted(dicom(identity(), content))
    assert done.columns["StudyInstanceUID"] is None
    assert any(line.startswith("0020000D") and "not lifted" in line for line in done.warnings)


def test_implicit_data_sets_have_columns_too() -> None:
    content = identity(implicit=True) + element(0x00080020, "DA", "20240229", implicit=True)
    columns = converted(dicom(content, transfer_syntax=IMPLICIT)).columns
    assert columns["StudyDate"] == "2024-02-29"
    assert columns["SOPInstanceUID"] == "1.2.3.4"


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
def test_a_uid_with_blanks_is_the_same_in_metadata_and_column(
    keyword: str, written: str, value: str | None, *, is_warned_of: bool, form: str
) -> None:
    """Blanks around it are stripped; those before or within it cause a warning."""
    tag = VALUES[keyword].tag
    content = dicom(element(0x00080005, "CS"), element(tag, "UI", written))
    done = converted(content, jsonOutput={"format": form})
    key = keyword if form == "flat" else f"{tag:08X}"
    metadata = done.metadata[key]
    if form == "dicom-json":
        (metadata,) = metadata.get("Value", [None])
    assert metadata == value
    column = done.columns[keyword]
    assert column == (value if value is None or value.isprintable() else None)
    lines = [line for line in done.warnings if line.startswith(f"{tag:08X} UI")]
    assert bool(lines) is is_warned_of


def test_blanks_in_any_of_several_uids_cause_a_warning() -> None:
    uids = [element(0x00081110, "UI", "1.2\0\\1.3 \\1.4"), element(0x0008001A, "UI", "1.2\\ 1.3")]
    done = converted(dicom(identity(), *uids))
    assert done.metadata["ReferencedStudySequence"] == ["1.2", "1.3", "1.4"]
    assert done.metadata["RelatedGeneralSOPClassUID"] == ["1.2", "1.3"]
    assert [line[:11] for line in done.warnings] == ["0008001A UI"]


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
def test_a_value_that_the_metadata_refuses_is_not_lifted(vr: str, value: bytes) -> None:
    """Nor text that is broken by control characters; with a warning."""
    done = converted(dicom(identity(), element(0x00100020, vr, value, length=len(value))))
    assert done.columns["PatientID"] is None
    assert any(line.startswith("00100020") and "not lifted" in line for line in done.warnings)


def test_an_unknown_value_that_breaks_the_vr_of_its_tag_is_not_lifted() -> None:
    """Modality is CS, which has no lower-case letters: as UN, the metadata has a reference."""
    converted_object = converted(dicom(identity(), element(0x00080060, "UN", b"ct")))
    assert "BulkDataURI" in converted_object.metadata["Modality"]
    assert converted_object.columns["Modality"] is None
    assert any("not lifted" in line for line in converted_object.warnings)


@pytest.mark.parametrize(
    "charset",
    [
        "",
        "ISO_IR 13",
        "ISO_IR 100",
        "ISO_IR 192",
        "GB18030",
        "ISO 2022 IR 6\\ISO 2022 IR 87",
        "Big5",
    ],
)
@pytest.mark.parametrize("vr", ["AE", "CS", "LO", "PN", "SH", "UI", "UC", "ST"])
def test_a_column_has_the_value_of_the_metadata(vr: str, charset: str) -> None:
    """However it is read: text is stripped, and of several values the first is lifted."""
    printable = bytes(range(0x20, 0x7F)).replace(b"\\", b"")
    texts = [b"A", b" A ", b"A\0", b"A^B=C", b"A\\B", b"A\xe9", b"\x1b(JA", b"~", b"  ", printable]
    for text in texts:
        content = dicom(element(0x00080005, "CS", charset), element(0x00081010, vr, text))
        done = converted(content)
        value = done.metadata["StationName"]
        first = value[0] if isinstance(value, list) else value
        column = done.columns["StationName"]
        assert column == (first and first.strip(" ")), text
