"""`dcm2bq privacy explain` shows what happens and why, and values only if they are asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli
from dcm2bq.dicom.privacy import privacy_rules
from tests.dicom.build import dicom, element, identity
from tests.support.commands import Done
from tests.support.privacy_options import KEY, PROFILE_WITH_OPTIONS

SENTINEL = "SENTINEL"


@pytest.fixture
def file(tmp_path: Path) -> str:
    patient = element(0x00100010, "PN", SENTINEL.encode())
    code = element(0x00200010, "SH", b"SENTINEL")
    text = element(0x41424344, "LO", b"SENTINEL")  # a tag that could be text, "BADC"
    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom(identity(), patient, code, text))
    return str(path)


class Command:
    """Runs `privacy explain` with privacy options."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def __call__(self, *args: str, **privacy: Any) -> Done:
        self._patch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": privacy}))
        privacy_rules.cache_clear()
        status = cli.main(["privacy", "explain", *args])
        return Done(status, *self._capsys.readouterr())


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.delenv("DCM2BQ_HASH_KEY", raising=False)
    return Command(monkeypatch, capsys)


def test_an_entry_that_looks_like_a_mistyped_keyword_is_named(explain: Command) -> None:
    """It is no error: McBurney is a value."""
    entries = [
        "protocolName",
        "McBurney",
        "ProtocolName",
        "CT Thorax",
        "Thorax",
        "CTA",
        "00181030",
    ]
    privacy = {
        "profile": "basic",
        "options": ["cleanDescriptors", "retainUids"],
        "keptDescriptors": entries,
    }
    done = explain(**privacy)
    assert done.status == 0
    counts = "is not a keyword, so it counts as a value"
    assert done.err.splitlines()[:-3] == [
        f"privacy.keptDescriptors: protocolName {counts}: did you mean ProtocolName?",
        f"privacy.keptDescriptors: McBurney {counts}",
    ]


def test_the_table_needs_no_key_and_shows_what_options_decide(explain: Command) -> None:
    done = explain(**PROFILE_WITH_OPTIONS, path="hash")
    assert done.status == 0
    assert (
        "00080020  StudyDate                                 shifted   "
        "Table E.1-1, retainLongitudinalModifiedDates: C: "
        "emptied if it cannot be shifted or the patient is unknown\n"
    ) in done.out
    assert "PatientName " not in done.out
    first, names, logged = done.err.splitlines()
    assert first.startswith("656 rows: ")
    assert names == "names of objects and members in the tables: replaced with keyed hashes"
    assert logged == "names of objects in the log: in full"
    everything = explain("--all", "--json", **PROFILE_WITH_OPTIONS)
    rows = [json.loads(line) for line in everything.out.splitlines()]
    assert len(rows) == 656
    patient = next(row for row in rows if row["keyword"] == "PatientName")
    assert (patient["fate"], patient["decided_by"]) == ("emptied", "Table E.1-1, basic: Z")


def test_without_options_nothing_happens(explain: Command) -> None:
    done = explain()
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith("no privacy option decides about an attribute: headers are not ")


def test_values_of_a_file_are_shown_only_if_they_are_asked_for(
    explain: Command, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even as a tag: a header that is read at the wrong place is part of a value."""
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    for args in ((), ("--json",)):
        done = explain(file, *args, profile="basic")
        assert done.status == 0
        assert SENTINEL not in done.out + done.err
        assert "41424344" not in done.out
        assert "unknown element at offset" in done.out
    shown = explain(file, "--values", profile="basic")
    assert (
        f"PatientName  PN  emptied  (Table E.1-1 00100010, basic: Z): '{SENTINEL}' -> ''\n"
        in shown.out
    )
    assert " elements: " in shown.err


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (("--values",), 2, "--values needs FILE"),
        (("scan.dcm", "--all"), 2, "--all is for the table"),
        (("missing.dcm",), 1, "missing.dcm: No such file or directory"),
    ],
)
def test_wrong_usage_is_explained(
    explain: Command, args: tuple[str, ...], status: int, message: str
) -> None:
    done = explain(*args)
    assert (done.status, done.out) == (status, "")
    assert message in done.err


def test_a_file_that_is_not_dicom_is_named(explain: Command, tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_bytes(b"no DICOM" * 50)
    done = explain(str(path))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"{path}: ")


def test_a_file_needs_the_key(explain: Command, file: str) -> None:
    done = explain(file, profile="basic")
    assert done.status == 2
    assert "DCM2BQ_HASH_KEY is not set" in done.err
