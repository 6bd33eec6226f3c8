"""The script `confidentiality_profile.py` reads its tables from the DocBook of PS3.15."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "confidentiality_profile.py"


def row(*cells: str, cell: str = "td") -> str:
    return f"<tr>{''.join(f'<{cell}><para>{text}</para></{cell}>' for text in cells)}</tr>"


COLUMNS = "Attribute Name", "Tag", "Retd.", "Basic Prof.", "Rtn. UIDs Opt.", "Clean Desc. Opt."
DOCUMENT = f"""<?xml version="1.0"?>
<book xmlns="http://docbook.org/ns/docbook">
  <title>PS3.15</title>
  <subtitle>DICOM PS3.15 2026c - Security</subtitle>
  <table label="E.1-2"><thead><tr><th>Tag</th></tr></thead><tbody/></table>
  <table label="E.1-1">
    <thead>{row(*COLUMNS, cell="th")}</thead>
    <tbody>
      {row("Patient's Name", "(0010,0010)", "N", "Z", "", "")}
      {row("Overlay Data", "(60xx,3000)", "N", "X", "", "C")}
      {row("Source Image Sequence", "(0008,2112)", "N", "X/Z/U*", "K", "")}
      {row("Private Attributes", "(gggg,eeee) where gggg is odd", "N", "X", "", "")}
    </tbody>
  </table>
  <table label="E.3.10-1">
    <thead>{row("Data Element", "Private Creator", "VR", "VM", "Meaning", cell="th")}</thead>
    <tbody>
      {row("(7053,xx00)", "Philips PET Private Group", "DS", "1", "SUV Factor")}
      {row("(2001,xx7d)", "Philips Imaging DD 001", "OW/OB", "1", "Frame Pixel Data")}
      {row("(00e1,xx21)", "ELSCINT1", "", "1", "DLP")}
    </tbody>
  </table>
</book>
"""


def run(document: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "part15.xml"
    file.write_text(document)
    command = [sys.executable, str(SCRIPT), *options, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_rows_have_all_columns_of_actions_and_are_sorted_by_tag(tmp_path: Path) -> None:
    first, *rows = run(DOCUMENT, tmp_path).stdout.splitlines()
    assert first.startswith("# PS3.15 2026c, Table E.1-1")
    assert rows == [
        "Tag\tBasic Prof.\tRtn. UIDs Opt.\tClean Desc. Opt.",
        "00082112\tX/Z/U*\tK",
        "00100010\tZ",
        "60xx3000\tX\t\tC",
        "private\tX",
    ]


def test_safe_private_elements_are_sorted_by_creator(tmp_path: Path) -> None:
    first, *rows = run(DOCUMENT, tmp_path, "--safe-private").stdout.splitlines()
    assert first.startswith("# PS3.15 2026c, Table E.3.10-1")
    assert rows == [
        "Private Creator\tGroup\tElement\tVR",
        "ELSCINT1\t00E1\t21",
        "Philips Imaging DD 001\t2001\t7D\tOW",
        "Philips PET Private Group\t7053\t00\tDS",
    ]


def test_an_unknown_action_is_an_error(tmp_path: Path) -> None:
    for known in ("<para>Z<", "<para>K<"):
        done = run(DOCUMENT.replace(known, "<para>see note<"), tmp_path)
        assert done.returncode != 0
        assert "unknown action in the row of (00" in done.stderr


def test_a_missing_action_of_the_basic_profile_is_an_error(tmp_path: Path) -> None:
    assert run(DOCUMENT.replace("<para>Z<", "<para><"), tmp_path).returncode != 0
