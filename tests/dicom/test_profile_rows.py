"""Every row of Table E.1-1 of PS3.15 is obeyed, under the Basic Profile and under each option."""

import csv
import re
from collections import Counter
from datetime import date
from importlib import resources
from typing import Any

import pytest

from dcm2bq.config import from_overrides
from dcm2bq.dicom.dictionary import public_vr
from dcm2bq.dicom.elements import Element, Item
from dcm2bq.dicom.notes import Notes
from dcm2bq.dicom.privacy.rules import Rules
from dcm2bq.dicom.values import NUMBER_VRS
from dcm2bq.dicom.vr import BINARY_VRS

COLUMN_OF = {
    "retainSafePrivate": "Rtn. Safe Priv. Opt.",
    "retainUids": "Rtn. UIDs Opt.",
    "retainDeviceIdentity": "Rtn. Dev. Id. Opt.",
    "retainInstitutionIdentity": "Rtn. Inst. Id. Opt.",
    "retainPatientCharacteristics": "Rtn. Pat. Chars. Opt.",
    "retainLongitudinalFullDates": "Rtn. Long. Full Dates Opt.",
    "retainLongitudinalModifiedDates": "Rtn. Long. Modif. Dates Opt.",
    "cleanDescriptors": "Clean Desc. Opt.",
    "cleanStructuredContent": "Clean Struct. Cont. Opt.",
}
BASIC = {
    "X": "removed",
    "X/Z": "removed",
    "X/D": "removed",
    "X/Z/D": "removed",
    "Z": "emptied",
    "Z/D": "emptied",
    "D": "emptied",
    "U": "hashed",
    "X/Z/U*": "kept",
}
KEY = b"a key that is long enough"
UID = b"1.2.3.9"
TEXTS = {
    "AS": b"033Y",
    "DA": b"20200315",
    "DS": b"1.5",
    "DT": b"20200315101112",
    "IS": b"12",
    "TM": b"101112",
    "UI": UID,
}
OPTIONS = (None, *COLUMN_OF)


def rows() -> list[dict[str, str]]:
    """Return the rows of the packaged table, read in another way than by the code."""
    file = resources.files("dcm2bq.dicom.privacy").joinpath("confidentiality_profile.tsv")
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t", restval=""))


ROWS = rows()


def sample(selector: str) -> int:
    """Return a tag that a row selects: one that is not the first of a repeating group."""
    return 0x00091001 if selector == "private" else int(selector.replace("x", "2"), 16)


def element(tag: int, text: bytes | None = None) -> Element:
    """Return an element whose value would identify a patient, in the VR of its tag."""
    vr = public_vr(tag)
    value: Any = TEXTS.get(vr, b"SENTINEL") if text is None else text
    if vr == "SQ":
        value = [[element(0x00080050), element(0x00081155)]]
    elif vr in NUMBER_VRS:
        value = b"\1" * 8
    return Element(tag, vr, 0, len(value), value, vr)


def applied(elements: Item, *options: str) -> Item:
    """Return what the profile with options leaves of a patient's data set."""
    listed = ["LISTED"] if "cleanDescriptors" in options else []
    privacy = {"profile": "basic", "options": options, "keptDescriptors": listed}
    identity = [element(0x0020000D)] if not any(e.tag == 0x0020000D for e in elements) else []
    data_set = [*elements, *identity]
    Rules(from_overrides({"privacy": privacy}).privacy, KEY).apply(data_set, Notes())
    return [left for left in data_set if left.tag in {each.tag for each in elements}]


def outcome(left: Item, original: Element) -> str:
    """Return what became of an element."""
    if not left:
        return "removed"
    value: Any = left[0].value
    was = original.value
    if isinstance(was, list) and isinstance(value, list) and value:
        return content(value)
    if not value:
        return "emptied" if value is not None else "kept"  # bytes that stay in the object
    if value == was:
        return "kept"
    if original.vr == "UI":
        return "hashed" if re.fullmatch(rb"2\.25\.\d+", value) else "changed"
    return "shifted" if is_earlier(value, was) else "changed"


def content(items: list[Item]) -> str:
    """Return what became of a sequence whose one item has an accession number and a UID."""
    (item,) = items
    values: dict[int, Any] = {element.tag: element.value for element in item}
    assert values[0x00081155].startswith(b"2.25.") or values[0x00081155] == UID
    assert not values.get(0x00080050)
    return "kept" if 0x00080050 in values else "cleaned"


def is_earlier(value: Any, original: Any) -> bool:
    day, before = (date.fromisoformat(str(text[:8], "ascii")) for text in (original, value))
    return 1 <= (day - before).days <= 365 and value[8:] == original[8:]


