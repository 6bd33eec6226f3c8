"""Cold start: from the start of the process to the first event answered.

Against a bare functions-framework function that imports the same libraries, with what
requirements.txt installs and nothing else: name such an environment's Python, or have one made.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from pydicom.data import get_testdata_file

from tests.support.environment import make_environment
from tests.support.function_process import OURS, ROOT, deliver, function, stubs

BARE = ROOT / "benchmarks" / "bare" / "main.py"


def measure(source: Path, stub: int, size: int, python: Path) -> float:
    """Return the seconds from start to first answer."""
    start = time.perf_counter()
    with function(source, stub, 8, python=python, wait=False) as (port, _):
        while True:
            try:
                deliver(port, 1, 1, size)
            except ConnectionError:
                time.sleep(0.005)
            else:
                return time.perf_counter() - start


def main() -> None:
    """Measure both by turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--python", type=Path, help="Python of an environment to use")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    file = Path(str(get_testdata_file("CT_small.dcm")))
    with tempfile.TemporaryDirectory() as folder, stubs(file) as stub:
        python = arguments.python or make_environment(Path(folder))
        size = file.stat().st_size
        for source in (BARE, OURS):
            measure(source, stub, size, python)  # compiles, fills the page cache
        pairs = [
            [measure(source, stub, size, python) for source in (BARE, OURS)]
            for _ in range(arguments.rounds)
        ]
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    if arguments.json:
        print(json.dumps({"bare_s": bare, "ours_s": ours, "ratio": ours / bare}, indent=2))
        return
    print("| bare function, s | dcm2bq, s | ratio |")
    print("|---:|---:|---:|")
    print(f"| {bare:.2f} | {ours:.2f} | {ours / bare:.2f} |")


if __name__ == "__main__":
    main()
