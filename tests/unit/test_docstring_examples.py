"""The examples in docstrings and in README work as they are shown."""

import doctest
import importlib
import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted((ROOT / "dcm2bq").rglob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.fixture(autouse=True)
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the examples read."""
    shutil.copyfile(str(get_testdata_file("CT_small.dcm")), tmp_path / "scan.dcm")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_work(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0


def test_the_examples_of_the_readme_work() -> None:
    text = (ROOT / "README.md").read_text().replace("```", "")  # else part of the last output
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    failed, attempted = doctest.DocTestRunner().run(examples)
    assert attempted > 0
    assert failed == 0
