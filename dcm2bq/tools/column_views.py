"""Views with columns of one's own, over `instances_live`, as `dcm2bq columns` makes them.

Like `series_attributes`, a view of series or studies has the greatest value of each attribute, and
a column `varying` with the names of those that have several.
"""

from collections.abc import Iterator, Sequence

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.dicom.dictionary import normalized_creator
from dcm2bq.errors import ConfigError
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.tools.attribute_paths import AttributePath, PrivateElement
from dcm2bq.tools.column_file import COUNTS, KEYS, VARYING, Level, ViewColumn, ViewFile
from dcm2bq.tools.column_types import ColumnType, cast, indented
from dcm2bq.tools.init import SchemaEntry, apply_view

LABEL = "dcm2bq_columns"
"""The label of a view that this tool has made; its value is the level."""

_KEY_DESCRIPTIONS = {
    "path": "The object as gs://bucket/name, not URL-encoded",
    "member": "The name of the member, if the object is one of an archive",
    "version": "The generation of the object; compare generations as INT64",
    "StudyInstanceUID": "(0020,000D) from the header",
    "SeriesInstanceUID": "(0020,000E) from the header",
    "SOPInstanceUID": "(0008,0018) from the header",
}
_ROWS = {
    Level.INSTANCE: "the objects that exist, one row each",
    Level.SERIES: "the series that exist, one row each",
    Level.STUDY: "the studies that exist, one row each",
}
_MOST_DESCRIPTION = 1024
"""Characters that BigQuery allows in the description of a column."""


def definition(view: ViewFile, config: Config, project: str) -> Definition:
    """Return the view as an object of the configured dataset.

    Raises `ConfigError` if one of dcm2bq's own objects has its name, or if headers are stored in a
    format whose paths are others.
    """
    if needs := schema.unmet_needs(config.json_output):
        raise ConfigError(
            f"views of columns need {', '.join(needs)}: the configuration stores headers in a "
            "shape that they cannot read"
        )
    own = {each.name.casefold() for each in schema.load(config, project)}
    if view.view.casefold() in own:
        raise ConfigError(f"view: {view.view} is an object of dcm2bq itself: choose another name")
    dataset = f"{project}.{config.big_query.dataset_id}"
    sql = query(view, f"{dataset}.instances_live")
    default = f"Attributes of {_ROWS[view.level]}, made by dcm2bq columns."
    resource = {
        "tableReference": {
            "projectId": project,
            "datasetId": config.big_query.dataset_id,
            "tableId": view.view,
        },
        "type": "VIEW",
        "description": view.description or default,
        "labels": {LABEL: str(view.level)},
        "schema": {"fields": list(_fields(view))},
        "view": {"query": sql, "useLegacySql": False},
    }
    return Definition(
        kind=DefinitionKind.VIEW,
        name=view.view,
        qualified_name=f"{dataset}.{view.view}",
        resource=resource,
        sql=sql,
    )


def create(dataset: Dataset, made: Definition, *, replace: bool) -> SchemaEntry:
    """Create a view, or update the one that this tool has made.

    Raises `ConfigError` if something else has the name; but a view of somebody else's is replaced
    if `replace` is set.
    """
    existing = dataset.get_table(made.name)
    if existing is not None and existing.get("type") != "VIEW":
        raise ConfigError(f"{made.qualified_name}: is a table: choose another name for the view")
    if existing is not None and LABEL not in (existing.get("labels") or {}) and not replace:
        raise ConfigError(
            f"{made.qualified_name}: was not made by dcm2bq columns: choose another name, or "
            "replace it with --replace"
        )
    return apply_view(dataset, made)


