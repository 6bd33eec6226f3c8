"""The package for Dataflow's workers: a wheel of exactly the code that runs here.

It is made of the installed files rather than built from a checkout, since there may be neither a
checkout nor a network. It requires what the pipeline imports, and not what only the function or
the command line needs.
"""

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dcm2bq
from dcm2bq import version
from dcm2bq.errors import ServiceError

NEEDED = (
    *("google-auth", "google-cloud-bigquery", "google-cloud-storage", "msgspec"),
    *("pydicom", "urllib3"),
)
"""What the pipeline imports besides Apache Beam."""
PINNED = ("msgspec", "pydicom")
"""Those of `NEEDED` that Apache Beam's container lacks: they are staged with the job.

Their versions and hashes are in `REQUIREMENTS`, which `make lock` derives from the lock file.
"""
REQUIREMENTS = Path(__file__).with_name("worker_requirements.txt")

# Workers run the Python version that launches the job, in Apache Beam's container for x86-64.
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ABI = f"cp{_PYTHON.replace('.', '')}"
_WORKER = (
    *("--implementation", "cp", "--python-version", _PYTHON, "--abi", _ABI),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"),
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's earliest time: the same code gives the same wheel
_LEFT_OUT = {"cli", "local", "_function", "__pycache__"}


def wheel(folder: Path) -> Path:
    """Write the wheel of dcm2bq into `folder`; return its path."""
    stem = f"dcm2bq-{dcm2bq.__version__}"
    path = folder / f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _content(f"{stem}.dist-info"):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(content)}\n")
        name = f"{stem}.dist-info/RECORD"
        archive.writestr(zipfile.ZipInfo(name, _EPOCH), "".join([*record, f"{name},,\n"]))
    return path


def requirements(folder: Path) -> Path:
    """Write the requirements file that is staged with the wheels; return its path."""
    path = folder / "requirements.txt"
    path.write_bytes(REQUIREMENTS.read_bytes())
    return path


def locked_wheels(folder: Path) -> list[Path]:
    """Download the wheels of the requirements and check their hashes; return their paths.

    Apache Beam itself would download them without checking hashes. Raises `ServiceError` if
    the package index does not deliver exactly these wheels.
    """
    target = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(target)]
    command += [*_WORKER, "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(  # noqa: S603 - constant except for our own paths
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(
            "package index: cannot download and verify the workers' packages:\n"
            f"{done.stderr.strip()}"
        )
    return sorted(target.iterdir())


def _content(info: str) -> Iterator[tuple[str, bytes]]:
    root = Path(dcm2bq.__file__).parent
    for file in sorted(root.rglob("*")):
        place = file.relative_to(root)
        if file.is_file() and not _LEFT_OUT.intersection(place.parts):
            yield f"dcm2bq/{place.as_posix()}", file.read_bytes()
    # Not run by workers, but without it their rows would name another version.
    yield "dcm2bq/_function/main.py", version.entry_point().read_bytes()
    needed = "".join(f"Requires-Dist: {name}\n" for name in NEEDED)
    yield (
        f"{info}/METADATA",
        f"Metadata-Version: 2.1\nName: dcm2bq\nVersion: {dcm2bq.__version__}\n"
        f"Requires-Python: =={_PYTHON}.*\n{needed}".encode(),
    )
    yield (
        f"{info}/WHEEL",
        b"Wheel-Version: 1.0\nGenerator: dcm2bq\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )
