"""Keeps one engine process alive: first start, watchdog, restart with back-off, end.

It knows processes and time, nothing of jobs: `engine` is told when the process is gone, and why.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog

from qwen_openai.engines.base import Health
from qwen_openai.engines.llamacpp.child import Config, Failure
from qwen_openai.engines.llamacpp.frames import Frame, Kind
from qwen_openai.engines.llamacpp.process import Process
from qwen_openai.errors import StartupError

_log = structlog.get_logger(__name__)

_MEMORY_WORDS = ("insufficient memory", "failed to allocate", "bad_alloc", "out of memory")


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. ``heartbeat`` between two signs of life, ``silence`` until a mute child is killed,
    ``first_delay`` doubling to ``last_delay`` between restarts and reset after ``healthy``,
    ``load`` for a model to load, ``grace`` between SIGTERM and SIGKILL."""

    heartbeat: float = 1.0
    silence: float = 15.0
    first_delay: float = 0.2
    last_delay: float = 30.0
    healthy: float = 60.0
    load: float = 900.0
    grace: float = 2.0


class Supervisor:
    """Runs the child process. ``on_frame`` gets its frames, ``on_down`` the sentence when it ends.

    ``on_launch`` is called each time a child has been sent its configuration.
    ``stalled`` says, in words, that work in flight has made no progress for too long, or None.
    """

    def __init__(
        self,
        config: Config,
        timings: Timings,
        *,
        on_frame: Callable[[Frame], None],
        on_down: Callable[[str], None],
        on_launch: Callable[[], None],
        stalled: Callable[[], str | None],
    ) -> None:
        self._config = config
        self._timings = timings
        self._on_frame = on_frame
        self._on_down = on_down
        self._on_launch = on_launch
        self._stalled = stalled
        self._process: Process | None = None
        self._loaded: asyncio.Future[None] | None = None
        self._health = Health(False, "the engine has not been started")
        self._task: asyncio.Task[None] | None = None
        self.retry_after = 1.0

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._process.pid if self._process is not None else None

    def health(self) -> Health:
        return self._health

    def send(self, kind: Kind, request: int, payload: bytes = b"") -> None:
        """Send a frame to the child; does nothing while there is none."""
        if self._process is not None:
            self._process.send(kind, request, payload)

    async def start(self) -> None:
        """Start the child and wait for the model. Raises StartupError and leaves nothing behind."""
        self._health = Health(False, "the model is loading")
        process = await self._launch()
        self._task = asyncio.create_task(self._keep(process))

    async def aclose(self) -> None:
        """End the child and stop restarting it."""
        self._health = Health(False, "the engine is closed")
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        process, self._process = self._process, None
        if process is not None:
            await process.stop(self._timings.grace)

    async def _launch(self) -> Process:
        begun = time.monotonic()
        loaded = self._loaded = asyncio.get_running_loop().create_future()
        try:
            process = await Process.spawn(orjson.dumps(self._config), self._deliver, self._lost)
        except OSError as error:
            raise StartupError(
                f"The engine process cannot be started: {error.strerror}.",
                fix="Free memory or raise the limit of processes, then start again.",
            ) from None
        self._process = process
        try:
            self._on_launch()
            await asyncio.wait(
                (loaded, process.ended),
                timeout=self._timings.load,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not loaded.done() and not process.ended.done():
                raise StartupError(
                    f"The model did not load within {self._timings.load:g} seconds.",
                    fix="Check that its disk is not too slow, and start again.",
                )
            if not loaded.done() or loaded.exception() is not None:
                raise await self._explain(process, loaded)
        except BaseException:
            process.kill("was stopped")
            await asyncio.shield(process.ended)
            self._process = None
            raise
        self._health = Health(True, "ready")
        _log.info("engine_ready", pid=process.pid, seconds=round(time.monotonic() - begun, 2))
        return process

    def _deliver(self, frame: Frame) -> None:
        if frame.kind is Kind.READY or frame.kind is Kind.FAILED:
            if self._loaded is not None and not self._loaded.done():
                if frame.kind is Kind.READY:
                    self._loaded.set_result(None)
                else:
                    self._loaded.set_exception(_Failed(orjson.loads(frame.payload)))
        elif frame.kind is not Kind.HEARTBEAT:
            self._on_frame(frame)

    def _lost(self) -> None:
        if self._health.ready:
            self._health = Health(False, "the engine process died; it is being restarted")

    async def _explain(self, process: Process, loaded: "asyncio.Future[None]") -> StartupError:
        ending = await process.ended
        failure: Failure = {"reason": "died", "detail": ending}
        if loaded.done() and isinstance(cause := loaded.exception(), _Failed):
            failure = cause.failure
        return explain_failure(failure, process.returncode, list(process.lines), self._config)

    async def _keep(self, process: Process) -> None:
        """Watch the child, and start another each time it ends."""
        timings = self._timings
        delay = timings.first_delay
        while True:
            begun = time.monotonic()
            ending = await self._watch(process)
            self._process = None
            if time.monotonic() - begun >= timings.healthy:
                delay = timings.first_delay
            _log.error("engine_died", pid=process.pid, ending=ending, output=list(process.lines))
            self._health = Health(False, f"the engine process {ending}; it is being restarted")
            self._on_down(ending)
            process, delay = await self._relaunch(delay)

    async def _relaunch(self, delay: float) -> tuple[Process, float]:
        """Start another child after a delay, as often as it takes; return it and the next delay."""
        while True:
            self.retry_after = delay + 2
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._timings.last_delay)
            try:
                return await self._launch(), delay
            except StartupError as error:
                said = reason = error.message
            except Exception as error:  # noqa: BLE001  # the edge: else nobody would try again
                # The message is for the log alone: clients are shown the health.
                said, reason = type(error).__name__, f"{type(error).__name__}: {error}"
            _log.error("engine_restart_failed", reason=reason, retry_in=delay)
            self._health = Health(False, f"the engine does not start: {said}")

    async def _watch(self, process: Process) -> str:
        """Wait until the child ends, killing it when it hangs; return how it ended."""
        timings = self._timings
        pause = min(timings.heartbeat, timings.silence / 4)
        while True:
            asked = time.monotonic()
            await asyncio.wait((process.ended,), timeout=pause)
            if process.ended.done():
                return process.ended.result()
            now = time.monotonic()
            if now - asked > 2 * pause + 0.5:
                # It was us who slept (a busy loop, a suspended machine): what it sent is unread.
                process.heard = now
            elif now - process.heard > timings.silence:
                process.kill(f"hung (no sign of life for {timings.silence:g} seconds)")
            elif stall := self._stalled():
                process.kill(f"hung ({stall})")


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure["detail"])
        self.failure = failure


