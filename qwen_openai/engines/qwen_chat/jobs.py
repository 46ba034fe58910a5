"""A job to the events of a `QwenChat`: history pairs for a Qwen-1, a prompt that fits, then tokens.

Blocking, one step of the model for each `next`; the engine's thread drives it. It names what it
needs of a model as a protocol and imports no torch.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from qwen_openai.core import Event, Finish, Job, Sampling, Started, Text
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.qwen_chat.worker import Answerer, Stopped
from qwen_openai.engines.torch_model.describe import described, dtype_name
from qwen_openai.engines.torch_model.devices import WIDTHS, devices_of, offloaded
from qwen_openai.engines.torch_model.jobs import LocalRenderer, as_trained, seed_of
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.prompting.prepare import prepare


@runtime_checkable
class LocalModel(Protocol):
    """What the engine needs of a QwenChat."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def renderer(self) -> LocalRenderer: ...

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""

    @property
    def device(self) -> object:
        """Where it computes, as text such as "cuda:0"."""

    @property
    def dtype(self) -> object:
        """What it computes in, as text such as "torch.bfloat16"."""

    def masks(self) -> object:
        """Get ready for answers with a grammar, which takes a moment."""

    def run(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        *,
        index: int = 0,
        stop_ids: Collection[int] = (),
        grammar: str | None = None,
    ) -> Generator[Text | Finish, None, None]:
        """One step for each `next`; a Text of no tokens for a piece of the prompt."""


def describe(model: LocalModel, name: str, context: int) -> EngineInfo:
    """What there is to say of a loaded model that may hold ``context`` tokens."""
    checkpoint = model.checkpoint
    width = WIDTHS.get(dtype_name(model.dtype), 4)
    cache = f"{checkpoint.kv_values_per_token * width / 1024:,.0f} KiB a token"
    info = EngineInfo(
        engine="qwen_chat",
        model=name,
        device=devices_of(getattr(model, "model", None), model.device),
        context=context,
        slots=1,
        memory=checkpoint.weight_bytes * width // WIDTHS.get(checkpoint.dtype, width),
        facts=(("cache", cache), *offloaded(getattr(model, "model", None))),
    )
    return described(info, checkpoint, model.renderer, model.dtype)


def answerer(model: LocalModel, *, context: int, default_max_tokens: int) -> Answerer:
    """Return what runs jobs on ``model``; ``context`` bounds prompt and answer together, and
    ``default_max_tokens`` the answer of a job that states no limit."""

    def answer(job: Job, stopped: Stopped) -> Generator[Event, None, None]:
        job, changes = as_trained(model.checkpoint, job)
        prompt = prepare(
            job, model.renderer, context=context, default_max_tokens=default_max_tokens
        )
        if stopped():
            return
        changes += prompt.changes
        yield Started(job.choice, len(prompt.ids), changes=changes, in_thought=prompt.in_thought)
        yield from model.run(
            prompt.ids,
            replace(job.sampling, seed=seed_of(job)),
            prompt.max_tokens,
            index=job.choice,
            stop_ids=prompt.stop_ids,
            grammar=prompt.grammar,
        )

    return answer
