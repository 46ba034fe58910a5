"""`serve` on a directory of weights, as a user meets it: notes, panel, answers, the end."""

import re
import signal
import subprocess
from pathlib import Path

from tests.cli.program import PROGRAM, environment
from tests.cli.test_serve import panel_of, port_of
from tests.engines.tiny_model import write_native
from tests.live import call


def test_a_directory_is_served_by_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "Tiny"
    folder.mkdir()
    write_native(folder, "qwen2")
    flags = ("--port", "0", "--threads", "1", "--slots", "3", "--prompt-cache-mib", "5")
    with subprocess.Popen(
        [PROGRAM, "serve", *flags, str(folder)],
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            panel = panel_of(process)
            rows = dict(re.findall(r"^  (\S.*?)  +(\S.*)$", panel, re.MULTILINE))
            assert rows["engine"] == "transformers"
            assert rows["context"] == "512 tokens an answer, 3 answers at a time"
            assert rows["computes in"] == "float32"
            assert re.fullmatch(
                r"weights \S+ GB, cache \S+ GB: \S+ tokens, about \d+ users at 512", rows["fits"]
            )
            port = port_of(panel)
            body = {"model": "Tiny", "messages": [{"role": "user", "content": "q"}]}
            answer = call(port, "POST", "/v1/chat/completions", {**body, "max_tokens": 4}).json()
            assert answer["usage"]["completion_tokens"] <= 4
            assert call(port, "POST", "/", {"prompt": "q", "max_length": 64}).status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stderr is not None
            said = process.stderr.read()
        finally:
            process.kill()
    assert "prompt_cache_mib has no effect on the engine transformers" in said
    assert "Tiny: 0.0 GB of weights in float32, as they are." in said
    assert "Traceback" not in said
