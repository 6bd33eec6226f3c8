"""What is uploaded, and attached to a release, is what the function needs.

It starts from that alone, and ingests.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hcl2
import pytest
from pydicom.data import get_testdata_file

from dcm2bq.local import servers
from dcm2bq.version import VERSION
from scripts import build_dist
from tests.support import upload
from tests.support.cloud import Bucket
from tests.support.datasets import borrowed_dataset, in_dataset
from tests.support.function_stack import ROOT, unique
from tests.support.patience import until
from tests.support.processes import guarded

CT_SMALL = Path(str(get_testdata_file("CT_small.dcm")))


def taken_by_terraform() -> list[str]:
    """Return the paths that tf/source.tf picks, by its own globs and its own exception."""
    with (ROOT / "tf" / "source.tf").open() as file:
        locals_ = hcl2.load(file)["locals"][0]
    globs = [each.strip('"') for each in locals_["source_files"]]
    without = re.compile(json.loads(locals_["source_without"]))
    found = (path for glob in globs for path in ROOT.glob(glob) if path.is_file())
    paths = (path.relative_to(ROOT).as_posix() for path in found)
    return sorted(path for path in paths if not without.search(path))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a release."""
    return build_dist.function_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the archive's files and nothing else."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def test_terraform_takes_what_gcloudignore_leaves() -> None:
    assert taken_by_terraform() == upload.left_by_gcloudignore()


def test_nothing_but_the_function_is_uploaded() -> None:
    names = upload.left_by_gcloudignore()
    assert {".python-version", "main.py", "requirements.txt"} < set(names)
    assert {name.split("/")[0] for name in names if "/" in name} == {"dcm2bq"}
    folders = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert folders == {"archives", "bigquery", "dicom", "gcs"}


def test_the_archive_of_a_release_has_the_files_that_are_uploaded(archive: Path) -> None:
    assert upload.differences(archive) == []


def test_an_archive_is_compared_file_for_file(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(archive) as right, zipfile.ZipFile(other, "w") as wrong:
        for name in right.namelist():
            if name != "main.py":
                wrong.writestr(name, "" if name == "dcm2bq/gcs/store.py" else right.read(name))
        wrong.writestr("tests/data.dcm", "")
    assert upload.differences(other) == [
        "dcm2bq/gcs/store.py: of another content",
        "main.py: not in the archive",
        "tests/data.dcm: ignored by .gcloudignore",
    ]


def test_every_file_compiles_as_the_build_demands(unpacked: Path, bare_python: Path) -> None:
    subprocess.run([bare_python, "-m", "compileall", "-q", "."], cwd=unpacked, check=True)


def test_the_archive_alone_ingests_a_file(
    unpacked: Path, bare_python: Path, bigquery_url: str, storage_url: str
) -> None:
    event = Bucket(storage_url, unique("upload-")).upload("ct.dcm", CT_SMALL.read_bytes())
    with borrowed_dataset(bigquery_url) as dataset:
        environ = {
            "BIGQUERY_EMULATOR_HOST": bigquery_url,
            "STORAGE_EMULATOR_HOST": storage_url,
            "DCM2BQ_CONFIG": json.dumps(in_dataset(dataset.dataset_id, {})),
        }
        with function(unpacked, bare_python, environ) as url:
            assert event.post(url).status_code == 200
        (row,) = dataset.query(
            "SELECT path, version, PatientID, info.dcm2bq_version AS code FROM instances_live"
        )
    assert row == {
        "path": f"gs://{event.data['bucket']}/ct.dcm",
        "version": event.data["generation"],
        "PatientID": "1CT1",
        "code": VERSION,
    }


@contextmanager
def function(folder: Path, python: Path, environ: dict[str, str]) -> Iterator[str]:
    """Run a folder's function as the buildpack starts it, with nothing else in reach."""
    port = servers.free_port()
    program = python.with_name("functions-framework")
    process = subprocess.Popen(
        guarded([program, "--target=ingest", "--host=127.0.0.1", f"--port={port}"]),
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": str(folder),  # where gunicorn keeps a socket, if not in HOME
            "FUNCTION_SIGNATURE_TYPE": "cloudevent",
            **environ,
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: process.poll() is not None or servers.is_listening(port))
        assert process.poll() is None, "the function did not start"
        yield servers.url(port)
    finally:
        process.terminate()
        process.wait()


def test_the_program_tells_the_differences(archive: Path) -> None:
    command = [sys.executable, upload.__file__, str(archive)]
    assert subprocess.run(command, check=False).returncode == 0
