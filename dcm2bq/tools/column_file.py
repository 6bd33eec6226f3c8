"""The file of `dcm2bq columns`: a view with columns of one's own, in TOML.

view = "ct_protocols"
level = "series"

[[columns]]
attribute = "SliceThickness"

[[columns]]
attribute = "RequestAttributesSequence[0].ScheduledStationAETitle"
name = "scheduled_station"

[[columns]]
creator = "SIEMENS MR HEADER"
element = "0019xx0C"
type = "FLOAT64"
name = "b_value"
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dcm2bq.errors import ConfigError
from dcm2bq.files import open_regular
from dcm2bq.tools.attribute_paths import (
    AttributePath,
    PrivateElement,
    alternatives,
    parse_path,
    parse_private,
)
from dcm2bq.tools.column_types import ColumnType, type_of_vr

_NAME = re.compile(r"[A-Za-z_]\w{0,299}", re.ASCII)
"""A name that BigQuery accepts for tables and columns in any letter's case: 300 characters."""
_RESERVED_PREFIXES = (
    "_table_",
    "_file_",
    "_partition",
    "_row_timestamp",
    "__root__",
    "_colidentifier",
)
"""Beginnings of names that BigQuery refuses for columns."""
_COLUMNS_HEADER = re.compile(r"\s*\[\[\s*[\"']?columns[\"']?\s*\]\]")
_FILE_KEYS = dict.fromkeys(("view", "level", "description", "columns"))
_COLUMN_KEYS = dict.fromkeys(("attribute", "creator", "element", "type", "name", "description"))


class Level(StrEnum):
    """What a row of the view is."""

    INSTANCE = "instance"
    SERIES = "series"
    STUDY = "study"


KEYS: dict[Level, tuple[str, ...]] = {
    Level.INSTANCE: (
        *("path", "member", "version"),
        *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    ),
    Level.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    Level.STUDY: ("StudyInstanceUID",),
}
"""The columns that a view begins with: together, they identify its rows."""
COUNTS = {
    Level.SERIES: "NumberOfSeriesRelatedInstances",
    Level.STUDY: "NumberOfStudyRelatedInstances",
}
VARYING = "varying"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewColumn:
    """A column; `source` is where the header has its value."""

    name: str
    type: ColumnType
    description: str
    source: AttributePath | PrivateElement


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFile:
    """A view with columns of one's own."""

    view: str
    level: Level
    description: str | None
    columns: tuple[ViewColumn, ...]


def read(path: Path) -> ViewFile:
    """Read a file; raise `ConfigError` with every mistake, each with its line or column."""
    with open_regular(path) as stream:
        content = stream.read()
    try:
        text = content.decode()
        return parse(text, str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None


def parse(text: str, place: str) -> ViewFile:
    """Return the view that a text describes; `place` names the file in messages."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: is not TOML: {error}") from None
    mistakes = _Mistakes()
    mistakes.unknown_keys(place, document, _FILE_KEYS)
    view = mistakes.name(place, "view", document.get("view"))
    level = mistakes.choice(place, "level", document.get("level", Level.INSTANCE), Level)
    description = mistakes.text(place, "description", document.get("description"))
    tables = document.get("columns")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        mistakes.add(place, "columns: write at least one [[columns]] table")
        tables = []
    taken = {name.casefold() for name in (*KEYS[level], COUNTS.get(level, ""), VARYING)}
    columns = []
    for table, where in zip(tables, _places(text, place, len(tables)), strict=True):
        column = _column(table, where, mistakes)
        if column is None:
            continue
        if column.name.casefold() in taken:
            mistakes.add(where, f"{column.name}: the view has another column of this name")
        taken.add(column.name.casefold())
        columns.append(column)
    mistakes.raise_any()
    return ViewFile(view=view, level=level, description=description, columns=tuple(columns))


def _column(table: Mapping[str, Any], where: str, mistakes: "_Mistakes") -> ViewColumn | None:
    mistakes.unknown_keys(where, table, _COLUMN_KEYS)
    try:
        source = _source(table)
    except ConfigError as error:
        mistakes.add(where, str(error))
        return None
    default = source.keyword if isinstance(source, AttributePath) else ""
    if isinstance(source, PrivateElement) and "name" not in table:
        mistakes.add(where, "name: a private element has no keyword, so give the column a name")
    kind = mistakes.choice(where, "type", table.get("type", type_of_vr(source.vr)), ColumnType)
    name = mistakes.name(where, "name", table.get("name", default or "private"))
    description = mistakes.text(where, "description", table.get("description"))
    return ViewColumn(
        name=name, type=kind, description=description or source.description, source=source
    )


def _source(table: Mapping[str, Any]) -> AttributePath | PrivateElement:
    given = {key: table[key] for key in ("attribute", "creator", "element") if key in table}
    if given.keys() not in ({"attribute"}, {"creator", "element"}):
        raise ConfigError("write either attribute, or both creator and element")
    for key, value in given.items():
        if not isinstance(value, str):
            raise ConfigError(f"{key}: must be text")
    if "attribute" in given:
        return parse_path(given["attribute"])
    return parse_private(given["creator"], given["element"])


def _places(text: str, place: str, count: int) -> list[str]:
    """Return where each column is: tomllib keeps no line numbers."""
    lines = [n for n, line in enumerate(text.split("\n"), 1) if _COLUMNS_HEADER.match(line)]
    if len(lines) != count:  # inline tables, or text that looks like a header
        return [f"{place}: column {n}" for n in range(1, count + 1)]
    return [f"{place}:{line}: column {n}" for n, line in enumerate(lines, 1)]


class _Mistakes:
    """Collects what is wrong, so that one run shows all of it."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, where: str, problem: str) -> None:
        self._lines.append(f"{where}: {problem}")

    def unknown_keys(self, where: str, table: Mapping[str, Any], known: Mapping[str, None]) -> None:
        for key in sorted(table.keys() - known.keys()):
            advice = alternatives(key, known) or f": the keys are {', '.join(known)}"
            self.add(where, f"{key} is not a key{advice}")

    def name(self, where: str, key: str, value: Any) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            self.add(where, f"{key}: write a name of letters, digits and underscores")
            return ""
        if value.casefold().startswith(_RESERVED_PREFIXES):
            self.add(where, f"{key}: BigQuery reserves names that begin like {value}")
        return value

    def text(self, where: str, key: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            self.add(where, f"{key}: must be text")
            return None
        return value

    def choice[E: StrEnum](self, where: str, key: str, value: Any, kind: type[E]) -> E:
        if isinstance(value, str) and value in kind:
            return kind(value)
        self.add(where, f"{key}: write one of {', '.join(kind)}")
        return next(iter(kind))

    def raise_any(self) -> None:
        if self._lines:
            raise ConfigError("\n".join(self._lines))
