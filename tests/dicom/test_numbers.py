"""Numbers in JSON as BigQuery prints them, compared with Google's own PARSE_JSON."""

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcm2bq.dicom import numbers
from dcm2bq.dicom.grisu2 import is_clear, printed
from dcm2bq.dicom.numbers import UnevenFloat, encode, fma_by_parts, printable, printable_one
from tests.dicom.build import (
    converted,
    dicom,
    element,
    identity,
    item,
    sequence,
)
from tests.support import googlesql
from tests.support.googlesql import engine

VALUE = 0x00091001
UNEVEN = {
    "67.174118": "67.17411800000001",
    "22.770092": "22.770092000000002",
    "13.7391432": "13.739143199999999",
    "-0.707176497086": "-0.7071764970860001",
    "0.01207": "0.012070000000000001",
    "0.000649": "0.0006489999999999999",
    "37.24759419167356": "37.247594191673556",
}
"""Numbers as written in DICOM, and as BigQuery prints them."""
EVEN = [
    (0.0, "0.0"),
    (-0.0, "-0.0"),
    (5.0, "5.0"),
    (0.1, "0.1"),
    (-1.5, "-1.5"),
    (1200.0, "1200.0"),
    (0.0001, "0.0001"),
    (0.00001, "1e-05"),
    (1e-7, "1e-07"),
    (123456789012345.0, "123456789012345.0"),
    (1e15, "1e+15"),
    (1e20, "1e+20"),
    (2.0**53, "9.007199254740992e+15"),
    (0.1 + 0.2, "0.30000000000000004"),
    (5e-324, "5e-324"),
    (2.2250738585072014e-308, "2.2250738585072014e-308"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
]


@pytest.mark.parametrize(("number", "text"), EVEN)
def test_most_numbers_are_printed_with_the_fewest_digits(number: float, text: str) -> None:
    assert printed(number) == text


@pytest.mark.parametrize(("written", "text"), UNEVEN.items())
def test_some_numbers_are_printed_with_other_digits(written: str, text: str) -> None:
    assert printed(float(written)) == text
    assert float(text) == float(written)


@pytest.mark.parametrize("form", ["flat", "dicom-json"])
@pytest.mark.parametrize(
    ("vr", "content"),
    [
        ("DS", b"67.174118"),
        ("DS", b"67.1741180 \0"),
        ("DS", b"6.7174118E+01"),
        ("DS", b"1\\67.174118\\\\2.5"),
        ("DS", b"0.5\\67.174118\\-3.25"),
        ("DS", b"67.174118\\9000000000000000"),
        ("FD", struct.pack("<d", 67.174118)),
        ("FD", struct.pack("<3d", 1e300, 67.174118, 0)),
    ],
)
def test_the_number_is_unchanged_and_its_text_is_bigquerys(
    vr: str, content: bytes, form: str
) -> None:
    """In both formats, and in items."""
    value = element(VALUE, vr, content)
    done = converted(
        dicom(identity(), value, sequence(0x00091002, item(value))), jsonOutput={"format": form}
    )
    assert done.text.count("67.17411800000001") == 2
    assert json.loads(done.text) == done.metadata
    assert json.dumps(done.metadata).count("67.174118") == 2
    assert "67.17411800000001" not in json.dumps(done.metadata)
    assert not done.warnings


def test_a_number_beside_nan_is_printed_as_bigquery_prints_it() -> None:
    content = struct.pack("<2d", 67.174118, math.nan)
    done = converted(dicom(identity(), element(VALUE, "FD", content)))
    assert '[67.17411800000001,"NaN"]' in done.text
    assert done.metadata["00091001"] == [67.174118, "NaN"]


def test_a_single_precision_number_is_printed_as_bigquery_prints_it() -> None:
    """Its shortest decimal is printed as a double."""
    for number in (15.299207, -36.373386):
        for content in (struct.pack("<f", number), struct.pack("<2f", 0.5, number)):
            done = converted(dicom(identity(), element(VALUE, "FL", content)))
            assert printed(number) in done.text
            assert printed(number) != repr(number)
            assert json.loads(done.text) == done.metadata


def test_a_header_that_is_fitted_into_a_row_keeps_its_numbers_and_its_limit() -> None:
    """The text is measured with the digits that are written."""
    numbers = "\\".join(["67.174118"] * 200)
    content = dicom(
        identity(), element(VALUE, "DS", numbers), element(0x00204000, "LT", "x" * 9000)
    )
    whole = converted(content)
    limit = len(whole.text) + whole.text.count('"') + 2 - 5000
    done = converted(content, limits={"outputBytes": limit})
    assert done.text.count("67.17411800000001") == 200
    assert done.metadata["ImageComments"]["vr"] == "LT"
    assert len(done.text) + done.text.count('"') + 2 <= limit
    short = limit - 9000 + 5000
    assert "67.17" not in converted(content, limits={"outputBytes": short}).text


@pytest.mark.parametrize("vr", ["DS", "IS"])
@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), str(2**64), "9" * 400])
def test_an_integer_beyond_64_bits_is_text(vr: str, text: str) -> None:
    creator = element(0x00090010, "LO", "ACME 1.0")
    done = converted(dicom(identity(), creator, element(VALUE, vr, f"1\\{text}")))
    assert done.metadata["00091001"] == [1, text]
    assert done.warnings[0].startswith(f"00091001 {vr}: ")


