"""Google's own SQL engine in this process: GoogleSQL's analyser and reference evaluator.

    engine().analyze("SELECT 1 AS one")
    engine().query("SELECT TO_JSON_STRING(PARSE_JSON(@text)) AS text", text="1.50")

The package `zetasql` has it as WebAssembly. Compiling that takes half a minute of CPU, so the
machine code is cached in `$GOOGLESQL_CACHE`, by default `dcm2bq/googlesql` in the user's cache
folder, under a hash of the module and of what compiled it.
"""

import atexit
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import tempfile
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

CACHE_VARIABLE = "GOOGLESQL_CACHE"
TIMEOUT = 600
"""Seconds for a test that may have to compile the engine, on a busy machine."""

# Features of the engine that BigQuery lacks, such as comparing and grouping JSON and arrays.
_NOT_IN_BIGQUERY = (
    "FEATURE_AGGREGATE_FILTERING",
    "FEATURE_ARRAY_EQUALITY",
    "FEATURE_ARRAY_ORDERING",
    "FEATURE_CONCAT_MIXED_TYPES",
    "FEATURE_ENABLE_CONSTANT_EXPRESSION_IN_JSON_PATH",
    "FEATURE_GROUP_BY_ARRAY",
    "FEATURE_JSON_TYPE_COMPARISON",
    "FEATURE_LATERAL_COLUMN_REFERENCES",
    "FEATURE_LATERAL_JOIN",
)

_MOST_PREPARED = 50
"""Queries that stay prepared; each takes some 2 MB of the module's memory."""

_PACKAGES = ("zetasql", "wasmtime", "tzdata")

type Parameter = str | int | datetime | Sequence[str]
"""A query parameter: STRING, INT64, TIMESTAMP or ARRAY<STRING>."""


class SqlError(Exception):
    """The engine's message about a statement that is invalid or cannot be evaluated."""


