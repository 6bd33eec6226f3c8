"""The extra `backfill`: Apache Beam."""

import importlib.util
import sys
from pathlib import Path

from dcm2bq.errors import ConfigError


def require() -> None:
    """Raise `ConfigError` with the command that installs Apache Beam, if it is missing."""
    if importlib.util.find_spec("apache_beam"):
        return
    checkout = Path(__file__).parents[3]
    is_checkout = (checkout / "pyproject.toml").exists()
    package = f"'{checkout}[backfill]'" if is_checkout else "'dcm2bq[backfill]'"
    local = " (apart from the extra local, which needs other versions)"
    raise ConfigError(
        f"backfill needs Apache Beam, which is not installed; install it{local} with:\n"
        f"{sys.executable} -m pip install {package}"
    )
