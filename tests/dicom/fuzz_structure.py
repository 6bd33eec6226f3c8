"""Convert structurally mutated objects: `python -m tests.dicom.fuzz_structure --seed 1`.

Three runs: against pydicom (no element is silently lost or changed), for silence (no message
carries bytes of a value), and under privacy options (no trace of what the rules must hide).
"""

import argparse
import base64
import os
import random
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement

from dcm2bq.dicom import Conversion, convert
from dcm2bq.errors import NotDicomError, UnreadableDicomError
from tests.dicom import fuzz
from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
)
from tests.dicom.sentinels import (
    NUMBERS,
    RULES,
    SECRET,
    traces,
)
from tests.dicom.structure import (
    PIXELS,
    PRIVATE,
    Object,
    mutate,
    random_object,
)
from tests.support.leaks import leaks, windows

LETTERS = "BFGHJKQVWXYZ"
"""Letters of values: no four in a row are in a message by chance, nor in a tag or an offset."""
ALL = {
    "jsonOutput": {"format": "dicom-json", "ignoreGroupLength": False},
    "bulkData": {"inlineMaxBytes": 100_000},
}
"""Options under which the JSON has every element."""
NAMED = (0x00100010, 0x00100020, 0x00104000, PRIVATE)
"""The tags that hold the name; both sets of rules list them."""
REFUSED = (NotDicomError, UnreadableDicomError)

_CODES = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}

type Place = tuple[int, ...]
"""The path of an element: the tags and item numbers around it, then its tag."""


def words(rng: random.Random) -> Callable[[], str]:
    """Return a function that makes texts of 8 letters or more, all different."""
    return lambda: "".join(rng.choices(LETTERS, k=rng.randint(8, 21)))


# Silence


def secret_letters(content: bytes) -> frozenset[bytes]:
    """Return the stretches of an object that consist of `LETTERS`."""
    letters = LETTERS.encode()
    return frozenset(window for window in windows(content) if not window.strip(letters))


def messages(content: bytes, options: dict[str, Any]) -> tuple[str, list[str]]:
    """Return how a conversion ends, and all its messages."""
    try:
        done = convert(BytesIO(content), options)
    except REFUSED as refusal:
        return type(refusal).__name__, [str(refusal), str(refusal.args)]
    return "warned" if done.warnings else "converted", [*done.warnings, *done.dropped_tags]


