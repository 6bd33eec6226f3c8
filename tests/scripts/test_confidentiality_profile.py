"""The script `confidentiality_profile.py` reads its table from the DocBook of PS3.15."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "confidentiality_profile.py"
DOCUMENT = """<?xml version="1.0"?>
<book xmlns="http://docbook.org/ns/docbook">
  <title>PS3.15</title>
  <subtitle>DICOM PS3.15 2026c - Security</subtitle>
  <table label="E.1-2"><thead><tr><th>Tag</th></tr></thead><tbody/></table>
  <table label="E.1-1">
    <thead><tr>
      <th><para>Attribute Name</para></th><th><para>Tag</para></th>
      <th><para>Retd.</para></th><th><para>Basic Prof.</para></th>
    </tr></thead>
    <tbody>
      <tr><td><para>Patient's Name</para></td><td><para>(0010,0010)</para></td>
        <td><para>N</para></td><td><para>Z</para></td></tr>
      <tr><td><para>Overlay Data</para></td><td><para>(60xx,3000)</para></td>
        <td><para>N</para></td><td><para>X</para></td></tr>
      <tr><td><para>Source Image Sequence</para></td><td><para>(0008,2112)</para></td>
        <td><para>N</para></td><td><para>X/Z/U*</para></td></tr>
      <tr><td><para>Private Attributes</para></td>
        <td><para>(gggg,eeee) where gggg is odd</para></td>
        <td><para>N</para></td><td><para>X</para></td></tr>
    </tbody>
  </table>
</book>
"""


def run(document: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "part15.xml"
    file.write_text(document)
    command = [sys.executable, str(SCRIPT), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_rows_are_sorted_by_tag(tmp_path: Path) -> None:
    first, *rows = run(DOCUMENT, tmp_path).stdout.splitlines()
    assert first.startswith("# PS3.15 2026c, Table E.1-1")
    assert rows == ["00082112\tX/Z/U*", "00100010\tZ", "60xx3000\tX", "private\tX"]


def test_an_unknown_action_is_an_error(tmp_path: Path) -> None:
    done = run(DOCUMENT.replace(">Z<", ">see note<"), tmp_path)
    assert done.returncode != 0
    assert "unknown action in the row of (0010,0010)" in done.stderr
