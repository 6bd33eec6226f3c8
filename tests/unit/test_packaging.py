"""The package's metadata, for installers and for people who look for it."""

import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CLASSIFIER = "Programming Language :: Python :: 3."


def test_the_classifiers_name_each_python_that_is_supported() -> None:
    named = {f"3.{one.removeprefix(CLASSIFIER)}" for one in classifiers(CLASSIFIER)}
    supported = SpecifierSet(PROJECT["requires-python"])
    assert named == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}
    assert (ROOT / ".python-version").read_text().strip() in named


def test_the_code_is_checked_against_the_oldest_python() -> None:
    oldest = next(part for part in PROJECT["requires-python"].split(",") if ">=" in part)[2:]
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"LOCK := $(COMPILE) --python-version {oldest}\n" in (ROOT / "Makefile").read_text()


def test_only_what_users_install_is_an_extra() -> None:
    assert set(PROJECT["optional-dependencies"]) == {"backfill", "local", "report", "tables"}
    assert set(PYPROJECT["dependency-groups"]) == {"dev", "test"}


def test_the_license_and_the_urls_are_stated() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert not classifiers("License ::")  # which PEP 639 replaces
    home = PROJECT["urls"]["Homepage"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())


def classifiers(prefix: str) -> list[str]:
    return [one for one in PROJECT["classifiers"] if one.startswith(prefix)]
