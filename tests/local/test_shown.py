"""The outputs that pages show are real: of a watched folder, and of queries of the samples."""

import re
import shutil
import signal
from pathlib import Path

from tests.local.conftest import Cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCHEMA = (ROOT / "docs" / "SCHEMA.md").read_text()
_VARYING = re.compile(r"(?<=Watching )\S+(?=:)|(?<=127\.0\.0\.1:)\d+|\d\d:\d\d:\d\d")


def test_the_readme_shows_the_real_output_for_a_watched_folder(
    cli: Cli, tmp_path: Path, dicom_files: Path
) -> None:
    block = README.partition("<!-- output of dcm2bq local -->\n")[2].partition("<!-- end of")[0]
    shown = [line.removeprefix("    ") for line in block.strip("\n").splitlines()]
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copyfile(dicom_files / name, tmp_path / name)
    ct = (tmp_path / "CT_small.dcm").read_bytes()
    changes = (
        lambda: (tmp_path / "new.dcm").write_bytes(ct),
        lambda: (tmp_path / "cut.dcm").write_bytes(ct[:1500]),
        (tmp_path / "MR_small.dcm").unlink,
        lambda: (tmp_path / "more.txt").write_text("text"),
    )
    printed: list[str] = []
    with cli.start("local", str(tmp_path)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if printed or line.startswith("Watching"):
                printed.append(line.rstrip("\n"))
            if "Cloud Storage" in line:
                break
        printed.append(process.stdout.readline().rstrip("\n"))
        for change in changes:
            change()
            printed.append(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert _settled(printed) == _settled(shown)


def test_the_pages_show_the_real_answers_for_the_samples(cli: Cli) -> None:
    shown = [answer for page in (README, SCHEMA) for answer in answers(page)]
    assert len(shown) == 4
    with cli.start("local") as process:
        assert process.stdout is not None
        assert any("Cloud Storage" in line for line in process.stdout)
        answered = [(sql, cli.run("local", "--query", sql).stdout.rstrip()) for sql, _ in shown]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert answered == shown


def answers(page: str) -> list[tuple[str, str]]:
    """Return the queries between the markers, each with the table that follows it."""
    block = page.partition("<!-- answers -->\n")[2].partition("<!-- end of answers -->")[0]
    pairs = re.findall(r"```sql\n(.*?)```\n\n((?: {4}[^\n]*\n)+)", block, re.DOTALL)
    return [(sql, re.sub(r"^ {2}", "", table, flags=re.MULTILINE).rstrip()) for sql, table in pairs]


def _settled(lines: list[str]) -> list[str]:
    return [_VARYING.sub("...", line) for line in lines]
