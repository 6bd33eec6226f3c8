"""The statements in a text of SQL, each by its first word."""

import re

QUERIES = frozenset({"SELECT", "WITH", "FROM"})
"""The first word of a query; FROM is pipe syntax."""

# Quoted text and comments are single tokens, so that a semicolon in them ends no statement.
_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)|\()
      | (?P<end>;)
      | (?P<word>\w+)
      | '''.*?''' | \"\"\".*?\"\"\" | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | `[^`]*`
      | .""",
    re.DOTALL | re.VERBOSE,
)


def first_words(sql: str) -> list[str]:
    r"""Return the first word of each statement in capitals, or its first token if that is no word.

    >>> first_words("-- count\n(select COUNT(*) FROM t); DROP TABLE t;")
    ['SELECT', 'DROP']
    """
    words = []
    is_first = True
    for token in _TOKEN.finditer(sql):
        if token["end"]:
            is_first = True
        elif is_first and not token["blank"]:
            words.append(token[0].upper())
            is_first = False
    return words
