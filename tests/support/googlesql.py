"""Google's own SQL engine in this process: GoogleSQL's analyser and reference evaluator.

    engine().analyze("SELECT 1 AS one")
    engine().query("SELECT TO_JSON_STRING(PARSE_JSON(@text)) AS text", text="1.50")

It is WebAssembly in the package `zetasql`. Compiling that takes half a minute of CPU, once: the
machine code is kept in `$GOOGLESQL_CACHE`, by default `dcm2bq/googlesql` in the user's cache.
"""

import atexit
import ctypes
import fcntl
import hashlib
import importlib.util
import os
import platform
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

CACHE_VARIABLE = "GOOGLESQL_CACHE"
TIMEOUT = 600
"""Seconds for a test that may be the one to compile the engine, on a busy machine."""

# What the engine can do and BigQuery cannot: comparing and grouping JSON and arrays, and so on.
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


class SqlError(Exception):
    """What the engine says of a statement that it refuses, or cannot evaluate."""


@cache
def engine() -> "Engine":
    """Return the engine, one for the process; skip the test without it, but fail it in CI."""
    missing = [each for each in ("zetasql", "wasmtime") if importlib.util.find_spec(each) is None]
    if missing:
        reason = f"Google's SQL engine is not installed: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    atexit.register(engine.cache_clear)  # wasmtime cannot take its objects down any later
    return Engine()


class Engine:
    """Analyses and evaluates statements as BigQuery does; raises `SqlError`."""

    def __init__(self) -> None:
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2  # noqa: PLC0415

        self._messages = local_service_pb2
        self._wasm = _Wasm()
        self._options = self._analyzer_options()

    def catalog(self) -> Any:
        """Return a new catalogue, a `SimpleCatalogProto`, of BigQuery's functions and no table."""
        from zetasql.wasi._pb2.zetasql.proto import simple_catalog_pb2  # noqa: PLC0415

        catalog = simple_catalog_pb2.SimpleCatalogProto(name="catalog")
        functions = catalog.builtin_function_options
        functions.language_options.CopyFrom(self._options.language_options)
        return catalog

    def analyze(self, statement: str, catalog: Any = None) -> Any:
        """Return a statement of any kind as resolved, an `AnyResolvedStatementProto`."""
        request = self._messages.AnalyzeRequest(
            sql_statement=statement, options=self._options, simple_catalog=catalog or self.catalog()
        )
        answer = self._wasm.call("Analyze", request, self._messages.AnalyzeResponse)
        return answer.resolved_statement

    def query(
        self,
        statement: str,
        catalog: Any = None,
        contents: Any = None,
        **parameters: str | Sequence[str],
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        `contents` are the tables' rows, `TableContent` by name; parameters are text, or arrays
        of text.
        """
        options = type(self._options)()
        options.CopyFrom(self._options)
        request = self._messages.EvaluateQueryRequest(
            sql=statement, simple_catalog=catalog or self.catalog(), table_content=contents
        )
        for name, value in parameters.items():
            declared = options.query_parameters.add(name=name)
            parameter = request.params.add(name=name)
            if isinstance(value, str):
                declared.type.type_kind = _STRING
                parameter.value.string_value = value
            else:
                declared.type.type_kind = _ARRAY
                declared.type.array_type.element_type.type_kind = _STRING
                parameter.value.array_value.SetInParent()
                for each in value:
                    parameter.value.array_value.element.add(string_value=each)
        request.options.CopyFrom(options)
        answer = self._wasm.call("EvaluateQuery", request, self._messages.EvaluateQueryResponse)
        rows = answer.content.table_data.row
        return [tuple(_plain(cell) for cell in row.cell) for row in rows]

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
        language.ClearField("supported_statement_kinds")  # the default is queries only
        return options_pb2.AnalyzerOptionsProto(
            language_options=language, default_timezone="UTC", prune_unused_columns=False
        )


# TypeKind, in type.proto
_STRING = 8
_ARRAY = 16


def _plain(value: Any) -> Any:
    """Return a value of the engine as Python's; JSON as its text, times as messages."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "array_value":
        return [_plain(each) for each in content.element]
    if kind == "struct_value":
        return tuple(_plain(each) for each in content.field)
    return content


class _Wasm:
    """An instance of the module, and its calling convention: messages in its memory."""

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
        """Return the answer, a message of that type, to a request."""
        content = request.SerializeToString()
        place = self._run("wasm_malloc", len(content))
        size_place = self._run("wasm_malloc", 4)
        try:
            ctypes.memmove(self._address(place), content, len(content))
            found = self._run(f"ZetaSqlLocalService_{method}", place, len(content), size_place)
            if not found:
                size = self._run("wasm_get_last_error_size")
                message = self._read(self._run("wasm_get_last_error"), size).decode()
                raise SqlError(message.partition("Message: ")[2] or message)
            size = int.from_bytes(self._read(size_place, 4), "little")
            try:
                return answer.FromString(self._read(found, size))
            finally:
                self._run("wasm_free", found)
        finally:
            self._run("wasm_free", place)
            self._run("wasm_free", size_place)

    def _run(self, function: str, *arguments: int) -> Any:
        call: Any = self._exports[function]
        return call(self._store, *arguments)

    def _read(self, place: int, size: int) -> bytes:
        return ctypes.string_at(self._address(place), size)

    def _address(self, place: int) -> int:
        """Return where a place of the module's memory is in the process's; calls may move it."""
        memory: Any = self._exports["memory"]
        start = ctypes.cast(memory.data_ptr(), ctypes.c_void_p).value
        return (start or 0) + place


def compiled(machine: Any, source: Path) -> Any:
    """Return a module: from the cache, or compiled, by one process at a time."""
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
                pass  # damaged, or made on a processor that can do more than this one
        module = wasmtime.Module(machine, content)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as partial:
            partial.write(module.serialize())
        Path(partial.name).replace(file)
        return module


def _cache_folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dcm2bq", "googlesql")
