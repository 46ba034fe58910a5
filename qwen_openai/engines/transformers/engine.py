"""The engine that makes many answers of one checkpoint at once.

Each keeps its own sampling, grammar and chance, whoever else is in the batch. Rendering happens in
threads, the model's steps in transformers' own. Imports no torch: what it loads does.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_openai.core import Event, Finish, Job, Started, Text
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.engines.torch_model.failures import not_loaded
from qwen_openai.engines.torch_model.threads import in_thread
from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable, StartupError

if TYPE_CHECKING:
    from qwen_openai.engines.transformers.runner import Runner
    from qwen_openai.engines.transformers.startup import Served
    from qwen_openai.engines.transformers.track import Track

# Seconds that the present step may take to end when the engine is closed.
_CLOSE_PATIENCE = 2.5


@dataclass(frozen=True, slots=True)
class TransformersOptions:
    """What the engine calls its model and how far it may go. ``answer_timeout`` is the seconds that
    one answer may take, None for any time. Without ``restarts`` an engine that has failed or hangs
    stays lost, for a supervisor to start the process anew."""

    name: str
    default_max_tokens: int = 4096
    answer_timeout: float | None = None
    restarts: bool = True


class TransformersEngine:
    """Keeps the contract of `base.Engine` over one checkpoint."""

    def __init__(self, load: "Callable[[], Served]", options: TransformersOptions) -> None:
        """``load`` runs once, in a thread. What it raises ends the start."""
        self._load = load
        self._options = options
        self._served: Served | None = None
        self._state = "not started"

    async def start(self) -> None:
        """Load the model. Raises StartupError."""
        self._state = "loading"
        try:
            self._served = await in_thread(self._loaded)
            await self._served.runner.start(restarts=self._options.restarts)
        except BaseException:
            await self.aclose()
            raise
        self._state = "ready"

    async def aclose(self) -> None:
        """Fail what is in flight and free the model, after a bounded time."""
        self._state = "closed"
        served, self._served = self._served, None
        if served is not None:
            await served.runner.close(_CLOSE_PATIENCE)

    def health(self) -> Health:
        """Not ready while loading, closed or hung; lost with a device that is broken."""
        served = self._served
        if served is None or self._state != "ready":
            return Health(False, self._state)
        unfit = served.runner.unfit()
        if unfit is None:
            return Health(True, "ready")
        return Health(False, unfit, lost=served.runner.lost)

    def info(self) -> EngineInfo:
        if self._served is None:
            raise EngineUnavailable("The engine has not been started.")
        return self._served.info

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one choice of a job. Raises ContextLengthExceeded and InvalidRequest of the prompt,
        EngineUnavailable while not ready, EngineFailed when the model breaks or hangs."""
        served = self._require_ready()
        answer = await asyncio.to_thread(served.open, job, self._options.default_max_tokens)
        track = answer.track
        index = job.choice
        runner = self._require_ready().runner
        timer = self._timer(runner, track)
        try:
            runner.submit(track)
            # The first token comes when the prompt has been read: a failure before has no event.
            picked = await track.next()
            yield Started(
                index,
                len(track.prompt),
                track.cached_tokens or 0,
                answer.changes,
                answer.in_thought,
            )
            while True:
                piece = answer.speller.feed(picked)
                logprobs = () if piece.logprob is None else (piece.logprob,)
                yield Text(index, piece.text, 1, logprobs)
                if piece.finish is not None:
                    yield Finish(index, piece.finish, answer.speller.count)
                    return
                picked = await track.next()
        finally:
            if timer is not None:
                timer.cancel()
            runner.leave(track)

    async def tokenize(self, job: Job) -> list[int]:
        """Return the ids of a job's prompt, whatever their number. Raises InvalidRequest,
        EngineUnavailable while not ready."""
        return await asyncio.to_thread(self._require_ready().tokens.encode, job)

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none,
        EngineUnavailable while not ready."""
        return await asyncio.to_thread(self._require_ready().tokens.decode, ids)

    def _timer(self, runner: "Runner", track: "Track") -> asyncio.TimerHandle | None:
        """End an answer that takes too long."""
        seconds = self._options.answer_timeout
        if seconds is None:
            return None
        failure = EngineFailed(
            f"The answer was not complete after {seconds:g} seconds, which is the limit here. Ask"
            " for fewer tokens; whoever runs the server can raise answer_timeout."
        )
        return asyncio.get_running_loop().call_later(seconds, runner.fail, track, failure)

    def _require_ready(self) -> "Served":
        health, served = self.health(), self._served
        if served is None or not health.ready:
            detail = health.detail.rstrip(".")
            raise EngineUnavailable(f"The engine is not ready: {detail}.", retry_after=5)
        return served

    def _loaded(self) -> "Served":
        """In a thread. Raises StartupError, whatever the libraries below raise."""
        try:
            return self._load()
        except (StartupError, ApiError):
            raise
        except Exception as error:  # the edge to libraries
            raise not_loaded(self._options.name, error) from error
