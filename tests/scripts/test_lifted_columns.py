"""The schema holds the columns of the one list, dcm2bq/lifted.py."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "lifted_columns.py"
CONTENTS = dict(runpy.run_path(str(SCRIPT))["contents"]())


@pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.name)
def test_the_schema_is_what_the_script_makes_of_the_list(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == CONTENTS[path], (
        "run: python scripts/lifted_columns.py"
    )


def test_the_script_writes_each_file_that_the_list_goes_into() -> None:
    assert {path.name for path in CONTENTS} == {
        "instances.json",
        "instances_live.json",
        "filled.sql",
    }
