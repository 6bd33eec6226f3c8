"""A release consists of a wheel, a source distribution and the function's archive."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dcm2bq import __version__
from scripts import build_dist
from tests.support import upload

ROOT = build_dist.ROOT


def files(*globs: str) -> set[str]:
    """Return the paths of the checkout's files that are not compiled or built."""
    paths = (path for glob in globs for path in ROOT.glob(glob) if path.is_file())
    names = (path.relative_to(ROOT).as_posix() for path in paths)
    return {name for name in names if "__pycache__" not in name and "/build/" not in name}


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution contains."""
    (path,) = dist.glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"dcm2bq-{__version__}"


def test_a_release_has_four_files(dist: Path) -> None:
    name = f"dcm2bq-{__version__}"
    built = {f"{name}-py3-none-any.whl", f"{name}.tar.gz", f"{name}-function.zip"}
    assert {path.name for path in dist.iterdir()} == {*built, "SHA256SUMS"}


def test_the_wheel_has_the_package_and_the_entry_point_of_the_function(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    of_the_installer = {name for name in names if ".dist-info/" in name}
    assert names - of_the_installer == {*files("dcm2bq/**/*"), "dcm2bq/_function/main.py"}
    assert {name.partition("/")[2] for name in of_the_installer} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_description_of_the_package_links_to_the_files_of_the_tag(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        _, text = archive.read(name).decode().split("\n\n", 1)
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)", text)
    targets = [link or picture for link, picture in links]
    relative = [target for target in targets if not target.startswith(("https://", "#"))]
    assert relative == []
    assert any(target.endswith(f"/blob/v{__version__}/docs/DEPLOY.md") for target in targets)
    assert any(f"/raw/v{__version__}/docs/pictures/" in target for target in targets)


def test_the_source_distribution_builds_the_same_wheel(
    unpacked: Path, wheel: Path, tmp_path: Path
) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=unpacked, capture_output=True, check=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_terraform_can_be_applied_from_the_source_distribution(unpacked: Path) -> None:
    needed = files("tf/*", "tf/steps/*", "dcm2bq/schema/**/*") - files("tf/.terraform*")
    for name in {*needed, *upload.left_by_gcloudignore(), ".gcloudignore"}:
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_the_archive_of_the_function_depends_on_nothing_but_its_files(
    dist: Path, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has another place, and its files other times and permissions."""
    (unpacked / "main.py").chmod(0o700)
    monkeypatch.setattr(build_dist, "ROOT", unpacked)
    again = build_dist.function_archive(tmp_path)
    assert again.read_bytes() == (dist / again.name).read_bytes()


def test_the_checksums_are_those_of_the_files(dist: Path) -> None:
    check = ["sha256sum", "--check", "--strict", build_dist.SUMS]
    done = subprocess.run(check, cwd=dist, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK\n") == 3
