"""Character sets: how text is decoded, with correct and with wrong declarations."""

import pytest

from tests.dicom.build import (
    converted,
    dicom,
    element,
    flat,
    identity,
    item,
    sequence,
    warned,
)

NAME = 0x00100010
BACKSLASH_IN_GB18030 = b"\x81\x5c".decode("gb18030")


def name(charset: str | None, value: bytes, vr: str = "PN", tag: int = NAME) -> object:
    """Return the text of a value."""
    declared = [] if charset is None else [element(0x00080005, "CS", charset)]
    metadata = flat(*declared, element(tag, vr, value))
    return list(metadata.values())[-1]


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("ISO_IR 6", "ascii", "Adams^John"),
        ("ISO_IR 100", "latin_1", "Äneas^Rüdiger"),
        ("ISO_IR 101", "iso8859_2", "Świętosława"),
        ("ISO_IR 109", "iso8859_3", "Ĥaŭ"),
        ("ISO_IR 110", "iso8859_4", "Ģirts"),
        ("ISO_IR 144", "iso8859_5", "Львов"),
        ("ISO_IR 127", "iso8859_6", "قباني^لنزار"),
        ("ISO_IR 126", "iso8859_7", "Διονυσιος"),
        ("ISO_IR 138", "iso8859_8", "שרון^דבורה"),
        ("ISO_IR 148", "iso8859_9", "Çavuşoğlu"),
        ("ISO_IR 166", "tis_620", "นามสกุล"),
        ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 203", "iso8859_15", "Šimun^Cœur €"),
        ("ISO_IR 192", "utf8", "Wang^XiaoDong=王^小東="),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东="),
        ("GBK", "gbk", "Wang^XiaoDong=王^小东="),
    ],
)
def test_each_single_term_is_understood(charset: str, codec: str, text: str) -> None:
    """The terms without code extensions (PS3.3 Tables C.12-2 and C.12-5)."""
    assert name(charset, text.encode(codec)) == text
    assert (
        warned(
            element(0x00080005, "CS", charset), identity(), element(NAME, "PN", text.encode(codec))
        )
        == []
    )


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        ("\\ISO 2022 IR 159", b"A=\x1b$(D\x30\x21\x1b(B", "A=丂"),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            "\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
        (
            "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126",
            b"Dionysios=\x1b-F\xc4\xe9\xef=\x1b-L\xbb\xee\xda",
            "Dionysios=Διο=Люк",
        ),
        ("ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xbb\xee^\xe9", "Лю^é"),
        ("\\ISO 2022 IR 203", b"A^\x1b-b\xa6\xbd\xa4", "A^Šœ€"),
        ("ISO 2022 IR 203\\ISO 2022 IR 144", b"\x1b-L\xbb\xee^\xa4", "Лю^€"),
        ("\\ISO 2022 58", b"\x1b$)A\xd5\xc5", "张"),
    ],
)
def test_code_extensions_are_followed(charset: str, value: bytes, text: str) -> None:
    """Escape sequences switch sets, delimiters restore the first term's (PS3.5 6.1.2.5.3)."""
    assert name(charset, value) == text
    elements = (element(0x00080005, "CS", charset), identity(), element(NAME, "PN", value))
    assert warned(*elements) == []


def test_a_backslash_within_a_character_does_not_separate_values() -> None:
    """GB18030 and ISO 2022 IR 87 have the byte 0x5C inside characters."""
    encoded = BACKSLASH_IN_GB18030.encode("gb18030")
    assert b"\\" in encoded
    assert name("GB18030", encoded + b"\\B", "LO") == [BACKSLASH_IN_GB18030, "B"]
    kanji = "\u5341".encode("iso2022_jp")
    shifted = "\u6240\u4e94".encode("iso2022_jp")
    for value in (kanji, shifted, b"\x1b$B\x30\x5c\x1b(B"):
        assert name("\\ISO 2022 IR 87", value + b"\\B", "LO") == [value.decode("iso2022_jp"), "B"]


def test_an_item_may_have_its_own_character_set() -> None:
    """Other items inherit the outer one."""
    inner = item(element(0x00080005, "CS", "ISO_IR 192"), element(NAME, "PN", "é".encode()))
    plain = item(element(NAME, "PN", b"\xe9"))
    metadata = flat(
        element(0x00080005, "CS", "ISO_IR 100"),
        sequence(0x00081140, inner, plain, item(sequence(0x00081199, plain))),
        element(NAME, "PN", b"\xe9"),
    )
    first, second, third = metadata["ReferencedImageSequence"]
    assert first["PatientName"] == second["PatientName"] == metadata["PatientName"] == "é"
    assert third["ReferencedSOPSequence"][0]["PatientName"] == "é"


