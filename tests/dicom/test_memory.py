"""One budget of memory for all conversions: what is charged, and which ones wait."""

import gc
import gzip
import random
import struct
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm2bq import config
from dcm2bq.config import Config
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom import Budget, budget_of, convert, convert_within
from dcm2bq.dicom.memory import FIRST, MIB, Claim, GiveWayError
from dcm2bq.dicom.read.deflate import GunzippedSource
from dcm2bq.dicom.read.source import StreamSource, Window
from dcm2bq.dicom.write.fit_row import _size_by_parts, escaped_size
from dcm2bq.errors import ConfigError, ReadFailedError, UnreadableDicomError
from dcm2bq.machine import memory_limit
from tests.dicom.build import (
    DEFLATED,
    converted,
    dicom,
    element,
    header,
    identity,
    item,
    sequence,
)
from tests.support.patience import own_clock

TOTAL = 64 * MIB
LARGE = dicom(identity(), *[element(0x00091000 + n, "LT", b"x" * 60_000) for n in range(200)])
"""Takes about 38 MiB to convert: more than half of the budget."""


def test_a_conversion_returns_its_memory_to_the_budget() -> None:
    budget = Budget(TOTAL)
    with budget.claim() as claim:
        convert_within(claim, BytesIO(LARGE), Config())
        assert budget.free > TOTAL - 40 * MIB, "what was read is given back with the conversion"
    assert budget.free == TOTAL
    with pytest.raises(UnreadableDicomError), budget.claim() as claim:
        convert_within(claim, BytesIO(b"\0" * 128 + b"DICM" + LARGE[132:200_000]), Config())
    assert budget.free == TOTAL


def test_an_object_that_exceeds_the_whole_budget_is_unreadable() -> None:
    empties = dicom(identity(), element(0x00091001, "SH") * 200_000)
    with pytest.raises(UnreadableDicomError, match=r"limits\.memoryBytes allows, 16777216"):
        converted(empties, limits={"memoryBytes": 16 * MIB})
    assert converted(empties, limits={"memoryBytes": 256 * MIB})


def test_large_conversions_take_turns_and_all_finish() -> None:
    """Each fits alone, two together do not; the younger one begins again."""
    budget = Budget(TOTAL)

    def work(_: int) -> int:
        with budget.claim(Deadline.after(100)) as claim:
            return len(convert_within(claim, BytesIO(LARGE), Config()).text)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(16)))) == 1
    assert budget.free == TOTAL


def test_a_younger_claim_gives_way_to_an_older_waiting_one() -> None:
    budget = Budget(TOTAL)
    older, younger = budget.claim(Deadline.after(20)), budget.claim(Deadline.after(20))
    with older, younger, ThreadPoolExecutor(1) as pool:
        younger.charge(30 * MIB)
        waits = pool.submit(older.charge, 40 * MIB)
        with pytest.raises(GiveWayError):
            _charge_until(younger, waits)
        again = threading.Thread(target=younger.begin_again)
        again.start()
        waits.result(10)
        assert older.granted >= 40 * MIB
        older.settle(0)
        again.join(10)
        assert younger.granted == FIRST


