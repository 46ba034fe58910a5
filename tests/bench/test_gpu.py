"""`bench.gpu` runs, on a CPU and tiny: what it prints on a card is no test's business."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
_SHORT = ["--streams", "1,3", "--prompt", "40", "--tokens", "12", "--copy", "1"]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_it_measures_every_way_and_prints_the_aims() -> None:
    done = _run("--tiny", *_SHORT)
    assert done.returncode == 0, done.stderr
    card, model, *lines = done.stdout.splitlines()
    assert card.startswith("no GPU: cpu; torch ")
    assert model.startswith("tiny: 2 layers")
    cells = [line.split()[:2] for line in lines if " tok/s " in line]
    both = [["shipped", "1"], ["shipped", "3"], ["ours", "1"], ["ours", "3"]]
    assert cells == [["alone", "1"], ["batch", "3"], *both]
    measured = [line for line in lines if " tok/s " in line]
    assert all(re.search(r" of the floor (\d+\.\d\d|-)$", line) for line in measured)
    aims = [line for line in lines if line.startswith("aim ")]
    assert re.search(r"1 stream, of the floor: .*: (reached|missed|not measured)$", aims[0])
    assert aims[1].endswith("not measured")
    assert all(re.search(r"of what is shipped: .*: (reached|missed)$", line) for line in aims[2:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so() -> None:
    done = _run()
    assert done.returncode == 2
    assert "There is no card here" in done.stderr
