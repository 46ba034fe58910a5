"""A checkpoint to what answers jobs: measured, loaded, laid out, with its cache.

Imports torch: the engine calls it in a thread, and nobody else imports it.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers.utils import logging

from qwen_openai.core import Job
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.machine import measure
from qwen_openai.engines.masks import TokenMask, TokenMasks
from qwen_openai.engines.torch_model.describe import described, dtype_name, family_ends
from qwen_openai.engines.torch_model.devices import (
    cards,
    current,
    devices_of,
    first_device,
    one_device,
    require_one_place,
    takes_flash,
)
from qwen_openai.engines.torch_model.jobs import (
    LocalRenderer,
    Tokens,
    as_trained,
    seed_of,
    tokens_of,
)
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.load import Loaded, check_devices, load, resolve_dtype
from qwen_openai.engines.torch_model.progress import Report, reporting
from qwen_openai.engines.torch_model.spelling import Speller
from qwen_openai.engines.transformers.packed import pack
from qwen_openai.engines.transformers.runner import Runner, Shape
from qwen_openai.engines.transformers.sizing import Sizing, Wanted, choose
from qwen_openai.engines.transformers.track import Track
from qwen_openai.errors import EngineFailed
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.prepare import prepare


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say; None leaves it to the machine. ``home`` is the cache folder,
    ``batch_tokens`` the tokens of prompts that are read in one step."""

    device_map: str = "auto"
    dtype: str = "auto"
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    home: Path | None = None
    batch_tokens: int | None = None
    stall_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that can begin: its track, and what spells its tokens."""

    track: Track
    speller: Speller
    changes: tuple[str, ...]
    in_thought: bool


class Served:
    """A model that answers: what it is, its tokens, and what makes its answers."""

    def __init__(
        self,
        loaded: Loaded,
        name: str,
        sizing: Sizing,
        wishes: Wishes,
        masks: Future[TokenMasks],
    ) -> None:
        """``masks`` may fail with EngineFailed: then so does each job that has a grammar."""
        self._checkpoint = loaded.checkpoint
        self._renderer: LocalRenderer = loaded.renderer
        self._bpe: Bpe = loaded.bpe
        self._device = first_device(loaded.model)
        self._vocab_size: int = loaded.model.config.vocab_size
        self._context = sizing.context
        self._ends = _ends(loaded)
        self._masks = masks
        self.tokens: Tokens = tokens_of(self._checkpoint, self._renderer)
        self.info = _describe(loaded, name, sizing)
        self.runner = Runner(loaded.model, shape_of(sizing), wishes.stall_timeout)

    def open(self, job: Job, default_max_tokens: int) -> Answer:
        """Make ready what ``job`` asks for; blocking, in any thread. Raises ContextLengthExceeded,
        InvalidRequest, and EngineFailed for a grammar that the model cannot be held to."""
        job, changes = as_trained(self._checkpoint, job)
        prompt = prepare(
            job, self._renderer, context=self._context, default_max_tokens=default_max_tokens
        )
        limits = Limits.of(job.sampling, prompt.max_tokens, self._ends, prompt.stop_ids)
        track = Track.of(
            prompt.ids,
            replace(job.sampling, seed=seed_of(job)),
            limits,
            None if prompt.grammar is None else self._mask(prompt.grammar),
            self._device,
            self._vocab_size,
        )
        speller = Speller(self._bpe, limits.stop, limits.max_tokens)
        return Answer(track, speller, changes + prompt.changes, prompt.in_thought)

    def _mask(self, grammar: str) -> TokenMask:
        failure = self._masks.exception()
        if failure is not None:
            # Raised again and again, one exception would keep what each time was on the stack.
            raise EngineFailed(str(failure))
        return self._masks.result().start(grammar)


def load_checkpoint(checkpoint: Checkpoint, wishes: Wishes, report: Report | None = None) -> Served:
    """Load the model and take the memory of its cache. ``report`` is told how many of how many
    weights are loaded. Raises StartupError when it does not fit or cannot be loaded."""
    check_devices(wishes.device_map)
    dtype = resolve_dtype(wishes.dtype, checkpoint, wishes.device_map)
    place, room = one_device(wishes.device_map, cards())
    wanted = Wanted(
        dtype_name(dtype),
        wishes.context,
        wishes.slots,
        wishes.batch_tokens,
        flash=room.is_card and takes_flash(dtype, torch.device(place)),
    )
    sizing = choose(checkpoint, room, wanted)
    # For tensors on the CPU; torch counts the machine's cores, not the container's.
    torch.set_num_threads(wishes.threads or measure().cores)
    # `serve` shows how far it is; a second bar would be drawn over that.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it bare
    with reporting(report):
        # Hooks would do nothing, as contexts are never longer here, and keep layers from `pack`.
        loaded = load(checkpoint.folder, place, dtype, wishes.home, beyond=False)
    require_one_place(loaded.model)
    device = first_device(loaded.model)
    # Masks are Python's work, and the rest is torch's: neither waits for the other.
    with ThreadPoolExecutor(1, "masks") as beside:
        vocab_size: int = loaded.model.config.vocab_size
        masks = beside.submit(TokenMasks, loaded.bpe, vocab_size, _ends(loaded))
        if device.type == "cpu":
            pack(loaded.model)
        served = Served(loaded, checkpoint.name, sizing, wishes, masks)
        with current(device):
            served.runner.build()
    failure = masks.exception()
    if not isinstance(failure, EngineFailed | None):
        raise failure
    return served


def shape_of(sizing: Sizing) -> Shape:
    """Return what the runner is to make room for."""
    return Shape(
        slots=sizing.slots,
        pages=sizing.pages,
        page_size=sizing.page_size,
        batch_tokens=sizing.batch_tokens,
        context=sizing.context,
    )


def _ends(loaded: Loaded) -> frozenset[int]:
    """The ids at which the model itself ends an answer."""
    stated = loaded.model.generation_config.eos_token_id
    own: Iterable[int] = [stated] if isinstance(stated, int) else stated or []
    return family_ends(loaded.checkpoint, loaded.renderer).union(own)


def _describe(loaded: Loaded, name: str, sizing: Sizing) -> EngineInfo:
    model = loaded.model
    info = EngineInfo(
        engine="transformers",
        model=name,
        device=devices_of(model, model.device),
        context=sizing.context,
        slots=sizing.slots,
        memory=sizing.weights + sizing.cache,
        facts=(("fits", sizing.sentence()),),
    )
    return described(info, loaded.checkpoint, loaded.renderer, model.dtype)
