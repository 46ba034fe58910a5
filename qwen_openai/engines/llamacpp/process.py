"""One run of the engine process: start it, talk frames with it, notice at once when it ends.

It knows processes, sockets and frames, nothing of jobs. `supervisor` decides when to start another.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

import qwen_openai
from qwen_openai.engines.llamacpp.frames import Decoder, Frame, FrameError, Kind, encode

_log = structlog.get_logger(__name__)

_KEPT_LINES = 30
_EXIT_AFTER_EOF = 1.0


class Process(asyncio.Protocol):
    """A running child. Make one with `spawn`.

    ``ended`` resolves, never fails, to how it ended ("died (signal 9)"). ``heard`` is when the last
    bytes came, by the monotonic clock; ``lines`` is the end of what it wrote to stdout and stderr.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        deliver: Callable[[Frame], None],
        lost: Callable[[], None],
    ) -> None:
        self.pid = process.pid
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = time.monotonic()
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.returncode: int | None = None
        self._deliver = deliver
        self._lost = lost
        self._decoder = Decoder()
        self._verdict: str | None = None
        self._process = process
        self._transport: asyncio.WriteTransport | None = None
        self._output = asyncio.create_task(self._read_output())
        self._burial: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls, config: bytes, deliver: Callable[[Frame], None], lost: Callable[[], None]
    ) -> "Process":
        """Start a child and send it its configuration (a `child.Config` as JSON).

        ``deliver`` gets every frame, ``lost`` is called once when the connection is gone.
        Raises OSError when no process can be made. Cancelled or failing, leaves none behind.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "qwen_openai.engines.llamacpp.child",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    env=child_environment(os.environ),
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        self = cls(process, deliver, lost)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            self.kill("was stopped")
            await asyncio.shield(self._bury_once())
            raise
        self.send(Kind.LOAD, payload=config)
        return self

    def send(self, kind: Kind, request: int = 0, payload: bytes = b"") -> None:
        """Queue one frame; does nothing once the child is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(kind, request, payload))

    def kill(self, verdict: str) -> None:
        """End the child at once; ``verdict`` is what `ended` will say."""
        self._verdict = self._verdict or verdict
        self._signal(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """End the child: SIGTERM, then SIGKILL after ``grace`` seconds; wait until it is gone."""
        self._verdict = self._verdict or "was stopped"
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), grace)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of ours

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.kill(f"sent {error}")
            return
        for frame in frames:
            self._deliver(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
        self._bury_once()

    def _bury_once(self) -> "asyncio.Task[None]":
        if self._burial is None:
            self._burial = asyncio.create_task(self._bury())
        return self._burial

    async def _bury(self) -> None:
        """Wait for the process behind a closed socket, and report how it ended."""
        try:
            await asyncio.wait_for(self._process.wait(), _EXIT_AFTER_EOF)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        code = self.returncode = self._process.returncode
        assert code is not None  # wait() has returned  # noqa: S101
        # The pipe ends with the process, so what it wrote last is here in a moment.
        await self._output
        ending = f"died (signal {-code})" if code < 0 else f"ended (exit code {code})"
        self.ended.set_result(self._verdict or ending)

    async def _read_output(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        rest = b""
        # Not by lines: a line longer than the reader's limit would end the reading.
        while data := await stream.read(2**16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._note(line)
            if len(rest) > 2**16:
                self._note(rest)
                rest = b""
        if rest:
            self._note(rest)

    def _note(self, raw: bytes) -> None:
        if line := raw.decode(errors="replace").strip():
            self.lines.append(line)
            _log.debug("engine_output", pid=self.pid, line=line)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the child: ours, without our settings (a key is among them), and tuned.

    Whoever sets one of the tuning variables himself is obeyed. Figures: docs/engines.md.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("QWEN_OPENAI_")}
    # As fast as endless spinning when the cores are ours, and no collapse when they are shared.
    if "OMP_WAIT_POLICY" not in kept:
        kept.setdefault("GOMP_SPINCOUNT", "300")
    # Huge pages where the kernel lets programs ask for them: a large KV cache is zeroed 5x faster.
    kept.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    package = str(Path(qwen_openai.__file__).parent.parent)
    # With -P the child does not look into the working directory; a source tree must be named.
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))
    return kept
