"""Write the tables of dcm2bq/dicom/privacy/ from PS3.15, which is published in DocBook.

    cd dcm2bq/dicom/privacy
    python ../../../scripts/confidentiality_profile.py part15.xml > confidentiality_profile.tsv
    python ../../../scripts/confidentiality_profile.py --safe-private part15.xml > safe_private.tsv

The input is part15.xml from https://dicom.nema.org/medical/dicom/current/source/docbook/part15/.
The first output has the column "Tag" and all columns of actions of Table E.1-1, Application Level
Confidentiality Profile Attributes; the second has Table E.3.10-1, Safe Private Attributes.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

DOCBOOK = "{http://docbook.org/ns/docbook}"
TAG = re.compile(r"\(([0-9A-Fx]{4}),([0-9A-Fx]{4})\)", re.IGNORECASE)
ACTION = re.compile(r"[XZDUKC](/[XZDUKC]\*?)*")
BASIC = "Basic Prof."
"""The first of the columns of actions, of which the options' follow."""
VR = re.compile(r"[A-Z]{2}")


def profile(root: ET.Element) -> Iterator[list[str]]:
    """Yield the columns of Table E.1-1, then its rows; that of all private tags is `private`."""
    head, *rows = table(root, "E.1-1")
    tag, basic = head.index("Tag"), head.index(BASIC)
    yield [head[tag], *head[basic:]]
    lines = []
    for cells in rows:
        actions = cells[basic:]
        for column, action in zip(head[basic:], actions, strict=True):
            if not (ACTION.fullmatch(action) or (action == "" and column != BASIC)):
                raise ValueError(f"unknown action in the row of {cells[tag]}: {action!r}")
        lines.append([_tag(cells[tag]), *actions])
    yield from sorted(lines)


def safe_private(root: ET.Element) -> Iterator[list[str]]:
    """Yield the columns of safe_private.tsv, then its rows: creator, group, element and VR."""
    yield ["Private Creator", "Group", "Element", "VR"]
    head, *rows = table(root, "E.3.10-1")
    places = [head.index(column) for column in ("Data Element", "Private Creator", "VR")]
    lines = []
    for cells in rows:
        element, creator, vr = (cells[place] for place in places)
        digits = _tag(element)
        known = VR.match(vr)  # OW/OB is OW, as in implicit data sets
        lines.append([creator, digits[:4], digits[6:], known.group() if known else ""])
    yield from sorted(lines)


def table(root: ET.Element, label: str) -> Iterator[list[str]]:
    """Yield the names of a table's columns, then its rows."""
    found = next(table for table in root.iter(f"{DOCBOOK}table") if table.get("label") == label)
    head = next(found.iter(f"{DOCBOOK}thead"))
    yield [_text(cell) for cell in head.iter(f"{DOCBOOK}th")]
    for row in next(found.iter(f"{DOCBOOK}tbody")).iter(f"{DOCBOOK}tr"):
        yield [_text(cell) for cell in row.iter(f"{DOCBOOK}td")]


def edition(root: ET.Element) -> str:
    """Return the edition, such as `2026c`."""
    subtitle = next(_text(element) for element in root.iter(f"{DOCBOOK}subtitle"))
    match = re.search(r"\d{4}[a-z]", subtitle)
    if not match:
        raise ValueError(f"no edition in the subtitle: {subtitle!r}")
    return match.group()


def _tag(text: str) -> str:
    if match := TAG.fullmatch(text):
        group, element = (part.upper().replace("X", "x") for part in match.groups())
        return group + element
    if "gggg" in text and "odd" in text:
        return "private"
    raise ValueError(f"unknown tag: {text!r}")


def _text(element: ET.Element) -> str:
    visible = "".join(element.itertext()).replace("\u200b", "")
    return " ".join(visible.split())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="part15.xml", type=Path)
    parser.add_argument("--safe-private", action="store_true", help="print Table E.3.10-1")
    arguments = parser.parse_args()
    try:
        root = ET.parse(arguments.file).getroot()  # noqa: S314 - the standard's own file
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    label, lines = ("E.1-1", profile) if not arguments.safe_private else ("E.3.10-1", safe_private)
    print(  # noqa: T201
        f"# PS3.15 {edition(root)}, Table {label}; made by scripts/confidentiality_profile.py"
    )
    for line in lines(root):
        print("\t".join(line).rstrip("\t"))  # noqa: T201


if __name__ == "__main__":
    main()
