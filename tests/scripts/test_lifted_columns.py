"""The schema files have the columns of dcm2bq/lifted.py."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "lifted_columns.py"
CONTENTS = dict(runpy.run_path(str(SCRIPT))["contents"]())


@pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.name)
def test_the_schema_files_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == CONTENTS[path], (
        "run: python scripts/lifted_columns.py"
    )


def test_the_script_writes_every_file_that_depends_on_the_list() -> None:
    assert {path.name for path in CONTENTS} == {
        "instances.json",
        "instances_live.json",
        "filled.sql",
    }
