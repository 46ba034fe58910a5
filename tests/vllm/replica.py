"""One vLLM server on this machine's processor, as a process that can be killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.upstream.process import Child, ask, free_port

MODEL = "qwen2.5-coder-0.5b"


class Replica(Child):
    """`vllm serve` on a directory of weights; ``start`` after ``kill`` brings it back."""

    def __init__(self, program: str, name: str, weights: Path, logs: Path) -> None:
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL]
        options += ["--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"]
        options += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        super().__init__([program, "serve", str(weights), *options], port)
        self.name = name
        self.log = logs / f"vllm-{name}.log"

    @property
    def url(self) -> str:
        """What stands in the settings of a gateway."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> "Replica":
        """Start it, without waiting: that takes minutes."""
        environ = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        return self

    def wait_ready(self, seconds: float = 600) -> None:
        """Wait until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"vLLM ended: {self.log.read_text()[-3000:]}")
            try:
                if ask(self.port, "GET", "/health", timeout=5)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it and the processes that it has started, as a machine that loses its power does."""
        os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        super().close()
