"""`dcm2bq export`: the function's rows as Parquet files, resumed and brought up to date."""

import datetime as dt
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import cli, extras
from dcm2bq.config import Config, Privacy
from dcm2bq.dicom import privacy_rules
from dcm2bq.local.samples import write_samples
from dcm2bq.row_names import row_names
from dcm2bq.tools.export import collected_rows, part_files
from dcm2bq.tools.export.export import Export
from dcm2bq.tools.export.ledger import Ledger
from dcm2bq.tools.export.local_files import local_object
from tests.dicom.build import dicom, element, identity
from tests.support.archive_files import tar_of, zip_of
from tests.support.cloud import SENTINEL, Bucket
from tests.support.commands import Done
from tests.support.function_stack import Stack, unique
from tests.tools.conftest import Command

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Rows = list[dict[str, Any]]


def scan(patient: str, day: str = "20190203") -> bytes:
    return dicom(
        identity(),
        element(0x00080020, "DA", day),
        element(0x00080060, "CS", "CT"),
        element(0x00100020, "LO", patient),
    )


def read(out: Path, table: str = "instances") -> Rows:
    """Return the rows of a table by path and member, without the column of the partitions."""
    files = sorted((out / table).rglob("*.parquet"))
    rows = [row for file in files for row in parquet.ParquetFile(file).read().to_pylist()]
    return sorted(rows, key=lambda row: (row["path"], row["member"] or ""))


def patients(out: Path) -> dict[str, str]:
    """Return the patient of each exported file by the name of the file."""
    rows = read(out)
    found = {Path(row["path"]).name: row["PatientID"] for row in rows}
    assert len(found) == len(rows)
    return found


