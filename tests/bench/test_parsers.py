"""`bench.parsers` runs, small: how fast it is on this machine is no test's business."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_measures_and_prints_ratios() -> None:
    command = [sys.executable, "-m", "bench.parsers", "--tokens", "60", "--repeat", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " µs a token, ratio " in line]
    assert [line.split(":")[0] for line in lines[1:]] == ["chain"] * 8 + ["renderer"] * 2
    assert all(re.search(r"\d+\.\d\d µs a token, ratio +\d+\.\d\d$", line) for line in lines)
    assert re.search(r"the dearest chain takes \d+\.\d\d µs a token", done.stdout)