def test_a_character_set_that_comes_too_late_applies() -> None:
    """Elements out of order are sorted before they are decoded."""
    metadata = flat(
        element(NAME, "PN", "é".encode()),
        sequence(0x00081140, item(element(NAME, "PN", "é".encode()))),
        element(0x00080005, "CS", "ISO_IR 192"),
    )
    assert metadata["PatientName"] == "é"
    assert metadata["ReferencedImageSequence"][0]["PatientName"] == "é"


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        ("ISO-IR 100", b"\xe9", "é"),
        ("ISO IR 100", b"\xe9", "é"),
        ("iso_ir 192", "é".encode(), "é"),
        ("UTF-8", "é".encode(), "é"),
        ("ISO_2022_IR_100", b"\xe9", "é"),
        ("ISO 2022-IR 100", b"\xe9", "é"),
        ("ISO8859-1", b"\xe9", "é"),
        ("ISO8859-15", b"\xa4", "€"),
        ("ISO_IR_203", b"\xa4", "€"),
        ("ISO_IR 58", "张".encode("gb2312"), "张"),
        ("ISO_IR 149", "김".encode("euc_kr"), "김"),
        ("ISO_IR 87", "山".encode("iso2022_jp"), "山"),
    ],
)
def test_misspelt_terms_are_understood_with_a_warning(
    written: str, value: bytes, text: str
) -> None:
    """These occur in real files."""
    assert name(written, value) == text
    lines = warned(element(0x00080005, "CS", written), identity(), element(NAME, "PN", value))
    assert any("00080005 CS: a term is misspelt" in line for line in lines)


@pytest.mark.parametrize(
    ("written", "codec", "text"),
    [
        ("GB2312", "gb2312", "王"),
        ("gb2312", "gb2312", "王"),
        ("Big5", "big5", "王"),
        ("windows-1251", "cp1251", "Люк"),
        ("WINDOWS_1252", "cp1252", "Zoë…"),
        ("cp874", "cp874", "นาม"),
        ("euc_kr", "euc_kr", "김"),
        ("EUC-JP", "euc_jp", "山田"),
        ("Shift_JIS", "shift_jis", "表^ソ"),
        ("KOI8-R", "koi8_r", "Люк"),
        ("iso-2022-jp", "iso2022_jp", "山田"),
        ("iso2022_kr", "iso2022_kr", "김"),
        ("latin1", "latin_1", "é"),
        ("GB2312\\ISO 2022 IR 58", "gb2312", "王"),
    ],
)
def test_a_term_that_names_a_codec_is_understood_with_a_warning(
    written: str, codec: str, text: str
) -> None:
    """As in pydicom; case, hyphens and blanks do not matter."""
    elements = (
        element(0x00080005, "CS", written),
        identity(),
        element(0x00081040, "LO", text.encode(codec) + b"\\x"),
        element(NAME, "PN", text.encode(codec)),
    )
    metadata = flat(*elements)
    assert metadata["PatientName"] == text
    assert metadata["InstitutionalDepartmentName"] == [text, "x"]
    lines = warned(*elements)
    assert any(line.startswith("00080005 CS: a term names a codec") for line in lines)
    assert all(line.startswith("00080005 CS: ") for line in lines)


def test_a_codec_may_be_a_code_extension() -> None:
    elements = (
        element(0x00080005, "CS", "\\GB2312"),
        identity(),
        element(NAME, "PN", b"Zhang=\x1b$)A\xd5\xc5"),
    )
    assert flat(*elements)["PatientName"] == "Zhang=张"
    assert [line[:11] for line in warned(*elements)] == ["00080005 CS"]


NO_CHARACTER_SETS = [
    "rot13",
    "zip",
    "bz2",
    "hex",
    "base64",
    "quopri",
    "uu",
    "idna",
    "punycode",
    "unicode_escape",
    "raw_unicode_escape",
    "charmap",
    "utf_7",
    "utf-16",
    "utf_16_le",
    "utf-32",
    "cp037",
    "cp500",
    "cp1140",
    "mbcs",
    "oem",
    "undefined",
    "aliases",
    "hz",
]


