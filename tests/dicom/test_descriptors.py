"""Descriptions are kept only if the list has their attribute or their value."""

import pytest

from dcm2bq.dicom.charset import DEFAULT_CHARSET, parse_charset
from dcm2bq.dicom.elements import Element, Item
from dcm2bq.dicom.privacy.descriptors import Descriptors

PROTOCOL_NAME = 0x00181030
SERIES_DESCRIPTION = 0x0008103E
REQUEST_ATTRIBUTES = 0x00400275

LISTED = Descriptors(["ProtocolName", "00400275", "CT Thorax", "Kopf  leer", "Schädel"])


def keeps(value: bytes | list[Item] | None, tag: int = SERIES_DESCRIPTION, vr: str = "LO") -> bool:
    charset, _ = parse_charset(b"ISO_IR 100")
    return LISTED.keeps(Element(tag, vr, 0, len(value or b""), value, vr), charset)


@pytest.mark.parametrize(
    "value",
    [b"CT Thorax", b" ct thorax ", b"CT  THORAX\0", b"kopf leer", b"CT Thorax\\Kopf leer"],
)
def test_a_listed_value_is_kept_whatever_its_case_and_blanks(value: bytes) -> None:
    assert keeps(value)


def test_values_are_compared_as_text() -> None:
    assert keeps("Schädel".encode("latin_1"))
    assert not keeps("Schädel".encode("latin_1"), vr="US")
    assert not LISTED.keeps(
        Element(SERIES_DESCRIPTION, "LO", 0, 7, "Schädel".encode("latin_1"), "LO"),
        parse_charset(b"ISO_IR 192")[0],
    )


@pytest.mark.parametrize(
    "value",
    [b"CT Thorax Doe", b"Thorax", b"", b" ", b"\\", b"CT Thorax\\Doe", None, [], b"ProtocolName"],
)
def test_any_other_value_is_not_kept(value: bytes | list[Item] | None) -> None:
    """Nor is a list of values of which one is not listed."""
    assert not keeps(value)


@pytest.mark.parametrize("value", [b"anything", b"", None, [[]]])
@pytest.mark.parametrize("tag", [PROTOCOL_NAME, REQUEST_ATTRIBUTES])
def test_a_listed_attribute_is_kept_whatever_its_value(
    tag: int, value: bytes | list[Item] | None
) -> None:
    assert keeps(value, tag)


def test_an_empty_list_keeps_nothing() -> None:
    element = Element(SERIES_DESCRIPTION, "LO", 0, 2, b"CT", "LO")
    assert not Descriptors([]).keeps(element, DEFAULT_CHARSET)