def query(view: ViewFile, live: str) -> str:
    """Return the query of a view; `live` is the full name of `instances_live`."""
    keys = KEYS[view.level]
    passed = list(keys) if view.level is Level.INSTANCE else [*keys, "SOPInstanceUID"]
    blocks = _blocks(view.columns)
    searched = {name: f"{_block(source)} AS {name}" for source, name in blocks.items()}
    header = [*passed, "metadata", *searched.values()]
    where = "" if view.level is Level.INSTANCE else f"\n  WHERE {keys[-1]} IS NOT NULL"
    texts = [f"{_text(column, blocks)} AS `{column.name}`" for column in view.columns]
    values = [_value(column) for column in view.columns]
    steps = [
        f"WITH header AS (\n  SELECT\n{_list(header, 4)}\n  FROM `{live}`{where}\n)",
        f"written AS (\n  SELECT\n{_list([*passed, *texts], 4)}\n  FROM header\n)",
    ]
    if view.level is Level.INSTANCE:
        last = f"SELECT\n{_list([*passed, *values], 2)}\nFROM written\n"
        return ",\n\n".join(steps) + "\n\n" + last
    steps.append(f"typed AS (\n  SELECT\n{_list([*passed, *values], 4)}\n  FROM written\n)")
    names = [f"`{column.name}`" for column in view.columns]
    varying = [f"IF(MIN({name}) < MAX({name}), ['{name.strip('`')}'], [])" for name in names]
    selected = [
        *keys,
        f"COUNT(DISTINCT SOPInstanceUID) AS {COUNTS[view.level]}",
        *(f"MAX({name}) AS {name}" for name in names),
        f"ARRAY_CONCAT(\n{_list(varying, 4)}\n  ) AS {VARYING}",
    ]
    last = f"SELECT\n{_list(selected, 2)}\nFROM typed\nGROUP BY {', '.join(keys)}\n"
    return ",\n\n".join(steps) + "\n\n" + last


def _fields(view: ViewFile) -> Iterator[dict[str, str]]:
    for name in KEYS[view.level]:
        yield _field(name, "STRING", _KEY_DESCRIPTIONS[name])
    if view.level is not Level.INSTANCE:
        yield _field(COUNTS[view.level], "INTEGER", "Distinct SOPInstanceUIDs")
    for column in view.columns:
        yield _field(column.name, column.type.resource_name, column.description)
    if view.level is not Level.INSTANCE:
        description = f"The columns that have several values in the {view.level}"
        yield {**_field(VARYING, "STRING", description), "mode": "REPEATED"}


def _field(name: str, kind: str, description: str) -> dict[str, str]:
    return {
        "name": name,
        "type": kind,
        "mode": "NULLABLE",
        "description": description[:_MOST_DESCRIPTION],
    }


def _list(items: Sequence[str], by: int) -> str:
    return indented(",\n".join(items), by)


def _blocks(columns: Sequence[ViewColumn]) -> dict[PrivateElement, str]:
    """Return a column name for the block of each private creator and group, by an element of it."""
    names: dict[tuple[str, str], str] = {}
    blocks: dict[PrivateElement, str] = {}
    for column in columns:
        source = column.source
        if isinstance(source, PrivateElement):
            key = (normalized_creator(source.creator), source.group)
            names.setdefault(key, f"block_{len(names) + 1}")
            blocks[source] = names[key]
    return blocks


def _block(source: PrivateElement) -> str:
    """Return SQL for the block of a creator: the last two digits of the creator's own element.

    The pattern also matches creators in items of sequences, hence the comparison with the value
    at the top. Like the converter, it ignores case and blanks.
    """
    creator = _quoted(normalized_creator(source.creator))
    place = f"{source.group}00"
    return f"""(
  SELECT MIN(block)
  FROM UNNEST(REGEXP_EXTRACT_ALL(
    TO_JSON_STRING(metadata), '"{place}([1-9A-F][0-9A-F])":"'
  )) AS block
  WHERE REGEXP_REPLACE(
    LOWER(JSON_VALUE(metadata[CONCAT('{place}', block)])), '[[:space:]]', ''
  ) = {creator}
)"""  # noqa: S608 - the creator is quoted


def _text(column: ViewColumn, blocks: dict[PrivateElement, str]) -> str:
    """Return SQL for the value of an attribute as text, or NULL."""
    source = column.source
    if isinstance(source, PrivateElement):
        place = f"CONCAT('{source.group}', {blocks[source]}, '{source.tag & 0xFF:02X}')"
        value, index = f"metadata[{place}]", None
    else:
        value, index = f"metadata{_subscripts(source)}", source.index
    if index:
        return f"JSON_VALUE({value}[{index}])"
    if index == 0 or column.type is not ColumnType.STRING:
        return f"COALESCE(\n  JSON_VALUE({value}),\n  JSON_VALUE({value}[0])\n)"
    return (
        f"IF(\n  JSON_TYPE({value}) = 'array',\n"
        rf"  ARRAY_TO_STRING(JSON_VALUE_ARRAY({value}), '\\', ''),"
        f"\n  JSON_VALUE({value})\n)"
    )


def _value(column: ViewColumn) -> str:
    """Return SQL for the typed value of a column that holds text."""
    name = f"`{column.name}`"
    return name if column.type is ColumnType.STRING else f"{cast(column.type, name)} AS {name}"


def _subscripts(source: AttributePath) -> str:
    return "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in source.steps)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
