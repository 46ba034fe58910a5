"""A job to the events of a `QwenChat`: history pairs for a Qwen-1, a prompt that fits, then tokens.

Blocking, one step of the model for each `next`; the engine's thread drives it. It names what it
needs of a model as a protocol and imports no torch.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from qwen_openai.adapter.history import to_history
from qwen_openai.core import Event, Finish, Job, Sampling, Started, Text
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.qwen_chat.sizing import WIDTHS, device_name
from qwen_openai.engines.qwen_chat.worker import Answerer, Stopped, Tokens
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.prompting.prepare import prepare, prompt_ids
from qwen_openai.prompting.renderer import PromptRenderer

_INT64 = 2**64


class LocalRenderer(PromptRenderer, Protocol):
    """A renderer with the model's whole vocabulary."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none."""


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
    dtype = str(model.dtype).removeprefix("torch.")
    width = WIDTHS.get(dtype, 4)
    facts = [("computes in", dtype)]
    if checkpoint.raw:
        facts.append(("layout", "Qwen-1, converted while loading"))
    facts.append(("cache", f"{checkpoint.kv_values_per_token * width / 1024:,.0f} KiB a token"))
    facts += _offloaded(model)
    return EngineInfo(
        engine="qwen_chat",
        model=name,
        device=_devices(model),
        context=context,
        slots=1,
        memory=checkpoint.weight_bytes * width // WIDTHS.get(checkpoint.dtype, width),
        facts=tuple(facts),
        family="qwen1" if checkpoint.qwen1 is not None else "",
        tools=model.renderer.tools,
        thinking=model.renderer.thinking,
        fills_in=model.renderer.fills_in,
    )


def _devices(model: LocalModel) -> str:
    """All that accelerate has spread the weights over, else the one device."""
    names = sorted(set(_places(model))) or [str(model.device)]
    return ", ".join(device_name(name) for name in names)


def _offloaded(model: LocalModel) -> list[tuple[str, str]]:
    """What accelerate had to leave in the machine's memory beside cards, which slows each token."""
    places = _places(model)
    on_cpu = sum(place in ("cpu", "disk") for place in places)
    if on_cpu in (0, len(places)):
        return []
    parts = f"{on_cpu} of {len(places)} parts of the model did not fit on the cards"
    return [("on the CPU", f"{parts}; every token waits for them")]


def _places(model: LocalModel) -> list[str]:
    """Where each part of the model is, if it was spread at all."""
    spread = getattr(getattr(model, "model", None), "hf_device_map", None) or {}
    return [f"cuda:{place}" if isinstance(place, int) else str(place) for place in spread.values()]


def answerer(model: LocalModel, *, context: int, default_max_tokens: int) -> Answerer:
    """Return what runs jobs on ``model``; ``context`` bounds prompt and answer together, and
    ``default_max_tokens`` the answer of a job that states no limit."""

    def answer(job: Job, stopped: Stopped) -> Generator[Event, None, None]:
        job, changes = _as_trained(model.checkpoint, job)
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


def tokens_of(model: LocalModel) -> Tokens:
    """Return what tells of tokens; it keeps the model's vocabulary alive, not its weights."""
    checkpoint, renderer = model.checkpoint, model.renderer

    def encode(job: Job) -> list[int]:
        return prompt_ids(_as_trained(checkpoint, job)[0], renderer)

    return Tokens(encode, renderer.pieces)


def seed_of(job: Job) -> int | None:
    """The seed of the job's choice: each choice of a given seed draws its own, as int64."""
    if job.sampling.seed is None:
        return None
    wide = (job.sampling.seed + job.choice) % _INT64
    return wide - _INT64 if wide >= _INT64 // 2 else wide


def _as_trained(checkpoint: Checkpoint, job: Job) -> tuple[Job, tuple[str, ...]]:
    """Qwen-1 was trained on pairs of query and answer: bring the messages into that form."""
    if checkpoint.qwen1 is None or job.prompt is not None:
        return job, ()
    dialogue = to_history(job.messages, tools=job.tools, continue_final=job.continue_final_message)
    continues = dialogue.prefix is not None
    paired = replace(job, messages=dialogue.messages(), continue_final_message=continues)
    return paired, dialogue.changes
