"""What may be shown on a terminal: names, headers and errors come from anywhere.

A control character can move the cursor, set the title or hide what was printed before; a
bidirectional control (U+202E for instance) shows a name as another one. Both are escaped
wherever text or JSON is printed, into pipes and files too: those are read on terminals later.
"""

import re
import unicodedata

_SUSPECTS = re.compile(r"[^ -~]+")
_JSON_SUSPECTS = re.compile(r"[^ -~\n]+")  # between its tokens JSON has line feeds of its own


def printable(text: str) -> str:
    r"""Return text on one line, with `\n`, `\x1b` or `\u202e` for what could steer a terminal."""
    if text.isprintable():
        return text
    return _SUSPECTS.sub(lambda run: "".join(map(_text_escape, run[0])), text)


def printable_json(text: str) -> str:
    r"""Return JSON of the same meaning, with `\u009b` for what could steer a terminal."""
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
    units = character.encode("utf-16-be", "surrogatepass")  # JSON escapes its 16-bit units
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _is_harmless(character: str) -> bool:
    """Whether a character is shown as itself; a space of any width is, a line separator is not."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