def test_numbers_of_five_characters_and_four_decimals_are_printed_unchanged() -> None:
    """The conversion skips the test for them."""
    for decimals in range(5):
        numbers = [number / 10**decimals for number in range(10**4)]
        assert all(printed(number) == repr(number) for number in numbers if len(repr(number)) <= 5)


def near_the_end(random_: random.Random) -> str:
    """Return a decimal of up to 15 digits near the end of the interval that rounds to a double."""
    while True:
        number = math.ldexp(random_.uniform(0.5, 1), random_.randint(-12, 40))
        end = Fraction(number) + Fraction(math.ulp(number)) * random_.choice((-1, 1)) / 2
        for digits in random_.sample(range(5, 16), 11):
            text = f"{Decimal(end.numerator) / Decimal(end.denominator):.{digits}g}"
            error = abs(Fraction(Decimal(text)) - Fraction(float(text)))
            if 252 < 256 * error / (Fraction(math.ulp(float(text))) / 2) <= 256:
                return text


def samples(count: int) -> Iterator[float]:
    """Yield doubles of many kinds."""
    random_ = random.Random(7)
    kinds: list[Callable[[], float]] = [
        lambda: struct.unpack("<d", random_.randbytes(8))[0],
        lambda: random_.uniform(-1000, 1000),
        lambda: random_.randrange(10 ** random_.randint(1, 17)) / 10 ** random_.randint(0, 15),
        lambda: float(near_the_end(random_)),
        lambda: math.ldexp(random_.choice((1, -1)), random_.randint(-1074, 1023)),
        lambda: math.ldexp(random_.randrange(2**52), -1074),
        lambda: float(random_.randrange(2 ** random_.randint(45, 80))),
        lambda: 10.0 ** random_.randint(-300, 300),
    ]
    for number in range(count):
        double = kinds[number % len(kinds)]()
        if math.isfinite(double):
            yield double


