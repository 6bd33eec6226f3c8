"""Imports go one way, as the table in docs/ARCHITECTURE.md shows it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"

BELOW_CLI = {
    "errors",
    "bucket_names",
    "config",
    "hash_key",
    "deadline",
    "stored_object",
    "ignored",
    "endpoints",
    "header_row",
    "expansion",
    "emulators",
    "extras",
    "files",
    "lifted",
    "machine",
    "parallel",
    "terminal",
    "delivery",
    "notifications",
    "events",
    "version",
    "dicom",
    "archives",
    "rows",
    "row_names",
    "transport",
    "secret_manager",
    "google_errors",
    "gcs",
    "bigquery",
    "handler",
    "log",
    "schema",
    "tools",
    "local",
}
MAY_IMPORT = {
    "main": BELOW_CLI - {"tools", "local"},
    "errors": set(),
    "bucket_names": set(),
    "config": {"bucket_names", "errors"},
    "hash_key": {"config", "errors"},
    "deadline": {"errors"},
    "stored_object": {"bucket_names", "errors"},
    "ignored": {"archives", "config", "stored_object"},
    "emulators": {"errors"},
    "extras": {"errors"},
    "files": set(),
    "lifted": set(),
    "machine": set(),
    "parallel": set(),
    "terminal": set(),
    "delivery": {"errors"},
    "notifications": {"delivery", "errors"},
    "events": {"delivery", "errors", "notifications", "stored_object"},
    "dicom": {"config", "deadline", "errors", "files", "hash_key", "lifted", "machine"},
    "archives": {"config", "deadline", "dicom", "errors", "parallel"},
    "version": set(),
    "rows": {"delivery", "events", "lifted", "version"},
    "row_names": {"config", "delivery", "events", "hash_key", "stored_object"},
    "transport": {"deadline", "emulators", "errors"},
    "secret_manager": {"config", "deadline", "emulators", "errors", "hash_key", "transport"},
    "google_errors": {"emulators", "errors"},
    "gcs": {
        *("bucket_names", "config", "deadline", "dicom", "emulators", "errors"),
        *("google_errors", "stored_object", "transport"),
    },
    "bigquery": {
        *("config", "deadline", "emulators", "errors", "google_errors", "rows", "transport"),
    },
    "endpoints": {"deadline", "rows", "stored_object"},
    "header_row": {"config", "dicom", "endpoints", "events", "rows"},
    "expansion": {
        *("archives", "config", "deadline", "dicom", "endpoints", "errors", "events"),
        *("header_row", "row_names", "rows"),
    },
    "handler": {
        *("config", "deadline", "delivery", "dicom", "endpoints", "errors", "events"),
        *("expansion", "header_row", "ignored", "row_names", "rows"),
    },
    "log": {"config", "errors", "hash_key", "row_names", "terminal"},
    "schema": {"config", "hash_key"},
    "tools": BELOW_CLI - {"local"},
    "local": BELOW_CLI,
    "cli": BELOW_CLI,
}
"""What a module or package of dcm2bq may import of the others."""
IN_DICOM_MAY_IMPORT: dict[str, set[str]] = {
    # What the standard says.
    "vr": set(),
    "syntax": set(),
    "dictionary": set(),
    "sop_classes": set(),
    # What passes from reading to writing, and what both report and pay.
    "elements": set(),
    "notes": {"dictionary", "elements", "vr"},
    "memory": set(),
    # Bytes become elements.
    "read": {"dictionary", "elements", "memory", "notes", "syntax", "vr"},
    # Values: what the bytes of an element mean.
    "charset": set(),
    "grisu2": set(),
    "numbers": {"grisu2"},
    "values": {"charset", "numbers"},
    # Rules apply to elements.
    "columns": {"charset", "elements", "notes", "values"},
    "privacy": {"charset", "dictionary", "elements", "notes", "values", "vr"},
    # Elements become JSON.
    "write": {
        *("charset", "dictionary", "elements", "memory", "notes", "numbers", "values", "vr"),
    },
    # What the rules do, in words.
    "explanation": {
        *("charset", "dictionary", "elements", "memory", "notes", "privacy", "read", "values"),
    },
    # The face of the library.
    "conversion": {
        *("columns", "elements", "memory", "notes", "privacy", "read", "sop_classes", "write"),
    },
}
"""What a module or package of dcm2bq.dicom may import of the others."""
IN_VERIFY_MAY_IMPORT: dict[str, set[str]] = {
    # The two sides, and how they may differ.
    "listed": set(),
    "key_ranges": set(),
    "late_markers": set(),
    "findings": set(),
    # What is done with them.
    "comparison": {"findings", "key_ranges", "late_markers", "listed"},
    "repair": {"findings"},
}
"""What a module of dcm2bq.tools.verify may import of the others."""
WITHIN = {"dicom": IN_DICOM_MAY_IMPORT, "tools/verify": IN_VERIFY_MAY_IMPORT}
"""The packages whose modules have a table of their own."""
STRANGERS = {
    "dicom/read": "dicom/write",
    "dicom/write": "dicom/read",
    "tools/verify": "tools/backfill",
    "tools/backfill": "tools/verify",
}
"""Packages within one that must not know each other."""
RESTRICTED = {
    "functions_framework": {"main"},
    "cloudevents": {"main"},
    "google.api_core": {"google_errors", "gcs", "bigquery"},
    "google.cloud.storage": {"gcs"},
    "google.cloud.bigquery": {"bigquery"},
    "pydicom": {"dicom", "local"},
    "click": {"cli", "tools", "local"},
    "rich": {"cli", "tools", "local"},
    "pyarrow": {"tools"},
    "jinja2": {"tools/report"},
    "markupsafe": {"tools/report"},
    "vl_convert": {"tools/report"},
    "apache_beam": {"tools/backfill/runners"},
}
"""The places that may import a package from outside the standard library."""

FILES = [ROOT / "main.py", *sorted((ROOT / "dcm2bq").rglob("*.py"))]


def place(file: Path) -> str:
    """Return where a file is within the package: `errors`, `dicom/read/source`."""
    relative = file.relative_to(ROOT).with_suffix("").as_posix()
    return relative.removeprefix("dcm2bq/").removesuffix("/__init__")


def imports(file: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str, separator: str) -> bool:
    return name == package or name.startswith(package + separator)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_the_table_allows(file: Path) -> None:
    here = place(file)
    module = here.partition("/")[0]
    if module == "__init__":
        assert not list(imports(file))
        return
    for name in imports(file):
        if is_within(name, "dcm2bq", ".") and name not in {"dcm2bq", "dcm2bq.__version__"}:
            there = name.removeprefix("dcm2bq.").replace(".", "/")
            other = there.partition("/")[0]
            assert other == module or other in MAY_IMPORT[module], f"{here} imports {name}"
            for package, stranger in STRANGERS.items():
                assert not (is_within(here, package, "/") and is_within(there, stranger, "/")), (
                    f"{here} imports {name}"
                )
        for package, places in RESTRICTED.items():
            if is_within(name, package, "."):
                assert any(is_within(here, allowed, "/") for allowed in places), (
                    f"{here} imports {name}"
                )


INNER_FILES = [
    (file, package) for package in WITHIN for file in FILES if place(file).startswith(f"{package}/")
]


def inner_module(name: str, package: str, separator: str) -> str:
    """Return the module or package within a package that a name is in."""
    return name.removeprefix(package + separator).partition(separator)[0]


@pytest.mark.parametrize(("file", "package"), INNER_FILES, ids=str)
def test_a_module_imports_only_what_the_table_of_its_package_allows(
    file: Path, package: str
) -> None:
    """The cuts between reading, rules and writing, and between comparing and repairing."""
    module = inner_module(place(file), package, "/")
    dotted = f"dcm2bq.{package.replace('/', '.')}"
    for name in imports(file):
        if is_within(name, dotted, "."):
            other = inner_module(name, dotted, ".")
            assert other == module or other in WITHIN[package][module], f"{file}: {name}"


@pytest.mark.parametrize("package", WITHIN)
def test_every_module_of_a_package_is_in_its_table(package: str) -> None:
    modules = {inner_module(place(file), package, "/") for file, of in INNER_FILES if of == package}
    assert modules == WITHIN[package].keys()


def test_every_module_is_in_the_table() -> None:
    assert {place(file).partition("/")[0] for file in FILES} - {"__init__"} == MAY_IMPORT.keys()


def in_words(module: str) -> str:
    """Return what the page says in the last column of a module's row."""
    allowed = MAY_IMPORT[module]
    if not allowed:
        return "nothing"
    if allowed >= BELOW_CLI - {"tools", "local"}:
        without = sorted(BELOW_CLI - allowed, reverse=True)
        return " but ".join(["everything below cli", *([" and ".join(without)] if without else [])])
    return ", ".join(sorted(allowed))


