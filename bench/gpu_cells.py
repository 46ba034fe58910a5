"""Ways to make answers on one card, each over the same prompts: what `bench.gpu` measures.

All take token ids and give back when each token came. None knows of HTTP or text. A way that takes
too long is cut short: what came until then is what it did.
"""

import asyncio
import contextlib
import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, Qwen2ForCausalLM
from transformers.models.qwen2 import Qwen2Config

from bench.qwen_chat import Clock
from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.devices import Room, current, takes_flash
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.transformers.runner import Runner
from qwen_openai.engines.transformers.sizing import Sizing, Wanted, choose
from qwen_openai.engines.transformers.startup import shape_of
from qwen_openai.engines.transformers.track import Track
from qwen_openai.models.checkpoint import Checkpoint

_NO_TOKEN = -1
_STALL = 120.0
Prompts = Sequence[list[int]]


@dataclass(frozen=True)
class Shape:
    """What a model's config says; it has biases at queries, keys and values, as all Qwen2 do."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    rows: int

    def config(self, context: int) -> Qwen2Config:
        return Qwen2Config(
            vocab_size=self.rows,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=context,
            tie_word_embeddings=False,
        )

    @property
    def kv_values(self) -> int:
        """Numbers that the cache keeps of one token."""
        return 2 * self.layers * self.kv_heads * self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """The numbers of all matrices; biases and norms are small beside them."""
        kept = self.kv_heads * self.hidden // self.heads
        layer = 2 * self.hidden * (self.hidden + kept) + 3 * self.hidden * self.inner
        return self.layers * layer + 2 * self.rows * self.hidden


@dataclass(frozen=True)
class Times:
    """When each token of each answer came, in seconds since all were asked for."""

    answers: list[list[float]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers))

    @property
    def rate(self) -> float:
        """Tokens a second of all answers, prompts read in between."""
        return self.tokens / max(stamps[-1] for stamps in self.answers if stamps)

    @property
    def decode_rate(self) -> float | None:
        """The same while every answer is being written, None where no such time was."""
        if not all(self.answers):
            return None
        begin = max(stamps[0] for stamps in self.answers)
        end = min(stamps[-1] for stamps in self.answers)
        count = sum(begin < stamp <= end for stamps in self.answers for stamp in stamps)
        return count / (end - begin) if count > len(self.answers) else None

    @property
    def firsts(self) -> list[float]:
        return sorted(stamps[0] for stamps in self.answers if stamps)

    @property
    def gaps(self) -> list[float]:
        """Seconds between two tokens of an answer, sorted."""
        pairs = itertools.chain.from_iterable(map(itertools.pairwise, self.answers))
        return sorted(later - one for one, later in pairs)


def build(config: Qwen2Config, device: torch.device, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """Return a model with random weights, made on the device."""
    torch.manual_seed(0)
    make: Any = Qwen2ForCausalLM._from_config
    with device:
        model: Qwen2ForCausalLM = make(config, dtype=dtype).eval()
    # Whoever asks it is told when an answer ends: no token of a random model means anything.
    model.generation_config = GenerationConfig.from_dict({"eos_token_id": None, "pad_token_id": 0})
    return model


def generate(model: Qwen2ForCausalLM, prompts: Prompts, tokens: int, limit: float) -> Times:
    """transformers' `generate`, all prompts in one static batch: with one, the tutorial's way."""
    ids = torch.tensor(prompts, device=model.device)
    config = GenerationConfig.from_dict(
        {
            "max_new_tokens": tokens,
            "do_sample": False,
            "eos_token_id": _NO_TOKEN,
            "pad_token_id": 0,
            "max_time": limit,
        }
    )
    clock = Clock()
    made: Any = model
    begun = time.perf_counter()
    with torch.inference_mode():
        mask = torch.ones_like(ids)
        made.generate(ids, attention_mask=mask, generation_config=config, streamer=clock)
    stamps = [stamp - begun for stamp in clock.times[1:]]
    return Times([stamps for _ in prompts])


class Shipped:
    """transformers' continuous batching with its own defaults, but the end of an answer."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        config = GenerationConfig.from_dict({"do_sample": False, "eos_token_id": _NO_TOKEN})
        # On a CPU it takes most of the machine's memory, which no test needs.
        blocks = None if model.device.type == "cuda" else 16
        given: Any = model
        self._manager: Any = given.init_continuous_batching(
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=blocks),
        )
        self._manager.warmup()
        self._manager.start()

    def answer(self, prompts: Prompts, tokens: int, limit: float) -> Times:
        """Raises RuntimeError when its loop dies."""
        begun = time.perf_counter()
        for prompt in prompts:
            self._manager.add_request(
                prompt, max_new_tokens=tokens, streaming=True, record_timestamps=True
            )
        stamps: dict[str, list[float]] = {}
        done = 0
        while done < len(prompts) and time.perf_counter() - begun < limit:
            result = self._manager.get_result(timeout=1)
            if result is not None:
                stamps[result.request_id] = [each - begun for each in result.timestamps]
                done += result.is_finished()
            elif not self._manager.is_running():
                raise RuntimeError(f"its loop died: {self._manager.background_thread_status}")
        if done < len(prompts):
            for name in stamps:
                self._manager.cancel_request(name)
        return Times([*stamps.values(), *([] for _ in range(len(prompts) - len(stamps)))])

    def close(self) -> None:
        self._manager.stop(block=True, timeout=30)
        self._manager.destroy()
        del self._manager
        release()


