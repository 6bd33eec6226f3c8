"""The SQL statements of the product, found in its source code.

A statement is the first argument of a call of a method of `METHODS`. It is put together from the
constants and f-strings of its function and module, and from the files that `schema.statement`
reads; `VALUES` has the other parts.
"""

import ast
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from dcm2bq import schema
from dcm2bq.config import Config
from dcm2bq.lifted import LIFTED
from dcm2bq.tools.dead_letters import Filter
from dcm2bq.tools.key_layout import MARKERS

METHODS = {"query", "stream", "change"}
ROOT = Path(__file__).parents[2]

KEYS_TABLE = "project.dicom.keys"

_EVERY_CONDITION, _ = Filter(
    path="*",
    message_id="1",
    event="finalized",
    reason="NotDicomError",
    source="function",
    since=datetime(2024, 1, 1, tzinfo=UTC),
).where

VALUES = {
    "where": _EVERY_CONDITION,
    "end": "LIMIT 10",
    "table": "dead_letter",
    "self._table": "instances",
    "self._instances": "instances",
    "self._dead_letter": "dead_letter",
    "source": "study(@study)",
    "columns": ", ".join(f"CAST({each.keyword} AS STRING) AS {each.keyword}" for each in LIFTED),
    "MARKERS": MARKERS,
    "self.table": KEYS_TABLE,
    "listed": KEYS_TABLE,
    "shards": "3",
    "EXPIRY_DAYS": "7",
    "command": "verify",
    "len(starts)": "3",
    "stack.config.big_query.instances_table_id": "instances",
    **{
        f"schema.statement({file!r}, config, dataset.project)": schema.statement(
            file, Config(), "project"
        )
        for file in schema.STATEMENTS
    },
}
"""Parts that only a running program has, by the expression in the source."""

NOT_OURS = {
    ("dcm2bq/bigquery/dataset.py", "sql"),  # any statement
    ("dcm2bq/cli/local_command.py", "folder"),  # another function of that name
    ("dcm2bq/tools/report/answers.py", "self._names"),  # makes a statement
    ("dcm2bq/tools/report/answers.py", "sql"),  # a question, each of which is analysed
    ("dcm2bq/tools/init.py", "step.definition.ddl"),  # a definition of the schema
}
"""Arguments that are not statements of the tools, by file and expression."""

type Scope = Mapping[str, ast.expr]


def statements() -> list[tuple[str, str]]:
    """Return every statement with its place, a file and a line."""
    return [
        (f"{name}:{line}", _text(argument, scope))
        for name, line, argument, scope in _arguments()
        if (name, ast.unparse(argument)) not in NOT_OURS
    ]


def scheduled_refresh() -> str:
    """Return the script of tf/refresh.sql, as Terraform renders it for `project.dicom`."""
    statements_of_it = {
        name: schema.statement(f"objects/{name}", Config(), "project").replace("@since", "since")
        for name in ("refresh_from", "refresh")
    }
    return Template((ROOT / "tf" / "refresh.sql").read_text()).substitute(statements_of_it)


def skipped() -> set[tuple[str, str]]:
    """Return the arguments that `statements` leaves out."""
    return {(name, ast.unparse(argument)) for name, _, argument, _ in _arguments()} & NOT_OURS


def _arguments() -> Iterator[tuple[str, int, ast.expr, Scope]]:
    """Yield file, line, first argument and scope of each such call."""
    for file in sorted((ROOT / "dcm2bq").rglob("*.py")):
        text = file.read_text()
        if not any(f".{method}(" in text for method in METHODS):
            continue
        module = ast.parse(text)
        for function in ast.walk(module):
            if isinstance(function, ast.FunctionDef):
                scope = {**_assigned(module.body), **_assigned(ast.walk(function))}
                for call in ast.walk(function):
                    if (
                        isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Attribute)
                        and call.func.attr in METHODS
                        and call.args
                    ):
                        name = file.relative_to(ROOT).as_posix()
                        yield name, call.lineno, call.args[0], scope


def _assigned(nodes: Iterator[ast.AST] | list[ast.stmt]) -> dict[str, ast.expr]:
    return {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _text(expression: ast.expr, scope: Scope) -> str:
    """Return the value of an expression as text."""
    source = ast.unparse(expression)
    if source in VALUES:
        return VALUES[source]
    match expression:
        case ast.Constant():
            return str(expression.value)
        case ast.JoinedStr():
            return "".join(_text(part, scope) for part in expression.values)
        case ast.FormattedValue():
            return _text(expression.value, scope)
        case ast.Name() if source in scope:
            return _text(scope[source], scope)
        case ast.Call(func=ast.Attribute(value=template, attr="format"), keywords=keywords):
            values = {str(keyword.arg): _text(keyword.value, scope) for keyword in keywords}
            return _text(template, scope).format(**values)
    raise AssertionError(f"VALUES has no {source}")
