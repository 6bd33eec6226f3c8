"""No name, header or error that a command prints can control the terminal."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcm2bq import cli, config, log
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ReadFailedError
from dcm2bq.local import commands
from dcm2bq.tools.tables import TableFormat
from tests.dicom.build import dicom, element, identity

EVIL = "\x1b[31m\x7f\x9b2J\u202e\u2066\u2028\u061c\n[red]é"
SHOWN = r"\x1b[31m\x7f\x9b2J\u202e\u2066\u2028\u061c\n[red]é"
IN_JSON = r"\u001b[31m\u007f\u009b2J\u202e\u2066\u2028\u061c\n[red]é"

NAME = "\x7f\x9b2J\u202e\u2066\u2028\u061c[red]é"
NAME_IN_JSON = r"\u007f\u009b2J\u202e\u2066\u2028\u061c[red]é"


def run_command(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[str, str]:
    cli.main(args)
    out, err = capfd.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable(), ascii(line)
    return out, err


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A file with control characters in its name and in a value of its header."""
    path = tmp_path / f"{EVIL.replace('/', '')}.dcm"
    path.write_bytes(
        dicom(
            element(0x00080005, "CS", "ISO_IR 192"),
            identity(),
            element(0x00100020, "LO", NAME.encode()),
        )
    )
    return path


@pytest.mark.parametrize("options", [[], ["--envelope"], ["--format", "dicom-json"]])
def test_a_header_and_its_file_name_are_escaped_in_json(
    scan: Path, options: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    out, _ = run_command(capfd, "dump", *options, str(scan))
    assert NAME_IN_JSON in out
    json.loads(out)
    assert ("--envelope" in options) == (IN_JSON in out)


def test_a_file_name_in_an_error_or_a_note_is_escaped(
    scan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = run_command(capfd, "dump", str(tmp_path / EVIL))
    assert err.startswith(f"{tmp_path}/{SHOWN}: ")
    _, err = run_command(capfd, "dump", "--verbose", "--option", "limits.elements=2", str(scan))
    assert SHOWN in err


@pytest.mark.parametrize(
    "args",
    [
        ["dump", f"--{EVIL}"],
        [EVIL],
        ["local", EVIL],
        ["dump", "--option", EVIL, "x"],
        ["dump", "--option", f"{EVIL}=1", "x"],
        ["backfill", EVIL, "--dry-run"],
        ["export", EVIL, "--parquet", "x"],
    ],
)
def test_an_argument_in_an_error_is_escaped(
    args: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = run_command(capfd, *args)
    assert r"\x9b2J" in err


def test_the_message_of_a_service_is_escaped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise ReadFailedError(EVIL)

    monkeypatch.setattr(Dataset, "__init__", refuse)
    _, err = run_command(capfd, "dead-letters", "list")
    assert SHOWN.partition(r"\n")[0] in err


def test_the_path_of_a_system_error_stays_on_its_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise PermissionError(errno.EACCES, "denied", EVIL)

    monkeypatch.setattr(config, "load", fail)
    _, err = run_command(capfd, "config")
    assert err.startswith(f"dcm2bq: {SHOWN}: Permission denied (")
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["json", "csv", "table"])
def test_rows_are_escaped(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    row = {EVIL: EVIL, "list": [{"a": EVIL}]}
    fields = [{"name": name, "type": "STRING"} for name in row]
    answer = commands.AnswerFormat(
        as_json=kind == "json", table=TableFormat.CSV if kind == "csv" else None
    )
    commands._print_answer(lambda _: (fields, iter([row])), "SELECT 1", answer)
    out, _ = capfd.readouterr()
    assert all(line.isprintable() for line in out.split("\n"))
    if kind == "json":
        assert json.loads(out) == [row]
    else:
        assert out.count(SHOWN) == 2
        assert IN_JSON in out


def test_a_log_line_is_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(Config())
    log.write("INFO", "event inserted", path=EVIL)
    out, _ = capfd.readouterr()
    assert json.loads(out)["path"] == EVIL
    assert out.rstrip("\n").isprintable()
