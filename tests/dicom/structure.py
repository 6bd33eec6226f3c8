"""Random data sets as lists of pieces (headers, values, items, delimiters), and their mutations.

All values are different, so that each can be found wherever a reader puts it.
"""

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    delimiter,
    header,
    identity,
    meta,
)

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITERS = (ITEM, ITEM_END, SEQUENCE_END)
SEQUENCES = (0x00081140, 0x00082112, 0x00101002, 0x00321064, 0x00400275, 0x300A00B0)
LEAVES = {
    0x00080008: "CS", 0x00080050: "SH", 0x00080090: "PN", 0x00081030: "LO",
    0x00100010: "PN", 0x00100020: "LO", 0x00104000: "LT", 0x00180050: "DS", 0x00181030: "LO",
    0x0020000D: "UI", 0x00200013: "IS", 0x00204000: "LT", 0x00280100: "US", 0x00281052: "DS",
    0x00321060: "LO", 0x00324000: "LT", 0x00400254: "LO", 0x00420011: "OB", 0x300A0002: "SH",
}  # fmt: skip
CREATOR, PRIVATE = 0x00090010, 0x00091001
PIXELS = 0x7FE00010
VRS = ("AE", "CS", "IS", "LO", "OB", "PN", "SQ", "UI", "UL", "UN", "UT", "XX", "??", "\0\0")


@dataclass(frozen=True)
class Piece:
    """A header, item or delimiter, with the bytes up to the next one."""

    tag: int
    vr: str = ""
    length: int = 0
    value: bytes = b""
    implicit: bool = False
    big: bool = False

    def __bytes__(self) -> bytes:
        if self.tag in DELIMITERS:
            return delimiter(self.tag, self.length, big=self.big) + self.value
        vr = self.vr or "UN"
        if self.implicit:
            return header(self.tag, "", self.length, implicit=True, big=self.big) + self.value
        # A length that 2 bytes cannot hold is truncated, as by a careless writer.
        length = self.length if vr in _LONG else self.length & 0xFFFF
        return header(self.tag, vr, length, big=self.big) + self.value


_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})


@dataclass
class Builder:
    """Makes the pieces of one data set and records its texts in `values`.

    Elements with a tag in `fixed` have the value given there.
    """

    rng: random.Random
    text: Callable[[], str]
    fixed: Mapping[int, bytes]
    implicit: bool = False
    big: bool = False
    values: list[bytes] = field(default_factory=list)
    _count: int = 0

    def data_set(self) -> list[Piece]:
        """Return the pieces of a data set, sorted by tag."""
        pieces = self._elements(depth=0)
        choice = self.rng.random()
        if choice < 0.2:
            pieces.append(self._leaf(PIXELS, "OW"))
        elif choice < 0.4:
            pieces += self._fragments()
        return pieces

    def _elements(self, depth: int) -> list[Piece]:
        rng = self.rng
        first = 0 if depth else 0x00080018  # after the UIDs of `identity`
        tags = rng.sample([tag for tag in LEAVES if tag > first], rng.randint(1, 5))
        sequences = rng.sample(SEQUENCES, rng.randint(1, 2)) if depth < 3 else []
        private = [CREATOR, PRIVATE, PRIVATE + 1] if rng.random() < 0.3 else []
        lengths = [0x00100000] if rng.random() < 0.1 else []
        pieces: list[Piece] = []
        for tag in sorted({*tags, *sequences, *private, *lengths}):
            if tag in SEQUENCES or (tag == PRIVATE + 1 and not self.implicit and depth < 2):
                pieces += self._sequence(tag, depth)
            else:
                pieces.append(self._leaf(tag, LEAVES.get(tag) or _private_vr(tag, rng)))
        return pieces

    def _leaf(self, tag: int, vr: str) -> Piece:
        self._count += 1
        order: Literal["big", "little"] = "big" if self.big else "little"
        number = self.rng.randrange(1000, 9000)
        value = {
            "DS": f"{number}.{self._count}".encode(),
            "IS": f"{number}{self._count}".encode(),
            "UI": f"1.2.3.{number}.{self._count}".encode(),
            "US": number.to_bytes(2, order),
            "UL": number.to_bytes(4, order),
        }.get(vr)
        if value is None:
            value = self.fixed.get(tag) or self.text().encode()
            if tag not in self.fixed:
                self.values.append(value)
        value += (b"\0" if vr in {"OB", "UI", "UN"} else b" ") * (len(value) % 2)
        return Piece(tag, vr, len(value), value, self.implicit, self.big)

    def _sequence(self, tag: int, depth: int) -> list[Piece]:
        rng = self.rng
        as_un = not (self.implicit or self.big) and rng.random() < 0.15
        implicit = self.implicit or as_un
        inner = Builder(rng, self.text, self.fixed, implicit, self.big, self.values, self._count)
        content: list[Piece] = []
        for _ in range(rng.randint(0, 3)):
            elements = inner._elements(depth + 1)
            if rng.random() < 0.5:
                content += [Piece(ITEM, length=size(elements), big=self.big), *elements]
            else:
                content += [Piece(ITEM, length=UNDEFINED, big=self.big), *elements]
                content.append(Piece(ITEM_END, big=self.big))
        self._count = inner._count
        # Only an undefined length shows that a private UN is a sequence (PS3.5 6.2.2).
        defined = rng.random() < 0.5 and not (as_un and tag == PRIVATE + 1)
        length = size(content) if defined else UNDEFINED
        start = Piece(tag, "UN" if as_un else "SQ", length, b"", self.implicit, self.big)
        end = [] if defined else [Piece(SEQUENCE_END, big=self.big)]
        return [start, *content, *end]

    def _fragments(self) -> list[Piece]:
        """Return encapsulated pixel data; only explicit little endian data sets can have it."""
        if self.implicit or self.big:
            return []
        value = self.text().encode()
        value += b"\0" * (len(value) % 2)
        fragment = Piece(ITEM, length=len(value), value=value)
        return [Piece(PIXELS, "OB", UNDEFINED), Piece(ITEM), fragment, Piece(SEQUENCE_END)]


