"""The real program as tests run it: through a pipe, and on a terminal of its own."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "qwen-openai")

# Makes standard input the controlling terminal, so that ^C becomes a signal, and then the program.
_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>])")


def environment(home: Path, **more: str) -> dict[str, str]:
    """What the program needs and nothing of the person who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    settings = {"QWEN_OPENAI_HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    settings["XDG_STATE_HOME"] = str(home / "state")  # else the person's own database
    # The test's terminal does not answer the question where the cursor is.
    return {**kept, **settings, "PROMPT_TOOLKIT_NO_CPR": "1", **more}


def run(
    *arguments: str, env: Mapping[str, str], stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `qwen-openai` to its end."""
    return subprocess.run(
        [PROGRAM, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=timeout
    )


class OnTerminal:
    """`qwen-openai` on a pseudo-terminal; a context manager that leaves no process behind."""

    def __init__(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> None:
        self._arguments = arguments
        self._env = env
        self._cwd = cwd
        self.shown = ""

    def __enter__(self) -> "OnTerminal":
        self._master, slave = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, PROGRAM, *self._arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout: float = 60) -> str:
        """Wait until ``text`` is shown; return what was shown up to its end since the last call."""
        end = time.monotonic() + timeout
        while text not in self.shown:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown, but {self.shown!r}")
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def wait(self, timeout: float = 60) -> int:
        """Return the exit code, reading the terminal meanwhile so that nothing blocks."""
        end = time.monotonic() + timeout
        while self._read(end - time.monotonic()):
            pass
        return self._process.wait(max(0.1, end - time.monotonic()))

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO where others say end of file
            return False
        self.shown = _ESCAPES.sub("", self.shown + data.decode(errors="replace"))
        return bool(data)
