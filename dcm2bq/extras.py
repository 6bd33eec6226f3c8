"""The extra `backfill`: Apache Beam."""

import importlib.util
import sys
from pathlib import Path

from dcm2bq.errors import ConfigError

_CHECKOUT = Path(__file__).parents[1]
_APART = ".venv-backfill"


def require() -> None:
    """Raise `ConfigError` with what to do about Apache Beam, if it is missing."""
    if not importlib.util.find_spec("apache_beam"):
        raise ConfigError(f"backfill needs Apache Beam, which is not installed; {_hint()}")


def _hint() -> str:
    is_checkout = (_CHECKOUT / "pyproject.toml").exists()
    package = f"'{_CHECKOUT}[backfill]'" if is_checkout else "'dcm2bq[backfill]'"
    apart = _CHECKOUT / _APART if is_checkout else Path(_APART)
    if (apart / "bin" / "dcm2bq").exists():
        return f"use the environment that has it:\n{apart}/bin/dcm2bq backfill"
    if not importlib.util.find_spec("local_bigquery"):
        return f"install it with:\n{sys.executable} -m pip install {package}"
    # The extra `local` needs other versions of the same packages: it would break.
    return (
        "install it in an environment of its own, and run backfill there:\n"
        f"{sys.executable} -m venv '{apart}'\n"
        f"'{apart}/bin/python' -m pip install {package}\n"
        f"'{apart}/bin/dcm2bq' backfill"
    )