def _private_vr(tag: int, rng: random.Random) -> str:
    if tag & 0xFFFF == 0:
        return "UL"
    return "LO" if tag == CREATOR else rng.choice(("LO", "UN", "OB"))


def size(pieces: list[Piece]) -> int:
    """Return the number of bytes of pieces."""
    return sum(len(bytes(piece)) for piece in pieces)


@dataclass(frozen=True)
class Object:
    """A DICOM file in pieces."""

    pieces: list[Piece]
    syntax: str
    values: list[bytes]

    def __bytes__(self) -> bytes:
        big, implicit = self.syntax == BIG, self.syntax == IMPLICIT
        body = identity(implicit=implicit, big=big) + b"".join(map(bytes, self.pieces))
        if self.syntax == DEFLATED:
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            body = deflate.compress(body) + deflate.flush()
        return b"\0" * 128 + b"DICM" + meta(self.syntax) + body


def random_object(
    rng: random.Random,
    text: Callable[[], str],
    *,
    syntaxes: Sequence[str] = (EXPLICIT, EXPLICIT, IMPLICIT, BIG),
    fixed: Mapping[int, bytes] | None = None,
) -> Object:
    """Return a valid object; its texts come from `text`, those of `fixed` tags from there."""
    syntax = rng.choice(syntaxes)
    fixed = {CREATOR: b"ACME 1.0", **(fixed or {})}
    builder = Builder(rng, text, fixed, implicit=syntax == IMPLICIT, big=syntax == BIG)
    pieces = builder.data_set()
    return Object(pieces, syntax, builder.values)


def mutate(
    whole: Object, rng: random.Random, *, moves_tags: Callable[[Piece], bool] = lambda _: True
) -> bytes:
    """Return the object's bytes with one or two faults in its structure.

    Only pieces that `moves_tags` accepts get another tag.
    """
    pieces = list(whole.pieces)
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.randrange(12) == 0:
            content = bytes(replace(whole, pieces=pieces))
            return content[: rng.randrange(400, max(len(content), 401))]
        if pieces:
            at = rng.choice(_places(pieces, rng))
            kind = rng.choice(_MUTATIONS)
            if kind is _move and not moves_tags(pieces[at]):
                continue
            pieces[at : at + 1] = kind(pieces[at], pieces, rng)
    return bytes(replace(whole, pieces=pieces))


def _places(pieces: list[Piece], rng: random.Random) -> list[int]:
    """Return where to mutate: in half of the cases only items, delimiters and sequences."""
    structural = [
        n for n, piece in enumerate(pieces) if piece.tag in DELIMITERS or piece.vr == "SQ"
    ]
    return structural if structural and rng.random() < 0.5 else list(range(len(pieces)))


def _drop(_: Piece, _pieces: list[Piece], _rng: random.Random) -> list[Piece]:
    return []


def _double(piece: Piece, _: list[Piece], _rng: random.Random) -> list[Piece]:
    return [piece, piece]


def _swap(piece: Piece, pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Swap the piece with another one."""
    other = rng.randrange(len(pieces))
    here, pieces[other] = pieces[other], piece
    return [here]


def _move(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    """Turn a delimiter into another one, or give an element another tag."""
    tags = (*LEAVES, *SEQUENCES, PRIVATE, 0x0019100A, 0x00120051, 0x00000000, *DELIMITERS)
    return [replace(piece, tag=rng.choice(DELIMITERS if piece.tag in DELIMITERS else tags))]


def _rename(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    return [replace(piece, vr=rng.choice(VRS)) if piece.vr else piece]


def _resize(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    near = (piece.length + rng.choice((-8, -2, -1, 1, 2, 8, 30))) % UNDEFINED
    return [replace(piece, length=rng.choice((near, near, 0, UNDEFINED, 0x7FFFFFFF, 1000)))]


def _stray(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    length = rng.choice((0, 0, 8, UNDEFINED))
    return [Piece(rng.choice(DELIMITERS), length=length, big=piece.big), piece]


def _group_length(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    group = piece.tag & 0xFFFF0000
    number = rng.randrange(9000).to_bytes(4, "big" if piece.big else "little")
    return [Piece(group, "UL", 4, number, piece.implicit, piece.big), piece]


def _block(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    """Begin a private block, whose creator may be empty."""
    creator = rng.choice((b"ACME 2.0", b""))
    block = Piece(0x00110010, "LO", len(creator), creator, piece.implicit, piece.big)
    private = Piece(0x00111001, "LO", 4, b"BKZQ", piece.implicit, piece.big)
    return [block, private, piece]


def _turn(piece: Piece, _: list[Piece], _rng: random.Random) -> list[Piece]:
    """Switch the header between explicit and implicit."""
    return [replace(piece, implicit=not piece.implicit)]


def _shorten(piece: Piece, _: list[Piece], rng: random.Random) -> list[Piece]:
    """Drop some bytes of a value but keep its length."""
    return [replace(piece, value=piece.value[: -rng.randint(1, 4)])]


def _hide(piece: Piece, _: list[Piece], _rng: random.Random) -> list[Piece]:
    """Write a sequence as UN, and UN as a sequence."""
    return [replace(piece, vr={"SQ": "UN", "UN": "SQ"}.get(piece.vr, piece.vr))]


_MUTATIONS = (
    *(_drop, _double, _swap, _move, _rename, _resize),
    *(_stray, _group_length, _block, _turn, _shorten, _hide),
)
