"""What kind of statement a text is, as far as its first word tells."""

import re

QUERIES = frozenset({"SELECT", "WITH", "FROM"})
"""What a statement that gives rows begins with; the last is pipe syntax."""

_BEFORE = re.compile(r"(?:\s|;|\(|--[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_WORD = re.compile(r"\w+")


def keyword(sql: str) -> str:
    """Return the first word, in capitals; nothing where there are only blanks and comments."""
    before = _BEFORE.match(sql)
    start = before.end() if before else 0
    word = _WORD.match(sql, start)
    return word[0].upper() if word else sql[start : start + 1]
