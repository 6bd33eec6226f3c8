"""A missing extra is named with commands that install it and break no other extra."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import __version__, extras
from dcm2bq.errors import ConfigError
from dcm2bq.extras import BACKFILL, LOCAL, Extra


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def without(*missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def spec(name: str, *args: Any) -> Any:
        return None if name in missing else find_spec(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", spec)


def commands(extra: Extra) -> list[str]:
    with pytest.raises(ConfigError, match=f"^{extra.name} needs packages") as caught:
        extras.require(replace(extra, python=None))
    return str(caught.value).splitlines()[1:]


def test_the_missing_packages_are_named() -> None:
    extra = replace(LOCAL, modules=("duckdb", "no_such_package", "nor_this"), python=None)
    with pytest.raises(ConfigError, match=r"not installed \(no_such_package, nor_this\); "):
        extras.require(extra)


def test_another_python_is_asked_for_before_any_package() -> None:
    extra = replace(LOCAL, modules=("no_such_package",), python="2.7")
    with pytest.raises(ConfigError, match=r"^local needs Python 2\.7, and this is 3\.1\d: "):
        extras.require(extra)


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="the extra needs Python 3.13")
def test_an_installed_extra_is_not_asked_for() -> None:
    extras.require(LOCAL)


@pytest.mark.parametrize("extra", [BACKFILL, LOCAL], ids=lambda extra: extra.name)
def test_beside_its_rival_a_separate_environment_is_suggested(
    extra: Extra, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(extra.modules[0], monkeypatch=monkeypatch)
    extra = replace(
        extra, rival="pytest", python=None
    )  # the rivals themselves are in two environments
    create, install, run = commands(extra)
    separate = checkout / f".venv-{extra.name}"
    assert create == f"{sys.executable} -m venv '{separate}'"
    assert install == f"'{separate}/bin/python' -m pip install -e '{checkout}[{extra.name}]'"
    assert run == f"'{separate}/bin/dcm2bq' {extra.name}"


def test_an_environment_that_has_the_extra_is_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", monkeypatch=monkeypatch)
    (checkout / ".venv-backfill" / "bin").mkdir(parents=True)
    (checkout / ".venv-backfill" / "bin" / "dcm2bq").touch()
    assert commands(BACKFILL) == [f"'{checkout}/.venv-backfill/bin/dcm2bq' backfill"]


def test_the_environment_that_lacks_the_extra_is_not_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", "local_bigquery", monkeypatch=monkeypatch)
    (checkout / ".venv-backfill" / "bin").mkdir(parents=True)
    (checkout / ".venv-backfill" / "bin" / "dcm2bq").touch()
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv-backfill"))
    (install,) = commands(BACKFILL)
    assert install.endswith(f"-e '{checkout}[backfill]'")


def test_without_its_rival_an_extra_is_installed_here(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", "local_bigquery", monkeypatch=monkeypatch)
    assert commands(BACKFILL) == [f"{sys.executable} -m pip install -e '{checkout}[backfill]'"]
    assert commands(LOCAL) == [f"{sys.executable} -m pip install -e '{checkout}[local]'"]


def test_without_pip_another_installer_is_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", "local_bigquery", "pip", monkeypatch=monkeypatch)
    assert commands(LOCAL) == [f"uv pip install --python {sys.executable} -e '{checkout}[local]'"]


def test_outside_of_a_checkout_the_published_package_is_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "pyproject.toml").unlink()
    without("apache_beam", "local_bigquery", monkeypatch=monkeypatch)
    package = f"dcm2bq[local]=={__version__}"
    assert commands(LOCAL) == [f"{sys.executable} -m pip install '{package}'"]
