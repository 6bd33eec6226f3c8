"""What daily questions read: the benchmark behind docs/PERFORMANCE.md, on a small dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGES = "changes of the last day"
"""Asked of the log, which also has the rows that are not live."""


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="the local BigQuery runs on 3.13 only")
def test_look_ups_read_less_of_objects_and_return_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_lookups", "--json", "--rows", "20000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    results = {result["question"]: result for result in json.loads(done.stdout)}
    for question in results.keys() - {CHANGES}:
        before, now = results[question]["before"], results[question]["after"]
        assert before["answers"] == now["answers"] > 0
    assert results[CHANGES]["after"]["answers"] >= results[CHANGES]["before"]["answers"] > 0
    cheaper = {name for name, r in results.items() if r["after"]["bytes"] < r["before"]["bytes"]}
    assert cheaper >= {
        *("objects of a patient", "headers of a patient", "objects of the last day", CHANGES),
    }
