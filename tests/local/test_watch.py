"""A watching stack: it answers queries and follows the changes in its folder."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pytest

from dcm2bq.local import bigquery_program, running_stacks
from tests.local.conftest import Cli
from tests.support.patience import until

ENOUGH = 600
"""Seconds that no end takes, on however busy a machine."""
README = (Path(__file__).parents[2] / "README.md").read_text()
VARYING = re.compile(r"(?<=Watching )\S+(?=:)|(?<=127\.0\.0\.1:)\d+|\d\d:\d\d:\d\d")


def catches(pid: int, signum: signal.Signals) -> bool:
    """Whether a process handles a signal itself: proc_pid_status(5), SigCgt."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = status.partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signum - 1) & 1)


class Watching:
    """A running `dcm2bq local` and its folder."""

    def __init__(self, cli: Cli, folder: Path, process: subprocess.Popen[str]) -> None:
        self.cli = cli
        self.folder = folder
        self.process = process
        self.printed: list[str] = []

    def line(self, *parts: str) -> str:
        """Return the next line of stdout that has all the parts."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))
            if all(part in line for part in parts):
                return line
        raise AssertionError(f"no line with {parts}")

    def lines(self, *parts: str) -> None:
        """Read lines of stdout until each part has been in one of them, in any order."""
        missing = set(parts)
        while missing:
            line = self.line()
            missing = {part for part in missing if part not in line}

    def ask(self, sql: str) -> list[dict[str, object]]:
        done = self.cli.call("local", "--query", sql, "--json")
        assert (done.status, done.err) == (0, "")
        rows: list[dict[str, object]] = json.loads(done.out)
        return rows

    def live(self) -> dict[object, object]:
        rows = self.ask("SELECT path, Modality FROM instances_live")
        return {row["path"]: row["Modality"] for row in rows}

    def end(self, signum: signal.Signals) -> int:
        self.process.send_signal(signum)
        return self.process.wait(ENOUGH)


@pytest.fixture(scope="module")
def watching(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, dicom_files: Path
) -> Iterator[Watching]:
    folder = tmp_path_factory.mktemp("scans")
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copyfile(dicom_files / name, folder / name)
    with cli.start("local", str(folder)) as process:
        watching = Watching(cli, folder, process)
        watching.line("Cloud Storage")
        yield watching
        if process.poll() is None:
            process.terminate()


def test_a_query_is_answered_by_the_running_stack(watching: Watching) -> None:
    done = watching.cli.run(
        "local", "--query", "SELECT path, Modality AS m FROM instances_live ORDER BY path"
    )
    assert [line.split() for line in done.stdout.splitlines() if "─" not in line] == [
        ["path", "m"],
        ["gs://dicom/CT_small.dcm", "CT"],
        ["gs://dicom/MR_small.dcm", "MR"],
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_the_answer_to_a_query_can_be_written_as_a_table(
    watching: Watching, tmp_path: Path
) -> None:
    sql = "SELECT Modality, StudyDate, info.input.size FROM instances_live ORDER BY path"
    for kind in ("csv", "parquet"):
        file = tmp_path / f"answer.{kind}"
        done = watching.cli.call("local", "--query", sql, f"--{kind}", "-o", str(file))
        assert (done.status, done.out, done.err) == (0, "", "")
        assert duckdb.sql(f"SELECT * FROM '{file}'").fetchall() == [
            ("CT", date(2004, 1, 19), 39206),
            ("MR", date(2004, 8, 26), 9830),
        ]


def test_an_empty_result_is_reported_on_stderr(watching: Watching) -> None:
    sql = "SELECT path FROM instances WHERE FALSE"
    done = watching.cli.call("local", "--query", sql)
    assert (done.status, done.out, done.err) == (0, "", "no rows\n")
    assert watching.ask(sql) == []


def test_a_statement_that_would_change_the_running_stack_is_refused(watching: Watching) -> None:
    before = watching.live()
    for sql in ("DELETE FROM instances WHERE TRUE", "SELECT 1; DROP TABLE instances"):
        done = watching.cli.call("local", "--query", sql)
        assert (done.status, done.out) == (2, "")
        assert "is not a query; give a SELECT statement" in done.err
    assert watching.live() == before


def test_a_query_for_another_folder_starts_a_new_stack_and_says_if_it_cannot(
    watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_program, "__file__", "/dev/null")
    done = watching.cli.call("local", str(tmp_path), "--query", "SELECT 1 AS n")
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        f"no dcm2bq local is watching {tmp_path}: querying a new stack\n"
        "dcm2bq: the bigquery server did not start\n"
    )


def test_values_become_json_by_their_types(watching: Watching) -> None:
    (row,) = watching.ask(
        """
        SELECT metadata, StudyDate, TIMESTAMP '2024-01-02 03:04:05+00' AS t, b'abc' AS b,
          NUMERIC '1.5' AS n, 2 AS i, 0.5 AS f, TRUE AS yes, NULL AS nothing, [1, 2] AS a,
          STRUCT(1 AS x, 'y' AS y) AS s, info.warnings AS w
        FROM instances_live WHERE path = 'gs://dicom/CT_small.dcm'
        """
    )
    metadata = row.pop("metadata")
    assert isinstance(metadata, dict)
    assert metadata["Modality"] == "CT"
    assert row == {
        "StudyDate": "2004-01-19",
        "t": "2024-01-02T03:04:05Z",
        "b": "YWJj",
        "n": "1.5",
        "i": 2,
        "f": 0.5,
        "yes": True,
        "nothing": None,
        "a": [1, 2],
        "s": {"x": 1, "y": "y"},
        "w": [],
    }


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT no_such_column FROM instances", "no_such_column"),
        ("SELECT 1 FROM no_such_table", "no_such_table"),
    ],
)
def test_an_invalid_query_is_a_usage_error_of_one_line(
    watching: Watching, sql: str, word: str
) -> None:
    done = watching.cli.call("local", "--query", sql)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("dcm2bq: ")
    assert word in line


def test_a_value_that_makes_a_query_fail_is_not_printed(watching: Watching) -> None:
    """BigQuery's own message would quote it; values of headers are printed only in rows."""
    (row,) = watching.ask(
        "SELECT PatientID FROM instances_live WHERE path = 'gs://dicom/CT_small.dcm'"
    )
    sql = (
        "SELECT CAST(PatientID AS INT64) FROM instances_live WHERE path = 'gs://dicom/CT_small.dcm'"
    )
    done = watching.cli.call("local", "--query", sql)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("dcm2bq: the statement failed on a value, which is not shown (HTTP 400)")
    assert str(row["PatientID"]) not in line


