"""The dataset as a catalogue of Google's SQL engine, to analyse statements with.

The columns of views and table functions are those that the engine derives from their definitions.
So each definition is analysed as well.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.schema import Definition, DefinitionKind
from tests.support.googlesql import engine

# TypeKind, in type.proto
_KINDS = {
    "INTEGER": 2,
    "INT64": 2,
    "BOOLEAN": 5,
    "FLOAT": 7,
    "STRING": 8,
    "BYTES": 9,
    "DATE": 10,
    "TIMESTAMP": 19,
    "TIME": 20,
    "DATETIME": 21,
    "NUMERIC": 23,
    "JSON": 26,
}
_ARRAY, _STRUCT = 16, 17
_FIXED_OUTPUT_SCHEMA = 1  # FunctionEnums.TableValuedFunctionType
_REQUIRED = 0  # FunctionEnums.ArgumentCardinality
_FIXED, _RELATION = "ARG_TYPE_FIXED", "ARG_TYPE_RELATION"

type Columns = list[tuple[str, Any]]
"""Names and types, the latter as `TypeProto`."""


class DatasetCatalog:
    """A catalogue of tables, and of the views and table functions defined over them."""

    def __init__(self) -> None:
        self.catalog = engine().catalog()
        self.columns: dict[str, Columns] = {}
        """The columns of each defined object."""

    def define(self, definitions: Iterable[Definition], dataset: str) -> None:
        """Add the objects of a dataset under `name`, `dataset.name` and the full name."""
        for definition in definitions:
            name = definition.name
            names = ([name], [dataset, name], [definition.qualified_name])
            if definition.kind is DefinitionKind.TABLE:
                columns = columns_of(definition.resource["schema"]["fields"])
            else:
                columns = self._output(definition.ddl)
            if definition.kind is DefinitionKind.FUNCTION:
                self._add_function(definition.resource["arguments"], columns, *names)
            else:
                self.add(columns, *names)
            self.columns[name] = columns

    def add(self, columns: Columns, *names: list[str]) -> None:
        """Add a table under each of the names, which are paths of the catalogue."""
        for name in names:
            table = self._place(name).table.add(name=name[-1])
            for column, kind in columns:
                table.column.add(name=column, type=kind, is_writable_column=True)

    def add_resource(self, fields: list[Mapping[str, Any]], *names: list[str]) -> None:
        """Add a table, given the fields of its REST resource."""
        self.add(columns_of(fields), *names)

    def _add_function(
        self, arguments: list[Mapping[str, Any]], columns: Columns, *names: list[str]
    ) -> None:
        for name in names:
            function = self._place(name).custom_tvf.add(name_path=name, type=_FIXED_OUTPUT_SCHEMA)
            relation = function.signature.return_type
            relation.kind = _kind(relation, _RELATION)
            relation.num_occurrences = 1
            relation.options.cardinality = _REQUIRED
            for column, kind in columns:
                relation.options.relation_input_schema.column.add(name=column, type=kind)
            for declared in arguments:
                argument = function.signature.argument.add(num_occurrences=1)
                argument.kind = _kind(argument, _FIXED)
                argument.type.type_kind = _KINDS[declared["dataType"]["typeKind"]]
                argument.options.cardinality = _REQUIRED

    def _place(self, name: list[str]) -> Any:
        """Return the nested catalogue that a name belongs to."""
        place = self.catalog
        for part in name[:-1]:
            nested = next((each for each in place.catalog if each.name == part), None)
            place = nested or place.catalog.add(name=part)
        return place

    def _output(self, ddl: str) -> Columns:
        """Return the columns of the object that a statement creates."""
        columns = _find(engine().analyze(ddl, self.catalog), "output_column_list")
        return [(column.name, column.column.type) for column in columns]


def whole_dataset() -> DatasetCatalog:
    """Return a catalogue of the dataset `project.dicom`, to which more can be added."""
    copy = DatasetCatalog()
    copy.catalog.CopyFrom(_whole_dataset().catalog)
    copy.columns |= _whole_dataset().columns
    return copy


@cache
def _whole_dataset() -> DatasetCatalog:
    """Analyse every definition, which takes 2 s of CPU."""
    catalog = DatasetCatalog()
    catalog.define(schema.load(Config(), "project"), "dicom")
    return catalog


def columns_of(fields: list[Mapping[str, Any]]) -> Columns:
    """Return the columns of a REST resource's fields."""
    return [(field["name"], _type(field)) for field in fields]


def _type(field: Mapping[str, Any]) -> Any:
    from zetasql.wasi._pb2.zetasql.public.type_pb2 import TypeProto  # noqa: PLC0415

    if field["type"] == "RECORD":
        kind = TypeProto(type_kind=_STRUCT)
        for name, inner in columns_of(field["fields"]):
            kind.struct_type.field.add(field_name=name, field_type=inner)
    else:
        kind = TypeProto(type_kind=_KINDS[field["type"]])
    if field.get("mode") != "REPEATED":
        return kind
    array = TypeProto(type_kind=_ARRAY)
    array.array_type.element_type.CopyFrom(kind)
    return array


def _kind(argument: Any, name: str) -> int:
    """Return a number of the enum SignatureArgumentKind."""
    number: int = argument.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_name[name].number
    return number


def _find(message: Any, field: str) -> Any:
    """Return the field with this name that is nearest to the top of a message."""
    level = [message]
    while level:
        below = []
        for part in level:
            for descriptor, value in part.ListFields():
                if descriptor.name == field:
                    return value
                if descriptor.message_type:
                    below += list(value) if hasattr(value, "add") else [value]
        level = below
    raise AssertionError(f"no {field}")
