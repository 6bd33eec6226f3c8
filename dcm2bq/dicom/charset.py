"""Decode text in any Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1).

The defined terms and escape sequences come from pydicom's tables, plus Latin-9, which they lack.
The codecs are Python's. Escape sequences designate the G0 or the G1 set, as in ISO 2022, and
delimiters restore the sets of the first term (PS3.5 6.1.2.5).
"""

import encodings
import pkgutil
import re
from encodings.aliases import aliases
from functools import cache, lru_cache

from pydicom.charset import (
    CODES_TO_ENCODINGS,
    STAND_ALONE_ENCODINGS,
    default_encoding,
    python_encoding,
)

LINE_DELIMITERS = re.compile(rb"[\t\n\f\r]")
VALUE_DELIMITERS = re.compile(rb"[\\\t\n\f\r]")
NAME_DELIMITERS = re.compile(rb"[\\^=\t\n\f\r]")

_ESCAPE = 0x1B
_ASCII = "ascii"
_MULTI_BYTE_G0 = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Python's codecs for these sets need the escape sequence."""


def _codec(encoding: str) -> str:
    """Return Python's name of a codec; the default is ASCII (PS3.5 6.1.1), not Latin-1."""
    name = encoding.lower()
    return _ASCII if name == default_encoding else aliases.get(name, name)


_LATIN_9 = "iso8859_15"
_CODECS = {term: _codec(encoding) for term, encoding in python_encoding.items()}
_CODECS |= {"ISO_IR 203": _LATIN_9, "ISO 2022 IR 203": _LATIN_9}
"""Defined term to codec (PS3.3 Tables C.12-2 to C.12-5)."""
_DESIGNATED = {escape: _codec(encoding) for escape, encoding in CODES_TO_ENCODINGS.items()}
_DESIGNATED[b"\x1b-b"] = _LATIN_9
"""Escape sequence to codec (PS3.3 Tables C.12-3 and C.12-4)."""
_ESCAPE_SEQUENCE = re.compile(b"(" + b"|".join(map(re.escape, _DESIGNATED)) + b")")

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
    "ISO885915": "ISO_IR 203",
    "ISOIR58": "ISO 2022 IR 58",
    "ISOIR87": "ISO 2022 IR 87",
    "ISOIR149": "ISO 2022 IR 149",
    "ISOIR159": "ISO 2022 IR 159",
}
"""Letters and digits of misspelt terms to the terms that are meant."""

_LONGEST_NAME = 32
"""Twice as long as Python's longest name of a codec."""
_REPERTOIRE = bytes(range(0x20, 0x7F))
_NO_CHARACTER_SETS = frozenset({"charmap", "idna", "raw_unicode_escape", "unicode_escape"})
"""Codecs that leave ASCII unchanged, but are not character sets."""


class UndecodableTextError(Exception):
    """Text is not in the declared character sets; `text` is the best reading of it."""

    def __init__(self, text: str) -> None:
        super().__init__("text is not in the declared character set")
        self.text = text


class Charset:
    """The character sets in force.

    `codec` is that of the first term, `extensions` those of the others. `alone` means that escape
    sequences are not interpreted here: the set allows none, or its codec does it itself.
    """

    __slots__ = ("_codec", "_declared", "_extensible")

    def __init__(self, codec: str, *extensions: str, alone: bool = False) -> None:
        self._codec = codec
        self._declared = {_ASCII, codec, *extensions}
        self._extensible = not alone

    def decode(self, value: bytes, delimiters: re.Pattern[bytes] = VALUE_DELIMITERS) -> str:
        """Return the text of a value; raise `UndecodableTextError` if it is not in these sets."""
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
            codec = _DESIGNATED[escape]
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
    r"""Return the character sets that a value of (0008,0005) declares, and a problem with it or "".

    Misspelt terms are understood. A term that is the name of a codec means this codec, as it does
    in pydicom. Any other unknown term means the default repertoire.

    >>> charset, problem = parse_charset(b"ISO-IR 100")
    >>> charset.decode(b"M\xfcller"), problem
    ('Müller', 'a term is misspelt')
    """
    problem = ""
    terms = []
    for written in str(value, "latin_1").split("\\"):
        term, wrong = _term(written.strip(" \0"))
        terms.append(term)
        problem = wrong or problem
    first, *others = terms
    if first in STAND_ALONE_ENCODINGS:
        problem = "code extensions after a term that allows none" if others else problem
        return Charset(_CODECS[first], alone=True), problem
    extensions = [term for term in others if term not in STAND_ALONE_ENCODINGS]
    if len(extensions) < len(others):
        problem = "a term is not a code extension"
    codec, *further = (_CODECS.get(term, term) for term in (first, *extensions))
    return Charset(codec, *further, alone=_has_own_escapes(codec)), problem


def _term(written: str) -> tuple[str, str]:
    """Return the term or codec that is meant, "" for the default, and a problem or ""."""
    if written in _CODECS:
        return written, ""
    letters = _letters(written)
    if term := _TERMS.get(letters) or _ALIASES.get(letters):
        return term, "a term is misspelt"
    if codec := _named_codec(letters):
        return codec, "a term names a codec, not a character set of the standard"
    return "", "a term is unknown"


def _letters(term: str) -> str:
    return re.sub("[^A-Z0-9]", "", term.upper())


_TERMS = {_letters(term): term for term in _CODECS if term}


def _named_codec(letters: str) -> str | None:
    """Return the codec with a name, if ASCII is unchanged in it.

    All character sets of the standard have this property (PS3.5 6.1.1), and delimiters depend on
    it. It excludes EBCDIC, UTF-7, UTF-16, UTF-32 and codecs such as `rot13` and `zip`.
    """
    codec = _codecs_by_letters().get(letters) if 0 < len(letters) <= _LONGEST_NAME else None
    if codec is None or codec in _NO_CHARACTER_SETS:
        return None
    try:
        is_superset = str(_REPERTOIRE, codec) == str(_REPERTOIRE, _ASCII)
    except (LookupError, ValueError):
        return None
    return codec if is_superset else None


@cache
def _codecs_by_letters() -> dict[str, str]:
    """Return Python's codecs by the letters and digits of their names.

    Only these names are looked up: Python caches every name it is asked for, even unknown ones.
    """
    modules = pkgutil.iter_modules(encodings.__path__)
    codecs = {_letters(module.name): module.name for module in modules}
    return {_letters(name): codec for name, codec in aliases.items()} | codecs


def _has_own_escapes(codec: str) -> bool:
    """Return whether a codec needs the whole value, with its escape sequences."""
    return codec.startswith("iso2022_") and codec not in _MULTI_BYTE_G0


def _lenient(value: bytes, codec: str) -> str:
    """Decode text that is not in its encoding, with replacement characters.

    If no encoding is declared, no byte is lost: text beyond ASCII is read as UTF-8 if it is valid
    UTF-8, else as Latin-1.
    """
    if codec != _ASCII:
        return str(value, codec, "replace")
    try:
        return str(value, "utf_8")
    except UnicodeDecodeError:
        return str(value, "latin_1")
