"""`bench.qwen_chat` runs, on a CPU and small: what it prints on a GPU is no test's business."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SMALL = ["--layers", "2", "--small", "--device", "cpu", "--dtype", "float32"]
_SHORT = ["--prompt", "600", "--tokens", "8", "--copy", "1", "--repeat", "1"]


def test_it_measures_and_prints_ratios() -> None:
    command = [sys.executable, "-m", "bench.qwen_chat", *_SMALL, *_SHORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    card, *lines = done.stdout.splitlines()
    assert card.startswith("no GPU: cpu, torch ")
    names = [line.split()[0] for line in lines]
    assert names == ["model", "copy", "prefill", "decode", "floor", "generate"]
    assert re.search(r"decode reaches \d+\.\d\d of it$", lines[4])
    assert re.search(r"ratio \d+\.\d\d$", lines[5])
