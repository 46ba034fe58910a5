"""transformers' continuous batching over one model: its loop, its cache, what goes in and out.

The loop runs in a thread of transformers' own. What is known here of `ContinuousBatchingManager`
and its parts is in this file, `rounds` and `batch`; what to do when the loop dies or hangs is
`runner`'s.
"""

import contextlib
import logging
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager

from qwen_openai.engines.torch_model.threads import THREAD_NAME
from qwen_openai.engines.transformers.attention import leave_own_keys, use_own_keys
from qwen_openai.engines.transformers.batch import Deliver
from qwen_openai.engines.transformers.graphs import (
    batching,
    flash_attention,
    picker_for,
    use_graphs,
    warm_up,
)
from qwen_openai.engines.transformers.rounds import TRACK, Rounds
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.errors import ApiError

# transformers prints by this one, past whatever a program has set up for its logs.
_LOGGER = "ContinuousBatchingLogger"


@dataclass(frozen=True, slots=True)
class Shape:
    """``slots`` answers at once over a cache of ``pages`` times ``page_size`` tokens;
    ``batch_tokens`` of prompts and answers go through the model in one step. ``context`` is the
    tokens of the longest answer with its prompt, None for all that the cache holds."""

    slots: int
    pages: int
    page_size: int
    batch_tokens: int
    context: int | None = None


class Loop:
    """The loop over one model and one cache. Methods are for one thread, which is not its own."""

    def __init__(self, model: PreTrainedModel, shape: Shape, deliver: Deliver) -> None:
        """Take the memory of the cache; raises what torch raises. ``deliver`` is called with the
        news of each step, in the loop's thread."""
        # What it has to say is said by us.
        logging.getLogger(_LOGGER).setLevel(logging.CRITICAL + 1)
        self._deliver = deliver
        self._flash = flash_attention(model)
        self._graphs = use_graphs(model.device, self._flash)
        self._picker = picker_for(model, shape.slots, self._graphs, self._tell)
        self._manager = self._new_manager(model, shape)
        self._rounds = self._watch_rounds()
        # The manager would not have taken it, nor made masks for it.
        use_own_keys(model)

    @property
    def is_alive(self) -> bool:
        return self._manager.is_running()

    @property
    def rounds(self) -> Rounds:
        """What the loop is at."""
        return self._rounds

    @property
    def is_picking(self) -> bool:
        """Whether the present step has come to its tokens; where the loop has died, whether it did
        so there."""
        return self._picker.is_picking

    @property
    def error(self) -> BaseException | None:
        """What the loop died of."""
        status: Any = self._manager.background_thread_status
        error: BaseException | None = status.fatal_error
        return error

    def start(self) -> None:
        """Begin to step, with nothing to do; also again, when the loop has died."""
        # A thread is a daemon where its maker is one, and transformers makes it: a step that never
        # ends must not keep the process.
        starter = threading.Thread(target=self._start, daemon=True)
        starter.start()
        starter.join()

    def _start(self) -> None:
        self._manager.start()
        thread: threading.Thread | None = getattr(self._manager, "_generation_thread", None)
        if thread is not None:
            thread.name = THREAD_NAME

    def add(self, track: Track) -> None:
        """Let an answer begin, or go on after the tokens that it has. A loop that has died takes
        none, and does not say so."""
        brought: dict[str, Any] = {TRACK: track}
        self._manager.add_request(
            [*track.prompt, *track.tokens],
            request_id=track.id,
            max_new_tokens=track.limits.max_tokens - len(track.tokens),
            eos_token_id=sorted(track.limits.stop) or [-1],
            **brought,
        )

    def cancel(self, track: Track) -> None:
        """Let an answer go, and its pages, before the next step."""
        self._manager.cancel_request(track.id)

    def sweep(self) -> None:
        """Drop what transformers keeps of complete answers; nobody else takes it."""
        _drain(self._manager.output_router.output_queue)

    def forget(self) -> None:
        """After the loop has died: drop all that it knew, and what its error holds of the model."""
        status: Any = self._manager.background_thread_status
        error: BaseException | None = status.fatal_error
        status.fatal_error = None
        while error is not None and error.__traceback__ is not None:
            # Frames hold the tensors of the step.
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
        self.sweep()
        _drain(self._manager.input_queue)
        _drain(self._manager.cancel_queue)
        self._picker.reset()
        self._rounds.reset()
        # Pages that the broken step may have half written are nobody's prefix.
        self._rounds.cache.reset()

    def stop(self, patience: float) -> None:
        """End the loop, waiting ``patience`` seconds for its present step, and free the cache;
        blocking. A step that hangs keeps the memory until it ends."""
        self._manager.stop(block=True, timeout=patience, hard_stop=True)
        model: Any = self._manager.model
        leave_own_keys(model)
        self._picker.reset()
        self.sweep()

    def _tell(self, news: list[tuple[Track, News]]) -> None:
        for track, one in news:
            if isinstance(one, ApiError):
                self._rounds.set_request_cancellation(track.id)
        self._deliver(news)

    def _new_manager(self, model: PreTrainedModel, shape: Shape) -> ContinuousBatchingManager:
        context = shape.context or shape.pages * shape.page_size
        leave_own_keys(model)
        config = ContinuousBatchingConfig(
            page_size=shape.page_size,
            num_blocks=shape.pages,
            max_batch_tokens=shape.batch_tokens,
            max_requests_per_batch=shape.slots,
            # Our own sizing has seen to it.
            max_memory_percent=1.0,
            # The next step waits for the tokens of this one: masks and penalties need them.
            use_async_batching=False,
            per_request_processors=True,
            **batching(self._flash, self._graphs, context, shape.page_size),
        )
        own = GenerationConfig.from_dict({"do_sample": False, "eos_token_id": -1})
        given: Any = model
        with _processors(given, self._picker.processors):
            manager = ContinuousBatchingManager(given, own, config)
        # It counts only processors that it has made itself.
        manager.logit_processor.tensors_required = 1
        warm_up(manager, self._picker)
        return manager

    def _watch_rounds(self) -> Rounds:
        processor: Any = self._manager.batch_processor
        before = processor.scheduler
        rounds = Rounds(processor.cache, before.safety_margin, before.max_requests_per_batch)
        processor.scheduler = processor.offloading_manager.scheduler = rounds
        return rounds


@contextlib.contextmanager
def _processors(model: PreTrainedModel, make: Callable[..., object]) -> Iterator[None]:
    """Have ``model`` give ``make``'s processors out."""
    name = "_get_logits_processor"
    setattr(model, name, make)
    try:
        yield
    finally:
        delattr(model, name)


def _drain(waiting: "queue.Queue[Any]") -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
