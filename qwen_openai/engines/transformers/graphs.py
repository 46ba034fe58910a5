"""CUDA graphs: one launch in the place of the thousand that a step of the model takes.

A step with one token for each answer takes a card less time than Python takes to ask for it, so
that the card waits. A graph is recorded once for each number of answers and replayed from then on.
What a graph replays is the card's work only. Tokens are picked by rules that the host keeps, so the
recorded part of a step ends with the logits in a place of ours, and the picking follows it.

Steps that read prompts are not recorded: they come in any length, each of which would be recorded
while everybody waits, and are long enough to keep a card busy. Not recorded either is any step
without flash attention: the others look at a mask over the whole cache, in a shape of its own at
each step. Whether graphs do what the model does is tried out at the start; else there are none.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
import torch
from transformers import PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import FutureRequestState

from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.devices import takes_flash
from qwen_openai.engines.torch_model.failures import empty_cache
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.transformers.batch import BatchPicker, Deliver
from qwen_openai.engines.transformers.rounds import TRACK
from qwen_openai.engines.transformers.track import News, Track

# Tokens of the answers that are compared: they end one after the other, so that there are batches
# that fill their graph and such that do not.
_LENGTHS = (4, 6, 9)
_PROMPTS = (5, 17)
_MOST_STEPS = 200
# How far two rows of logits may lie apart, as a part of how far they spread. The same kernels give
# the same numbers; other ones, in bfloat16, differ by less than this; a graph that reads or writes
# where it should not is off by about 1.
_CLOSE = 0.1


def flash_attention(model: PreTrainedModel) -> bool:
    """Whether ``model`` can and will be given flash attention by transformers' batching."""
    return takes_flash(model.dtype, model.device)


def use_graphs(device: torch.device, flash: bool, wish: bool | None = None) -> bool:
    """Whether to record graphs: on a CUDA device, with flash attention (`flash_attention`), where
    torch has what is needed, unless the wish is not to."""
    if wish is False or device.type != "cuda" or not flash:
        return False
    return all(hasattr(torch.cuda, name) for name in ("CUDAGraph", "MemPool", "use_mem_pool"))


