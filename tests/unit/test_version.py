"""Every way to deploy the code gives the same version, which changes with the code."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dcm2bq import __version__, version
from dcm2bq.tools.backfill.runners import worker_package
from scripts import find_commit
from tests.support import upload

ROOT = Path(__file__).parents[2]


def version_of(folder: Path) -> str:
    """Return the version of the package in a folder, found by a Python that sees no other."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); from dcm2bq import version"
    program += f"; assert version.__file__.startswith({str(folder)!r}); print(version.VERSION)"
    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


@pytest.fixture
def uploaded(tmp_path: Path) -> Path:
    """A folder with the files that gcloud and Terraform upload."""
    for name in upload.left_by_gcloudignore():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_the_version_is_the_release_and_a_digest() -> None:
    assert re.fullmatch(re.escape(__version__) + r"\+[0-9a-f]{12}", version.VERSION)


def test_the_uploaded_source_has_the_version_of_the_checkout(uploaded: Path) -> None:
    assert version_of(uploaded) == version.VERSION


def test_the_workers_package_has_the_version_of_the_checkout(tmp_path: Path) -> None:
    wheel = worker_package.wheel(tmp_path)
    assert version_of(unpack(wheel, tmp_path / "installed")) == version.VERSION


def test_an_installed_wheel_has_the_version_of_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = unpack(wheel, tmp_path / "installed")
    assert version_of(installed) == version.VERSION
    again = worker_package  # a worker package may be made of an installed one, too
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); from pathlib import Path; "
    program += f"from {again.__name__} import wheel; wheel(Path({str(tmp_path)!r}))"
    wheel.unlink()
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert version_of(unpack(wheel, tmp_path / "worker")) == version.VERSION


@pytest.mark.parametrize(
    "name", ["main.py", "dcm2bq/rows.py", "dcm2bq/dicom/privacy/confidentiality_profile.tsv"]
)
def test_a_changed_file_changes_the_version(uploaded: Path, name: str) -> None:
    with (uploaded / name).open("a") as file:
        file.write("\n")
    assert version_of(uploaded) != version.VERSION


def test_compiled_files_do_not_change_the_version(uploaded: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", "."], cwd=uploaded, check=True)
    assert list(uploaded.rglob("*.pyc"))
    assert version_of(uploaded) == version.VERSION


def test_what_is_deployed_is_what_is_uploaded() -> None:
    beside = {".python-version", "requirements.txt"}
    deployed = [name for name in upload.left_by_gcloudignore() if version.is_deployed(name)]
    assert {*deployed, *beside} == set(upload.left_by_gcloudignore())
    assert not [name for name in beside if version.is_deployed(name)]


def test_a_commit_has_the_version_of_its_checkout(uploaded: Path) -> None:
    """The digest of Git's tree is that of the files: the version leads back to the commit."""
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *arguments], cwd=uploaded, check=True)
    assert f"{__version__}+{find_commit.digest_of('HEAD', uploaded)}" == version.VERSION
