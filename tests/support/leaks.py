"""Find bytes of a value in texts that must hold none: messages, logs, dead letters.

A number or a hex run in a message can spell a value without looking like it: eight bytes of a
name, read as tag and length by mistake, are "tag 45544E53, length 4998985". So each is turned
back into bytes, in both byte orders, and so are neighbours.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

_LEAST = 4
"""Bytes of a value that count as one: fewer coincide with offsets and sizes by chance."""
_TOKEN = re.compile(r"(?<![0-9A-Za-z])(?:0x)?([0-9A-Fa-f]{2,})(?![0-9A-Za-z])")
_INTEGER_SIZES = (2, 4, 8)
_WORD = 2


def windows(*values: bytes) -> frozenset[bytes]:
    """Return all stretches of the least length that count, of values that are to stay secret."""
    return frozenset(
        value[at : at + _LEAST] for value in values for at in range(len(value) - _LEAST + 1)
    )


def leaks(texts: Iterable[str], secret: frozenset[bytes]) -> list[str]:
    """Return the texts in which a stretch of a secret can be read, as text or from numbers."""
    return [
        text for text in texts if any(_stretches(reading) & secret for reading in _readings(text))
    ]


def _stretches(data: bytes) -> frozenset[bytes]:
    return windows(data)


def _readings(text: str) -> Iterator[bytes]:
    """Yield the text's own bytes, and those that its numbers and hex runs can spell."""
    yield text.encode()
    tokens = [_bytes_of(match[1]) for match in _TOKEN.finditer(text)]
    for token in tokens:
        yield from token
    for first, second in pairwise(tokens):
        yield from (one + other for one in first for other in second)


def _bytes_of(token: str) -> set[bytes]:
    """Return what a run of digits can mean: a number, or bytes in any order."""
    found: set[bytes] = set()
    numbers = {int(token, 16)} | ({int(token)} if token.isdecimal() else set())
    for number in numbers:
        for size in _INTEGER_SIZES:
            if number < 1 << 8 * size:
                found |= {number.to_bytes(size, "little"), number.to_bytes(size, "big")}
    written = bytes.fromhex(token if len(token) % 2 == 0 else f"0{token}")
    words = [written[at : at + _WORD] for at in range(0, len(written), _WORD)]
    return found | {written, written[::-1], b"".join(word[::-1] for word in words)}