@pytest.mark.parametrize("fma", [numbers.fma, fma_by_parts], ids=["this Python", "Python 3.12"])
def test_numbers_that_skip_printing_would_be_printed_the_same(
    fma: Callable[[float, float, float], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and in lists, whatever else is in them."""
    monkeypatch.setattr(numbers, "fma", fma)
    numbers._checked.cache_clear()
    doubles = list(samples(8_000))
    expected = [Decimal(printed(number)) for number in doubles]
    assert [Decimal(encode(printable_one(number)).decode()) for number in doubles] == expected
    for size in (1, 2, 8, 100):
        for start in range(0, len(doubles), size):
            part = doubles[start : start + size]
            marked = printable([*part, 7])
            assert marked == [*part, 7]
            texts = json.loads(encode(marked), parse_float=Decimal, parse_int=Decimal)
            assert texts[:-1] == expected[start : start + size]
    clear = [number for number in doubles if is_clear(number)]
    assert [Decimal(repr(number)) for number in clear] == [
        Decimal(printed(number)) for number in clear
    ]
    assert len(clear) > len(doubles) / 4
    uneven = sum(isinstance(number, UnevenFloat) for number in printable(doubles))
    assert uneven > 50


def test_both_ways_to_multiply_and_add_are_exact() -> None:
    """As Python's fractions have it, for every power of ten and down to the least double."""
    random_ = random.Random(5)
    compared = 0
    for exponent, (power, _) in numbers._SCALES.items():
        for _ in range(60):
            x = math.ldexp(random_.uniform(-1, 1), exponent - random_.choice((0, 0, 1, 30, 1000)))
            x = random_.choice((x, x, float(int(x)), math.ldexp(random_.randrange(99), -1074)))
            m = (x * power + numbers._ROUND) - numbers._ROUND
            exact = float(Fraction(m) - Fraction(x) * Fraction(power))
            assert fma_by_parts(-x, power, m) == exact
            assert numbers.fma(-x, power, m) == exact
            compared += exact not in {0.0, -x * power}
    assert compared > 1000


class TestAgainstGooglesEngine:
    """Each test runs one query for many numbers."""

    pytestmark = pytest.mark.timeout(googlesql.TIMEOUT)

    def test_numbers_are_printed_as_the_engine_prints_them(self) -> None:
        numbers = list(samples(8_000))
        rows = engine().query(
            "SELECT TO_JSON_STRING(PARSE_JSON(text, wide_number_mode => 'round'))"
            " FROM UNNEST(@texts) AS text WITH OFFSET ORDER BY offset",
            texts=[f"{number:.17e}" for number in numbers],
        )
        assert [text for (text,) in rows] == [printed(number) for number in numbers]

    def test_the_engine_refuses_the_shortest_decimals(self) -> None:
        """Without this, the other tests would prove nothing."""
        assert [accepted(text) for text in UNEVEN] == [None] * len(UNEVEN)
        assert [accepted(text) for text in UNEVEN.values()] == list(UNEVEN.values())

    def test_the_engine_accepts_decimals_near_the_ends_of_rounding_intervals(self) -> None:
        random_ = random.Random(11)
        texts = [near_the_end(random_) for _ in range(800)]
        check(*(element(VALUE + n, "DS", "\\".join(texts[n::8])) for n in range(8)))
        check(*(element(VALUE + n, "DS", text) for n, text in enumerate(texts[:200])))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_the_engine_accepts_numbers_of_every_vr(self, data: st.DataObject) -> None:
        """The engine prints the values of the text, and the metadata holds the same."""
        fields = data.draw(
            st.lists(
                st.one_of(
                    st.lists(DECIMALS | INTEGERS, min_size=1, max_size=30).map(
                        lambda texts: ("DS", "\\".join(texts).encode())
                    ),
                    st.lists(INTEGERS, min_size=1, max_size=30).map(
                        lambda texts: ("IS", "\\".join(texts).encode())
                    ),
                    *(packed(vr, code, values) for vr, code, values in BINARY),
                ),
                min_size=1,
                max_size=10,
            )
        )
        check(*(element(VALUE + n, vr, content) for n, (vr, content) in enumerate(fields)))


INTEGERS = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.integers(-(2**65), 2**65), st.integers(0, 10**80)
).map(str)
DECIMALS = st.one_of(
    st.decimals(-1000, 1000, places=6).map(str),
    st.decimals(-(10**7), 10**7, places=9).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1000, 1000).map(lambda each: repr(each)[:16]),
    st.floats(-1000, 1000).map(lambda each: f"{each:.9E}"),
    st.sampled_from(["-0", "-0.0", "0.0", "5.", ".5", "+1.50", " 67.174118 ", "1e22", "1e23", ""]),
)
BINARY: list[tuple[str, str, st.SearchStrategy[Any]]] = [
    ("FD", "d", st.floats() | st.decimals(-1000, 1000, places=6).map(float)),
    ("FL", "f", st.floats(width=32)),
    ("SL", "l", st.integers(-(2**31), 2**31 - 1)),
    ("SS", "h", st.integers(-(2**15), 2**15 - 1)),
    ("SV", "q", st.integers(-(2**63), 2**63 - 1)),
    ("UL", "L", st.integers(0, 2**32 - 1)),
    ("US", "H", st.integers(0, 2**16 - 1)),
    ("UV", "Q", st.integers(0, 2**64 - 1)),
]


def packed(
    vr: str, code: str, values: st.SearchStrategy[Any]
) -> st.SearchStrategy[tuple[str, bytes]]:
    """Return the value field of a binary VR."""
    return st.lists(values, min_size=1, max_size=30).map(
        lambda numbers: (vr, struct.pack(f"<{len(numbers)}{code}", *numbers))
    )


def check(*elements: bytes) -> None:
    """Assert that the engine accepts the text and prints its values, and that no double changed."""
    done = converted(dicom(identity(), *elements))
    text = accepted(done.text)
    assert text is not None, done.text
    assert exactly(text) == exactly(done.text)
    assert json.loads(done.text) == done.metadata


def accepted(text: str) -> str | None:
    """Return JSON as the engine prints it; None if its exact mode refuses it."""
    ((parsed, printed_),) = engine().query(
        "SELECT parsed, TO_JSON_STRING(parsed)"
        " FROM (SELECT SAFE.PARSE_JSON(@text, wide_number_mode => 'exact') AS parsed)",
        text=text,
    )
    return None if parsed is None else str(printed_)


def exactly(text: str) -> Any:
    """Return JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
