"""transformers' continuous batching, started, fed and watched.

The loop that steps the model runs in transformers' own thread. When it dies, the requests that
brought it down are told so, and it starts again with the others, each from where it was. Methods
are for the event loop of `start`, but where it is said.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager

from qwen_openai.engines.torch_model.failures import Failure, empty_cache, explain
from qwen_openai.engines.transformers.batch import TRACK, BatchPicker
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.errors import EngineFailed, EngineUnavailable

# Seconds between two looks at the loop.
_LOOK_EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Shape:
    """``slots`` answers at once over a cache of ``pages`` times ``page_size`` tokens;
    ``batch_tokens`` of prompts and answers go through the model in one step."""

    slots: int
    pages: int
    page_size: int
    batch_tokens: int


class Runner:
    """One model, and all answers that it is making."""

    def __init__(self, model: PreTrainedModel, shape: Shape, stall_timeout: float) -> None:
        """``stall_timeout`` is the seconds that one step may take before it is called a hang."""
        self._model = model
        self._shape = shape
        self._stall_timeout = stall_timeout
        self._picker = BatchPicker(self._deliver)
        self._manager: ContinuousBatchingManager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._tracks: dict[str, Track] = {}
        self._numbers = itertools.count()
        self._cached: dict[str, int] = {}
        self._since = time.monotonic()
        self._lost: str | None = None
        self._hung: float | None = None
        self._log = structlog.get_logger()

    def build(self) -> None:
        """Take the memory for the cache; blocking, in any thread. Raises what torch raises."""
        self._manager = self._new_manager()

    async def start(self) -> None:
        """Begin to step, once built."""
        self._loop = asyncio.get_running_loop()
        self._require_manager().start()
        self._watching = asyncio.create_task(self._watch())

    async def close(self, patience: float) -> None:
        """End the loop, waiting ``patience`` seconds for its present step, and free the cache."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        manager, self._manager = self._manager, None
        for track in list(self._tracks.values()):
            track.hear(EngineUnavailable("The server is stopping.", retry_after=5))
        self._tracks.clear()
        if manager is not None:
            await asyncio.to_thread(_stop, manager, patience)

    def submit(self, track: Track) -> None:
        """Begin to make an answer."""
        if not self._tracks:
            self._since = time.monotonic()
        track.id = f"answer-{next(self._numbers)}"
        self._tracks[track.id] = track
        self._add(track)

    def leave(self, track: Track) -> None:
        """Stop an answer that nobody reads any more, if it is not complete."""
        track.leave()
        self._cached.pop(track.id, None)
        if self._tracks.pop(track.id, None) is None or track.is_complete:
            return
        if self._manager is not None:
            self._manager.cancel_request(track.id)

    def unfit(self) -> str | None:
        """Why no answer can be made now, where that is so."""
        if self._lost is not None:
            return self._lost
        # A step that has hung is over when the next one begins.
        if self._hung is not None and self._picker.beat > self._hung:
            self._hung = None
        waited = time.monotonic() - max(self._picker.beat, self._since)
        if self._hung is not None or (self._tracks and waited > self._stall_timeout):
            return (
                f"The model has not finished a step for {waited:.0f} seconds: it hangs, or the"
                " device is far too slow for it."
            )
        return None

    @property
    def in_flight(self) -> int:
        return len(self._tracks)

    def _add(self, track: Track) -> None:
        brought: dict[str, Any] = {TRACK: track}
        taken = self._require_manager().add_request(
            [*track.prompt, *track.tokens],
            request_id=track.id,
            max_new_tokens=track.limits.max_tokens - len(track.tokens),
            eos_token_id=sorted(track.limits.stop) or [-1],
            **brought,
        )
        if taken is None:
            # The loop has just died: the watch starts it again, with all tracks that it knows.
            self._log.debug("an answer waits for the loop to start again", answer=track.id)

    def _require_manager(self) -> ContinuousBatchingManager:
        if self._manager is None:
            raise EngineUnavailable("The engine is not ready: closed.", retry_after=5)
        return self._manager

    def _new_manager(self) -> ContinuousBatchingManager:
        shape = self._shape
        config = ContinuousBatchingConfig(
            page_size=shape.page_size,
            num_blocks=shape.pages,
            max_batch_tokens=shape.batch_tokens,
            max_requests_per_batch=shape.slots,
            # Our own sizing has seen to it.
            max_memory_percent=1.0,
            # The next step waits for the tokens of this one: masks and penalties need them.
            use_async_batching=False,
            use_cuda_graph=False,
            per_request_processors=True,
        )
        own = GenerationConfig.from_dict({"do_sample": False, "eos_token_id": -1})
        model: Any = self._model
        with _processors(model, self._picker.processors):
            manager = ContinuousBatchingManager(model, own, config)
        # It counts only processors that it has made itself.
        manager.logit_processor.tensors_required = 1
        manager.warmup()
        self._count_cached(manager)
        return manager

    def _count_cached(self, manager: ContinuousBatchingManager) -> None:
        """Have the cache tell how much of a prompt it holds, which transformers keeps to itself."""
        processor: Any = manager.batch_processor
        search: Callable[[str, list[int]], int] = processor.cache.search_prefix_match

        def counted(request_id: str, prompt_ids: list[int]) -> int:
            found = search(request_id, prompt_ids)
            self._cached.setdefault(request_id, found)
            return found

        processor.cache.search_prefix_match = counted

    def _deliver(self, news: list[tuple[Track, News]]) -> None:
        """Carry news over from the loop's thread."""
        if self._loop is not None:
            # After the server's loop has closed, nobody is left to hear them.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._spread, news)

    def _spread(self, news: list[tuple[Track, News]]) -> None:
        for track, one in news:
            track.cached_tokens = self._cached.get(track.id, 0)
            track.hear(one)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            manager = self._require_manager()
            # Complete answers; nobody else takes them.
            while manager.get_result(timeout=0) is not None:
                pass
            if not manager.is_running() and self._lost is None:
                self._restart(manager)
            unfit = self.unfit()
            if unfit is not None and self._tracks:
                self._hung = self._picker.beat
                self._fail_all(unfit)

    def _restart(self, manager: ContinuousBatchingManager) -> None:
        error = manager.background_thread_status.fatal_error
        failure = explain(error or RuntimeError("the loop ended"))
        self._log.error(
            "the engine's loop died; it starts again", error=repr(error), answers=len(self._tracks)
        )
        for track in self._guilty(failure):
            self._tracks.pop(track.id, None)
            track.hear(EngineFailed(failure.sentence))
        if failure.broken is not None:
            self._lost = failure.broken
            return
        if failure.memory:
            empty_cache()
        manager.start()
        for track in list(self._tracks.values()):
            self._add(track)

    def _guilty(self, failure: Failure) -> list[Track]:
        """Who is to be told of a failure: where memory ran out, the largest answer of the step;
        else all of the step."""
        step = [track for track in self._picker.tracks if track.id in self._tracks]
        if not step or failure.broken is not None:
            return list(self._tracks.values())
        if failure.memory:
            return [max(step, key=lambda track: len(track.prompt) + len(track.tokens))]
        return step

    def _fail_all(self, why: str) -> None:
        for track in list(self._tracks.values()):
            track.hear(EngineFailed(why))


@contextlib.contextmanager
def _processors(model: PreTrainedModel, make: Callable[..., object]) -> Iterator[None]:
    """Have ``model`` give ``make``'s processors out."""
    name = "_get_logits_processor"
    setattr(model, name, make)
    try:
        yield
    finally:
        delattr(model, name)


def _stop(manager: ContinuousBatchingManager, patience: float) -> None:
    manager.stop(block=True, timeout=patience, hard_stop=True)
