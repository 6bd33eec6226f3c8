"""Write dcm2bq/dicom/privacy/confidentiality_profile.tsv from PS3.15, published in DocBook.

    TABLE=dcm2bq/dicom/privacy/confidentiality_profile.tsv
    python scripts/confidentiality_profile.py part15.xml > $TABLE

The input is part15.xml from https://dicom.nema.org/medical/dicom/current/source/docbook/part15/.
The output has the columns "Tag" and "Basic Prof." of Table E.1-1, Application Level
Confidentiality Profile Attributes.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

DOCBOOK = "{http://docbook.org/ns/docbook}"
TAG = re.compile(r"\(([0-9A-Fx]{4}),([0-9A-Fx]{4})\)", re.IGNORECASE)
ACTION = re.compile(r"[XZDUKC](/[XZDUKC]\*?)*")


def rows(root: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield the tag and the action of each row; the tag of private attributes is `private`."""
    table = next(table for table in root.iter(f"{DOCBOOK}table") if table.get("label") == "E.1-1")
    columns = [_text(cell) for cell in next(table.iter(f"{DOCBOOK}thead")).iter(f"{DOCBOOK}th")]
    tag_column = columns.index("Tag")
    action_column = next(n for n, name in enumerate(columns) if name.startswith("Basic Prof"))
    body = next(table.iter(f"{DOCBOOK}tbody"))
    for row in body.iter(f"{DOCBOOK}tr"):
        cells = [_text(cell) for cell in row.iter(f"{DOCBOOK}td")]
        action = cells[action_column]
        if not ACTION.fullmatch(action):
            raise ValueError(f"unknown action in the row of {cells[tag_column]}: {action!r}")
        yield _tag(cells[tag_column]), action


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
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="part15.xml", type=Path)
    try:
        root = ET.parse(parser.parse_args().file).getroot()  # noqa: S314 - the standard's own file
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    print(  # noqa: T201
        f"# PS3.15 {edition(root)}, Table E.1-1, column Basic Prof.: tag and action; "
        "made by scripts/confidentiality_profile.py"
    )
    for tag, action in sorted(rows(root)):
        print(f"{tag}\t{action}")  # noqa: T201


if __name__ == "__main__":
    main()
