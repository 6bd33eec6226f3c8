"""No message carries bytes of a value, in whatever disguise."""

import pytest

from support.leaks import leaks, windows

SECRET = windows(b"SENTINEL^NAME")


@pytest.mark.parametrize(
    "text",
    [
        "SENTINEL",
        "a value exceeds the object (tag 4553544E, offset 12)",  # two words, little endian
        "a value exceeds the object (tag 53454E54, offset 12)",
        "0x544e4553",
        f"length {int.from_bytes(b'SENT', 'little')}",
        f"length {int.from_bytes(b'SENT', 'big')}",
        f"length {int.from_bytes(b'SENTINEL', 'little')}",
        f"lengths {int.from_bytes(b'SE', 'little')} and {int.from_bytes(b'NT', 'little')}",
        "tag 4553: 21582 bytes",
        "53454e54494e454c",
    ],
)
def test_the_decoder_finds_a_value_in_numbers(text: str) -> None:
    assert leaks([text], SECRET) == [text]


def test_the_decoder_passes_what_is_known_without_the_value() -> None:
    texts = [f"00100010 PN: a value exceeds the object (offset {n})" for n in range(0, 70_000, 70)]
    assert leaks(texts, SECRET) == []