@pytest.fixture(scope="module")
def changed(watching: Watching) -> list[str]:
    """What is printed about a watched folder and the changes that README shows."""
    ct = (watching.folder / "CT_small.dcm").read_bytes()
    changes = (
        lambda: (watching.folder / "new.dcm").write_bytes(ct),
        lambda: (watching.folder / "cut.dcm").write_bytes(ct[:1500]),
        (watching.folder / "MR_small.dcm").unlink,
        lambda: (watching.folder / "more.txt").write_text("text"),
    )
    assert watching.line() == "\n"
    for change in changes:
        change()
        watching.line()
    (start,) = (n for n, line in enumerate(watching.printed) if line.startswith("Watching"))
    return watching.printed[start:]


def test_the_readme_shows_the_real_output_for_a_watched_folder(changed: list[str]) -> None:
    block = README.partition("<!-- output of dcm2bq local -->\n")[2].partition("<!-- end of")[0]
    shown = [line.removeprefix("    ") for line in block.strip("\n").splitlines()]
    assert settled(changed) == settled(shown)


def settled(lines: list[str]) -> list[str]:
    return [VARYING.sub("...", line) for line in lines]


@pytest.mark.usefixtures("changed")
def test_the_live_view_follows_the_folder(watching: Watching, dicom_files: Path) -> None:
    folder = watching.folder
    (folder / "sub #1").mkdir()
    shutil.copyfile(dicom_files / "rtplan.dcm", folder / "sub #1" / "new.dcm")
    shutil.copyfile(dicom_files / "JPEG2000.dcm", folder / "CT_small.dcm")
    (folder / "new.dcm").unlink()
    watching.lines(
        "new      sub #1/new.dcm: live, RTPLAN",
        "changed  CT_small.dcm: live, NM",
        "deleted  new.dcm: no longer live",
    )
    assert watching.live() == {
        "gs://dicom/CT_small.dcm": "NM",
        "gs://dicom/sub #1/new.dcm": "RTPLAN",
    }
    (counts,) = watching.ask("SELECT COUNTIF(event = 'deleted') AS d, COUNT(*) AS n FROM instances")
    assert counts == {"d": 3, "n": 8}  # the overwritten generation has a marker, too


