"""Make the pictures in README from a real run of `dcm2bq local --once` on the samples.

    python -m scripts.pictures

It needs Debian's chromium and chromium-driver. Beside the pictures of the report it writes the
digests of the files that decide what the report looks like, by which a test sees that the pictures
are out of date.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.browser import running_browser

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
REPORTS = {"light": PICTURES / "report-light.png", "dark": PICTURES / "report-dark.png"}
TERMINAL = PICTURES / "terminal.svg"
DIGESTS = PICTURES / "report.sha256"
SOURCES = ("charts.py", "page.css", "page.html.j2", "questions.py")
"""What the report looks like depends on these files of `dcm2bq/tools/report`."""

PROMPT = "$ make run"
_WIDTH = 1100  # CSS pixels: page.css makes no page wider than 68rem, which is 1088
_SCALE = 1.5  # pixels per CSS pixel: about twice the 830 that GitHub gives a picture
_LAST_CHARTS = "#modalities, #years"  # the first row of charts ends the picture
_MARGIN = 12  # CSS pixels below them: the next row begins after 16
_COLUMNS = 94  # the width of the table of studies
_END = "Worth checking"  # heading of the first section that is not shown

_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
"""Fonts that readers have: GitHub does not load the one from the web that Rich names."""


def digests() -> str:
    """Return the digests of the report's sources, as `sha256sum` prints them."""
    folder = ROOT / "dcm2bq" / "tools" / "report"
    paths = [(folder / name).relative_to(ROOT).as_posix() for name in SOURCES]
    return "".join(
        f"{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}  {path}\n" for path in paths
    )


def run(report: Path) -> str:
    """Ingest the samples, write a report, and return what a terminal shows, with its colours."""
    command = Path(sys.executable).with_name("dcm2bq")
    done = subprocess.run(  # noqa: S603 - this package's own command
        [command, "local", "--once", "--report", report],
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def terminal(printed: str) -> str:
    """Return the first sections of what was printed as an SVG of a terminal."""
    shown = Text.from_ansi(printed.strip())
    (end,) = (match.start() for match in re.finditer(f"^{_END}", shown.plain, re.MULTILINE))
    shown = shown[:end]
    shown.rstrip()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text(PROMPT, style="green"))
        console.print()
        console.print(shown)
    svg = console.export_svg(title="dcm2bq", unique_id="terminal")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", _FONT)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        TERMINAL.write_text(terminal(run(report)), encoding="utf-8")
        with running_browser(Path(folder) / "browser") as browser:
            for scheme, path in REPORTS.items():
                browser.open(report, width=_WIDTH, dark=scheme == "dark")
                bottom = browser.run(
                    f"return Math.max(...[...document.querySelectorAll('{_LAST_CHARTS}')]"
                    ".map(chart => chart.getBoundingClientRect().bottom))"
                )
                path.write_bytes(browser.picture(height=bottom + _MARGIN, scale=_SCALE))
    DIGESTS.write_text(digests())


if __name__ == "__main__":
    main()
