"""`serve` on a model whose step does not end: what clients hear, and that a signal ends it."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.program import environment
from tests.live import Answer, call

_BODY = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
_ROOT = Path(__file__).parents[2]


class Server:
    """The program, and one request in the background that has begun its step."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._lines = iter(process.stdout)
        self.port = int(self._wait_for(r"http://\S+:(\d+)/v1$")[1])
        self.answers: list[Answer] = []
        self._client = threading.Thread(target=self._ask)
        self._client.start()
        self._wait_for("^step$")

    def _wait_for(self, pattern: str) -> re.Match[str]:
        return next(found for line in self._lines if (found := re.search(pattern, line)))

    def _ask(self) -> None:
        try:
            self.answers.append(call(self.port, "POST", "/v1/chat/completions", _BODY))
        except OSError:
            return  # the server ended

    def answer(self) -> Answer:
        self._client.join(30)
        return self.answers[0]

    def end(self) -> tuple[int, str]:
        """Exit code after a SIGTERM, and what was said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        # The drain is a second at most here, and the engine's patience is bounded.
        code = self.process.wait(20)
        self._client.join(30)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@contextmanager
def serving(tmp_path: Path, seconds: float, stall: float, drain: float) -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cli.stuck", str(seconds), str(stall), str(drain)],
        env=environment(tmp_path),
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def test_a_hang_is_told_and_a_signal_ends_the_process(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=600, stall=0.5, drain=600) as server:
        first = server.answer()
        assert first.status == 500
        assert "has hung" in first.json()["error"]["message"]
        assert call(server.port, "GET", "/health/ready").status == 503
        assert call(server.port, "GET", "/health/live").status == 200
        assert call(server.port, "POST", "/v1/chat/completions", _BODY).status == 503
        code, said = server.end()
    assert code == 1
    assert "A step of the model did not end" in said
    assert "Traceback" not in said


def test_a_step_that_outlasts_the_drain_does_not_keep_the_process(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=600, stall=600, drain=0.5) as server:
        code, said = server.end()
    assert code == 1
    assert "A step of the model did not end" in said


def test_a_step_that_ends_soon_is_a_good_end(tmp_path: Path) -> None:
    with serving(tmp_path, seconds=1, stall=600, drain=0) as server:
        code, said = server.end()
    assert code == 0
    assert "did not end" not in said