@pytest.mark.usefixtures("changed")
def test_dead_letters_and_ignored_files_are_printed(watching: Watching, dicom_files: Path) -> None:
    (watching.folder / "bad.dcm").write_text("no DICOM")
    (watching.folder / "notes.txt").write_text("text")
    os.mkfifo(watching.folder / "pipe.dcm")
    watching.lines(
        "new      bad.dcm: dead letter, NotDicomError: ",
        "new      notes.txt: ignored",
        "new      pipe.dcm: not uploaded: not a regular file",
    )
    (watching.folder / "pipe.dcm").unlink()
    shutil.copyfile(dicom_files / "MR_small.dcm", watching.folder / "bad.dcm")
    watching.line("changed", "bad.dcm: live, MR")
    assert watching.ask("SELECT path FROM dead_letters") == [{"path": "gs://dicom/cut.dcm"}]


def test_a_watching_stack_is_found_only_for_its_own_folder(
    watching: Watching, odd_folder: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", watching.cli.environ["XDG_RUNTIME_DIR"])
        assert running_stacks.find(watching.folder.resolve()) is not None
        assert running_stacks.find(odd_folder.resolve()) is None


def test_an_interrupt_stops_every_process(watching: Watching) -> None:
    assert watching.end(signal.SIGINT) == 0
    assert watching.process.stderr is not None
    assert watching.process.stderr.read() == ""
    until(lambda: not watching.cli.processes())
    assert not list(Path(watching.cli.environ["XDG_RUNTIME_DIR"], "dcm2bq").iterdir())


@pytest.mark.parametrize("others", [0, 1, 3])  # a helper, then three servers
def test_sigterm_during_startup_leaves_no_process(
    cli: Cli, tmp_path: Path, dicom_files: Path, others: int
) -> None:
    shutil.copyfile(dicom_files / "MR_small.dcm", tmp_path / "a.dcm")
    with cli.start("local", str(tmp_path), "--once") as process:
        until(lambda: catches(process.pid, signal.SIGTERM))
        until(lambda: len(cli.processes()) > others)
        process.terminate()
        assert process.wait(ENOUGH) == 130
    until(lambda: not cli.processes())


def test_a_stack_without_files_says_so_and_leaves_nothing_when_it_is_killed(
    cli: Cli, tmp_path: Path
) -> None:
    folder, temporary = tmp_path / "scans", tmp_path / "tmp"
    (folder / "inner").mkdir(parents=True)
    temporary.mkdir()
    here = Cli({**cli.environ, "TMPDIR": str(temporary)}, cli.mark)
    with here.start("local", str(folder)) as process:
        watching = Watching(here, folder, process)
        assert watching.line("object").startswith("0 objects in ")
        assert watching.line("There is").strip() == f"There is no file in the folder {folder}"
        watching.line("Watching")
        assert len(here.processes()) >= 5  # three servers, the function's worker, the command
        assert list(temporary.iterdir())
        process.kill()
    until(lambda: not [*here.processes(), *temporary.iterdir()])
    assert (folder / "inner").exists()