def test_the_page_shows_the_table() -> None:
    section = PAGE.read_text().partition("\n## The modules\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/.]+?)(?:\.py|/)` \| .* \| ([^|]+) \|$", section, re.MULTILINE)
    shown = {name: allowed for name, allowed in rows if "/" not in name}
    assert shown == {module: in_words(module) for module in MAY_IMPORT}
    assert {name for name, _ in rows if "/" in name} >= {
        *STRANGERS,
        *(allowed for places in RESTRICTED.values() for allowed in places if "/" in allowed),
    }


def test_no_class_and_no_module_has_the_name_of_another() -> None:
    """Only imports would tell two things of one name apart."""
    classes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(place(file))
    stems: dict[str, list[str]] = {}
    for file in FILES:
        if file.name != "__init__.py":
            stems.setdefault(file.stem, []).append(place(file))
    shared = {name: places for name, places in (classes | stems).items() if len(places) > 1}
    assert shared == {}


def test_commands_print_only_through_functions_that_escape() -> None:
    """So that no command, new ones included, prints a name that steers the terminal."""
    printing = {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
    calls = {
        (str(file.relative_to(ROOT)), ast.unparse(node))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in printing
        if "printable" not in ast.unparse(node)
    }
    assert calls == {
        ("dcm2bq/cli/__init__.py", "click.echo(nl=False)"),  # flushes
        ("dcm2bq/cli/progress_line.py", "click.echo(err=True)"),  # the end of a line
    }


def test_nothing_imports_main() -> None:
    assert not [file for file in FILES if "main" in set(imports(file))]


@pytest.mark.parametrize("table", [MAY_IMPORT, *WITHIN.values()])
def test_the_tables_have_no_cycles(table: dict[str, set[str]]) -> None:
    placed: set[str] = set()
    while left := {module for module in table if module not in placed}:
        ready = {module for module in left if table[module] - {module} <= placed}
        assert ready, f"cycle among {sorted(left)}"
        placed |= ready
