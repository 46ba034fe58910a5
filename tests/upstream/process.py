"""Mocks and gateways as processes: started, killed, stopped and let go on."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20,
) -> tuple[int, Any]:
    """One request; its status, and its body read as JSON where it is some."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(
            method, path, content, {"content-type": "application/json", **(headers or {})}
        )
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(raw)
    except ValueError:
        return response.status, raw


class Child:
    """A process of ours that listens on ``port``."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self.command = list(command)
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, *arguments: str, stdin: bool = False) -> None:
        """Start the process; it prints its port as its first line."""
        self.close()
        self.process = subprocess.Popen(
            [*self.command, *arguments],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    @property
    def pid(self) -> int:
        """Its process id; it must run."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would: nothing is finished, nothing is said."""
        self.signal(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        """Let it hang: its connections stay, and nothing comes from them."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def wait(self, seconds: float = 20) -> int:
        """Wait for its end; its status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(20)
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
            self.process = None


class Mock(Child):
    """A mock upstream. ``start`` after ``kill`` brings it back on the same port."""

    def __init__(self, name: str, *arguments: str) -> None:
        super().__init__([sys.executable, "-m", "tests.upstream.mock", "--name", name], 0)
        self.name = name
        self._arguments = arguments

    @property
    def url(self) -> str:
        """What stands in the settings of a gateway."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> "Mock":
        """Start it, and wait until it listens."""
        self.spawn("--port", str(self.port), *self._arguments)
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mock {self.name} did not start")
        self.port = int(line)
        return self

    def control(self, behaviour: str | None = None, **said: object) -> dict[str, Any]:
        """Tell it how to behave from now on; its report."""
        told = said if behaviour is None else {"behaviour": behaviour, **said}
        return self._report("POST", told)

    def report(self) -> dict[str, Any]:
        """What it has counted: `State.report`."""
        return self._report("GET", None)

    def _report(self, method: str, body: object) -> dict[str, Any]:
        report = ask(self.port, method, "/control", body)[1]
        assert isinstance(report, dict)
        return report


@contextmanager
def mocks(*names: str, arguments: Sequence[str] = ()) -> Iterator[list[Mock]]:
    """Mocks of these names, started, for as long as the block runs."""
    made = [Mock(name, *arguments) for name in names]
    try:
        yield [mock.start() for mock in made]
    finally:
        for mock in made:
            mock.close()


class GatewayProcess(Child):
    """A real `qwen-openai serve`, with what it wrote in ``log``."""

    def __init__(self, folder: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "qwen_openai", "serve", *arguments]
        super().__init__(command, free_port())
        self.log = folder / f"gateway-{self.port}.log"
        self._file: IO[bytes] | None = None

    def start(self, environ: Mapping[str, str] | None = None) -> "GatewayProcess":
        """Start it and wait until it listens."""
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [*self.command, "--port", str(self.port)],
            stdout=self._file,
            stderr=self._file,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the gateway ended: {self.log.read_text()}")
            with contextlib.suppress(OSError):
                ask(self.port, "GET", "/health/live")
                return self
            time.sleep(0.02)
        raise RuntimeError(f"the gateway did not start: {self.log.read_text()}")

    def wait_ready(self, seconds: float = 20) -> None:
        """Wait until it takes requests."""
        end = time.monotonic() + seconds
        while ask(self.port, "GET", "/health/ready")[0] != 200:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def close(self) -> None:
        """End it, whatever state it is in."""
        super().close()
        if self._file is not None:
            self._file.close()


@contextmanager
def gateway_process(
    folder: Path,
    upstreams: Sequence[Mock],
    *arguments: str,
    prefix: Sequence[str] = (),
    config: str = "",
) -> Iterator[GatewayProcess]:
    """A gateway in front of mocks, which have their names in it, by a config file in ``folder``
    to which ``config`` is added before the tables."""
    path = folder / "gateway.toml"
    path.write_text(config_of(upstreams, config))
    words = ("--engine", "upstream", "--config", str(path), "--database", "off", *arguments)
    made = GatewayProcess(folder, *words, prefix=prefix)
    try:
        yield made.start()
    finally:
        made.close()


def config_of(upstreams: Sequence[Mock], more: str = "") -> str:
    """The text of a config file with these upstreams."""
    tables = [f'[[upstreams]]\nname = "{mock.name}"\nurl = "{mock.url}"\n' for mock in upstreams]
    return "\n".join([more, *tables])


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
