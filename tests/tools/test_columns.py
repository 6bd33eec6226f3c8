"""`dcm2bq columns`: the file, what is wrong with it, the view, and suggestions."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dcm2bq import cli, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError
from dcm2bq.tools import column_file, column_views
from dcm2bq.tools.attribute_paths import parse_path, parse_private
from tests.dicom.build import dicom, element, identity
from tests.support.datasets import borrowed_dataset

FILE = """
view = "my_protocols"
level = "series"

[[columns]]
attribute = "SliceThickness"

[[columns]]
attribute = "RequestAttributesSequence[0].ScheduledProcedureStepID"
name = "step"
description = "As scheduled"

[[columns]]
creator = "GEMS_PARM_01"
element = "0043xx27"
name = "pitch"
"""
WRONG = """
view = "my view"
levl = "series"

[[columns]]
attribute = "SliceThicknes"

[[columns]]
attribute = "RequestAttributesSequence.ScheduledProcedureStepID"

[[columns]]
attribute = "Rows"
type = "FLOAT"

[[columns]]
attribute = "rows"

[[columns]]
creator = "GEMS_PARM_01"
element = "0043xx27"

[[columns]]
attribute = "Columns"
name = "PATH"
"""


def test_every_mistake_is_reported_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        column_file.parse(WRONG, "f.toml")
    assert str(caught.value).splitlines() == [
        "f.toml: levl is not a key: did you mean level?",
        "f.toml: view: write a name of letters, digits and underscores",
        (
            "f.toml:5: column 1: SliceThicknes is not a keyword: did you mean SliceThickness or "
            "LineThickness or SlabThickness?"
        ),
        (
            "f.toml:8: column 2: RequestAttributesSequence.ScheduledProcedureStepID: "
            "RequestAttributesSequence is a sequence: "
            "write RequestAttributesSequence[0] for an item"
        ),
        "f.toml:11: column 3: type: write one of STRING, INT64, FLOAT64, DATE, TIME, DATETIME",
        "f.toml:15: column 4: rows is not a keyword: did you mean Rows?",
        "f.toml:18: column 5: name: a private element has no keyword, so give the column a name",
        "f.toml:22: column 6: PATH: the view has another column of this name",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("view = ", "f: is not TOML: Invalid value (at end of document)"),
        ('view = "v"', r"f: columns: write at least one [[columns]] table"),
        ('view = "v"\ncolumns = [{attribute = 5}]', "f: column 1: attribute: must be text"),
        ('view = "v"\n[[columns]]\ntype = "DATE"', "write either attribute, or both"),
        ('view = "v"\nlevel = "patient"', "f: level: write one of instance, series, study"),
        (
            'view = "v"\n[[columns]]\nattribute = "Rows"\nname = "_TABLE_X"',
            "f:2: column 1: name: BigQuery reserves names that begin like _TABLE_X",
        ),
    ],
)
def test_a_file_without_a_view_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        column_file.parse(text, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("PixelData", "has binary values"),
        ("ContentSequence", "is a sequence: name an attribute of an item"),
        ("Rows.Columns", "Rows is not a sequence, so nothing can follow it"),
        ("ContentSequence[0].Modalitty", "did you mean Modality"),
        ("Patient's Name", "is not a keyword"),
        ("Rows[-1]", "is not a keyword"),
        ("", "is not a keyword"),
    ],
)
def test_a_path_that_leads_to_no_value_is_refused(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        parse_path(path)


@pytest.mark.parametrize("element", ["0043xx2", "0044xx27", "00431027", "0029xx10", ""])
def test_an_element_that_is_not_private_or_has_no_single_value_is_refused(element: str) -> None:
    """SIEMENS CSA HEADER (0029,xx10) is OB."""
    with pytest.raises(ConfigError):
        parse_private("SIEMENS CSA HEADER", element)


def test_types_and_descriptions_come_from_the_dictionary() -> None:
    thickness, step, pitch = column_file.parse(FILE, "f").columns
    assert (thickness.name, thickness.type) == ("SliceThickness", "FLOAT64")
    assert thickness.description == "Slice Thickness (0018,0050)"
    assert (step.name, step.type, step.description) == ("step", "STRING", "As scheduled")
    assert pitch.description.endswith("(0043,xx27) of GEMS_PARM_01")


@pytest.mark.parametrize("name", [each.name for each in schema.load(Config(), "p")])
def test_a_view_cannot_have_the_name_of_one_of_ours(name: str) -> None:
    view = column_file.parse(FILE.replace("my_protocols", name.upper()), "f")
    with pytest.raises(ConfigError, match="an object of dcm2bq itself: choose another name"):
        column_views.definition(view, Config(), "p")


def test_headers_in_another_format_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.toml").write_text(FILE)
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"jsonOutput": {"format": "dicom-json"}}')
    assert cli.main(["columns", str(tmp_path / "f.toml")]) == 2
    assert capsys.readouterr().err.startswith(
        "dcm2bq: views of columns need jsonOutput.format flat: "
    )


@pytest.mark.parametrize(
    "args",
    [
        [],
        [__file__, "--suggest", "x"],
        ["--suggest", "x", "--create"],
        [__file__, "--objects", "5"],
        [__file__, "--replace"],
        ["/no/such/file"],
    ],
)
def test_wrong_usage_is_explained(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["columns", *args]) == 2
    assert capsys.readouterr().err


@pytest.fixture
def dataset(bigquery_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    with borrowed_dataset(bigquery_url) as lent:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
        monkeypatch.setenv("DCM2BQ_CONFIG", f'{{"bigQuery": {{"datasetId": "{lent.dataset_id}"}}}}')
        yield lent


def test_a_view_is_created_and_updated_and_does_not_replace_that_of_others(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(FILE)

    def create(*options: str) -> tuple[int, str, str]:
        status = cli.main(["columns", "--create", str(file), *options])
        return status, *capsys.readouterr()

    name = f"{dataset.name}.my_protocols"
    assert create() == (0, f"created view {name}\n", "")
    made = dataset.get_table("my_protocols")
    assert made is not None
    assert made["labels"] == {"dcm2bq_columns": "series"}
    descriptions = {field["name"]: field["description"] for field in made["schema"]["fields"]}
    assert descriptions["SliceThickness"] == "Slice Thickness (0018,0050)"
    assert descriptions["step"] == "As scheduled"
    assert dataset.query("SELECT SliceThickness, varying FROM my_protocols") == []
    assert create()[1] == f"unchanged view {name}\n"
    file.write_text(FILE.replace('"SliceThickness"', '"KVP"'))
    assert create()[1] == f"updated view {name}\n"
    assert dataset.query("SELECT KVP FROM my_protocols") == []

    dataset.query("CREATE OR REPLACE VIEW my_protocols AS SELECT 1 AS one")
    status, out, err = create()
    assert (status, out) == (2, "")
    assert err.startswith(f"dcm2bq: {name}: was not made by dcm2bq columns")
    assert dataset.query("SELECT * FROM my_protocols") == [{"one": 1}]
    assert create("--replace")[:2] == (0, f"updated view {name}\n")
    dataset.query("CREATE TABLE mine (one INT64)")
    file.write_text(FILE.replace("my_protocols", "mine"))
    status, _, err = create("--replace")
    assert (status, "is a table" in err) == (2, True)


def test_a_suggestion_has_the_attributes_of_a_sample_and_no_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        shutil.copyfile(str(get_testdata_file(name)), tmp_path / f"{n}.dcm")
    secret = dicom(
        identity(),
        element(0x00100010, "PN", "SENTINEL^NAME"),
        element(0x00110010, "LO", "SENTINEL CREATOR"),
        element(0x00111001, "LO", "SENTINEL"),
    )
    (tmp_path / "secret.dcm").write_bytes(secret)
    (tmp_path / "cut.dcm").write_bytes(secret[:-3])
    (tmp_path / "text.dcm").write_text("SENTINEL")
    output = tmp_path / "f.toml"
    assert cli.main(["columns", "--suggest", str(tmp_path), "-o", str(output)]) == 1
    err = capsys.readouterr().err
    (line,) = err.splitlines()
    assert line.startswith(f"{tmp_path}/cut.dcm: ")
    text = output.read_text()
    assert "SENTINEL" not in text + err
    assert "\n[[columns]] # 67 % (Slice Thickness (0018,0050))\n" in text
    assert "\n[[columns]] # 100 % (Patient's Name (0010,0010))\n" in text
    names = {column.get("attribute") for column in tomllib.loads(text)["columns"]}
    assert {"SliceThickness", "OtherPatientIDsSequence[0].PatientID"} <= names
    assert not {"PixelData", "StudyInstanceUID", "ContentSequence"} & names
    assert 'creator = "GEMS_PARM_01"\nelement = "0043xx' in text
    view = column_file.read(output)
    assert column_views.definition(view, Config(), "p").sql

    assert cli.main(["columns", "--suggest", str(tmp_path), "-o", str(output)]) == 2
    assert "exists: choose another name" in capsys.readouterr().err
    elsewhere = str(tmp_path / "absent" / "columns.toml")
    assert cli.main(["columns", "--suggest", str(tmp_path), "-o", elsewhere]) == 2
    assert "is not a folder" in capsys.readouterr().err
    for name in ("secret", "cut", "text"):
        (tmp_path / f"{name}.dcm").unlink()
    assert cli.main(["columns", "--suggest", str(tmp_path), "--objects", "1"]) == 0
    assert "of 1 object," in capsys.readouterr().out


def test_the_file_on_the_page_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "SCHEMA.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    view = column_file.parse(text, "SCHEMA.md")
    assert [column.type for column in view.columns] == ["FLOAT64", "STRING", "STRING", "FLOAT64"]