@cache
def engine() -> "Engine":
    """Return the process's engine; if it is not installed, skip the test, or fail it in CI."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"Google's SQL engine is not installed: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    atexit.register(engine.cache_clear)  # wasmtime cannot free its objects any later
    return Engine()


class Engine:
    """Analyses and evaluates statements like BigQuery; raises `SqlError`."""

    def __init__(self) -> None:
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2  # noqa: PLC0415

        self._messages = local_service_pb2
        self._wasm = _Wasm()
        self._options = self._analyzer_options()
        self._prepared: OrderedDict[Hashable, Any] = OrderedDict()
        self._registered = b"", 0

    def catalog(self) -> Any:
        """Return a new `SimpleCatalogProto` with BigQuery's functions and no tables."""
        from zetasql.wasi._pb2.zetasql.proto import simple_catalog_pb2  # noqa: PLC0415

        catalog = simple_catalog_pb2.SimpleCatalogProto(name="catalog")
        functions = catalog.builtin_function_options
        functions.language_options.CopyFrom(self._options.language_options)
        return catalog

    def analyze(self, statement: str, catalog: Any = None) -> Any:
        """Return the `AnyResolvedStatementProto` of a statement; its parameters have any types."""
        request = self._messages.AnalyzeRequest(
            sql_statement=statement,
            options=self._options,
            registered_catalog_id=self._register(catalog or self.catalog()),
        )
        answer = self._wasm.call("Analyze", request, self._messages.AnalyzeResponse)
        return answer.resolved_statement

    def check_script(self, script: str) -> None:
        """Raise `SqlError` unless the syntax of a script of several statements is right."""
        request = self._messages.ParseRequest(
            sql_statement=script, options=self._options.language_options, allow_script=True
        )
        self._wasm.call("Parse", request, self._messages.ParseResponse)

    def query(self, statement: str, **parameters: Parameter) -> list[tuple[Any, ...]]:
        """Return the rows of a query; times as messages, JSON as text."""
        _, rows = self._evaluate(statement, parameters)
        return [tuple(_plain(cell) for cell in row.cell) for row in rows]

    def rows(self, statement: str, parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
        """Return the rows of a query by column, with the types of Google's BigQuery client."""
        columns, rows = self._evaluate(statement, parameters)
        kinds = [(column.name, column.type) for column in columns]
        return [
            {name: _typed(cell, kind) for (name, kind), cell in zip(kinds, row.cell, strict=True)}
            for row in rows
        ]

    def _register(self, catalog: Any) -> int:
        """Return the engine's number of a catalogue; it keeps the last one."""
        content = catalog.SerializeToString(deterministic=True)
        last, number = self._registered
        if content != last:
            if last:
                self._forget(
                    "UnregisterCatalog", self._messages.UnregisterRequest(registered_id=number)
                )
            request = self._messages.RegisterCatalogRequest(simple_catalog=catalog)
            answer = self._wasm.call("RegisterCatalog", request, self._messages.RegisterResponse)
            self._registered = content, answer.registered_id
        return self._registered[1]

    def _evaluate(self, statement: str, parameters: Mapping[str, Parameter]) -> tuple[Any, Any]:
        """Return the columns and the rows of a query."""
        prepared = self._prepare(statement, {name: _type(parameters[name]) for name in parameters})
        request = self._messages.EvaluateQueryRequest(prepared_query_id=prepared.prepared_query_id)
        for name, value in parameters.items():
            _set_value(request.params.add(name=name).value, value)
        answer = self._wasm.call("EvaluateQuery", request, self._messages.EvaluateQueryResponse)
        return prepared.columns, answer.content.table_data.row

    def _prepare(self, statement: str, types: Mapping[str, int]) -> Any:
        """Return the `PreparedQueryState` of a query with parameters of these types.

        Preparing a query over `instances` takes 0.15 s of CPU and more, evaluating it over few
        rows some milliseconds: the last queries stay prepared, for other values.
        """
        key = (statement, frozenset(types.items()))
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        options = type(self._options)()
        options.CopyFrom(self._options)
        options.allow_undeclared_parameters = False
        for name, kind in types.items():
            declared = options.query_parameters.add(name=name).type
            declared.type_kind = kind
            if kind == _ARRAY:
                declared.array_type.element_type.type_kind = _STRING
        request = self._messages.PrepareQueryRequest(
            sql=statement, options=options, simple_catalog=self.catalog()
        )
        answer = self._wasm.call("PrepareQuery", request, self._messages.PrepareQueryResponse)
        self._prepared[key] = answer.prepared
        if len(self._prepared) > _MOST_PREPARED:
            _, oldest = self._prepared.popitem(last=False)
            number = oldest.prepared_query_id
            unprepare = self._messages.UnprepareQueryRequest(prepared_query_id=number)
            self._forget("UnprepareQuery", unprepare)
        return answer.prepared

    def _forget(self, method: str, request: Any) -> None:
        """Free what the engine keeps, by a method whose answer is empty."""
        from google.protobuf.empty_pb2 import Empty  # noqa: PLC0415

        self._wasm.call(method, request, Empty)

    def _analyzer_options(self) -> Any:
        from zetasql.wasi._pb2.zetasql.proto import options_pb2  # noqa: PLC0415
        from zetasql.wasi._pb2.zetasql.public.options_pb2 import (  # noqa: PLC0415
            PRODUCT_EXTERNAL,
            LanguageFeature,
        )

        request = self._messages.LanguageOptionsRequest(maximum_features=True)
        language = self._wasm.call("GetLanguageOptions", request, options_pb2.LanguageOptionsProto)
        for name in _NOT_IN_BIGQUERY:
            feature = LanguageFeature.Value(name)
            if feature in language.enabled_language_features:
                language.enabled_language_features.remove(feature)
        language.product_mode = PRODUCT_EXTERNAL
        language.reserved_keywords.append("QUALIFY")
        language.ClearField("supported_statement_kinds")  # by default, only queries are supported
        return options_pb2.AnalyzerOptionsProto(
            language_options=language,
            default_timezone="UTC",
            prune_unused_columns=False,
            allow_undeclared_parameters=True,
        )


# TypeKind in type.proto
_INT64 = 2
_STRING = 8
_ARRAY = 16
_STRUCT = 17
_TIMESTAMP = 19

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _type(value: Parameter) -> int:
    """Return the kind of a parameter's type; an array is one of strings."""
    match value:
        case str():
            return _STRING
        case int():
            return _INT64
        case datetime():
            return _TIMESTAMP
    return _ARRAY


def _set_value(target: Any, value: Parameter) -> None:
    """Set a `ValueProto` to the value of a parameter."""
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int):
        target.int64_value = value
    elif isinstance(value, datetime):
        target.timestamp_value.FromDatetime(value)
    else:
        target.array_value.SetInParent()
        for text in value:
            target.array_value.element.add(string_value=text)


def _typed(value: Any, kind: Any) -> Any:
    """Return a value of the engine as Google's BigQuery client would; a NULL array is empty."""
    field = value.WhichOneof("value")
    if field is None:
        return [] if kind.type_kind == _ARRAY else None
    content = getattr(value, field)
    if kind.type_kind == _ARRAY:
        return [_typed(element, kind.array_type.element_type) for element in content.element]
    if kind.type_kind == _STRUCT:
        fields = zip(kind.struct_type.field, content.field, strict=True)
        return {each.field_name: _typed(member, each.field_type) for each, member in fields}
    return _scalar(field, content)