@pytest.mark.parametrize("written", [*NO_CHARACTER_SETS, "x" * 70, "big5\0x", "..", "os"])
def test_a_codec_that_changes_ascii_is_unknown(written: str) -> None:
    """It could turn plain text into anything, or run something that is not a decoder."""
    elements = (
        element(0x00080005, "CS", written),
        identity(),
        element(NAME, "PN", b"\\x41 +AGE- ~{VP~} xn--4ca"),
    )
    assert flat(*elements)["PatientName"] == [None, "x41 +AGE- ~{VP~} xn--4ca"]
    assert any("a term is unknown" in line for line in warned(*elements))


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        (None, b"J\xe9r\xf4me", "Jérôme"),
        ("ISO_IR 6", b"J\xe9r\xf4me", "Jérôme"),
        ("NONSENSE", b"J\xe9r\xf4me", "Jérôme"),
        ("ISO_IR 192", b"J\xe9r", "J�r"),
        ("GB18030", b"A\xff", "A�"),
        ("\\ISO 2022 IR 87", b"\x1b$B\xff\xff\x1b(B", "��"),
        ("ISO_IR 100", b"\x1b$B;3ED\x1b(B", "山田"),
        ("ISO_IR 100", b"A\x1bB", "A\x1bB"),
    ],
)
def test_undecodable_text_is_replaced_or_guessed_with_a_warning(
    charset: str | None, value: bytes, text: str
) -> None:
    """Latin-1 if only ASCII is declared, otherwise replacement characters."""
    declared = [] if charset is None else [element(0x00080005, "CS", charset)]
    elements = (*declared, identity(), element(NAME, "PN", value))
    assert flat(*elements)["PatientName"] == text
    assert any(line.startswith("00100010 PN: ") for line in warned(*elements))


def test_terms_that_allow_no_code_extensions_are_used_alone() -> None:
    """Further terms are ignored, with a warning."""
    value = element(NAME, "PN", "王".encode())
    for charset in ("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 192\\GB18030"):
        elements = (element(0x00080005, "CS", charset), identity(), value)
        assert flat(*elements)["PatientName"] == "王"
        assert any("00080005" in line for line in warned(*elements))


def test_characters_beyond_the_default_repertoire_are_kept_with_a_warning() -> None:
    """In VRs that allow no others."""
    elements = (
        element(0x00080005, "CS", "ISO_IR 192"),
        identity(),
        element(0x00080060, "CS", "É".encode()),
        element(0x00080020, "DA", "2024é".encode()),
        element(0x00201208, "IS", "1\\2é".encode()),
    )
    metadata = flat(*elements)
    assert metadata["Modality"] == "É"
    assert metadata["StudyDate"] == "2024é"
    assert metadata["NumberOfStudyRelatedInstances"] == [1, "2é"]
    lines = [line for line in warned(*elements) if "beyond the default repertoire" in line]
    assert len(lines) == 3


@pytest.mark.parametrize("charset", ["ISO_IR 192", "GB18030", "ISO_IR 13", "\\ISO 2022 IR 149", ""])
def test_any_bytes_become_valid_json(charset: str) -> None:
    """Valid UTF-8 without lone surrogates and NULs."""
    every = bytes(range(256)) + b"\xed\xa0\x80\xf4\x90\x80\x80"
    text = converted(
        dicom(element(0x00080005, "CS", charset), identity(), element(0x00204000, "LT", every))
    ).text
    text.encode()
    assert "\0" not in text
    assert "\\u0000" not in text


def test_of_two_declarations_the_first_applies() -> None:
    first, second = (element(0x00080005, "CS", f"ISO_IR {n}") for n in (100, 192))
    done = converted(dicom(identity(), first, second, element(0x00100010, "PN", b"M\xfcller")))
    assert done.metadata["PatientName"] == "Müller"
    assert len(done.warnings) == 1


@pytest.mark.parametrize("text", ["Müller".encode(), b"M\xfcller"], ids=["UTF-8", "Latin-1"])
def test_undeclared_text_is_read_in_its_likely_encoding_with_a_warning(text: bytes) -> None:
    done = converted(dicom(identity(), element(0x00100010, "PN", text)))
    assert done.metadata["PatientName"] == "Müller"
    assert "00100010 PN" in done.warnings[0]
