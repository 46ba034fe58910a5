"""A gateway of `chat`'s own: `qwen-openai serve` in a child process on a free loopback port.

It dies with this process, however that ends: it watches its standard input, which we hold open.
"""

import os
import re
import secrets
import subprocess
import sys
from types import TracebackType
from typing import Self

_URL = re.compile(r"http://\S+/v1\b")
_PATIENCE = 5.0  # seconds a server without requests may take to stop


class LocalGateway:
    """A context manager; inside it the gateway answers at `base_url` with `api_key`.

    The child draws its progress, and says what is wrong, on our stderr. Raises ChildFailed when it
    ends before it is ready.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.base_url = ""
        self.api_key = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "qwen_openai", "serve", "--host", "127.0.0.1"]
        # A flag beats the environment and the config file, which are those of another gateway.
        command += ["--port", "0", "--allowed-hosts", "127.0.0.1", "--database", "off"]
        command += ["--until-stdin-closes", "--log-level", "error"]
        self._child = subprocess.Popen(  # noqa: S603 (an argument list, no shell)
            [*command, "--", self._model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "QWEN_OPENAI_API_KEY": self.api_key},
            # Ctrl-C in the terminal stops an answer, not the server.
            start_new_session=True,
        )
        try:
            self.base_url = self._await_url()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _await_url(self) -> str:
        stdout = self._child.stdout
        for line in stdout or ():
            found = _URL.search(line.decode("utf-8", errors="replace"))
            if found is not None:
                return found.group()
        raise ChildFailed(self._child.wait())

    def _stop(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class ChildFailed(Exception):
    """The server did not start; it has said why. ``code`` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"The server ended with code {code}.")
        self.code = code
