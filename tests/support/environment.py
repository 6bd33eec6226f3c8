"""An environment as Google builds it for the function."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_environment(folder: Path) -> Path:
    """Install requirements.txt into an environment of its own; return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = ["--require-hashes", "-r", str(ROOT / "requirements.txt")]
    subprocess.run([*install, *requirements], check=True)
    return python
