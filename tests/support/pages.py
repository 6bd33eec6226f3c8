"""The command lines and the SQL statements that the documentation shows.

A command line calls one of `TOOLS` in a code block, in a code span within a sentence, in a
command's help text or in a Terraform output. In a sentence, a command without arguments only
mentions the command.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import hcl2

from dcm2bq import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TOOLS = ("dcm2bq", "gcloud", "bq", "terraform")

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^ {4,}\S.*\n", re.MULTILINE)
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_TOOL = re.compile(rf"(^|[\s;|&(])({'|'.join(TOOLS)})\s")
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$", re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_BEFORE_A_COMMAND = re.compile(r"do|export|\w+=.*", re.DOTALL)
_QUERY = re.compile(r"(SELECT|WITH|INSERT|DELETE|UPDATE|MERGE|CREATE)\s.*\s\w", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """A command line: where it is shown, and its words, beginning with the tool."""

    place: str
    words: tuple[str, ...]
    is_in_a_sentence: bool = False

    @property
    def tool(self) -> str:
        """The program that it calls."""
        return self.words[0]

    @property
    def text(self) -> str:
        """The line in the syntax of a shell."""
        return shlex.join(self.words)

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@cache
def lines() -> Sequence[Line]:
    """Return the distinct command lines of each page, help text and output."""
    found = [
        *(line for page in PAGES for line in in_markdown(page.name, page.read_text())),
        *_in_help("dcm2bq", cli.commands),
        *_in_outputs(),
    ]
    return list(dict.fromkeys(found))


def statements() -> list[tuple[str, str]]:
    """Return the distinct SQL statements of each place, with the place."""
    found = [
        *((page.name, sql) for page in PAGES for sql in sql_in_markdown(page.read_text())),
        *((line.place, sql) for line in lines() for sql in _sql_in_words(line.words)),
    ]
    return list(dict.fromkeys(found))


def in_markdown(place: str, text: str) -> Iterator[Line]:
    """Yield the command lines of a page."""
    for _, language, block in _FENCE.findall(text):
        if language in {"", "sh"}:
            yield from in_shell(place, block)
    prose = _FENCE.sub("\n", text)
    yield from in_shell(place, "".join(_INDENTED.findall(prose)))
    for _, span in _SPAN.findall(_INDENTED.sub("\n", prose)):
        for line in in_shell(place, " ".join(span.replace(r"\|", "|").split())):
            if len(line.words) > 1:
                yield Line(place, line.words, is_in_a_sentence=True)


def sql_in_markdown(text: str) -> Iterator[str]:
    """Yield the statements of a page, without those in its command lines."""
    for _, language, block in _FENCE.findall(text):
        if language == "sql":
            parts = (
                statement.strip() for statement in re.split(r";\s*$", block, flags=re.MULTILINE)
            )
            yield from filter(None, parts)
    for _, span in _SPAN.findall(_INDENTED.sub("\n", _FENCE.sub("\n", text))):
        if _QUERY.match(span):
            yield " ".join(span.split())


def in_shell(place: str, script: str) -> Iterator[Line]:
    """Yield the command lines of a script or of a terminal session."""
    rest = _COMMENT.sub("", re.sub(r"\\\n\s*", " ", script)).splitlines()
    while rest:
        line = rest.pop(0)
        words = _words(line)
        while words is None and rest and _TOOL.search(line):  # quoted, over several lines
            line += "\n" + rest.pop(0)
            words = _words(line)
        if words is None:
            assert not _TOOL.search(line), f"{place}: no closing quotation: {line}"
            continue
        for inner in _SUBSTITUTION.findall(line):
            yield from in_shell(place, inner)
        for command in _commands(words):
            yield Line(place, command)


def _words(line: str) -> list[str] | None:
    """Return the words and operators of a line, or None if a quotation is not closed."""
    lexer = shlex.shlex(_SUBSTITUTION.sub("SUBSTITUTED", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return None


def _commands(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line that call one of the tools."""
    command: list[str] = []
    for word in [*words, ";"]:
        if not re.fullmatch(r"[();<>|&]+", word):
            command.append(word)
            continue
        while command and _BEFORE_A_COMMAND.fullmatch(command[0]):
            del command[0]
        if command and (tool := Path(command[0]).name) in TOOLS:
            yield (tool, *command[1:])
        command = []


def _in_help(name: str, command: click.Command) -> Iterator[Line]:
    yield from in_shell(f"{name} --help", _shown(command.help or ""))
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            yield from _in_help(f"{name} {subcommand.name}", subcommand)


def _shown(help_text: str) -> str:
    """Return the indented lines of a help text, which are examples."""
    return "".join(_INDENTED.findall(f"{help_text}\n"))


def _in_outputs() -> Iterator[Line]:
    """Yield the command lines of Terraform's outputs, with a word in place of each value."""
    text = (ROOT / "tf" / "outputs.tf").read_text()
    for output in hcl2.loads(text)["output"]:
        for name, body in output.items():
            joined = re.search(r'join\(" ", \w+\((.*)\)', _plain(str(body["value"])), re.DOTALL)
            if joined:
                pieces = [json.loads(match) for match in re.findall(r'"[^"]*"', joined[1])]
                yield from in_shell(f"tf/outputs.tf, {name.strip('"')}", " ".join(pieces))


def _plain(text: str) -> str:
    """Replace what Terraform inserts into texts; the outermost braces hold the expression."""
    plain, text = text.removeprefix("${"), ""
    while plain != text:  # the innermost first
        plain, text = re.sub(r"\$\{[^{}]*\}", _inserted, plain), plain
    return plain


def _inserted(expression: re.Match[str]) -> str:
    """Return a word of the kind that an expression of Terraform inserts."""
    if "notification_types" in expression[0]:
        return "OBJECT_FINALIZE"
    return "gs://value" if "path" in expression[0] else "value"


def _sql_in_words(words: tuple[str, ...]) -> Iterator[str]:
    yield from (" ".join(word.split()) for word in words[1:] if _QUERY.match(word))
