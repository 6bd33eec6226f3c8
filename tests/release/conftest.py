"""What `make dist` builds."""

from pathlib import Path

import pytest

from scripts import build_dist


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that a release consists of."""
    folder = tmp_path_factory.mktemp("dist")
    build_dist.main(str(folder))
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """The package as it is installed."""
    (path,) = dist.glob("*.whl")
    return path
