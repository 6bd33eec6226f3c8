"""The real command as a process, and folders to give it."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from dcm2bq import cli as command_line
from dcm2bq.local.user_cache import user_cache
from tests.support.commands import Captured, Done
from tests.support.patience import until
from tests.support.processes import guarded, marked, processes

COMMAND = str(Path(sys.executable).with_name("dcm2bq"))

ODD_NAMES = (
    "plain.dcm",
    "a b/with space.dcm",
    "a b/ü 山田 é.dcm",
    "100% #1 %41.dcm",
    'what\'s "this"?&x=1+2.DCM',
    "<[red]> ; $HOME `x`.dicom",
)


@dataclass(frozen=True)
class Cli:
    """Runs the command; a mark in its environment identifies its processes."""

    environ: dict[str, str]
    mark: str

    def run(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command and wait for its end."""
        return subprocess.run(
            [COMMAND, *args],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            guarded([COMMAND, *args]),
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *args: str) -> Done:
        """Run the command in this process, with the running stacks of this environment."""
        with pytest.MonkeyPatch.context() as patch, Captured() as captured:
            for name in ("XDG_RUNTIME_DIR", *marked(self.mark)):
                patch.setenv(name, self.environ[name])
            status = command_line.main(list(args))
            return Done(status, *captured.readouterr())

    def processes(self) -> list[str]:
        """Return the command lines of all processes started here that are still running."""
        return list(processes(self.mark).values())


@pytest.fixture(autouse=True, scope="package")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep reports out of the user's cache, and share only its prepared databases."""
    kept = user_cache() / "local"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        user_cache().mkdir()
        (user_cache() / "local").symlink_to(kept)
        yield


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command. Checks after the module that no process it started is left."""
    runtime = tmp_path_factory.mktemp("runtime")
    mark = uuid.uuid4().hex
    cli = Cli({**os.environ, **marked(mark), "XDG_RUNTIME_DIR": str(runtime)}, mark)
    yield cli
    if Path("/proc/self/environ").exists():
        until(lambda: not cli.processes())


@pytest.fixture(scope="session")
def dicom_files() -> Path:
    """The files that come with pydicom."""
    package = find_spec("pydicom")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory, dicom_files: Path) -> Path:
    """DICOM files under odd names, files that are broken, and files to ignore."""
    folder = tmp_path_factory.mktemp("it's odd")
    for name in ODD_NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(dicom_files / "CT_small.dcm", folder / name)
    (folder / "no dicom.dcm").write_text("text")
    (folder / "cut #2.dcm").write_bytes((dicom_files / "MR_small.dcm").read_bytes()[:700])
    (folder / "empty.dcm").touch()
    (folder / "notes.txt").write_text("text")
    (folder / "two\nlines.dcm").write_text("text")
    return folder
