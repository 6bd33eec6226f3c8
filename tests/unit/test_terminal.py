"""Characters that could steer a terminal are escaped in text and JSON; other text is kept."""

import json
import sys
import unicodedata

import pytest

from dcm2bq.terminal import printable, printable_json

STEERING = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    *"\u200e\u200f\u061c\u2028\u2029\ufeff",
}
"""C0, DEL, C1; embeddings, overrides, isolates, marks; separators of lines; byte order mark."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\r\nlines", r"two\r\nlines"),
        ("\x7f\x9b2J", r"\x7f\x9b2J"),
        ("invoice\u202egpj.dcm", r"invoice\u202egpj.dcm"),
        ("\U000e0001", r"\U000e0001"),
        ("\udcff", r"\udcff"),  # from a file name that is not text
        ("山田\u3000太郎 é ß [red]", "山田\u3000太郎 é ß [red]"),
    ],
)
def test_text_keeps_printable_characters(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown  # escaping is idempotent


def test_every_steering_character_is_escaped() -> None:
    for character in STEERING:
        assert printable(character).isascii(), ascii(character)
        assert printable(f"a{character}b").isprintable(), ascii(character)
        text = json.dumps(character, ensure_ascii=False)
        assert printable_json(text).isprintable(), ascii(character)


def test_no_character_of_a_steering_category_is_left() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    for shown in (printable(everything), printable_json(everything).replace("\n", "")):
        assert not {unicodedata.category(c) for c in set(shown)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_json_keeps_its_meaning() -> None:
    everything = [
        chr(number) for number in range(sys.maxunicode + 1) if not 0xD800 <= number < 0xE000
    ]
    for indent, characters in ((None, everything), (2, everything[:0x3000])):
        text = json.dumps(["\\", '"', *characters], ensure_ascii=False, indent=indent)
        escaped = printable_json(text)
        assert json.loads(escaped) == json.loads(text)
    assert printable_json('{"a": "\x9b\u202e\U000e0001"}') == r'{"a": "\u009b\u202e\udb40\udc01"}'
