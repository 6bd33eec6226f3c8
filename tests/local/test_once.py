"""`dcm2bq local --once`, and `--query` if no stack is running."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dcm2bq import cli as command_line
from dcm2bq.config import Config
from dcm2bq.local import session, stack
from dcm2bq.local.sql import first_words
from dcm2bq.version import entry_point
from tests.dicom.build import dicom, element, identity
from tests.local.conftest import COMMAND, ODD_NAMES, Cli
from tests.support import commands
from tests.support.analysis_objects import made_objects
from tests.support.archive_files import tar_of, zip_of

Done = subprocess.CompletedProcess[str]
Called = commands.Done

OTHER_NAMES = ("IM0001", "1.2.840.5", "sub/IM0002")
"""Names of DICOM files that `input.namePattern` excludes by default."""
SNIFF = ("--option", "input.otherNames=sniff")


@pytest.fixture(scope="module")
def run_of_odd_files(cli: Cli, odd_folder: Path, dicom_files: Path) -> Done:
    """A run with the default options."""
    write_other_names(odd_folder, dicom_files)
    for name in ("study.zip", "more.tar.gz", "CHANGES"):
        (odd_folder / name).write_text("no DICOM")
    return cli.run("local", str(odd_folder), "--once")


@pytest.fixture(scope="module")
def run_with_options(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, dicom_files: Path
) -> Iterator[Done]:
    """A run on archives, files with any name and one of 3 GiB; it may write no file of 128 MiB.

    It opens the archives and looks into the files. On stderr is the memory of its largest process,
    in KiB.
    """
    folder, pixels = tmp_path_factory.mktemp("archives"), 3 * 2**30
    write_other_names(folder, dicom_files)
    scan = dicom(identity(), element(0x00080060, "CS", "CT"))
    members = {"1": scan, "2": scan, "cut": scan[:-3], "x": b"x"}
    (folder / "study.zip").write_bytes(zip_of(members))
    (folder / "text.tgz").write_bytes(tar_of({"a.txt": b"text"}, is_compressed=True))
    (folder / "broken.zip").write_bytes(b"PK")
    (folder / "scan.dcm").write_bytes(scan)
    (folder / "notes.txt").write_bytes(b"text")
    with (folder / "huge.dcm").open("wb") as huge:
        huge.write(dicom(identity(), element(0x7FE00010, "OW", length=pixels)))
        huge.truncate(huge.tell() + pixels)
    program = (
        "import resource, subprocess, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**27, 2**27))\n"
        "status = subprocess.run(sys.argv[1:]).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    options = ("--option", "input.archives=read", *SNIFF)
    yield subprocess.run(
        [sys.executable, "-c", program, COMMAND, "local", str(folder), "--once", *options],
        env=cli.environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    (folder / "huge.dcm").unlink()


@pytest.fixture(scope="module")
def run_with_failures(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, dicom_files: Path
) -> Called:
    """A run on dose reports, an archive that is not opened, and a file at which the function fails.

    The content decides about other names.
    """
    folder, function = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("source")
    reports = (*made_objects("reports/dose/ct."), *made_objects("reports/dose/biplane."))
    for n, report in enumerate(reports):
        (folder / f"{n}.dcm").write_bytes(report.content)
    (folder / "study.zip").write_text("no DICOM")
    shutil.copyfile(dicom_files / "CT_small.dcm", folder / "a.dcm")
    (function / "main.py").write_text(
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        f"spec = spec_from_file_location('real', {str(entry_point())!r})\n"
        "real = module_from_spec(spec)\n"
        "spec.loader.exec_module(real)\n"
        "handle, ingest = real.Handler.handle, real.ingest\n"
        "def fail(handler, delivery):\n"
        "    if b'a.dcm' in delivery.data:\n"
        "        raise RuntimeError('broken')\n"
        "    return handle(handler, delivery)\n"
        "real.Handler.handle = fail\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "entry_point", lambda: function / "main.py")
        patch.setattr(stack, "_PAUSES", (0.05,))
        return cli.call("local", str(folder), "--once", *SNIFF)


def write_other_names(folder: Path, dicom_files: Path) -> None:
    for name in OTHER_NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(dicom_files / "MR_small.dcm", folder / name)


def test_odd_names_and_broken_files_are_ingested_and_reported(
    run_of_odd_files: Done, odd_folder: Path
) -> None:
    done, live = run_of_odd_files, len(ODD_NAMES)
    first = done.stdout.strip().splitlines()[0]
    assert first.startswith(f"{live + 10} objects in ")
    assert first.endswith(f": {live} in BigQuery, 2 dead letters, 8 ignored, 1 failed")
    assert re.search(r"^ +CT +1 +1 +6 +235 KB$", done.stdout, re.MULTILINE)
    letters = {
        path: reason
        for line in done.stdout.splitlines()
        for path, reason in [(line.strip().partition("   ")[0], line)]
        if path.startswith("gs://dicom/")
    }
    assert set(letters) == {"gs://dicom/no dicom.dcm", "gs://dicom/cut #2.dcm"}
    assert "NotDicomError" in letters["gs://dicom/no dicom.dcm"]
    assert "UnreadableDicomError" in letters["gs://dicom/cut #2.dcm"]
    assert r"two\nlines.dcm" in done.stdout
    assert f"dcm2bq local '{odd_folder}'".replace("it's", "it'\"'\"'s") in done.stdout
    assert "GE MEDICAL SYSTEMS" in done.stdout
    assert done.stderr == ""
    assert done.returncode == 1  # because of the name that Cloud Storage does not accept
    assert "\x1b" not in done.stdout


def test_a_query_without_a_running_stack_ignores_the_callers_settings(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text("{}")
    config = tmp_path / "config.json"
    big_query = {"projectId": "real-project", "datasetId": "other", "instancesTableId": "my_rows"}
    config.write_text(
        json.dumps(
            {
                "bigQuery": big_query,
                "input": {"buckets": ["of-the-deployed-function"]},
                "jsonOutput": {"format": "dicom-json"},
            }
        )
    )
    sql = """
    SELECT path, CAST(version AS INT64) > 0 AS ok, StudyInstanceUID, Modality, metadata,
      (SELECT COUNT(*) FROM dead_letters) AS letters
    FROM `local.other.my_rows`
    """
    done = cli.run(
        *("local", "--json", "--query", sql),
        DCM2BQ_CONFIG_FILE=str(config),
        GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "key.json"),
        GOOGLE_CLOUD_PROJECT="real-project",
        BIGQUERY_EMULATOR_HOST="http://127.0.0.1:9",
        STORAGE_EMULATOR_HOST="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
        DEBUG="1",
    )
    note = "no dcm2bq local is running: querying a new stack with the samples\n"
    assert (done.returncode, done.stderr) == (0, note)
    rows = json.loads(done.stdout)
    paths = {row["path"] for row in rows}
    assert {"gs://dicom/names/山田.dcm", "gs://dicom/US/30% #1.dcm"} <= paths
    assert len(rows) == len(paths) >= 28
    assert len({row["Modality"] for row in rows}) >= 10
    assert len({row["StudyInstanceUID"] for row in rows}) >= 15
    assert {(row["ok"], row["letters"]) for row in rows} == {(True, 2)}
    (report,) = (row for row in rows if row["path"] == "gs://dicom/SR/report.dcm")
    assert report["metadata"]["00080060"] == {"vr": "CS", "Value": ["SR"]}


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1", ["SELECT"]),
        ("  # a\n -- b\n/* c\n */ ( with x AS (SELECT 1) SELECT * FROM x)", ["WITH"]),
        ("update t SET a = 1", ["UPDATE"]),
        ("", []),
        (" ; -- only a comment", []),
        ("/* no end", []),
        ("'text'", ["'TEXT'"]),
        ("SELECT 1; DROP TABLE t;", ["SELECT", "DROP"]),
        ("""SELECT ';', ";", `;`, r'\\';', '''a';''' /* ; */ -- ;""", ["SELECT"]),
    ],
)
def test_the_first_word_of_each_statement_is_found(sql: str, words: list[str]) -> None:
    assert first_words(sql) == words


def test_unacknowledged_events_give_exit_status_1(run_with_failures: Called) -> None:
    status, out = run_with_failures.status, run_with_failures.out
    assert status == 1
    assert "2 in BigQuery, 0 dead letters, 1 ignored, 1 failed" in out
    assert "finalized not acknowledged: HTTP 500 (2 times)" in out
    log = Path(out.partition("The function's log: ")[2].splitlines()[0])
    assert "RuntimeError" in log.read_text()
    log.unlink()


def test_a_signal_does_not_interrupt_the_stopping_of_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    @contextmanager
    def running(_: Config) -> Iterator[Any]:
        yield SimpleNamespace(apply=lambda *_: iter(()))
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(session, "running", running)
    try:
        with session.open_session(tmp_path, Config(), notes=Console(quiet=True)):
            pass
    except KeyboardInterrupt:
        pytest.fail("interrupted")
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_huge_file_is_neither_copied_nor_held_in_memory(run_with_options: Done) -> None:
    """3 GiB with a header of 1 KB: a copy would exceed the limit, and no process gets large."""
    assert run_with_options.returncode == 0, run_with_options.stderr
    assert "3.22 GB" in run_with_options.stdout
    assert int(run_with_options.stderr) < 700 * 1024  # KiB: the local BigQuery needs some 300 MiB


def test_ignored_names_that_may_be_dicom_are_listed(run_of_odd_files: Done) -> None:
    out = run_of_odd_files.stdout
    assert (
        "  2 archives: more.tar.gz, study.zip; to read them, add --option input.archives=read\n"
        in out
    )
    assert (
        "  3 of 7 files that input.namePattern excludes begin with DICM: 1.2.840.5, IM0001, "
        "sub/IM0002; to convert them, add --option input.otherNames=sniff\n" in out
    )


def test_archives_are_listed_where_content_decides_too(run_with_failures: Called) -> None:
    assert (
        "Ignored: empty objects, and content that does not begin like DICOM "
        "(option input.otherNames)\n  1 archive: study.zip; " in run_with_failures.out
    )


def test_archives_are_expanded_and_counted(run_with_options: Done) -> None:
    out = run_with_options.stdout
    first = out.strip().splitlines()[0]
    assert first.startswith("9 objects in ")
    assert first.endswith(
        ": 6 in BigQuery, 2 dead letters, 1 ignored, 2 archives with 2 rows of members"
    )
    assert "gs://dicom/study.zip, member cut" in out
    assert "to read them" not in out


def test_the_summary_has_the_doses_and_no_heading_without_findings(
    run_with_failures: Called,
) -> None:
    out = run_with_failures.out
    dose = out.partition("Radiation dose (view dose_summary)\n\n")[2].splitlines()
    names = [name for name in dose[0].strip().split("  ") if name]
    assert dict(zip(map(str.strip, names), dose[2].split(), strict=True)) == {
        "Studies": "2",
        "CT events": "3",
        "Greatest DLP of a study (mGy.cm)": "1155.0",
        "X-ray events": "4",
        "Greatest DAP of a study (Gy.m2)": "0.000128",
    }
    assert "Worth checking" not in out


def test_missing_packages_are_reported_with_the_command_that_installs_them() -> None:
    program = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Missing(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.partition('.')[0] in ('rich', 'duckdb', 'local_bigquery'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from dcm2bq.cli import main\n"
        "sys.exit(main(['local', '--once']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "duckdb, local_bigquery, rich" in done.stderr
    assert f"{sys.executable} -m pip install" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--option", "input.namePattern"], "expected NAME=VALUE"),
        (["--option", "input.pattern=x"], "input.pattern: no such option"),
        (["--json"], "--json needs --query"),
        (["--query", ""], "--query: the query is empty; give a SELECT statement"),
        (["--query", " -- nothing\n/* more */;"], "--query: the query is empty"),
        (["--query", "-- all\ndelete FROM t WHERE TRUE"], "--query: DELETE is not a query"),
        (["--query", "SELECT 1; SELECT 2"], "--query: 2 statements; give one SELECT statement"),
        (["/no/such/folder"], "does not exist"),
        ([__file__], "is a file"),
    ],
)
def test_wrong_usage_is_explained(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["local", *args]) == 2
    assert message in capsys.readouterr().err
