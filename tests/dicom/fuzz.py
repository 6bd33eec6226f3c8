"""Convert mutated DICOM files: `python -m tests.dicom.fuzz --count 200000 --seed 1`.

Every mutation must be converted, or refused with one of our errors, in bounded time and in memory
that the operating system limits. The result must be JSON that BigQuery accepts.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pydicom.data

from dcm2bq.dicom import convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError

MOST_SECONDS = 20.0
MOST_MEMORY = 2 * 1024**3
LARGEST_SEED_FILE = 50_000
NUMBERS = (0, 1, 2, 7, 8, 0xFF, 0xFFFF, 0xFFFE, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
TAGS = (
    b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xe0\x7f\x10\x00",
    b"\x08\x00\x05\x00", b"\x28\x00\x03\x01", b"\x09\x00\x10\x00", b"\x00\x00\x00\x00",
    b"SQ\0\0", b"UN\0\0", b"OB\0\0\xff\xff\xff\xff", b"UT\0\0", b"ZZ", b"\x1b$B", b"\\", b"\0",
)  # fmt: skip
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"jsonOutput": {"format": "dicom-json"}},
    {"jsonOutput": {"useArrayWithSingleValue": True, "ignoreGroupLength": False}},
    {"bulkData": {"inlineMaxBytes": 1000, "textMaxBytes": 10}, "limits": {"hops": 0}},
    {"limits": {"depth": 3, "elements": 500, "headerBytes": 5000, "outputBytes": 2000}},
)


def seeds() -> list[bytes]:
    """Return the files to mutate: the small ones of pydicom."""
    folder = Path(pydicom.data.__file__).parent
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in paths if path.stat().st_size < LARGEST_SEED_FILE]
    return [content for content in contents if content[128:132] == b"DICM"]


def mutate(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Return the content with a few bytes, lengths, tags or stretches changed."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(132 if rng.random() < 0.9 and len(data) > 140 else 0, len(data) or 1)
        kind = rng.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            size = rng.choice((2, 4, 8))
            number = rng.choice(NUMBERS) & (1 << 8 * min(size, 4)) - 1
            data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 2:
            tag = rng.choice(TAGS)
            data[at : at + len(tag)] = tag
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 4, 8, 100))]
        elif kind == 4:
            stretch = bytes(data[at : at + rng.choice((1, 8, 30, 300))])
            place = rng.randrange(len(data) + 1)
            data[place:place] = stretch * rng.choice((1, 1, 2, 50))
        elif kind == 5:
            other = rng.choice(others)
            begin = rng.randrange(len(other))
            data[at:at] = other[begin : begin + rng.choice((8, 50, 500))]
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def outcome(content: bytes, options: dict[str, Any]) -> str:
    """Convert the content, check the result and return how the conversion ended."""
    try:
        conversion = convert(BytesIO(content), options)
    except (NotDicomError, UnreadableDicomError) as refusal:
        return type(refusal).__name__
    assert msgspec.json.decode(conversion.text) == conversion.metadata
    assert "\0" not in conversion.text
    assert "\\u0000" not in conversion.text.replace("\\\\", "")
    assert len(conversion.warnings) <= 201
    return "warned" if conversion.warnings else "converted"


def run(count: int, seed: int) -> Counter[str]:
    """Convert `count` mutations and return the number of each outcome."""
    rng = random.Random(seed)
    files = seeds()
    outcomes: Counter[str] = Counter()
    for number in range(count):
        content = mutate(rng.choice(files), rng, files)
        options = rng.choice(OPTIONS)
        start = time.process_time()
        try:
            outcomes[outcome(content, options)] += 1
        except BaseException:
            name = Path(f"fuzz-{seed}-{number}.dcm")
            name.write_bytes(content)
            print(f"failed on mutation {number} with {options}: {name}", file=sys.stderr)  # noqa: T201
            raise
        assert time.process_time() - start < MOST_SECONDS, number
    return outcomes


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    start = time.monotonic()
    outcomes = run(arguments.count, arguments.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    summary = ", ".join(f"{name} {number}" for name, number in sorted(outcomes.items()))
    print(f"{arguments.count} mutations in {time.monotonic() - start:.0f} s: {summary}; {peak} MB")  # noqa: T201


if __name__ == "__main__":
    main()