def _scalar(field: str, content: Any) -> Any:
    """Return the content of a field of `ValueProto` as Python's."""
    match field:
        case "timestamp_value":
            return _EPOCH + timedelta(seconds=content.seconds, microseconds=content.nanos // 1000)
        case "date_value":  # days
            return date(1970, 1, 1) + timedelta(content)
        case "time_value":  # from the right: 30 bits of nanoseconds, then 6, 6 and 5 of s, min, h
            clock = content >> 30
            microsecond = (content & (1 << 30) - 1) // 1000
            return time(clock >> 12, clock >> 6 & 63, clock & 63, microsecond)
        case "datetime_value":  # from the right: 6, 6, 5, 5 and 4 bits of s, min, h, day, month
            bits = content.bit_field_datetime_seconds
            day = date(bits >> 26, bits >> 22 & 15, bits >> 17 & 31)
            clock_time = time(bits >> 12 & 31, bits >> 6 & 63, bits & 63, content.nanos // 1000)
            return datetime.combine(day, clock_time)
        case "json_value":
            return json.loads(content)
    return content


def _plain(value: Any) -> Any:
    """Return a value of the engine as Python's; JSON as text, times as messages."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "array_value":
        return [_plain(element) for element in content.element]
    if kind == "struct_value":
        return tuple(_plain(member) for member in content.field)
    return content


class _Wasm:
    """An instance of the module. Requests and answers are messages in its memory."""

    def __init__(self) -> None:
        import tzdata  # noqa: PLC0415
        import wasmtime  # noqa: PLC0415
        from zetasql.wasi import get_wasm_path  # noqa: PLC0415

        config = wasmtime.Config()
        config.shared_memory = True
        machine = wasmtime.Engine(config)
        module = compiled(machine, Path(get_wasm_path()))
        wasi = wasmtime.WasiConfig()
        wasi.inherit_stderr()
        zones = Path(tzdata.__file__).parent / "zoneinfo"
        wasi.preopen_dir(str(zones), "/usr/share/zoneinfo")
        self._store = wasmtime.Store(machine)
        self._store.set_wasi(wasi)
        linker = wasmtime.Linker(machine)
        linker.define_wasi()
        instance = linker.instantiate(self._store, module)
        self._exports = instance.exports(self._store)
        self._run("_initialize")

    def call(self, method: str, request: Any, answer: Any) -> Any:
        """Call a method of the service; return its answer, a message of the type `answer`."""
        content = request.SerializeToString()
        place = self._run("wasm_malloc", len(content))
        size_place = self._run("wasm_malloc", 4)
        try:
            ctypes.memmove(self._address(place), content, len(content))
            result = self._run(f"ZetaSqlLocalService_{method}", place, len(content), size_place)
            if not result:
                size = self._run("wasm_get_last_error_size")
                message = self._read(self._run("wasm_get_last_error"), size).decode()
                raise SqlError(message.partition("Message: ")[2] or message)
            size = int.from_bytes(self._read(size_place, 4), "little")
            try:
                return answer.FromString(self._read(result, size))
            finally:
                self._run("wasm_free", result)
        finally:
            self._run("wasm_free", place)
            self._run("wasm_free", size_place)

    def _run(self, function: str, *arguments: int) -> Any:
        call: Any = self._exports[function]
        return call(self._store, *arguments)

    def _read(self, place: int, size: int) -> bytes:
        return ctypes.string_at(self._address(place), size)

    def _address(self, place: int) -> int:
        """Return the address of a place in the module's memory; any call may move the memory."""
        memory: Any = self._exports["memory"]
        start = ctypes.cast(memory.data_ptr(), ctypes.c_void_p).value
        return (start or 0) + place


def compiled(machine: Any, source: Path) -> Any:
    """Return a module from the cache, or compile it; only one process compiles at a time."""
    import wasmtime  # noqa: PLC0415

    content = source.read_bytes()
    kind = f"{version('wasmtime')} {platform.system()} {platform.machine()} "
    digest = hashlib.sha256(kind.encode() + content).hexdigest()[:32]
    folder = _cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{digest}.cwasm"
    with (folder / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            try:
                return wasmtime.Module.deserialize_file(machine, str(file))
            except wasmtime.WasmtimeError:
                pass  # damaged, or compiled for a processor with more instructions than this one
        module = wasmtime.Module(machine, content)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as partial:
            partial.write(module.serialize())
        Path(partial.name).replace(file)
        return module


def _cache_folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dcm2bq", "googlesql")
