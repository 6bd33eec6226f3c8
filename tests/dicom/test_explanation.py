"""What `dcm2bq privacy explain` says about an object is what the conversion does."""

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dcm2bq.config import Config, from_overrides
from dcm2bq.dicom import convert, explanation
from dcm2bq.dicom.explanation import ElementExplanation, Fate, explain_object, explain_rows
from dcm2bq.dicom.privacy.profile import Action
from tests.dicom.build import dicom, element, identity, item, sequence
from tests.support.privacy_options import KEY, PROFILE_WITH_OPTIONS

FILES = (
    *("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "rtplan.dcm", "rtstruct.dcm"),
    *("reportsi.dcm", "ExplVR_BigEnd.dcm"),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "basic": {"profile": "basic"},
    "research": PROFILE_WITH_OPTIONS,
    "full dates, UIDs": {
        "profile": "basic",
        "options": ["retainLongitudinalFullDates", "retainUids"],
        "remove": ["Manufacturer", "private"],
    },
    "no profile": {"remove": ["PatientName"], "hash": ["PatientID", "SOPInstanceUID"]},
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)


def configured(privacy: dict[str, Any]) -> Config:
    return from_overrides({"privacy": privacy, "jsonOutput": {"ignoreGroupLength": False}})


def explained(content: bytes, config: Config) -> list[ElementExplanation]:
    return list(explain_object(BytesIO(content), config, timeout=60))


def flat(metadata: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each path in the metadata with its value; of a sequence, None if it is empty."""
    for keyword, value in metadata.items():
        items = value if isinstance(value, list) and any(isinstance(v, dict) for v in value) else []
        yield path + keyword, value if not items else ...
        for number, inner in enumerate(items):
            yield from flat(inner or {}, f"{path}{keyword}[{number}].")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("options", OPTIONS)
def test_an_explanation_is_what_the_conversion_does(name: str, options: str) -> None:
    content = Path(str(get_testdata_file(name))).read_bytes()
    config = configured(OPTIONS[options])
    row = dict(flat(convert(content, config).metadata))
    explanations = {entry.path: entry for entry in explained(content, config)}
    left = {path for path, entry in explanations.items() if entry.fate is not Fate.REMOVED}
    assert left == row.keys()
    for path in left:
        entry, value = explanations[path], row[path]
        if entry.fate is Fate.EMPTIED:
            assert value in (None, [])
        elif entry.fate is Fate.REFERRED:
            assert set(value) == {"BulkDataURI"}
        elif entry.fate in {Fate.HASHED, Fate.SHIFTED}:
            assert entry.after != entry.before
            values = value if isinstance(value, list) else [value]
            assert "\\".join("" if each is None else str(each) for each in values) == entry.after


def test_every_action_has_words() -> None:
    assert set(Action) | {None} == set(explanation._FATES)


def test_each_reason_names_the_rule_that_decides() -> None:
    content = dicom(
        identity(),
        element(0x00080020, "DA", b"20240229"),
        element(0x00080030, "TM", b"noon"),
        element(0x00080070, "LO", b"ACME"),
        element(0x00081030, "LO", b"E+1 "),
        element(0x00089998, "PN", b"Doe^Jane"),
        element(0x00089999, "DA", b"20240229"),
        element(0x0008999A, "UI", b"1.2.3.4"),
        element(0x00100010, "PN", b"Doe^Jane"),
        element(0x00100020, "LO", b"4711"),
        sequence(0x00081140, item(element(0x00081155, "UI", b"1.2.3.4"))),
        sequence(0x0040A730, item(element(0x0040A040, "CS", b"TEXT"))),
    )
    options = {**PROFILE_WITH_OPTIONS, "remove": ["Manufacturer"]}
    explanations = {entry.path: entry for entry in explained(content, configured(options))}
    said = {
        path: (entry.fate.value, entry.reason)
        for path, entry in explanations.items()
        if path.startswith(("Study", "Manu", "Patient", "Referenced", "SOPI"))
    }
    shifting = "retainLongitudinalModifiedDates: C"
    dates = f"{shifting}: emptied if it cannot be shifted or the patient is unknown"
    assert said == {
        "SOPInstanceUID": ("hashed", "Table E.1-1 00080018, basic: U"),
        "StudyDate": ("shifted", f"Table E.1-1 00080020, {dates}"),
        "StudyTime": (
            "emptied",
            f"Table E.1-1 00080030, {shifting}: emptied unless it is a date or time",
        ),
        "Manufacturer": ("removed", "privacy.remove"),
        "StudyDescription": (
            "kept",
            "Table E.1-1 00081030, cleanDescriptors: C: kept if privacy.keptDescriptors lists it",
        ),
        "PatientName": ("emptied", "Table E.1-1 00100010, basic: Z"),
        "PatientID": ("emptied", "Table E.1-1 00100020, basic: Z/D"),
        "ReferencedImageSequence": ("kept", "Table E.1-1 00081140, basic: X/Z/U*"),
        "ReferencedImageSequence[0].ReferencedSOPInstanceUID": (
            "hashed",
            "Table E.1-1 00081155, basic: U",
        ),
    }
    assert explanations["PatientName"].before == "Doe^Jane"
    kept = explanations["ContentSequence[0].ValueType"]
    assert kept.reason == "cleanStructuredContent: content items keep what nobody typed"
    assert {entry.reason for entry in explanations.values() if entry.path.startswith("(")} == {
        "basic: names are emptied under any unknown tag",
        "retainLongitudinalModifiedDates: dates are shifted under any tag",
        "basic: UIDs are hashed under any unknown tag",
    }


def test_the_table_says_what_each_row_means_for_the_options() -> None:
    """Without a key: whoever reads it need not have one."""
    rows = {entry.selector: entry for entry in explain_rows(configured(OPTIONS["basic"]).privacy)}
    assert len(rows) == 656
    counts = Counter(entry.fate for entry in rows.values())
    assert set(counts) == {Fate.KEPT, Fate.REMOVED, Fate.EMPTIED, Fate.HASHED}
    assert (rows["00080020"].keyword, rows["00080020"].fate) == ("StudyDate", Fate.EMPTIED)
    research = {
        entry.selector: entry for entry in explain_rows(configured(PROFILE_WITH_OPTIONS).privacy)
    }
    assert (research["00080020"].fate, research["00080030"].fate) == (Fate.SHIFTED, Fate.KEPT)
    assert research["private"].condition == "kept if Table E.3.10-1 lists the element"
    named = list(explain_rows(configured(OPTIONS["no profile"]).privacy))
    assert [(entry.keyword, entry.fate, entry.decided_by) for entry in named] == [
        ("SOPInstanceUID", Fate.HASHED, "privacy.hash"),
        ("PatientName", Fate.REMOVED, "privacy.remove"),
        ("PatientID", Fate.HASHED, "privacy.hash"),
    ]
