"""An environment as Google builds it for the function."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements.txt"


def make_environment(folder: Path) -> Path:
    """Install requirements.txt into a new environment; return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = ["--require-hashes", "-r", str(REQUIREMENTS)]
    subprocess.run([*install, *requirements], check=True)
    return python


def kept_environment(folder: Path) -> Path:
    """Return the Python of an environment in `folder`, made where an earlier run left none.

    Several processes may ask at once. What another lock file made is removed.
    """
    folder.mkdir(exist_ok=True)
    made_of = f"{folder} {sys.version}".encode() + REQUIREMENTS.read_bytes()
    digest = hashlib.sha256(made_of).hexdigest()
    kept = folder / f"function-{digest[:12]}"
    with (folder / "function.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "ready").exists():
            for old in folder.glob("function-*"):
                shutil.rmtree(old)
            make_environment(kept)
            (kept / "ready").touch()
    return kept / "bin" / "python"