def silence(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Return how `count` conversions ended, and the messages with bytes of a value."""
    rng = random.Random(seed)
    findings: list[str] = []
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        whole = random_object(
            rng, words(rng), syntaxes=(EXPLICIT, EXPLICIT, IMPLICIT, BIG, DEFLATED)
        )
        by_bytes = rng.random() < 0.5
        content = fuzz.mutate(bytes(whole), rng, [bytes(whole)]) if by_bytes else mutate(whole, rng)
        # The letters in a deflated data set only show when it is inflated: add all values.
        secret = secret_letters(content) | windows(*whole.values)
        outcome, said = messages(content, rng.choice(fuzz.OPTIONS))
        outcomes[outcome] += 1
        if leaked := leaks(said, secret):
            outcomes[f"{outcome} with a leak"] += 1
            findings += leaked
    return outcomes, findings


# Against pydicom


def by_pydicom(content: bytes) -> dict[Place, tuple[bytes, bool]] | None:
    """Return each place's value field and whether it is little endian; None if refused."""
    places: dict[Place, tuple[bytes, bool]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = pydicom.dcmread(BytesIO(content))
            _collect(data_set, (), places)
    except Exception:
        return None
    return places


def _collect(
    data_set: pydicom.Dataset, outer: Place, places: dict[Place, tuple[bytes, bool]]
) -> None:
    raws = {tag: data_set.get_item(tag) for tag in data_set.keys()}  # noqa: SIM118 - not elements
    for tag, raw in raws.items():
        if isinstance(raw, RawDataElement) and raw.VR != "SQ":
            value = raw.value
            element = data_set[tag]
        else:
            element, value = raw, None
        place = (*outer, int(tag))
        if isinstance(element.value, pydicom.Sequence):
            places[place] = (b"", True)
            for number, item in enumerate(element.value):
                _collect(item, (*place, number), places)
        elif getattr(raw, "length", 0) == UNDEFINED and tag != PIXELS:
            raise ValueError("pydicom ends a sequence under a tag of text at an inner delimiter")
        else:  # UN is little endian, whatever surrounds it (PS3.5 6.2.2)
            is_little = raw.VR == "UN" or getattr(raw, "is_little_endian", True)
            places[place] = (value or b"", is_little)


def by_us(done: Conversion) -> dict[Place, Any]:
    """Return the JSON of each place."""
    places: dict[Place, Any] = {}
    todo: list[tuple[Place, dict[str, Any]]] = [((), done.metadata)]
    for outer, item in todo:
        for key, value in item.items():
            place = (*outer, int(key, 16))
            places[place] = value
            if value["vr"] == "SQ":
                for number, inner in enumerate(value.get("Value", [])):
                    todo.append(((*place, number), inner))
    return places


def is_same(ours: dict[str, Any], theirs: bytes, content: bytes, *, little: bool) -> bool:
    """Return whether the JSON has the value of a value field."""
    vr = ours["vr"]
    if vr == "SQ":  # pydicom may hold it as bytes: `lost` looks for the values in it
        return True
    if "BulkDataURI" in ours:
        # pydicom leaves out the items of an encapsulated value and its padding.
        return theirs.rstrip(b"\0") in referred(ours, content)
    if "InlineBinary" in ours:
        inline = base64.b64decode(ours["InlineBinary"])
        return theirs in inline if little else swapped(vr, theirs) == inline
    values = ours.get("Value", [None])
    if vr == "AT" or (vr in NUMBERS and not isinstance(values[0], str)):
        return list(_numbers(vr, theirs, little=little)) == [
            value for value in values if value is not None
        ]
    texts = [next(iter(value.values())) if isinstance(value, dict) else value for value in values]
    text = theirs.decode("latin_1")
    parts = [text] if vr in {"LT", "ST", "UR", "UT"} else text.split("\\")
    return [_plain(text) for text in texts] == [_plain(part) for part in parts]


def referred(ours: dict[str, Any], content: bytes) -> bytes:
    """Return the bytes of an object that a reference points to."""
    fields = dict(part.split("=") for part in ours["BulkDataURI"].lstrip("?").split("&"))
    start = int(fields["offset"])
    return content[start : start + int(fields["length"])]


def swapped(vr: str, value: bytes) -> bytes:
    """Return a big endian value as a little endian one."""
    size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(vr, 1)
    if len(value) % size:
        return value
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))


def _numbers(vr: str, value: bytes, *, little: bool) -> Iterator[object]:
    order = "<" if little else ">"
    if vr == "AT":
        words_ = struct.unpack(f"{order}{len(value) // 2}H", value)
        yield from (f"{a:04X}{b:04X}" for a, b in zip(words_[::2], words_[1::2], strict=True))
        return
    size = struct.calcsize(f"<{_CODES[vr]}")
    yield from struct.unpack(f"{order}{len(value) // size}{_CODES[vr]}", value)


def _packed(vr: str, values: list[Any]) -> bytes:
    """Return the bytes of numbers, in both byte orders."""
    if vr not in _CODES or any(isinstance(value, str) for value in values):
        return b""
    code = f"{len(values)}{_CODES[vr]}"
    return b"".join(struct.pack(f"{order}{code}", *values) for order in "<>")


def _plain(value: object) -> object:
    text = str("" if value is None else value).replace("\ufffd", "\0").strip(" \0")
    try:
        return float(text)
    except ValueError:
        return text


def lost(whole: Object, content: bytes, done: Conversion) -> list[str]:
    """Return what a conversion without warnings has lost or changed."""
    if done.warnings:
        return []
    ours = by_us(done)
    kept = _kept(done, ours, content)
    theirs = by_pydicom(content) or {}
    read = b"\n".join(value for value, _ in theirs.values())
    if any(value in kept and value not in read for value in whole.values):
        theirs = {}  # pydicom has lost values itself, so that its reading proves nothing
    problems = []
    for place, (value, little) in theirs.items():
        name = "/".join(f"{each:X}" for each in place)
        if place[0] >> 16 == 2:  # File Meta Information is left out
            continue
        if place not in ours:
            if not any("BulkDataURI" in ours.get(place[:n], {}) for n in range(len(place))):
                problems.append((place, value, f"lost {name}: {value!r}"))
        elif not is_same(ours[place], value, content, little=little):
            problem = f"changed {name}: {value[:50]!r} to {str(ours[place])[:200]}"
            problems.append((place, value, problem))
    if problems:
        # If a place is read as in the object before the mutation, that is right.
        before = by_us(convert(BytesIO(bytes(whole)), ALL))
        right = {place: each for place, each in ours.items() if before.get(place) == each}
        texts = "\n".join(map(str, right.values()))
        problems = [
            (place, value, problem)
            for place, value, problem in problems
            if place not in right and not (value and value.decode("latin_1").strip() in texts)
        ]
    return [problem for _, _, problem in problems] + [
        f"lost value {value!r}" for value in whole.values if value in content and value not in kept
    ]


