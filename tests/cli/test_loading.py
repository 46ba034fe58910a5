"""Stopping `serve` while it loads a model: it ends at once and leaves no engine behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from qwen_openai.models.layout import default_home
from tests.cli.program import PROGRAM, environment
from tests.real import real_files

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@SIGNALS
def test_a_signal_while_torch_loads_ends_it(
    number: signal.Signals, code: int, shared: Path, tmp_path: Path
) -> None:
    """A thread in torch's own code cannot be stopped, and must not crash the end."""
    checkpoint = shared / "golden" / "qwen1" / "checkpoint"
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", "--", str(checkpoint)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("Loading ") for line in process.stderr)
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr.read() == ""
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.real
@SIGNALS
def test_a_signal_while_loading_ends_it(number: signal.Signals, code: int) -> None:
    real_files()
    env = environment(Path(os.environ.get("QWEN_OPENAI_HOME") or default_home()))
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", "--context", "512", "--slots", "1"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Loading qwen2.5-coder-0.5b" in process.stderr.readline()
        children = _wait_for_children(process.pid)
        process.send_signal(number)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()
        assert process.stdout is not None
        assert process.stdout.read() == ""
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def _wait_for_children(pid: int) -> list[psutil.Process]:
    """Return the engine's process as soon as there is one."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        children = psutil.Process(pid).children(recursive=True)
        if children:
            return children
        time.sleep(0.01)
    raise AssertionError("no engine was started")
