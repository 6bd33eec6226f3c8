"""The table of `dcm2bq dump --columns`: a row for each file, a column for each attribute."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dcm2bq.dicom import Conversion
from dcm2bq.errors import ConfigError
from dcm2bq.tools.attribute_paths import AttributePath
from dcm2bq.tools.column_types import type_of_vr, typed
from dcm2bq.tools.dump import File

OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "jsonOutput.format": "flat",
        "jsonOutput.useCommonNames": True,
        "jsonOutput.useArrayWithSingleValue": False,
    }
)
"""The options of the configuration that the paths of attributes are made for."""
_PATH = {"name": "path", "type": "STRING", "description": "The file, or the object as gs:// URI"}
_MEMBER = {"name": "member", "type": "STRING", "description": "The member of the archive there"}


def fields_of(attributes: Sequence[AttributePath]) -> list[dict[str, str]]:
    """Return the columns: path, member, and the attributes with the types of their VRs.

    Raises `ConfigError` if an attribute is named twice: CSV and Parquet need distinct names.
    """
    counts = Counter(attribute.text for attribute in attributes)
    if twice := [text for text, count in counts.items() if count > 1]:
        raise ConfigError(f"--columns: {', '.join(twice)}: named more than once")
    return [
        _PATH,
        _MEMBER,
        *(
            {
                "name": attribute.text,
                "type": str(type_of_vr(attribute.vr)),
                "description": attribute.description,
            }
            for attribute in attributes
        ),
    ]


def row_of(
    file: File, conversion: Conversion, attributes: Sequence[AttributePath]
) -> dict[str, Any]:
    """Return the row of a file."""
    metadata = conversion.metadata
    # A name on disk need not be valid UTF-8; the files with tables must be.
    path = os.fsencode(file.path).decode(errors="replace")
    row: dict[str, Any] = {"path": path, "member": file.member}
    for attribute in attributes:
        kind = type_of_vr(attribute.vr)
        value = attribute.find(metadata)
        row[attribute.text] = typed(kind, value, is_value=attribute.index is not None)
    return row


def without_members(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without the column `member`, if no row has one."""
    if any(row["member"] is not None for row in rows):
        return list(rows)
    return [{name: value for name, value in row.items() if name != "member"} for row in rows]
