"""The README's example of a watched folder is the real output."""

import re
import shutil
import signal
from pathlib import Path

from tests.local.conftest import Cli

README = (Path(__file__).parents[2] / "README.md").read_text()
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


def _settled(lines: list[str]) -> list[str]:
    return [_VARYING.sub("...", line) for line in lines]