def _charge_until(claim: Claim, other: Future[None]) -> None:
    """Charge a little more, again and again, until another claim has got what it waits for."""
    while not other.done():
        claim.charge(MIB // 4)
        time.sleep(0.01)


def test_a_younger_claim_that_is_already_waiting_gives_way_too() -> None:
    """It is woken up for this. Otherwise the two would wait for each other."""
    budget = Budget(TOTAL)
    older, younger, third = (budget.claim(Deadline.after(20)) for _ in range(3))
    with older, younger, third, ThreadPoolExecutor(2) as pool:
        younger.charge(20 * MIB)
        third.charge(20 * MIB)
        gives_way = pool.submit(younger.charge, 30 * MIB)
        time.sleep(0.2)
        waits = pool.submit(older.charge, 40 * MIB)
        with pytest.raises(GiveWayError):
            gives_way.result(5)
        younger.settle(0)
        third.settle(0)
        waits.result(5)


def test_a_claim_that_began_again_gives_way_to_one_made_before_it() -> None:
    budget = Budget(TOTAL)
    oldest, older, younger = (budget.claim(Deadline.after(20)) for _ in range(3))
    with younger, ThreadPoolExecutor(1) as pool:
        for claim in (older, oldest):
            with claim:
                younger.charge(30 * MIB)
                waits = pool.submit(claim.charge, 40 * MIB)
                with pytest.raises(GiveWayError):
                    _charge_until(younger, waits)
                again = threading.Thread(target=younger.begin_again)
                again.start()
                waits.result(10)
            again.join(10)
            assert younger.granted == FIRST


def test_waiting_for_memory_until_the_deadline_is_retryable() -> None:
    budget = Budget(TOTAL)
    with budget.claim() as other, budget.claim(Deadline.after(0.2)) as claim:
        other.charge(40 * MIB)
        with pytest.raises(ReadFailedError, match="no memory became free before the deadline"):
            claim.charge(40 * MIB)
    assert budget.free == TOTAL


def test_ordinary_objects_pass_while_an_enormous_one_holds_the_rest() -> None:
    budget = Budget(TOTAL)
    content = dicom(identity(), element(0x00100020, "LO", "X"))
    with budget.claim() as enormous, budget.claim() as waiting, ThreadPoolExecutor(1) as pool:
        enormous.charge(TOTAL - 10 * MIB)
        waits = pool.submit(waiting.charge, 30 * MIB)
        for _ in range(20):
            with budget.claim(Deadline.after(1)) as claim:
                assert convert_within(claim, BytesIO(content), Config()).text
        assert not waits.done()
        enormous.settle(0)
        waits.result(10)


def test_an_unusually_large_conversion_is_reported_once_in_advance() -> None:
    reported: list[int] = []
    with Budget(TOTAL).claim(on_large=reported.append) as claim:
        convert_within(claim, BytesIO(LARGE), Config())
    assert len(reported) == 1
    assert reported[0] > TOTAL // 8


@pytest.mark.parametrize(
    "limits", [{"headerBytes": 200 * MIB}, {"outputBytes": 60 * MIB}, {"elements": 10_000_000}]
)
def test_limits_beyond_the_budget_are_refused(limits: dict[str, int]) -> None:
    """A limit that is set must be possible; a default means as much as fits."""
    with pytest.raises(ConfigError, match=next(iter(limits))):
        budget_of(config.from_overrides({"limits": {"memoryBytes": 128 * MIB, **limits}}).limits)
    assert budget_of(config.from_overrides({"limits": {"memoryBytes": 16 * MIB}}).limits)


@pytest.mark.parametrize("kind", ["US", "FL", "DS", "IS", "AT"])
@pytest.mark.parametrize("form", ["flat", "dicom-json"])
def test_long_lists_are_read_like_short_ones(kind: str, form: str) -> None:
    """Although their numbers are decoded in chunks."""
    short = {
        "US": struct.pack("<3H", 1, 2, 65535),
        "FL": struct.pack("<3f", 0.1, 1e30, 3.0),
        "DS": b"1.5\\-2\\",
        "IS": b"7\\\\-3",
        "AT": struct.pack("<6H", 16, 16, 16, 32, 9, 1),
    }[kind]
    separator = b"\\" if kind in {"DS", "IS"} else b""
    times = 5000
    options = {"format": form, "useCommonNames": False}

    def values(field: bytes) -> list[object]:
        done = converted(dicom(identity(), element(0x00091001, kind, field)), jsonOutput=options)
        value = done.metadata["00091001"]
        return list(value["Value"] if form == "dicom-json" else value)

    few = values(short)
    assert values(separator.join([short] * times)) == few * times


def test_a_long_list_keeps_a_value_that_breaks_its_vr() -> None:
    field = b"\\".join([b"1"] * 9000 + [b"x"] + [b"2"] * 9000)
    creator = element(0x00090010, "LO", b"ACME")
    done = converted(dicom(identity(), creator, element(0x00091001, "IS", field)))
    assert done.metadata["00091001"] == [1] * 9000 + ["x"] + [2] * 9000
    assert done.warnings == ("00091001 IS: not an integer (offset 320)",)


JSON = st.recursive(
    st.none() | st.integers(-9, 99) | st.text(max_size=6) | st.lists(st.integers(), max_size=3),
    lambda inner: st.lists(
        st.dictionaries(st.from_regex(r"[0-9A-F]{8}", fullmatch=True), inner, max_size=3),
        max_size=3,
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.from_regex(r"[A-Z][a-z]{1,9}", fullmatch=True), JSON, max_size=4))
def test_the_size_measured_by_parts_is_that_of_the_whole(metadata: dict[str, object]) -> None:
    whole = escaped_size(msgspec.json.encode(metadata)) - 2
    assert _size_by_parts(metadata, NO_DEADLINE) == whole


def test_a_header_that_is_measured_by_parts_is_made_to_fit() -> None:
    """Its largest parts become references, as in one that is measured as a whole."""
    items = [item(element(0x00091001, "LT", b"\1" * (60_000 - n))) for n in range(120)]
    content = dicom(identity(), sequence(0x00081140, *items), element(0x00100020, "LO", "X"))
    done = converted(content, limits={"outputBytes": 1_000_000})
    assert escaped_size(done.text.encode()) <= 1_000_000
    assert done.metadata["PatientID"] == "X"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n",
          "sys/fs/cgroup/a/b/memory.max": "max\n"}, 1000),
        ({"proc/self/cgroup": "4:cpu,memory:/x\n0::/\n",
          "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2000",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 2000),
        ({"proc/self/cgroup": "4:memory:/of/the/host\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000"}, 3000),
        ({"sys/fs/cgroup/memory.max": "4000"}, 4000),
        ({}, None),
    ],
)  # fmt: skip
def test_the_memory_limit_is_the_lowest_of_all_control_groups(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    """Of version 2 or 1, in a container or not; without groups it is that of the machine."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == expected or (expected is None and memory_limit(tmp_path) > MIB)


def test_a_gzip_encoded_object_is_inflated_in_constant_memory() -> None:
    """Bytes before the current position are not kept."""
    pixels = header(0x7FE00010, "OW", 48 * MIB) + bytes(48 * MIB)
    content = gzip.compress(dicom(identity(), element(0x00100020, "LO", "X"), pixels), 1)
    source = GunzippedSource(Window(StreamSource(BytesIO(content))), 64 * MIB)
    tracemalloc.start()
    try:
        done = convert(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.metadata["PatientID"] == "X"
    assert done.warnings == ()
    assert peak < 4 * MIB


def test_a_gzip_encoded_object_can_be_read_again() -> None:
    """As by a conversion that gave way and begins again."""
    content = dicom(identity(), element(0x00100020, "LO", "X"))
    source = GunzippedSource(Window(StreamSource(BytesIO(gzip.compress(content)))), MIB)
    assert convert(source).text == convert(source).text == convert(BytesIO(content)).text


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 90_000)), max_size=8))
def test_a_gzip_encoded_object_can_be_read_in_any_order(reads: list[tuple[int, int]]) -> None:
    content = random.Random(1).randbytes(1000) * 200
    source = GunzippedSource(Window(StreamSource(BytesIO(gzip.compress(content, 1)))), MIB)
    for offset, n in reads:
        assert source.read_at(offset, n) == content[offset : offset + n]


def test_a_gzip_encoded_deflated_data_set_is_read() -> None:
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(identity() + element(0x00100020, "LO", "X")) + deflater.flush()
    content = dicom(deflated + bytes(len(deflated) % 2), transfer_syntax=DEFLATED)
    source = GunzippedSource(Window(StreamSource(BytesIO(gzip.compress(content)))), MIB)
    done = convert(source)
    assert done.metadata["PatientID"] == "X"
    assert done.warnings == ()


def test_elements_are_freed_without_the_garbage_collector() -> None:
    """Otherwise they would stay, unpaid, until its next run."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        with pytest.raises(UnreadableDicomError):
            converted(
                dicom(identity(), element(0x00091001, "SH") * 50_000, b"\1\2\3\4\5\6\7\x08\x09")
            )
        after = sys.getallocatedblocks()
    finally:
        gc.enable()
    assert after - before < 10_000


def test_a_slow_source_is_retryable_and_a_slow_object_is_not() -> None:
    """The time that the conversion itself computed decides."""

    class Slow(StreamSource):
        def read_at(self, offset: int, n: int, /) -> bytes:
            time.sleep(0.3)
            return super().read_at(offset, n)

    with pytest.raises(ReadFailedError):
        convert(Slow(BytesIO(LARGE)), timeout=0.5)
    numbers = dicom(
        identity(), *[element(0x00091000 + n, "DS", b"1e-3\\" * 9000) for n in range(99)]
    )
    with own_clock(), pytest.raises(UnreadableDicomError, match=r"limits\.deadlineSeconds"):
        convert(BytesIO(numbers), timeout=0.3)
    now = time.monotonic()
    claim = Budget(2**31).claim(Deadline(now + 0.3, since=now - 60))  # as if it had waited
    with claim, pytest.raises(ReadFailedError):
        convert_within(claim, BytesIO(numbers), Config())


@pytest.mark.parametrize(
    "values",
    [
        b"12345678901.2345\\" * 120_000,
        b"\x1b$)C\xb1\xe8\x1b-A\xe9" * 100_000,
        b"ab\\" * 700_000,
    ],
    ids=["decimals", "escapes", "texts"],
)
def test_the_deadline_holds_within_a_value_of_megabytes(values: bytes) -> None:
    """Values are counted, not elements."""
    charset = element(0x00080005, "CS", "\\ISO 2022 IR 149\\ISO 2022 IR 100")
    vr = "UC" if values[:1] != b"1" else "UN"
    tag = 0x00091001 if vr == "UC" else 0x30060050
    content = dicom(charset, identity(), *[element(tag, vr, values)] * 8)
    start = time.process_time()
    with pytest.raises((UnreadableDicomError, ReadFailedError)):
        convert(BytesIO(content), {"bulkData": {"textMaxBytes": 8 * MIB}}, timeout=0.01)
    assert time.process_time() - start < 2
