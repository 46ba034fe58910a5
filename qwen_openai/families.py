"""A row for each Qwen generation: what differs between them is data here, never an `if` elsewhere.

Figures are those of Qwen's model cards and generation configs.
"""

from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import Thinking, ToolSyntax

# How the prompt is made: by the model's own chat template, or as Qwen-1's history pairs.
PromptKind = Literal["template", "pairs"]


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request that says nothing gets, and what the model's makers recommend."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    min_p: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class FillIn:
    """The control tokens around a text with a gap, in the order in which a prompt has them (the
    model writes behind ``middle``), and those that end what it writes there, beside the usual."""

    prefix: str = "<|fim_prefix|>"
    suffix: str = "<|fim_suffix|>"
    middle: str = "<|fim_middle|>"
    stop_tokens: tuple[str, ...] = (
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    )


@dataclass(frozen=True, slots=True)
class Family:
    """One generation. ``matches`` are lower-case fragments of a model's name, tried in table order;
    ``stop_tokens`` end an answer. ``tools`` and ``thinking`` are what its template usually does:
    what a loaded model really does, its engine tells (`engines.base.EngineInfo`). ``bare_calls``:
    it answers with a call as bare JSON, without the tags it was asked for. ``thinking_sampling`` is
    for answers with thoughts, where the makers recommend others. ``efforts`` are the values of
    `reasoning_effort` that mean more to its template than thoughts or none, and its own words for
    them; ``preserves_thinking``: the template takes that option."""

    name: str
    matches: tuple[str, ...]
    sampling: SamplingDefaults
    stop_tokens: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")
    prompt: PromptKind = "template"
    tools: ToolSyntax | None = None
    bare_calls: bool = False
    thinking: Thinking = "never"
    thinking_sampling: SamplingDefaults | None = None
    efforts: tuple[tuple[str, str], ...] = ()
    preserves_thinking: bool = False
    fill_in: FillIn | None = None


_SAMPLING_36 = SamplingDefaults(
    temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.0, presence_penalty=1.5
)
_THINKING_36 = SamplingDefaults(temperature=1.0, top_p=0.95, top_k=20, repetition_penalty=1.0)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen3-coder",
        matches=("qwen3-coder",),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
        tools="xml",
        fill_in=FillIn(),
    ),
    Family(
        name="qwen3.5",
        matches=("qwen3.5", "qwen3_5"),
        sampling=SamplingDefaults(
            temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.0, presence_penalty=1.5
        ),
        tools="xml",
        thinking="switched",
        thinking_sampling=SamplingDefaults(
            temperature=1.0, top_p=0.95, top_k=20, repetition_penalty=1.0, presence_penalty=1.5
        ),
    ),
    Family(
        name="qwen3.6",
        matches=("qwen3.6", "qwen3_6"),
        sampling=_SAMPLING_36,
        tools="xml",
        thinking="switched",
        thinking_sampling=_THINKING_36,
        preserves_thinking=True,
    ),
    # Its makers' figures are not known here; those of the generation before stand in for them.
    Family(
        name="qwen3.8",
        matches=("qwen3.8", "qwen3_8"),
        sampling=_SAMPLING_36,
        tools="xml",
        thinking="switched",
        thinking_sampling=_THINKING_36,
        # The template raises an error for any other word.
        efforts=(
            ("low", "low"),
            ("medium", "medium"),
            ("high", "xhigh"),
            ("xhigh", "xhigh"),
            ("max", "xhigh"),
        ),
        preserves_thinking=True,
    ),
    # The Instruct and Thinking models of July 2025 too: whether one thinks, its template tells.
    Family(
        name="qwen3",
        matches=("qwen3",),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.0),
        tools="hermes",
        thinking="switched",
        thinking_sampling=SamplingDefaults(
            temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.0
        ),
    ),
    Family(
        name="qwen2.5-coder",
        matches=("qwen2.5-coder",),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1),
        tools="hermes",
        bare_calls=True,
        fill_in=FillIn(),
    ),
    Family(
        name="qwen2.5",
        matches=("qwen2.5", "qwen2_5"),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
        tools="hermes",
    ),
    Family(
        name="qwen2",
        matches=("qwen2", "qwen1.5"),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
    ),
    Family(
        name="qwen1",
        matches=("qwen-7b", "qwen-14b", "qwen-72b", "qwen-1_8b", "qwen-1.8b"),
        sampling=SamplingDefaults(temperature=1.0, top_p=0.8, top_k=0, repetition_penalty=1.1),
        stop_tokens=("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        prompt="pairs",
        tools="react",
    ),
)

DEFAULT_FAMILY = Family(
    name="chatml",
    matches=(),
    sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
)


def family_of(model_name: str) -> Family:
    """Return the row of a model by its name (catalogue name, repository id or file name)."""
    name = model_name.lower()
    for family in FAMILIES:
        if any(fragment in name for fragment in family.matches):
            return family
    return DEFAULT_FAMILY


def family_named(name: str) -> Family:
    """Return the row called ``name``, which must be one of the table's."""
    return next(family for family in (*FAMILIES, DEFAULT_FAMILY) if family.name == name)