class Ours:
    """The engine's runner: all of the engine but its HTTP and its text."""

    def __init__(self, model: Qwen2ForCausalLM, sizing: Sizing) -> None:
        self._model = model
        self._runner = Runner(model, shape_of(sizing), _STALL)
        self._events = asyncio.new_event_loop()
        with current(model.device):
            self._runner.build()
        self._events.run_until_complete(self._runner.start())

    def answer(self, prompts: Prompts, tokens: int, limit: float) -> Times:
        """Raises EngineFailed when its loop dies."""
        return self._events.run_until_complete(self._all(prompts, tokens, limit))

    async def _all(self, prompts: Prompts, tokens: int, limit: float) -> Times:
        answers: list[list[float]] = [[] for _ in prompts]
        begun = time.perf_counter()
        tracks = [self._track(prompt, tokens) for prompt in prompts]
        for track in tracks:
            self._runner.submit(track)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                    for track, stamps in zip(tracks, answers, strict=True):
                        group.create_task(_read(track, stamps, begun))
        finally:
            for track in tracks:
                self._runner.leave(track)
        return Times(answers)

    def _track(self, prompt: list[int], tokens: int) -> Track:
        limits, greedy = Limits(tokens, frozenset()), Sampling(temperature=0)
        vocabulary: int = self._model.config.vocab_size
        return Track.of(prompt, greedy, limits, None, self._model.device, vocabulary)

    def close(self) -> None:
        self._events.run_until_complete(self._runner.close(30))
        self._events.close()
        del self._runner
        release()


async def _read(track: Track, stamps: list[float], begun: float) -> None:
    for _ in range(track.limits.max_tokens):
        await track.next()
        stamps.append(time.perf_counter() - begun)


def size(shape: Shape, context: int, dtype: torch.dtype, room: Room, slots: int) -> Sizing:
    """Choose as the start does; ``room`` is that without the model. Raises StartupError."""
    name = str(dtype).removeprefix("torch.")
    width = dtype.itemsize
    with TemporaryDirectory() as folder:
        config = shape.config(context)
        config.save_pretrained(folder)
        checkpoint = Checkpoint(
            name="a model of random weights",
            folder=Path(folder),
            raw=False,
            qwen1=None,
            context_length=context,
            kv_values_per_token=shape.kv_values,
            weight_bytes=shape.parameters * width,
            dtype=name,
        )
        flash = room.is_card and takes_flash(dtype, torch.device("cuda"))
        return choose(checkpoint, room, Wanted(name, context, slots, flash=flash))


def release() -> None:
    """Give the card back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
