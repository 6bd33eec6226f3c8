"""Memory and requests of the function with only requirements.txt installed, for large objects."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from tests.support.function_process import (
    OURS,
    deliver,
    function,
    peak_bytes,
    stubs,
)
from tests.support.sparse import MIB, native

GIB = 1024 * MIB


def test_8_objects_of_1_gib_at_once_need_little_memory_and_few_bytes(
    tmp_path: Path, bare_python: Path
) -> None:
    large = native(GIB)
    file = tmp_path / "head.dcm"
    file.write_bytes(large.head)
    with stubs(file) as stub, function(OURS, stub, 8, python=bare_python) as (port, pid):
        before = requests.get(f"http://127.0.0.1:{stub}/counts", timeout=10).json()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(deliver, port, 64, 8, large.size, f"size={large.size}").result()
        after = requests.get(f"http://127.0.0.1:{stub}/counts", timeout=10).json()
        assert peak_bytes(pid) < 200 * 1000 * 1000
    assert after["reads"] - before["reads"] == 64
    assert after["bytes"] - before["bytes"] <= 64 * MIB
    assert 1 <= after["inserts"] - before["inserts"] <= 64
