"""The program in the manual for a model object of one's own, run as it stands there."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.program import environment
from tests.live import call

_ROOT = Path(__file__).parents[3]
_GIVEN = """
from tests.engines.qwen_chat.original import Letters, Original

model, tokenizer = Original(), Letters()
"""


def _program(port: int) -> str:
    """What the reader copies, with the model that he is said to have, on a free port."""
    page = (_ROOT / "docs" / "qwen-7b-chat.md").read_text(encoding="utf-8")
    section = page.partition("## Your own remote-code model object")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    assert "port=6006" in found[1]
    return _GIVEN + found[1].replace("port=6006", f"port={port}")


def _answers(port: int) -> bool:
    try:
        return call(port, "GET", "/health/ready").status == 200
    except ConnectionRefusedError:
        return False


def test_a_model_object_of_ones_own_is_served(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    (tmp_path / "program.py").write_text(_program(port), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=environment(tmp_path, PYTHONPATH=os.fspath(_ROOT)),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            end = time.monotonic() + 60
            while not _answers(port):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.05)
            body = {"model": "qwen-7b-chat", "messages": [{"role": "user", "content": "你好"}]}
            answer = call(port, "POST", "/v1/chat/completions", body)
            assert answer.json()["choices"][0]["message"]["content"] == "你好"
            assert call(port, "POST", "/", {"prompt": "你好"}).json()["response"] == "你好"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
