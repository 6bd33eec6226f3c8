"""What to do about a missing Apache Beam never breaks the environment that holds `local`."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import extras
from dcm2bq.errors import ConfigError
from dcm2bq.local import servers


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def without(*missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def spec(name: str, *args: Any) -> Any:
        return None if name in missing else find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", spec)


def hint() -> list[str]:
    with pytest.raises(ConfigError, match="needs Apache Beam") as caught:
        extras.require()
    return str(caught.value).splitlines()[1:]


def test_beside_the_local_stack_an_environment_of_its_own_is_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", monkeypatch=monkeypatch)
    made, installed, used = hint()
    apart = checkout / ".venv-backfill"
    assert made == f"{sys.executable} -m venv '{apart}'"
    assert installed == f"'{apart}/bin/python' -m pip install '{checkout}[backfill]'"
    assert used == f"'{apart}/bin/dcm2bq' backfill"


def test_an_environment_that_has_it_is_suggested(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", monkeypatch=monkeypatch)
    (checkout / ".venv-backfill" / "bin").mkdir(parents=True)
    (checkout / ".venv-backfill" / "bin" / "dcm2bq").touch()
    assert hint() == [f"{checkout}/.venv-backfill/bin/dcm2bq backfill"]


def test_without_the_local_stack_it_is_installed_here(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("apache_beam", "local_bigquery", monkeypatch=monkeypatch)
    assert hint() == [f"{sys.executable} -m pip install '{checkout}[backfill]'"]


def test_beside_beam_the_local_stack_is_not_suggested_here_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_is_installed", lambda name: name == "apache_beam")
    with pytest.raises(ConfigError) as caught:
        servers.require_extras()
    made, installed = str(caught.value).splitlines()[1:]
    assert made.endswith("-m venv .venv-local")
    assert installed.startswith(".venv-local/bin/python -m pip install ")