def batching(flash: bool, graphs: bool, context: int, page_size: int) -> dict[str, Any]:
    """What `ContinuousBatchingConfig` is told of attention.

    ``context`` is the tokens of the longest answer with its prompt. The kernel that reads the cache
    where it lies, which is the one that graphs are for, wants pages of 256 tokens, and a table with
    room for all pages of an answer: one answer that is longer sends the whole batch another way.
    """
    if not flash:
        # transformers would try flash attention where it is installed, float32 or not.
        return {"auto_switch_to_flash": False, "max_blocks_per_request": 0, "use_cuda_graph": False}
    return {
        "auto_switch_to_flash": True,
        "max_blocks_per_request": -(-context // page_size),
        # For steps that read prompts, and for those that do not.
        "use_cuda_graph": (False, graphs),
        # With graphs, transformers pads both kinds of steps. Where it is for nothing it is to be
        # little: it is computed, and read from the cache.
        "q_padding_interval_size": 8,
        "kv_padding_interval_size": page_size,
    }


class LatePicker(BatchPicker):
    """Picks after the model's step instead of in it.

    As a part of the step it only copies the logits to a place that stays, which a graph can record
    and repeat. A step that is recorded runs twice in Python, and one that is replayed not at all:
    the tokens are picked once all the same, by `pick`.
    """

    def __init__(self, deliver: Deliver, logits: torch.Tensor) -> None:
        """``logits`` has room for those of all answers at once, float32, (slots, vocabulary)."""
        super().__init__(self._pass_on)
        self._to_readers = deliver
        self._logits = logits
        self._requests: list[str] = []
        self._is_quiet = False

    def prepare_tensor_args(
        self, requests_with_new_token: list[FutureRequestState]
    ) -> torch.Tensor:
        # What transformers makes up to warm up brings no track.
        known = [one for one in requests_with_new_token if one.state.logit_processor_kwargs]
        self._requests = [one.state.request_id for one in known]
        return super().prepare_tensor_args(known)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        self._logits[: len(scores)].copy_(scores)
        return scores

    @property
    def rows(self) -> list[tuple[str, torch.Tensor]]:
        """The logits of the step just done, of each request that gets a token. A step may have
        computed further rows, which fill it up to the size of its graph."""
        return list(zip(self._requests, self._logits, strict=False))

    def pick(self, output: torch.Tensor) -> None:
        """Pick the tokens of the step just done, and write them into ``output``, (1, any)."""
        count = len(self._requests)
        if count:
            scores = super().__call__(self._logits[:count], output[0, :0])
            output[0, :count].copy_(scores.argmax(1))

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Tell no reader, while the answers are our own."""
        self._is_quiet = True
        try:
            yield
        finally:
            self._is_quiet = False

    def _pass_on(self, news: list[tuple[Track, News]]) -> None:
        if not self._is_quiet:
            self._to_readers(news)


def picker_for(model: PreTrainedModel, slots: int, graphs: bool, deliver: Deliver) -> BatchPicker:
    """Return what picks for ``slots`` answers, with graphs or without."""
    if not graphs:
        return BatchPicker(deliver)
    shape = (slots, model.config.get_text_config().vocab_size)
    return LatePicker(deliver, torch.zeros(shape, dtype=torch.float32, device=model.device))


def warm_up(manager: ContinuousBatchingManager, picker: BatchPicker) -> None:
    """Take the memory of the cache, and record and try the graphs where there are to be any;
    blocking. The present device is to be the model's, on which torch makes its pools of memory.
    Raises what torch raises where the model does not run without graphs either."""
    if not isinstance(picker, LatePicker):
        manager.warmup()
        return
    # `warmup` would make it, and use it before there is a step of ours.
    manager.batch_processor = manager._create_batch_processor()
    graphs = Graphs(manager, picker)
    manager.warmup()
    graphs.try_out()


@dataclass(slots=True)
class _Tried:
    """An answer of our own: its track, and the logits that its tokens were picked from."""

    track: Track
    rows: list[torch.Tensor] = field(default_factory=list)


class Graphs:
    """The graphs of one manager, which may be given up at any step."""

    def __init__(self, manager: ContinuousBatchingManager, picker: LatePicker) -> None:
        """``manager`` has its batch processor, and has not stepped yet."""
        processor: Any = manager.batch_processor
        self._manager = manager
        self._processor = processor
        self._runner: Any = processor.model_runner
        self._picker = picker
        self._compute = self._runner.compute_batch
        self._has_any = False
        self._trying: dict[str, _Tried] | None = None
        self._log = structlog.get_logger()
        self._runner.compute_batch = self._step

    @property
    def are_used(self) -> bool:
        return bool(self._runner.use_cuda_graph_varlen or self._runner.use_cuda_graph_decode)

    def give_up(self, why: str) -> None:
        """Go on without graphs, and free what they hold."""
        runner, files = self._runner, self._processor.inputs_and_outputs
        runner.use_cuda_graph_varlen = runner.use_cuda_graph_decode = False
        # Steps are filled up for the sake of graphs alone.
        runner.pad_inputs = files.use_cuda_graph_varlen = False
        files.graphs = type(files.graphs)()
        empty_cache()
        self._log.warning("CUDA graphs are not used: answers are the same, but slower", why=why)

    def try_out(self) -> None:
        """Make the same answers with graphs and without; give graphs up where they differ."""
        if not self.are_used:
            return
        try:
            with self._picker.quiet():
                replayed = self._answers()
                with self._paused():
                    plain = self._answers()
        except Exception as error:  # noqa: BLE001  # the start goes on without, whatever it was
            self.give_up(repr(error))
        else:
            if self.are_used and not self._has_any:
                self.give_up("transformers has no way to make a step that could be recorded")
            if self.are_used and not all(map(_agree, plain, replayed)):
                self.give_up("the logits of replayed steps are not those of the model")
        finally:
            self._processor.reset()
            # Pages that a wrong graph may have written are nobody's prefix.
            self._processor.cache.reset()
            while self._manager.get_result(timeout=0) is not None:
                pass
        if self.are_used:
            self._log.info("CUDA graphs are used")

    def _step(self, model: PreTrainedModel, batch: dict[str, Any]) -> None:
        """One step of the model, in the place of transformers' own, and the tokens of it."""
        files = self._processor.inputs_and_outputs
        stream = files.compute_stream
        if stream is not None:
            # The inputs were written on another stream, which this one does not wait for.
            stream.wait_stream(torch.cuda.current_stream(stream.device))
        if self._is_graphed(files.use_block_table):
            self._replay(model, batch)
        else:
            self._compute(model, batch)
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            if self._trying is not None:
                for request, row in self._picker.rows:
                    self._trying[request].rows.append(row.clone())
            # transformers waits for this stream next.
            self._picker.pick(files.output_ids)

    def _is_graphed(self, is_short: bool) -> bool:
        """Whether a step is recorded or replayed; a short one has a token for each answer."""
        runner = self._runner
        return bool(runner.use_cuda_graph_decode if is_short else runner.use_cuda_graph_varlen)

    def _replay(self, model: PreTrainedModel, batch: dict[str, Any]) -> None:
        """A step with a graph; without, and for good, where only that does."""
        try:
            self._compute(model, batch)
        except Exception as error:  # noqa: BLE001  # whatever it was, the step may do without
            why = repr(error)
        else:
            self._has_any = True
            return
        # The error, and what it held of the step, is gone by now. To do the step anew is safe: it
        # writes to the cache what it has written before, and no token has been picked.
        empty_cache()
        with self._paused():
            self._compute(model, batch)
        self.give_up(why)

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """Compute without graphs, all shapes being as with them."""
        runner = self._runner
        used = runner.use_cuda_graph_varlen, runner.use_cuda_graph_decode
        runner.use_cuda_graph_varlen = runner.use_cuda_graph_decode = False
        try:
            yield
        finally:
            runner.use_cuda_graph_varlen, runner.use_cuda_graph_decode = used

    def _answers(self) -> list[_Tried]:
        """Make the answers that are compared."""
        tried = {f"try-{number}": _Tried(track) for number, track in enumerate(self._tracks())}
        self._trying = tried
        try:
            for name, one in tried.items():
                brought: dict[str, Any] = {TRACK: one.track}
                limit = one.track.limits.max_tokens
                self._manager.add_request(
                    one.track.prompt, name, limit, eos_token_id=[-1], **brought
                )
            for _ in range(_MOST_STEPS):
                if not self._processor.prepare_next_batch():
                    return list(tried.values())
                self._processor._generation_step(self._manager.model)
                self._processor.update_batch()
        finally:
            self._trying = None
        raise RuntimeError(f"the answers did not end within {_MOST_STEPS} steps")

    def _tracks(self) -> Iterator[Track]:
        model, cache = self._manager.model, self._processor.cache
        vocabulary: int = model.config.get_text_config().vocab_size
        page: int = self._manager.continuous_batching_config.page_size
        # One answer goes on to a second page, if there is room.
        last = page - 2 if cache.num_blocks > len(_LENGTHS) else _PROMPTS[-1]
        for size, length in zip((*_PROMPTS, last), _LENGTHS, strict=True):
            # Any tokens will do, and no answer is to find another's in the cache.
            prompt = [(7919 * length + 104729 * place) % vocabulary for place in range(size)]
            limits = Limits(length, frozenset())
            greedy = Sampling(temperature=0.0)
            yield Track.of(prompt, greedy, limits, None, model.device, vocabulary)


def _agree(plain: _Tried, replayed: _Tried) -> bool:
    """Whether two answers to the same prompt come from the same model."""
    tokens = plain.track.tokens, replayed.track.tokens
    # A step from which no token could be picked has logits only.
    if len({len(some) for some in (plain.rows, replayed.rows, *tokens)}) > 1:
        return False
    for row, other, token, again in zip(plain.rows, replayed.rows, *tokens, strict=True):
        if not _close(row, other):
            return False
        if token != again:
            # Two tokens were as likely as each other: from here on the answers go apart.
            return True
    return True


def _close(row: torch.Tensor, other: torch.Tensor) -> bool:
    # What is no number is not close to anything.
    return bool((row - other).std() <= _CLOSE * row.std())
