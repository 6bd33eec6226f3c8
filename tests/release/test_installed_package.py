"""The wheel runs in an environment that has nothing else, and from a folder of its own.

uv installs it with the packages of the lock file, as links into its cache. Where it has neither
them nor an index, these tests are skipped, except with `CI=true`, when they fail.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import parquet
from pydicom.data import get_testdata_file

from dcm2bq.dicom import convert
from dcm2bq.local.user_cache import user_cache
from dcm2bq.version import VERSION
from tests.support.processes import guarded

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
LOCK = ROOT / "requirements-dev.txt"
CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))
INDEX_IS_OUT_OF_REACH = re.compile("network was disabled|Failed to fetch|error sending request")
needs_local_bigquery = pytest.mark.skipif(
    sys.version_info[:2] != (3, 13), reason="the local BigQuery runs on Python 3.13 only"
)


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder that holds nothing but `scans/ct.dcm`."""

    environment: Path
    folder: Path

    def run(self, *arguments: str, program: str = "dcm2bq") -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the folder, with no variable of the caller's."""
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command as `run` does."""
        return subprocess.Popen(
            guarded([self.environment / "bin" / "dcm2bq", *arguments]),
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def _environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder.with_name("cache")),
            "XDG_RUNTIME_DIR": str(self.folder),
        }


def install(wheel: Path, extra: str, folder: Path) -> Installed:
    """Install the wheel with an extra, and what the lock file has for them."""
    environment, requirements = folder / "environment", folder / "requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements.write_text(f"dcm2bq{extra} @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    create = ("venv", "--quiet", "--no-config", "--python", sys.executable, str(environment))
    subprocess.run([UV, *create], check=True)
    python = environment / "bin" / "python"
    command = [str(UV), "pip", "install", "--quiet", "--no-config", "--python", str(python)]
    command += ["--no-build", "--require-hashes"]
    command += ["--constraint", str(LOCK), "--requirement", str(requirements)]
    if refusal := _refusal([*command, "--offline"]) and _refusal(command):
        if os.environ.get("CI") == "true" or not INDEX_IS_OUT_OF_REACH.search(refusal):
            pytest.fail(refusal)
        pytest.skip(f"uv has neither the packages nor an index: {refusal}")
    scans = folder / "work" / "scans"
    scans.mkdir(parents=True)
    shutil.copyfile(CT_SMALL, scans / "ct.dcm")
    return Installed(environment, scans.parent)


def _refusal(command: Sequence[str]) -> str:
    """Run a command; return what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package without extras."""
    return install(wheel, "", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package with every extra but `backfill`, which does not fit beside `local`."""
    folder = tmp_path_factory.mktemp("full")
    kept = user_cache() / "local"  # the database with the views, which takes 10 s to make
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "cache" / "dcm2bq").mkdir(parents=True)
    (folder / "cache" / "dcm2bq" / "local").symlink_to(kept)
    return install(wheel, "[local,report,tables]", folder)


def test_it_has_the_version_of_the_checkout(base: Installed) -> None:
    assert base.run("--version").stdout == f"dcm2bq {VERSION}\n"


def test_it_dumps_a_file(base: Installed) -> None:
    done = base.run("dump", "scans/ct.dcm")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == convert(CT_SMALL).metadata


def test_every_command_has_its_help_without_an_extra(base: Installed) -> None:
    program = (
        "from dcm2bq import cli\n"
        "print([cli.main([name, '--help']) for name in cli.commands.commands])"
    )
    done = base.run("-c", program, program="python")
    assert done.stderr == ""
    assert set(done.stdout.splitlines()[-1]) == set("[0, ]")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("backfill", "backfill gs://bucket --staging gs://staging/b"),
        ("local", "local scans --once"),
        ("report", "report"),
        ("tables", "dump scans --columns Modality"),
        ("tables", "dump scans --columns Modality --parquet -o dump.parquet"),
        ("tables", "export scans --parquet rows"),
    ],
)
def test_a_command_that_needs_an_extra_says_how_to_install_it(
    extra: str, command: str, base: Installed, wheel: Path
) -> None:
    done = base.run(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    if extra == "local" and sys.version_info[:2] != (3, 13):
        assert done.stderr.startswith("dcm2bq: local needs Python 3.13, and this is 3.1")
        return
    reason, remedy = done.stderr.splitlines()
    name = command.partition(" ")[0]
    missing = (
        rf"dcm2bq: {name} needs packages that are not installed \([\w, ]+\); install them with:"
    )
    assert re.fullmatch(missing, reason)
    assert remedy.endswith(f" 'dcm2bq[{extra}] @ {wheel.as_uri()}'")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("dump scans --columns PatientID,Modality --parquet -o dump.parquet", "dump.parquet"),
        ("export scans --parquet rows", "rows/instances"),
    ],
)
def test_it_writes_parquet(command: str, place: str, full: Installed) -> None:
    assert full.run(*command.split()).returncode == 0
    (row,) = parquet.read_table(full.folder / place).to_pylist()
    assert (row["PatientID"], row["Modality"]) == ("1CT1", "CT")


@needs_local_bigquery
def test_it_runs_the_whole_pipeline_reports_about_it_and_answers_a_query(full: Installed) -> None:
    query = "SELECT PatientID, info.dcm2bq_version AS code FROM instances_live"
    with full.start("local", "scans", "--report", "report.html") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = ""
        while "Cloud Storage" not in printed and (line := process.stdout.readline()):
            printed += line
        answered = full.run("local", "--query", query, "--json")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert re.match(r"\s*1 object in [\d.]+ s: 1 in BigQuery, 0 dead letters", printed)
    assert "<svg" in (full.folder / "report.html").read_text()
    assert (answered.stderr, json.loads(answered.stdout)) == (
        "",
        [{"PatientID": "1CT1", "code": VERSION}],
    )
