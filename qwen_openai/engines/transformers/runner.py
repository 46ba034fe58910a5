"""The answers of one model: fed to the loop that makes them, and watched over.

When the loop dies, the answers that brought it down are told so, and it starts again with the
others, each from where it was. When it hangs, all are told. Methods are for the event loop of
`start`, but where it is said.
"""

import asyncio
import contextlib
import itertools
import time

import structlog
from transformers import PreTrainedModel

from qwen_openai.engines.torch_model.failures import Failure, empty_cache, explain
from qwen_openai.engines.transformers.loop import Loop, Shape
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable
from qwen_openai.observe.logs import traced

__all__ = ["Runner", "Shape"]

# Seconds between two looks at the loop.
_LOOK_EVERY = 0.25
# A loop that dies so often, each time before any token was picked, is not started again.
_MOST_DEATHS = 5


class Runner:
    """One model, and all answers that it is making."""

    def __init__(self, model: PreTrainedModel, shape: Shape, stall_timeout: float) -> None:
        """``stall_timeout`` is the seconds that one step may take before it is called a hang."""
        self._model: PreTrainedModel | None = model
        self._shape = shape
        self._stall_timeout = stall_timeout
        self._restarts = True
        self._engine_loop: Loop | None = None
        self._events: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._tracks: dict[str, Track] = {}
        self._numbers = itertools.count()
        self._since = time.monotonic()
        self._deaths = 0
        self._lost: str | None = None
        self._log = structlog.get_logger()

    def build(self) -> None:
        """Take the memory for the cache; blocking, in any thread. Raises what torch raises."""
        if self._model is not None:
            self._engine_loop = Loop(self._model, self._shape, self._deliver)

    async def start(self, *, restarts: bool = True) -> None:
        """Begin to step, once built. Without ``restarts`` a loop that has died or hangs is lost."""
        self._restarts = restarts
        self._events = asyncio.get_running_loop()
        self._require_loop().start()
        self._watching = asyncio.create_task(self._watch())

    async def close(self, patience: float) -> None:
        """End the loop, waiting ``patience`` seconds for its present step, and free the cache."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        loop, self._engine_loop, self._model = self._engine_loop, None, None
        for track in list(self._tracks.values()):
            track.hear(EngineUnavailable("The server is stopping.", retry_after=5))
        self._tracks.clear()
        if loop is not None:
            await asyncio.to_thread(loop.stop, patience)

    def submit(self, track: Track) -> None:
        """Begin to make an answer. Raises EngineUnavailable after `close`."""
        loop = self._require_loop()
        if not self._unfinished():
            self._since = time.monotonic()
        track.id = f"answer-{next(self._numbers)}"
        self._tracks[track.id] = track
        # One that has died takes it when it starts again.
        loop.add(track)

    def fail(self, track: Track, failure: ApiError) -> None:
        """End an answer with ``failure``, if it is not complete."""
        if self._let_go(track):
            track.hear(failure)

    def leave(self, track: Track) -> None:
        """Stop an answer that nobody reads any more, if it is not complete."""
        track.leave()
        self._let_go(track)

    def unfit(self) -> str | None:
        """Why no answer can be made now, where that is so."""
        if self._lost is not None or self._engine_loop is None:
            return self._lost
        # One that has died is started again, and begins a round.
        waited = time.monotonic() - self._engine_loop.rounds.round
        if waited <= self._stall_timeout or not self._engine_loop.is_alive:
            return None
        return (
            f"The model has not finished a step for {waited:.0f} seconds: it hangs, or the device"
            " is far too slow for it."
        )

    @property
    def lost(self) -> bool:
        """Whether only a new process can make answers again."""
        return self._lost is not None

    @property
    def in_flight(self) -> int:
        return len(self._tracks)

    def _let_go(self, track: Track) -> bool:
        """Forget an answer, and stop it where it is not complete; return whether that was so."""
        if self._tracks.pop(track.id, None) is None or track.is_complete:
            return False
        if self._engine_loop is not None:
            self._engine_loop.cancel(track)
        return True

    def _require_loop(self) -> Loop:
        if self._engine_loop is None:
            raise EngineUnavailable("The engine is not ready: closed.", retry_after=5)
        return self._engine_loop

    def _deliver(self, news: list[tuple[Track, News]]) -> None:
        """Carry the news of a step over from the loop's thread."""
        if self._events is not None:
            # After the server's loop has closed, nobody is left to hear them.
            with contextlib.suppress(RuntimeError):
                self._events.call_soon_threadsafe(self._spread, news)

    def _spread(self, news: list[tuple[Track, News]]) -> None:
        for track, one in news:
            track.hear(one)
            if isinstance(one, ApiError):
                # Its loop has let it go, but where that has died since, the next one has it.
                self._let_go(track)
            else:
                self._deaths = 0

    async def _watch(self) -> None:
        while self._lost is None:
            await asyncio.sleep(_LOOK_EVERY)
            loop = self._require_loop()
            if loop.is_alive:
                loop.sweep()
                self._look_for_hang(loop)
                continue
            try:
                self._restart(loop)
            except Exception as error:  # noqa: BLE001  # the edge to libraries: what has died may not be mended
                self._log.error("the engine's loop cannot be started again", stack=traced(error))
                self._lose(explain(error).sentence)

    def _look_for_hang(self, loop: Loop) -> None:
        unfit = self.unfit()
        if unfit is not None and not self._restarts:
            self._lose(unfit)
            return
        quiet = time.monotonic() - max(loop.rounds.stepped, self._since)
        waiting = self._unfinished()
        if waiting and (unfit is not None or quiet > self._stall_timeout):
            why = unfit or f"The model has not come to this answer for {quiet:.0f} seconds."
            self._log.error("the engine hangs", reason=why, answers=len(waiting))
            for track in waiting:
                self.fail(track, EngineFailed(why))

    def _restart(self, loop: Loop) -> None:
        error = loop.error or RuntimeError("the loop ended")
        failure = explain(error)
        self._deaths += 1
        self._log.error(
            "the engine's loop died",
            error=repr(error),
            answers=len(self._tracks),
            stack=traced(error),
        )
        guilty = self._guilty(failure, loop)
        for track in guilty:
            self._tracks.pop(track.id, None)
            track.hear(EngineFailed(failure.sentence))
        loop.forget()
        hopeless = self._hopeless(failure)
        if hopeless is not None:
            self._lose(hopeless)
            return
        # Also after a failure that does not say so: a step may have needed much.
        del error
        empty_cache()
        loop.start()
        self._log.warning("the engine's loop starts again", answers=len(self._tracks))
        self._since = time.monotonic()
        for track in self._unfinished():
            loop.add(track)

    def _hopeless(self, failure: Failure) -> str | None:
        """Why the loop is not to start again, where that is so."""
        if failure.broken is not None:
            return failure.broken
        if failure.memory:
            # There is an answer less.
            return None
        if not self._restarts:
            return "The model's loop died; the server's log has the details. Restart the server."
        if self._deaths >= _MOST_DEATHS:
            return (
                f"The model failed {self._deaths} times in a row and made no token in between; the"
                " server's log has the details. Restart the server."
            )
        return None

    def _guilty(self, failure: Failure, loop: Loop) -> list[Track]:
        """Who is to be told of a failure: where memory ran out, the largest answer of the step;
        else all of the step. Of those in flight there is one at least."""
        if failure.broken is not None:
            return list(self._tracks.values())
        waiting = self._unfinished()
        # Of a step that failed at its tokens, nobody has heard of any: a last one neither.
        known = list(self._tracks.values()) if loop.is_picking else waiting
        step = [track for track in loop.rounds.step if track in known]
        if step and (not failure.memory or loop.is_picking):
            return step
        largest = max(step or waiting, key=lambda track: track.length, default=None)
        return [] if largest is None else [largest]

    def _unfinished(self) -> list[Track]:
        """Those that the loop has work with. The tokens of the others wait for their readers."""
        return [track for track in self._tracks.values() if not track.is_complete]

    def _lose(self, why: str) -> None:
        """Tell everybody that nothing comes any more."""
        self._lost = why
        self._log.error("the engine is lost", reason=why)
        for track in list(self._tracks.values()):
            self.fail(track, EngineFailed(why))
