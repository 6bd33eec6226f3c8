"""The pictures in README show what there is."""

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

from scripts import pictures

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OUT_OF_DATE = "run: make pictures"

SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 200_000
"""Of a picture: a page with all of them still loads at once."""


class Pictures(HTMLParser):
    """Collects the files and the alternative texts of the pictures of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.files: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "source":
            self.files.add(values["srcset"])
        if tag == "img":
            self.files.add(values["src"])
            self.texts.append(values["alt"])


def test_the_terminal_shows_the_beginning_of_what_make_run_prints() -> None:
    """What `make run` prints is compared in `tests/local/test_shown.py`."""
    shown = [line.removeprefix("    ") for line in block().splitlines()]
    prompt, _, *printed = lines(pictures.TERMINAL.read_text())
    assert prompt == pictures.PROMPT
    assert len(printed) > 20
    assert [settled(line) for line in printed] == [
        settled(line) for line in shown[: len(printed)]
    ], OUT_OF_DATE


def test_the_report_is_that_of_the_present_template() -> None:
    assert pictures.DIGESTS.read_text() == pictures.digests(), OUT_OF_DATE


def test_the_report_is_shown_alike_in_light_and_dark_and_in_few_bytes() -> None:
    contents = [path.read_bytes() for path in pictures.REPORTS.values()]
    widths, heights = zip(*(struct.unpack(">II", png[16:24]) for png in contents), strict=True)
    assert set(map(abs, (heights[0] - heights[1], widths[0] - widths[1]))) <= {0, 1, 2}
    assert all(len(png) < MOST_BYTES for png in contents)
    assert len(pictures.TERMINAL.read_bytes()) < MOST_BYTES


def test_the_readme_shows_every_picture_and_describes_it() -> None:
    shown = Pictures(README)
    made = {*pictures.REPORTS.values(), pictures.TERMINAL}
    assert {ROOT / file for file in shown.files} == made
    assert {*pictures.PICTURES.iterdir()} == {*made, pictures.DIGESTS}
    assert all(len(text) > 100 for text in shown.texts)


def test_no_picture_requests_anything() -> None:
    svg = pictures.TERMINAL.read_text()
    assert set(re.findall(r"https?://[^\s\"'<]+", svg)) <= {
        "http://www.w3.org/2000/svg",  # the namespace
        "https://www.textualize.io",  # a comment
    }


def block() -> str:
    """Return what README shows of `make run`."""
    shown = README.partition("<!-- output of make run -->\n")[2].partition("<!-- end of output")[0]
    return shown.strip("\n")


def lines(svg: str) -> list[str]:
    """Return the lines of text of an SVG of a terminal, with their columns."""
    rows: dict[float, str] = {}
    for text in ET.fromstring(svg).iter(f"{SVG}text"):
        if text.get("textLength") is None:
            continue  # the title of the window
        content = (text.text or "").replace("\N{NO-BREAK SPACE}", " ")
        column = round(float(text.attrib["x"]) / float(text.attrib["textLength"]) * len(content))
        y = float(text.attrib["y"])
        rows[y] = rows.get(y, "").ljust(column) + content
    first, step = min(rows), 24.4  # Rich's height of a line
    count = round((max(rows) - first) / step) + 1
    at = {round((y - first) / step): row.rstrip() for y, row in rows.items()}
    return [at.get(number, "") for number in range(count)]


def settled(line: str) -> str:
    return re.sub(r"in [\d.]+ s", "", line)