def expected(row: dict[str, str], option: str | None) -> set[str]:
    """Return what may become of an element, by the columns of its row alone."""
    basic = BASIC[row["Basic Prof."]]
    vr = public_vr(sample(row["Tag"]))
    cell = row[COLUMN_OF[option]] if option else ""
    if row["Tag"] == "private" or not cell:
        return {basic}
    if cell == "K":
        return {"kept"}
    if option == "retainLongitudinalModifiedDates":
        # Dates that several patients share are treated as by the Basic Profile.
        also = {"DA": {"shifted"}, "DT": {"shifted"}, "TM": {"kept"}, "SH": {"emptied"}}
        return {basic} | also.get(vr, set())
    return {"cleaned"} if option == "cleanStructuredContent" else {basic}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_row_of_the_table_is_obeyed(option: str | None) -> None:
    wrong = {}
    for row in ROWS:
        tag = sample(row["Tag"])
        original = element(tag)
        left = outcome(applied([element(tag)], *filter(None, [option])), original)
        # A command set is removed, whatever the table says of its UIDs (PS3.15 E.1.1).
        allowed = {"removed"} if tag >> 16 == 0 else expected(row, option)
        if left not in allowed:
            wrong[f"{tag:08X} {original.vr}"] = left, allowed
    assert wrong == {}


def test_most_dates_are_shifted() -> None:
    """All but a few, which several patients share."""
    option = "retainLongitudinalModifiedDates"
    counts: Counter[str] = Counter()
    for row in ROWS:
        tag = sample(row["Tag"])
        if row[COLUMN_OF[option]] and public_vr(tag) in {"DA", "DT"}:
            counts[outcome(applied([element(tag)], option), element(tag))] += 1
    assert counts["shifted"] > 90
    assert counts["kept"] == 0


def test_a_listed_description_is_kept_in_every_row_of_its_column() -> None:
    described = [
        sample(row["Tag"])
        for row in ROWS
        if row["Clean Desc. Opt."] == "C" and "x" not in row["Tag"]
    ]
    lost = []
    for tag in described:
        if public_vr(tag) != "SQ" and public_vr(tag) not in BINARY_VRS:
            original = element(tag, b"LISTED")
            if outcome(applied([original], "cleanDescriptors"), original) != "kept":
                lost.append(f"{tag:08X}")
    assert len(described) > 130
    assert lost == []


ACQUISITION, CALIBRATION, HOLD = 0x00080022, 0x00181200, 0x300C0127
ALLERGIES, TITLE, DEVICE_UID = 0x00102110, 0x00080055, 0x00181002


@pytest.mark.parametrize(
    ("options", "tag", "result"),
    [
        # The table has K for devices, C for modified dates. Patients share the first date.
        ("retainDeviceIdentity", CALIBRATION, "kept"),
        ("retainDeviceIdentity retainLongitudinalModifiedDates", CALIBRATION, "removed"),
        ("retainDeviceIdentity retainLongitudinalModifiedDates", HOLD, "shifted"),
        ("retainDeviceIdentity retainLongitudinalFullDates", HOLD, "kept"),
        ("retainDeviceIdentity", ACQUISITION, "removed"),
        # K for devices and for UIDs.
        ("retainDeviceIdentity", DEVICE_UID, "kept"),
        ("retainUids", DEVICE_UID, "kept"),
        ("retainSafePrivate", DEVICE_UID, "hashed"),
        # C for patients and for descriptions, and C for devices: only a list can clean them.
        ("retainPatientCharacteristics", ALLERGIES, "removed"),
        ("cleanDescriptors", ALLERGIES, "kept"),
        ("cleanDescriptors retainPatientCharacteristics", ALLERGIES, "kept"),
        ("retainDeviceIdentity", TITLE, "removed"),
        ("cleanDescriptors", TITLE, "removed"),
        ("cleanDescriptors retainDeviceIdentity", TITLE, "kept"),
    ],
)
def test_options_that_concern_the_same_attribute_have_an_order(
    options: str, tag: int, result: str
) -> None:
    original = element(tag) if tag not in {ALLERGIES, TITLE} else element(tag, b"LISTED")
    assert outcome(applied([original], *options.split()), original) == result


def test_the_table_is_complete() -> None:
    assert len(ROWS) == 656
    cells = Counter(
        (column, row[column]) for row in ROWS for column in COLUMN_OF.values() if row[column]
    )
    assert cells == {
        ("Rtn. Safe Priv. Opt.", "C"): 1,
        ("Rtn. UIDs Opt.", "K"): 60,
        ("Rtn. Dev. Id. Opt.", "K"): 48,
        ("Rtn. Dev. Id. Opt.", "C"): 11,
        ("Rtn. Inst. Id. Opt.", "K"): 10,
        ("Rtn. Pat. Chars. Opt.", "K"): 14,
        ("Rtn. Pat. Chars. Opt.", "C"): 5,
        ("Rtn. Long. Full Dates Opt.", "K"): 169,
        ("Rtn. Long. Modif. Dates Opt.", "C"): 169,
        ("Clean Desc. Opt.", "C"): 140,
        ("Clean Struct. Cont. Opt.", "C"): 4,
    }