def _kept(done: Conversion, ours: dict[Place, Any], content: bytes) -> bytes:
    """Return all bytes that the JSON contains or refers to."""
    parts = [done.text.encode()]
    for attribute in ours.values():
        if "InlineBinary" in attribute:
            parts.append(base64.b64decode(attribute["InlineBinary"]))
            parts.append(swapped(attribute["vr"], parts[-1]))
        if "BulkDataURI" in attribute:
            parts.append(referred(attribute, content))
        parts.append(_packed(attribute["vr"], attribute.get("Value", [])))
    return b"\n".join(parts)


def against_pydicom(
    count: int, seed: int, *, mutated: bool = True
) -> tuple[Counter[str], list[str]]:
    """Return how `count` conversions ended, and what was silently lost or changed."""
    rng = random.Random(seed)
    findings: list[str] = []
    outcomes: Counter[str] = Counter()
    for number in range(count):
        whole = random_object(rng, words(rng))
        content = mutate(whole, rng) if mutated else bytes(whole)
        try:
            done = convert(BytesIO(content), ALL)
        except REFUSED as refusal:
            outcomes[type(refusal).__name__] += 1
            continue
        outcomes["warned" if done.warnings else "converted"] += 1
        if problems := lost(whole, content, done):
            outcomes["lost or changed"] += 1
            findings.append(f"{number}: {'; '.join(problems)}")
            if folder := os.environ.get("FUZZ_KEEP"):
                Path(folder, f"{seed}-{number}.dcm").write_bytes(content)
    return outcomes, findings


# Privacy


def privacy(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Return how `count` conversions under privacy options ended, and traces of the name."""
    rng = random.Random(seed)
    findings: list[str] = []
    outcomes: Counter[str] = Counter()
    for number in range(count):
        whole = random_object(rng, words(rng), fixed=dict.fromkeys(NAMED, SECRET))
        content = mutate(whole, rng, moves_tags=lambda piece: piece.tag not in NAMED)
        options = {**rng.choice((ALL, *fuzz.OPTIONS)), "privacy": rng.choice(RULES)}
        try:
            done = convert(BytesIO(content), options)
        except REFUSED as refusal:
            outcomes[type(refusal).__name__] += 1
            texts = [str(refusal)]
        else:
            outcomes["warned" if done.warnings else "converted"] += 1
            findings += [f"{number}: {trace} in {done.text}" for trace in traces(done.text)]
            texts = [*done.warnings, *done.dropped_tags, *_keys(done.metadata)]
            texts += map(str, done.columns.values())
        findings += [f"{number}: {window}" for window in leaks(texts, windows(SECRET))]
    return outcomes, findings


def _keys(value: object) -> Iterator[str]:
    """Yield the keys of a JSON value at every level."""
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if isinstance(each, dict | list):
            yield from _keys(each)


RUNS = {
    "against pydicom": (against_pydicom, 200_000),
    "privacy": (privacy, 60_000),
    "silence": (silence, 30_000),
}
"""The runs of `main`, with their number of mutations."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", choices=RUNS, action="append")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("DCM2BQ_HASH_KEY", "a key that is long enough")
    failed = False
    for name in arguments.run or RUNS:
        run, count = RUNS[name]
        outcomes, findings = run(arguments.count or count, arguments.seed)
        summary = ", ".join(f"{outcome} {n}" for outcome, n in sorted(outcomes.items()))
        print(f"{name}, {arguments.count or count} mutations: {summary}; {len(findings)} findings")  # noqa: T201
        for finding in findings[:20]:
            print(f"  {finding}"[:1000])  # noqa: T201
        failed = failed or bool(findings)
    sys.exit(failed)


if __name__ == "__main__":
    main()
