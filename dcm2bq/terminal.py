"""Make names, headers and messages from anywhere safe to print on a terminal.

A control character can move the cursor, set the title or hide earlier output; a bidirectional
control, U+202E for instance, makes a name look like another one. Both are escaped wherever text or
JSON is printed, even into pipes and files, which are read on terminals later.
"""

import re
import unicodedata

_SUSPECTS = re.compile(r"[^ -~]+")
_JSON_SUSPECTS = re.compile(r"[^ -~\n]+")  # indented JSON has line feeds between its tokens


def printable(text: str) -> str:
    r"""Return text on one line, with escapes such as `\x1b` for what could steer a terminal."""
    if text.isprintable():
        return text
    return _SUSPECTS.sub(lambda run: "".join(map(_text_escape, run[0])), text)


def printable_json(text: str) -> str:
    r"""Return equivalent JSON, with escapes such as `\u009b` for what could steer a terminal."""
    if text.isprintable():
        return text
    return _JSON_SUSPECTS.sub(_json_escapes, text)


def _json_escapes(run: re.Match[str]) -> str:
    return run[0] if run[0].isprintable() else "".join(map(_json_escape, run[0]))


def _text_escape(character: str) -> str:
    return character if _is_harmless(character) else ascii(character)[1:-1]


def _json_escape(character: str) -> str:
    if _is_harmless(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")  # JSON escapes 16-bit units
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _is_harmless(character: str) -> bool:
    """Return whether a character is printed unchanged: any space is, a line separator is not."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
