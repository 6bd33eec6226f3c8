"""The table of modules in docs/ARCHITECTURE.md holds: one direction, packages in their rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BELOW_CLI = {
    "errors",
    "config",
    "machine",
    "events",
    "extras",
    "lifted",
    "version",
    "dicom",
    "rows",
    "transport",
    "gcs",
    "bigquery",
    "handler",
    "log",
    "schema",
    "terminal",
    "tools",
    "local",
}
MAY_IMPORT = {
    "main": BELOW_CLI - {"tools", "local"},
    "errors": set(),
    "config": {"errors"},
    "events": {"errors"},
    "extras": {"errors"},
    "machine": set(),
    "lifted": set(),
    "version": set(),
    "dicom": {"errors", "config", "lifted", "machine"},
    "rows": {"events", "lifted", "version"},
    "terminal": set(),
    "transport": set(),
    "gcs": {"config", "events", "errors", "transport", "dicom"},
    "bigquery": {"config", "rows", "errors", "transport"},
    "handler": {"errors", "config", "events", "dicom", "rows"},
    "log": {"config", "errors", "terminal"},
    "schema": {"config"},
    "tools": BELOW_CLI - {"local"},
    "local": BELOW_CLI,
    "cli": BELOW_CLI,
}
RESTRICTED = {
    "functions_framework": {"main"},
    "cloudevents": {"main"},
    "google.cloud.storage": {"gcs"},
    "google.cloud.bigquery": {"bigquery"},
    "pydicom": {"dicom", "local"},
    "click": {"cli", "tools", "local"},
    "rich": {"cli", "tools", "local"},
    "apache_beam": {"tools"},
}

FILES = [ROOT / "main.py", *sorted((ROOT / "dcm2bq").rglob("*.py"))]


def room(file: Path) -> str:
    """Return the room that a file belongs to: a module or folder of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if len(parts) == 1 else parts[1]


def imports(file: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_part_of(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_what_its_room_may(file: Path) -> None:
    here = room(file)
    if here == "__init__":
        assert not list(imports(file))
        return
    for name in imports(file):
        if is_part_of(name, "dcm2bq") and name not in {"dcm2bq", "dcm2bq.__version__"}:
            there = name.split(".")[1]
            assert there == here or there in MAY_IMPORT[here], f"{here} imports {name}"
        for package, rooms in RESTRICTED.items():
            if is_part_of(name, package):
                assert here in rooms, f"{here} imports {name}"


def test_commands_print_only_through_what_escapes() -> None:
    """A name that steers the terminal can then be printed by no command, new ones included."""
    printing = {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
    found = {
        (str(file.relative_to(ROOT)), ast.unparse(node))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in printing
        if "printable" not in ast.unparse(node)
    }
    assert found == {
        ("dcm2bq/cli/__init__.py", "click.echo(nl=False)"),  # flushes
        ("dcm2bq/cli/backfill_command.py", "click.echo(err=True)"),  # the end of a line
    }


def test_nothing_imports_main() -> None:
    assert not [file for file in FILES if "main" in set(imports(file))]


def test_the_table_has_no_circles() -> None:
    placed: set[str] = set()
    while rooms := {each for each in MAY_IMPORT if each not in placed}:
        ready = {each for each in rooms if MAY_IMPORT[each] - {each} <= placed}
        assert ready, f"circle among {sorted(rooms)}"
        placed |= ready
