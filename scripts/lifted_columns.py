"""Write the lifted columns into dcm2bq/schema: the columns of `instances`, and filled.sql.

    python scripts/lifted_columns.py

The list is `dcm2bq/lifted.py`. Existing columns keep their places; new ones are appended.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydicom.datadict import dictionary_VR

from dcm2bq.lifted import ADDED, LIFTED, Lifted

SCHEMA = Path(__file__).parents[1] / "dcm2bq" / "schema"
FIELD = re.compile(r'^ {6}\{"name": "(\w+)".*\}(,?)$')
"""A column on its own line: all but RECORDs are written so."""

FORMS = (
    "r.metadata.{keyword}, '$'",
    "r.metadata.{keyword}, '$[0]'",
    "r.metadata.`{tag:08X}`, '$'",
    "r.metadata.`{tag:08X}`, '$[0]'",
    "r.metadata.`{tag:08X}`, '$.Value[0]'",
)
"""Where a value is in the metadata, depending on the options of jsonOutput.

They are spelt as the local BigQuery returns the text of a table function, because `init` compares
these texts.
"""
NAME = """NULLIF(RTRIM(ARRAY_TO_STRING([
      JSON_VALUE(r.metadata.`{tag:08X}`, '$.Value[0].Alphabetic'),
      JSON_VALUE(r.metadata.`{tag:08X}`, '$.Value[0].Ideographic'),
      JSON_VALUE(r.metadata.`{tag:08X}`, '$.Value[0].Phonetic')
    ], '=', ''), '='), '')"""
"""A name in DICOM JSON (PS3.18 F.2.2), with its component groups joined as in a data set."""

HEADER = """\
-- Goes between `SELECT r.* REPLACE (` and `)`: fills columns that rows of older releases lack
-- from their metadata, in each form that the jsonOutput options can give it. Written by
-- scripts/lifted_columns.py from dcm2bq/lifted.py.
"""
CONVERSIONS = {
    "INTEGER": """SAFE_CAST(
    REGEXP_EXTRACT({text}, '^[+-]?[0-9]+$')
  AS INT64)""",
    "DATE": r"""SAFE_CAST(REGEXP_REPLACE(
    REGEXP_EXTRACT({text}, '^[0-9]{{4}}(?:[0-9]{{4}}|[.][0-9]{{2}}[.][0-9]{{2}})$'),
    '^(.{{4}})[.]?(..)[.]?(..)$',
    '\\1-\\2-\\3'
  ) AS DATE)""",
    "TIME": r"""SAFE_CAST(REGEXP_REPLACE(
    REGEXP_REPLACE(
      REGEXP_REPLACE(
        REGEXP_EXTRACT({text}, CONCAT(
          '^(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:[0-5][0-9](?:[.][0-9]{{1,6}})?)?',
          '|:[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{{1,6}})?)?)?$'
        )),
        '^(..):?([0-9]{{2}})?:?([0-9]{{2}})?([.][0-9]+)?$',
        '\\1:\\2:\\3\\4'
      ),
      '::$',
      ':00:'
    ),
    ':$',
    ':00'
  ) AS TIME)""",
}
"""How SQL makes the value of a column from text; `dicom/columns.py` does the same in Python."""


def field(column: Lifted) -> str:
    """Return a column as a line of a schema file."""
    content = {
        "name": column.keyword,
        "type": column.type,
        "mode": "NULLABLE",
        "description": column.description,
    }
    return f"      {json.dumps(content)}"


def with_columns(text: str) -> str:
    """Return the schema file of a table or view, with all lifted columns."""
    missing = {column.keyword: field(column) for column in LIFTED}
    lines = []
    for line in text.splitlines():
        match = FIELD.match(line)
        if match and match[1] in missing:
            lines.append(missing.pop(match[1]) + match[2])
        elif line == "    ]":  # end of the columns
            lines[-1:] = [",\n".join([lines[-1], *missing.values()])]
            lines.append(line)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def filled() -> str:
    """Return the content of filled.sql."""
    lines = (f"  {_filled(column)} AS {column.keyword}" for column in ADDED)
    return HEADER + ",\n".join(lines) + "\n"


def _filled(column: Lifted) -> str:
    """Return an expression for the column or, where it is NULL, its value in the metadata."""
    values = [f"JSON_VALUE({form.format(**column._asdict())})" for form in FORMS]
    if dictionary_VR(column.tag) == "PN":
        values[-1] = NAME.format(**column._asdict())
    if column.type == "STRING":
        return _coalesce([f"r.{column.keyword}", *values], "  ")
    conversion = CONVERSIONS[column.type]
    line = next(line for line in conversion.splitlines() if "{text}" in line)
    indent = line[: len(line) - len(line.lstrip())]
    return f"COALESCE(r.{column.keyword}, {conversion.format(text=_coalesce(values, indent))})"


def _coalesce(values: list[str], indent: str) -> str:
    lines = ",\n".join(f"{indent}  {value}" for value in values)
    return f"COALESCE(\n{lines}\n{indent})"


def contents() -> Iterator[tuple[Path, str]]:
    """Yield each file that depends on the list, with its content."""
    for name in ("tables/instances", "live/instances_live"):
        path = SCHEMA / f"{name}.json"
        yield path, with_columns(path.read_text(encoding="utf-8"))
    yield SCHEMA / "live/filled.sql", filled()


if __name__ == "__main__":
    for file, content in contents():
        file.write_text(content, encoding="utf-8")