def explain_failure(
    failure: Failure, returncode: int | None, lines: list[str], config: Config
) -> StartupError:
    """One sentence and a fix for a child that could not load the model."""
    reason = failure["reason"]
    said = " ".join(lines).lower()
    if reason == "cpu" or returncode == -4:
        return StartupError(
            "The engine needs a CPU with AVX2, and this one has none.",
            fix="Run on a machine made after 2015, or build xllamacpp from source for this CPU.",
        )
    if reason == "library":
        return _explain_library(failure["detail"])
    if reason == "memory" or returncode == -9 or any(word in said for word in _MEMORY_WORDS):
        return StartupError(
            f"There is not enough memory for {config['weights']} with {config['slots']} slots of "
            f"{config['context']} tokens.",
            fix="Try a smaller --context, fewer --slots, or a smaller model.",
        )
    detail = _last_error(lines) or failure["detail"]
    return StartupError(
        f"The model file {config['weights']} cannot be loaded: {detail}.",
        fix="Pull the model again, or give the path of a GGUF file that llama.cpp knows.",
    )


def _explain_library(detail: str) -> StartupError:
    if "libgomp" in detail:
        return StartupError(
            "The engine needs the system library libgomp.so.1, which is not installed.",
            fix="Install it: `apt-get install libgomp1` (Debian, Ubuntu), "
            "`dnf install libgomp` (Fedora), `apk add libgomp` (Alpine).",
        )
    return StartupError(
        f"The engine library xllamacpp cannot be imported: {detail}.",
        fix="Install it again: `pip install --force-reinstall xllamacpp`.",
    )


def _last_error(lines: list[str]) -> str | None:
    """The first thing that went wrong, without llama.cpp's clock and function names."""
    for line in lines:
        _, mark, text = line.partition(" E ")
        if mark:
            return text.split(": ", 1)[-1].strip().rstrip(".")
    return None