class Exporter:
    """Runs `dcm2bq export` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: object) -> Done:
        self._capsys.readouterr()
        status = cli.main(["export", *map(str, args)])
        return Done(status, *self._capsys.readouterr())

    def summary(self, *args: object) -> dict[str, Any]:
        done = self(*args, "--json")
        summary: dict[str, Any] = json.loads(done.out)
        assert done.status == (1 if summary["rows"]["dead_letters"] else 0), done.err
        return summary


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Exporter:
    return Exporter(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of three years, one without a date, and one to ignore."""
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(scan("A"))
    (folder / "sub" / "b.dcm").write_bytes(scan("B", "20200203"))
    (folder / "sub" / "c.dcm").write_bytes(scan("C"))
    (folder / "none.dcm").write_bytes(scan("N", ""))
    (folder / "notes.txt").write_text("text")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def normal(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the metadata parsed, and without what differs from run to run."""
    info = {**row["info"], "event_id": None}
    metadata = row["metadata"]
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    clock = row["StudyTime"]
    clock = clock.isoformat() if isinstance(clock, dt.time) else clock
    return {
        **row,
        "ingested_at": None,
        "info": info,
        "metadata": metadata,
        "StudyTime": clock,
    }


def as_file(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what a file lacks: the bucket, its generation and its check sums."""
    of_objects = dict.fromkeys(("type", "storage_class", "content_type", "md5_hash", "crc32c"))
    info = {**row["info"], "input": {**row["info"]["input"], **of_objects}}
    return {**row, "info": info, "timestamp": None, "version": None}


def test_the_rows_are_those_of_the_function(stack: Stack, command: Command, tmp_path: Path) -> None:
    """Those of objects in every column but the time and the event; those of files as `as_file`."""
    samples = tmp_path / "samples"
    samples.mkdir()
    write_samples(samples)
    prefix = unique("samples-")
    for file in sorted(samples.rglob("*")):
        if file.is_file():
            name = f"{prefix}/{file.relative_to(samples)}"
            event = stack.bucket.upload(name, file.read_bytes())
            # The local Cloud Storage takes some microseconds between the two.
            event = replace(event, time=event.data["timeCreated"])
            event.post(stack.url).raise_for_status()
    root = f"gs://{stack.bucket.name}/{prefix}"
    expected = stack.dataset.query(
        "SELECT * FROM instances WHERE STARTS_WITH(path, @root) ORDER BY path", {"root": root}
    )
    assert len(expected) == 30
    done = command("export", f"{root}/", "--parquet", str(tmp_path / "objects"))
    assert done.status == 1, done.err
    assert "33 objects: 30 exported, 2 not converted, 1 ignored (name 1)\n" in done.out
    assert re.search(
        r"^3[3-9] requests to Cloud Storage, and .* read in all$", done.out, re.MULTILINE
    )
    objects = read(tmp_path / "objects")
    names = [field["name"] for field in stack.dataset.read("SELECT * FROM instances LIMIT 0")[0]]
    assert list(objects[0]) == names
    assert [normal(row) for row in objects] == [normal(row) for row in expected]
    assert cli.main(["export", str(samples), "--parquet", str(tmp_path / "files")]) == 1
    files = [
        {**row, "path": row["path"].replace(str(samples), root)} for row in read(tmp_path / "files")
    ]
    assert [as_file(normal(row)) for row in files] == [as_file(normal(row)) for row in expected]
    letters = {
        row["path"].rpartition("/")[2]: (row["reason"], row["message"])
        for row in read(tmp_path / "objects", "dead_letters")
    }
    shown = stack.dataset.query(
        "SELECT * FROM dead_letters WHERE STARTS_WITH(path, @root)", {"root": root}
    )
    assert letters == {
        row["path"].rpartition("/")[2]: (row["reason"], row["message"]) for row in shown
    }
    assert list(read(tmp_path / "files", "dead_letters")[0]) == list(shown[0])


def test_duckdb_takes_the_folders_for_a_column(folder: Path, out: Path, export: Exporter) -> None:
    duckdb = pytest.importorskip("duckdb")
    done = export(folder, "--parquet", out)
    assert done.status == 0
    assert sorted(path.name for path in (out / "instances").iterdir()) == [
        *("study_year=0", "study_year=2019", "study_year=2020"),
    ]
    files = f"read_parquet('{out}/instances/**/*.parquet', hive_partitioning = true)"
    rows = duckdb.sql(f"SELECT study_year, PatientID FROM {files} ORDER BY ALL").fetchall()
    assert rows == [(0, "N"), (2019, "A"), (2019, "C"), (2020, "B")]
    (sql,) = re.findall(r'  duckdb -c "(.*)"', done.out)
    assert duckdb.sql(sql).fetchall() == [("CT", 4)]
    kinds = {name: str(kind) for name, kind, *_ in duckdb.sql(f"DESCRIBE FROM {files}").fetchall()}
    assert {name: kinds[name] for name in ("timestamp", "StudyDate", "StudyTime", "metadata")} == {
        "timestamp": "TIMESTAMP WITH TIME ZONE",
        "StudyDate": "DATE",
        "StudyTime": "VARCHAR",
        "metadata": "VARCHAR",
    }


def test_the_query_that_is_printed_works_for_any_name_of_the_folder(
    folder: Path, tmp_path: Path, export: Exporter
) -> None:
    duckdb = pytest.importorskip("duckdb")
    done = export(folder, "--parquet", tmp_path / "it's [1]*")
    (sql,) = re.findall(r'  duckdb -c "(.*)"', done.out)
    assert duckdb.sql(sql).fetchall() == [("CT", 4)]


def test_a_second_run_brings_the_export_up_to_date(
    folder: Path, out: Path, export: Exporter
) -> None:
    assert export.summary(folder, "--parquet", out)["results"] == {"inserted": 4}
    (folder / "a.dcm").write_bytes(scan("changed"))
    (folder / "sub" / "b.dcm").unlink()
    (folder / "new.dcm").write_bytes(scan("NEW"))
    summary = export.summary(folder, "--parquet", out)
    counts = {name: summary[name] for name in ("listed", "unchanged", "gone", "results")}
    assert counts == {"listed": 5, "unchanged": 2, "gone": 1, "results": {"inserted": 2}}
    assert patients(out) == {"a.dcm": "changed", "c.dcm": "C", "none.dcm": "N", "new.dcm": "NEW"}
    assert not (out / "instances" / "study_year=2020").exists()
    assert export.summary(folder, "--parquet", out)["unchanged"] == 4
    assert sorted(path.name for path in (out / "_export").iterdir()) == ["ledger.sqlite"]


_KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from dcm2bq import cli
from dcm2bq.tools.export import destination, export
import pyarrow.compute, pyarrow.parquet

destination._COMMIT_OBJECTS = 2
scans, before, out = map(Path, sys.argv[1:4])
expected = json.loads(sys.argv[4])

def die_at(step):
    def hook(event, args):
        nonlocal step
        if event in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
            step -= str(out) in str(args[0])
            if not step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run(step=0):
    pid = os.fork()
    if not pid:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        if step:
            die_at(step)
        os._exit(cli.main(["export", str(scans), "--parquet", str(out)]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def rows():
    files = out.glob("instances/**/*.parquet")
    parts = [pyarrow.parquet.ParquetFile(file).read().to_pylist() for file in files]
    return sorted([Path(row["path"]).name, row["PatientID"]] for part in parts for row in part)

for step in range(1, 100):
    shutil.rmtree(out, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, out)
    if run(step) != -signal.SIGKILL:
        break
    rows()  # none is half a file
    assert run() == 0, step
    assert rows() == expected, (step, rows())
print(step)
"""
"""Kills an export at each change of its folder in turn, and lets another run finish it."""


def test_a_run_that_is_killed_at_any_step_loses_nothing_and_repeats_nothing(
    folder: Path, out: Path, export: Exporter, tmp_path: Path
) -> None:
    def kill(**expected: str) -> int:
        rows = json.dumps(sorted([f"{name}.dcm", patient] for name, patient in expected.items()))
        args = [
            sys.executable,
            "-c",
            _KILLED,
            str(folder),
            str(out),
            str(tmp_path / "killed"),
            rows,
        ]
        done = subprocess.run(args, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    export(folder, "--parquet", out)
    (folder / "a.dcm").write_bytes(scan("changed"))
    (folder / "sub" / "b.dcm").unlink()
    (folder / "new.dcm").write_bytes(scan("NEW"))
    assert kill(a="changed", c="C", none="N", new="NEW") > 10


def test_an_interrupted_run_keeps_what_it_has_exported(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Export._count

    def interrupt(self: Export, attempt: Any) -> None:
        if self.counts.results.total() == 2:
            raise KeyboardInterrupt
        count(self, attempt)

    monkeypatch.setattr(Export, "_count", interrupt)
    done = export(folder, "--parquet", out)
    assert done.status == 130
    assert "interrupted; run the same command again to resume it" in done.err
    monkeypatch.undo()
    assert export.summary(folder, "--parquet", out)["unchanged"] == 2
    assert len(patients(out)) == 4


def test_an_interrupt_while_rows_are_stored_keeps_them(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Ledger.record
    stored: list[str] = []

    def interrupt(self: Ledger, path: str, *args: Any) -> None:
        stored.append(path)
        if len(stored) == 2:
            signal.raise_signal(signal.SIGINT)
        record(self, path, *args)

    monkeypatch.setattr(Ledger, "record", interrupt)
    assert export(folder, "--parquet", out).status == 130
    monkeypatch.undo()
    assert export.summary(folder, "--parquet", out)["unchanged"] == 2
    assert len(patients(out)) == 4


def test_sources_may_overlap_and_have_any_order(folder: Path, out: Path, export: Exporter) -> None:
    sources = (folder, folder / "sub", folder / "a.dcm")
    assert export.summary(*sources, "--parquet", out)["results"] == {"inserted": 4}
    assert export.summary(*reversed(sources), "--parquet", out)["unchanged"] == 4


def test_a_limit_leaves_the_rest_to_the_next_run(folder: Path, out: Path, export: Exporter) -> None:
    done = export(folder, "--parquet", out, "--limit", 3)
    assert (done.status, len(read(out))) == (1, 3)
    assert "--limit ended the export" in done.err
    assert export(folder, "--parquet", out, "--limit", 3).status == 0
    assert len(patients(out)) == 4


def test_a_limit_is_not_used_up_by_what_cannot_be_converted(
    tmp_path: Path, out: Path, export: Exporter
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.dcm").write_bytes(scan(f"P{n}"))
        (folder / f"{n}-cut.dcm").write_bytes(scan("CUT")[:-5])
    for _ in range(4):
        export(folder, "--parquet", out, "--limit", 2)
    assert len(read(out)) == len(read(out, "dead_letters")) == 4


def test_an_export_with_other_options_or_sources_is_refused(
    folder: Path, out: Path, export: Exporter
) -> None:
    export(folder, "--parquet", out)
    private = ["--option", "jsonOutput.ignorePrivate=true"]
    for args, name in (([folder, *private], "jsonOutput"), ([folder / "sub"], "source")):
        done = export(*args, "--parquet", out)
        assert done.status == 2
        assert f"{out}: holds an export that differs in {name}: use the same" in done.err
    assert len(patients(out)) == 4
    assert export(folder, "--parquet", out, "--option", "bigQuery.timeoutSeconds=5").status == 0


def test_what_a_limit_has_refused_is_tried_again(folder: Path, out: Path, export: Exporter) -> None:
    few = ["--option", "limits.elements=2"]
    assert export.summary(folder, "--parquet", out, *few)["rows"]["dead_letters"] == 4
    assert export.summary(folder, "--parquet", out)["results"] == {"inserted": 4}
    assert (len(patients(out)), (out / "dead_letters").exists()) == (4, False)


def test_wrong_folders_and_sources_are_refused(
    folder: Path, tmp_path: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.rglob("*"))
    for occupied in (folder, folder / "a.dcm"):
        done = export(folder, "--parquet", occupied)
        assert done.status == 2
        assert "holds something else" in done.err or "is not a folder" in done.err
    assert sorted(folder.rglob("*")) == before
    os.mkfifo("pipe.dcm")
    for source, other in (
        ("absent", "new"),
        ("", "new"),
        ("pipe.dcm", "new"),
        (folder, "gs://bucket/new"),
        (folder, ""),
    ):
        assert export(source, "--parquet", other).status == 2
    assert not Path("new").exists()
    assert not Path("gs:").exists()


def test_a_source_that_was_mistyped_does_not_bind_the_folder(
    folder: Path, out: Path, tmp_path: Path, export: Exporter
) -> None:
    (tmp_path / "empty").mkdir()
    done = export(tmp_path / "empty", "--parquet", out)
    assert done.status == 1
    assert "empty: there is nothing here" in done.err
    assert export(folder, "--parquet", out).status == 0


def test_two_processes_do_not_export_into_one_folder(
    folder: Path, out: Path, export: Exporter
) -> None:
    first = Export(Config(), [str(folder)], out)
    try:
        done = export(folder, "--parquet", out)
    finally:
        first.close()
    assert done.status == 2
    assert "another export writes to this folder" in done.err


def test_a_source_without_files_removes_no_rows(folder: Path, out: Path, export: Exporter) -> None:
    """A disk that is not mounted is an empty folder."""
    export(folder, "--parquet", out)
    shutil.rmtree(folder)
    folder.mkdir()
    assert export(folder, "--parquet", out).status == 1
    assert len(read(out)) == 4


def test_a_folder_that_cannot_be_listed_removes_no_rows(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(folder, "--parquet", out)
    listing = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = export(folder, "--parquet", out)
    monkeypatch.undo()
    assert done.status == 1
    assert f"{folder}/sub: Permission denied" in done.err
    assert len(patients(out)) == 4


def test_a_link_that_leads_nowhere_hides_no_other_file(
    folder: Path, out: Path, export: Exporter
) -> None:
    """Whatever the reason; this one is the only one that a superuser meets as well."""
    for n in range(20):
        (folder / f"{n}.dcm").symlink_to("n" * 300)
    summary = export.summary(folder, "--parquet", out)
    assert summary["results"] == {"inserted": 4, "dead_lettered": 20}


def test_a_file_that_changes_or_goes_while_it_is_exported_has_no_row_yet(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Export._attempt

    def disturb(self: Export, task: Any, **options: bool) -> Any:
        if task.path.endswith("a.dcm"):
            (folder / "a.dcm").write_bytes(scan("longer"))
        if task.path.endswith("c.dcm"):
            (folder / "sub" / "c.dcm").unlink()
        return attempt(self, task, **options)

    monkeypatch.setattr(Export, "_attempt", disturb)
    done = export(folder, "--parquet", out)
    monkeypatch.undo()
    assert (done.status, sorted(patients(out))) == (1, ["b.dcm", "none.dcm"])
    assert "changed or deleted before it was read: 2 objects; run the same" in done.err
    assert export.summary(folder, "--parquet", out)["results"] == {"inserted": 1}
    assert sorted(patients(out)) == ["a.dcm", "b.dcm", "none.dcm"]


def test_names_that_were_ignored_are_sampled(folder: Path, out: Path, export: Exporter) -> None:
    (folder / "IM0001").write_bytes(scan("I"))
    done = export(folder, "--parquet", out)
    assert "1 of 2 objects that input.namePattern excludes begins with DICM" in done.err
    assert "to export such files, add --option input.otherNames=sniff" in done.err
    sniffed = ["--option", "input.otherNames=sniff"]
    summary = export.summary(folder, "--parquet", out.with_name("sniffed"), *sniffed)
    assert (summary["results"], summary["ignored"]) == (
        {"inserted": 5, "ignored": 1},
        {"content": 1},
    )


def test_a_file_that_is_named_beside_its_folder_is_read(
    folder: Path, out: Path, export: Exporter
) -> None:
    sniffed = ["--option", "input.otherNames=sniff"]
    done = export(folder, folder / "notes.txt", "--parquet", out, *sniffed)
    (letter,) = read(out, "dead_letters")
    assert (done.status, letter["reason"]) == (1, "NotDicomError")


def test_a_lost_part_file_is_reported(folder: Path, out: Path, export: Exporter) -> None:
    export(folder, "--parquet", out)
    next((out / "instances").rglob("*.parquet")).unlink()
    done = export(folder, "--parquet", out)
    assert done.status == 2
    assert "is missing, so its rows are lost" in done.err


def test_an_export_whose_ledger_is_empty_is_not_taken_for_a_new_one(
    folder: Path, out: Path, export: Exporter
) -> None:
    export(folder, "--parquet", out)
    (out / "_export" / "ledger.sqlite").write_bytes(b"")
    done = export(folder, "--parquet", out)
    assert done.status == 2
    assert "use another folder" in done.err
    assert len(patients(out)) == 4


def test_an_export_inside_its_source_is_not_a_source(folder: Path, export: Exporter) -> None:
    """Not even if every name is read."""
    out = folder / "sub" / "out"
    every = ["--option", "input.namePattern=."]
    first = export.summary(folder, "--parquet", out, *every)
    assert first["listed"] == 5
    assert export.summary(folder, "--parquet", out, *every)["listed"] == 5


def test_names_of_any_kind_are_paths(tmp_path: Path, out: Path, export: Exporter) -> None:
    folder = tmp_path / 'it\'s "odd"'
    names = [
        b"plain.dcm",
        "山田 é #1 %41.dcm".encode(),
        b"two\nlines.dcm",
        b"\xff.dcm",
        b"\xfe.dcm",
    ]
    looks_escaped = rb"\xff.dcm"
    folder.mkdir()
    for name in [*names, looks_escaped]:
        (folder / os.fsdecode(name)).write_bytes(scan("P"))
    (folder / "link.dcm").symlink_to("plain.dcm")
    (folder / "loop").symlink_to(".")
    done = export(folder, "--parquet", out)
    assert done.status == 0, done.err
    expected = {f"{folder}/{name.decode(errors='backslashreplace')}" for name in names}
    expected |= {f"{folder}/link.dcm", rf"{folder}/\x5cxff.dcm"}
    assert {row["path"] for row in read(out)} == expected
    assert export.summary(folder, "--parquet", out)["unchanged"] == 7
    folder.rename(raw := tmp_path / os.fsdecode(b"\xff"))
    assert export.summary(raw, "--parquet", out.with_name("raw"))["results"] == {"inserted": 7}


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (1_700_000_095_061_727_999, "2023-11-14T22:14:55.061727+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (2**62, "2116-02-20T23:53:38.427387+00:00"),
        (10**21, "9999-12-31T23:59:59.999999+00:00"),
        (-(10**21), "0001-01-01T00:00:00+00:00"),
    ],
)
def test_the_time_of_a_file_is_exact_and_one_that_a_timestamp_can_have(
    nanoseconds: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.stat_result([0] * 10, {"st_mtime_ns": nanoseconds})
    monkeypatch.setattr(Path, "stat", lambda _: status)
    stored = local_object(Path("/scans"), Path("/scans/a.dcm"))
    assert stored.created is not None
    assert (stored.generation, stored.created.isoformat()) == (nanoseconds // 1000, expected)


def test_a_file_is_read_again_until_it_can_be(tmp_path: Path, out: Path, export: Exporter) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "link.dcm").symlink_to(tmp_path / "later.dcm")
    done = export(folder, "--parquet", out)
    assert done.status == 1
    (letter,) = read(out, "dead_letters")
    assert (letter["reason"], letter["message"]) == (
        "ReadFailedError",
        "the file cannot be read: No such file or directory",
    )
    (tmp_path / "later.dcm").write_bytes(scan("LATER"))
    assert export(folder, "--parquet", out).status == 0
    assert patients(out) == {"link.dcm": "LATER"}
    assert read(out, "dead_letters") == []


def test_members_of_archives_are_rows(
    tmp_path: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if so many that they wait in a temporary file."""
    monkeypatch.setattr(collected_rows, "_MEMORY_BYTES", 1000)
    folder = tmp_path / "scans"
    folder.mkdir()
    broken = scan(SENTINEL)[:-5]
    members = {f"{n}": scan(f"P{n}", f"20{n:02}0101") for n in range(10)}
    (folder / "study.zip").write_bytes(zip_of({**members, "cut": broken, "text": b"text"}))
    (folder / "more.tgz").write_bytes(tar_of({"one": scan("ONE")}, is_compressed=True))
    (folder / "bad.zip").write_bytes(b"PK")
    archives = ["--option", "input.archives=read"]
    summary = export.summary(folder, "--parquet", out, *archives)
    assert summary["results"] == {"expanded": 2, "dead_lettered": 1}
    rows = {(Path(row["path"]).name, row["member"]): row["PatientID"] for row in read(out)}
    assert rows == {
        **{("study.zip", name): f"P{name}" for name in members},
        ("more.tgz", "one"): "ONE",
    }
    letters = read(out, "dead_letters")
    assert [(Path(row["path"]).name, row["member"]) for row in letters] == [
        ("bad.zip", None),
        ("study.zip", "cut"),
    ]
    assert SENTINEL not in str(letters)
    (folder / "study.zip").write_bytes(zip_of({"0": scan("P0")}))
    export.summary(folder, "--parquet", out, *archives)
    assert {row["PatientID"] for row in read(out)} == {"P0", "ONE"}
    assert export(folder / "study.zip", "--parquet", tmp_path / "named").status == 0
    assert len(read(tmp_path / "named")) == 1


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key that is long enough")
    return monkeypatch


def test_hashed_names_and_profiles_leave_nothing_of_a_name_in_the_folder(
    tmp_path: Path, out: Path, export: Exporter, key: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / SENTINEL
    folder.mkdir()
    (folder / f"{SENTINEL}.dcm").write_bytes(scan(SENTINEL))
    (folder / f"{SENTINEL}-cut.dcm").write_bytes(scan(SENTINEL)[:-5])
    (folder / f"{SENTINEL}.zip").write_bytes(zip_of({f"{SENTINEL}-1": scan(SENTINEL)}))
    options = [
        *("--option", "privacy.path=hash", "--option", "privacy.profile=basic"),
        *("--option", "input.archives=read", "--option", "jsonOutput.explicitBulkDataRoot=true"),
    ]
    assert export.summary(folder, "--parquet", out, *options)["rows"]["dead_letters"] == 1
    assert export.summary(folder, "--parquet", out, *options)["unchanged"] == 2
    rows = read(out)
    everything = [*rows, *read(out, "dead_letters")]
    assert all(re.fullmatch(r"hmac-sha256-[0-9a-f]{64}", row["path"]) for row in everything)
    assert [re.match("hmac-sha256-", row["member"] or "") is not None for row in rows].count(True)
    assert "SENTINEL" not in str(everything)
    assert not [
        path for path in out.rglob("*") if path.is_file() and b"SENTINEL" in path.read_bytes()
    ]
    privacy_rules.cache_clear()
    key.setenv("DCM2BQ_HASH_KEY", "another key that is long enough")
    assert "differs in key, source" in export(folder, "--parquet", out, *options).err
    key.delenv("DCM2BQ_HASH_KEY")
    privacy_rules.cache_clear()
    assert export(folder, "--parquet", out, *options).status == 2


def test_nothing_of_a_deleted_file_is_left_in_the_folder(
    folder: Path, out: Path, export: Exporter
) -> None:
    """Neither its name in the ledger, where a deleted row could stay on the disk."""
    for n in range(50):
        (folder / f"{SENTINEL}-{n}.dcm").write_bytes(scan(SENTINEL))
    export(folder, "--parquet", out)
    content = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert any(SENTINEL.encode() in part for part in content)
    for path in folder.glob(f"{SENTINEL}-*"):
        path.unlink()
    assert export.summary(folder, "--parquet", out)["gone"] == 50
    content = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert not any(SENTINEL.encode() in part for part in content)


def test_no_value_is_in_a_message(tmp_path: Path, out: Path, export: Exporter) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    whole = scan(SENTINEL)
    for n in range(0, len(whole), 7):
        (folder / f"{n}.dcm").write_bytes(whole[:n])
    (folder / "text.dcm").write_text(SENTINEL)
    done = export(folder, "--parquet", out)
    letters = read(out, "dead_letters")
    assert len(letters) > 20
    assert SENTINEL not in str(letters) + done.out + done.err


def test_objects_of_a_bucket_are_exported_and_followed(
    command: Command, storage_url: str, tmp_path: Path, key: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(storage_url, unique("export-"))
    names = ("2019/a b#1?.dcm", "2019/山田.dcm", "2019/sub/c.dcm", "2020/other.dcm")
    for name in names:
        bucket.upload(name, scan("OLD") + element(0x7FE00010, "OW", bytes(300_000)))
    bucket.upload("2019/notes.txt", b"text")
    out = tmp_path / "out"
    args = ("export", f"gs://{bucket.name}/2019/", "--parquet", str(out), "--json")
    done = command(*args)
    summary = json.loads(done.out)
    assert (done.status, summary["results"]) == (0, {"inserted": 3})
    assert summary["requests"] == 1 + 3 + 1  # a page of the listing, headers, an ignored name
    assert summary["bytes_read"] < 3 * 70_000
    assert {row["path"] for row in read(out)} == {
        f"gs://{bucket.name}/{name}" for name in names[:3]
    }
    bucket.upload(names[0], scan("NEW"))
    bucket.delete(names[1])
    summary = json.loads(command(*args).out)
    assert (summary["results"], summary["unchanged"], summary["gone"]) == ({"inserted": 1}, 1, 1)
    assert patients(out) == {"a b#1?.dcm": "NEW", "c.dcm": "OLD"}
    key.setenv("DCM2BQ_CONFIG", '{"privacy": {"path": "hash"}}')
    hashed = command("export", *args[1:3], str(tmp_path / "hashed"))
    assert hashed.status == 0, hashed.err
    names_of_rows = row_names(Privacy(path="hash"))
    paths = {names_of_rows.path(f"gs://{bucket.name}/{name}") for name in (names[0], names[2])}
    assert {row["path"] for row in read(tmp_path / "hashed")} == paths


def test_an_outage_ends_the_run_and_the_next_one_resumes(
    command: Command, storage_url: str, tmp_path: Path
) -> None:
    bucket = Bucket(storage_url, unique("export-"))
    out = tmp_path / "out"
    absent = command("export", "gs://no-such-bucket-here", "--parquet", str(out))
    assert absent.status == 3
    assert "there is no such bucket" in absent.err
    bucket.upload("a.dcm", scan("A"))
    args = ("export", f"gs://{bucket.name}", "--parquet", str(out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
        patch.setattr("dcm2bq.gcs.store._LIST_SECONDS", 0.1)
        done = command(*args)
    assert done.status == 3
    assert "the export did not finish; run the same command again to resume it" in done.err
    assert command(*args).status == 0
    assert patients(out) == {"a.dcm": "A"}


def test_a_full_disk_is_named_and_leaves_no_temporary_file(
    folder: Path, out: Path, export: Exporter
) -> None:
    for n in range(300):
        noise = os.urandom(200).hex()
        (folder / f"{n}.dcm").write_bytes(dicom(identity(), element(0x00104000, "LT", noise)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        done = export(folder, "--parquet", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.status == 1
    assert re.search(r"dcm2bq: .*/out/_export/\S+: (File too large|No space left)", done.err)
    assert not list(out.rglob("*.parquet"))
    assert export(folder, "--parquet", out).status == 0
    assert len(read(out)) == 304


def test_a_full_disk_for_temporary_files_ends_the_run(
    tmp_path: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No archive is to blame for it."""
    (tmp_path / "study.zip").write_bytes(zip_of({"one": scan("ONE"), "two": scan("TWO")}))
    monkeypatch.setattr(collected_rows, "_MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    done = export(tmp_path / "study.zip", "--parquet", out)
    monkeypatch.undo()
    assert done.status == 1
    assert f"{tmp_path}/absent" in done.err
    assert "the export did not finish; run the same command again to resume it" in done.err
    assert export.summary(tmp_path / "study.zip", "--parquet", out)["results"] == {"expanded": 1}


def test_a_ledger_that_cannot_be_written_leaves_no_temporary_file(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Ledger) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "ledger")

    monkeypatch.setattr(Ledger, "commit", refuse)
    done = export(folder, "--parquet", out)
    monkeypatch.undo()
    assert (done.status, list(out.rglob("*.parquet"))) == (1, [])
    assert export(folder, "--parquet", out).status == 0
    assert len(read(out)) == 4


def test_without_arrow_the_extra_is_named(
    folder: Path, out: Path, export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = extras.Extra("tables", ("no_such_package",), command="export")
    monkeypatch.setattr(extras, "EXPORT", missing)
    done = export(folder, "--parquet", out)
    assert done.status == 2
    assert "export needs packages that are not installed (no_such_package)" in done.err
    assert not out.exists()


def test_memory_does_not_grow_with_the_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the files become tiny if there are more years than files may be open."""
    monkeypatch.setattr(part_files, "BUFFERED_BYTES", 1_000_000)
    monkeypatch.setattr(part_files, "OPEN_FILES", 4)
    files = part_files.PartFiles(tmp_path, {"t": [{"name": "text", "type": "STRING"}]}, 1)
    peaks = []
    for rows in (2_000, 20_000):
        tracemalloc.start()
        for n in range(rows):
            files.add("t", f"t/{n % 6}", {"text": f"{n:1000}"}, 1_500)
        parts = files.finish()
        files.release()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(part.rows for part in parts) == rows
        assert len(parts) < 10 * rows / 600
    assert peaks[1] < 1.5 * peaks[0] < 3_000_000


PAGE = Path(__file__).parents[2] / "docs" / "EXPORT.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n(?:```text\n(.*?)```)?", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def exported_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Exporter) -> str:
    """What exporting the sample files into the folder `headers` has printed."""
    (tmp_path / "samples").mkdir()
    write_samples(tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return export("samples", "--parquet", "headers").out


def test_the_page_shows_what_the_command_prints(exported_samples: str) -> None:
    shown = PAGE.read_text().partition("<!-- output of export -->\n\n")[2].partition("\n<!--")[0]
    lines = [line.removeprefix("    ") for line in shown.splitlines()]
    # The size depends on the version of Arrow, and on the length of the folder's name.
    assert [re.sub(r"\d+ KB", "KB", line) for line in lines] == [
        re.sub(r"\d+ KB", "KB", line) for line in exported_samples.splitlines()
    ]


@pytest.mark.usefixtures("exported_samples")
@pytest.mark.parametrize("library", ["duckdb", "pandas"])
def test_the_programs_on_the_page_print_what_it_shows(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    names: dict[str, Any] = {}
    programs = [(text, printed) for text, printed in PROGRAMS if library in text]
    assert len(programs) == 3
    for program, printed in programs:
        exec(program, names)
        assert [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()] == [
            line.rstrip() for line in printed.rstrip().splitlines()
        ]


def test_each_question_is_answered_with_spark_as_well() -> None:
    assert sum("spark.sql" in program for program, _ in PROGRAMS) == 3
