"""`bench.sampling` runs, small: how fast it is on this machine is no test's business."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SMALL = ["--device", "cpu", "--vocabulary", "2000", "--rows", "1", "3"]
_SHORT = ["--repeat", "1", "--answers", "2", "--tokens", "3"]


def test_it_measures_and_prints_ratios() -> None:
    command = [sys.executable, "-m", "bench.sampling", *_SMALL, *_SHORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    costs, agreement = lines[:-2], lines[-2:]
    assert len(costs) == 2 * 8
    assert all(re.search(r"rows +\d+\.\d\d ms, row by row +\d+\.\d\d times", one) for one in costs)
    assert sum("transformers" in one for one in costs) == 2 * 5
    assert [line.split()[0] for line in agreement] == ["float32", "bfloat16"]
    assert " 2 of 2 seeded answers the same" in agreement[0]
