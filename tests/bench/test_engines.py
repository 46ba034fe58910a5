"""`bench.engines` runs, on a tiny model: how fast anything is here is no test's business."""

import re
import subprocess
import sys
from pathlib import Path

from tests.engines.tiny_model import write_native

ROOT = Path(__file__).parents[2]
_SHORT = ["--streams", "1,2", "--tokens", "4", "--repeat", "1", "--context", "384"]
# As shipped, its cache takes most of the machine.
_BOUND = ["--serve-blocks", "16"]


def test_it_measures_all_and_prints_ratios(tmp_path: Path) -> None:
    folder = write_native(tmp_path, "qwen2")
    without = ["--without", "llamacpp"]
    command = [sys.executable, "-m", "bench.engines", str(folder), *_SHORT, *_BOUND, *without]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    machine, model, *lines = done.stdout.splitlines()
    assert re.search(r" cores .* torch \d.* transformers \d", machine)
    assert model.startswith("model ")
    measured = [line for line in lines if " tok/s " in line]
    every = ["qwen-openai", "model.generate", "transformers serve"]
    assert [line[11:31].strip() for line in measured] == [*every, *every, *every[:2]]
    assert all(re.search(r"\d\.\d\d times generate$", line) for line in measured)
    absent = [line for line in lines if line.startswith("absent ")]
    assert [line.split()[1] for line in absent] == ["llamacpp:", "transformers"]
    aims = [line for line in lines if line.startswith("aim ")]
    assert len(aims) == 3
    assert all(re.search(r"\d\.\d\d times .*: (reached|missed)$", line) for line in aims)
