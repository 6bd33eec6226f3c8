"""Text in any Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1).

The defined terms and escape sequences are pydicom's tables, the codecs Python's. Escape
sequences designate the G0 or the G1 set as ISO 2022 has it, and delimiters go back to the
sets of the first term (PS3.5 6.1.2.5).
"""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

LINE_DELIMITERS = re.compile(rb"[\t\n\f\r]")
VALUE_DELIMITERS = re.compile(rb"[\\\t\n\f\r]")
NAME_DELIMITERS = re.compile(rb"[\\^=\t\n\f\r]")

_ESCAPE = 0x1B
_ASCII = "ascii"
_MULTI_BYTE_G0 = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Python's codecs for these sets want to see the escape sequence."""
_ESCAPE_SEQUENCE = re.compile(b"(" + b"|".join(map(re.escape, CODES_TO_ENCODINGS)) + b")")

_ALIASES = {
    "UTF8": "ISO_IR 192",
    "ASCII": "ISO_IR 6",
    "ISO88591": "ISO_IR 100",
    "ISO88592": "ISO_IR 101",
    "ISO88593": "ISO_IR 109",
    "ISO88594": "ISO_IR 110",
    "ISO88595": "ISO_IR 144",
    "ISO88596": "ISO_IR 127",
    "ISO88597": "ISO_IR 126",
    "ISO88598": "ISO_IR 138",
    "ISO88599": "ISO_IR 148",
}


class UndecodableTextError(Exception):
    """Text beyond the declared character sets; `text` is what could be made of it."""

    def __init__(self, text: str) -> None:
        super().__init__("text is not in the declared character set")
        self.text = text


class Charset:
    """The character sets in force, and how text in them is decoded."""

    __slots__ = ("_codec", "_declared", "_extensible")

    def __init__(self, codec: str, *extensions: str, alone: bool = False) -> None:
        self._codec = codec
        self._declared = {_ASCII, codec, *extensions}
        self._extensible = not alone

    def decode(self, value: bytes, delimiters: re.Pattern[bytes] = VALUE_DELIMITERS) -> str:
        """Return the text of a value; raise `UndecodableTextError` for what has none."""
        if _ESCAPE in value and self._extensible:
            return self._decode_extended(value, delimiters)
        try:
            return str(value, self._codec)
        except UnicodeDecodeError:
            raise UndecodableTextError(_lenient(value, self._codec)) from None

    def _decode_extended(self, value: bytes, delimiters: re.Pattern[bytes]) -> str:
        """Decode text with escape sequences (PS3.5 6.1.2.5.3)."""
        first, *parts = _ESCAPE_SEQUENCE.split(value)
        texts: list[str] = []
        g1 = self._codec

        def decode(part: bytes, codec: str) -> bool:
            try:
                texts.append(str(part, codec))
            except UnicodeDecodeError:
                texts.append(_lenient(part, codec))
                return False
            return _ESCAPE not in part or codec in _MULTI_BYTE_G0

        clean = decode(first, self._codec)
        for escape, part in zip(parts[::2], parts[1::2], strict=True):
            codec = _codec_of(escape)
            clean &= codec in self._declared
            if codec in _MULTI_BYTE_G0:
                clean &= decode(escape + part, codec)
                continue
            if escape[1:2] in b")-" or escape.startswith(b"\x1b$)"):
                g1 = codec
            delimiter = delimiters.search(part)
            end = delimiter.start() if delimiter else len(part)
            clean &= decode(part[:end], g1)
            if delimiter:
                g1 = self._codec
                clean &= decode(part[end:], g1)
        text = "".join(texts)
        if not clean:
            raise UndecodableTextError(text)
        return text


DEFAULT_CHARSET = Charset(_ASCII)


@lru_cache(maxsize=256)
def parse_charset(value: bytes) -> tuple[Charset, str]:
    """Return the character sets that a value of (0008,0005) declares, and what is wrong in it.

    Misspelt terms are understood, unknown ones taken for the default repertoire.
    """
    problem = ""
    terms = []
    for written in str(value, "latin_1").split("\\"):
        term, exact = _defined_term(written.strip(" \0"))
        terms.append(term)
        if not exact:
            problem = "a term is misspelt" if term else "a term is unknown"
    first, *others = terms
    if first in STAND_ALONE_ENCODINGS:
        problem = "a term that allows no code extensions has some" if others else problem
        return Charset(_python_codec(first), alone=True), problem
    extensions = [term for term in others if term not in STAND_ALONE_ENCODINGS]
    if len(extensions) < len(others):
        problem = "a term is no code extension"
    return Charset(_python_codec(first), *map(_python_codec, extensions)), problem


def _defined_term(written: str) -> tuple[str, bool]:
    """Return the defined term meant, "" for the default, and whether it is written so."""
    if written in python_encoding:
        return written, True
    letters = _letters(written)
    term = _TERMS.get(letters) or _ALIASES.get(letters)
    return term or "", False


def _letters(term: str) -> str:
    return re.sub("[^A-Z0-9]", "", term.upper())


_TERMS = {_letters(term): term for term in python_encoding if term}


def _python_codec(term: str) -> str:
    """Return Python's codec; the default repertoire is ASCII, not pydicom's Latin-1."""
    codec = python_encoding[term]
    return _ASCII if codec == python_encoding[""] else codec


def _codec_of(escape: bytes) -> str:
    codec = CODES_TO_ENCODINGS[escape]
    return _ASCII if codec == python_encoding[""] else codec


def _lenient(value: bytes, codec: str) -> str:
    """Decode what is broken, with replacement characters where bytes would be lost otherwise.

    Bytes beyond ASCII where nothing is declared are UTF-8 if they can be, else Latin-1.
    """
    if codec != _ASCII:
        return str(value, codec, "replace")
    try:
        return str(value, "utf_8")
    except UnicodeDecodeError:
        return str(value, "latin_1")
